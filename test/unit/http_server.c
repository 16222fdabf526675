/*
 * http_server.c
 *		What a server would lend to src/net/http.c and wait.c: a latch, which is
 *		standard input, and wait event sets, which are poll().
 */
#include "postgres.h"

#include <poll.h>
#include <unistd.h>

#include "access/xact.h"
#include "common/server.h"
#include "storage/fd.h"
#include "storage/latch.h"

static Latch latch;
Latch	   *MyLatch = &latch;

struct WaitEventSet
{
	pgsocket	sockets[600];
	uint32		events[600];
	int			n;
};

#if PG_VERSION_NUM >= 170000
WaitEventSet *
CreateWaitEventSet(ResourceOwner owner, int nevents)
#else
WaitEventSet *
CreateWaitEventSet(MemoryContext context, int nevents)
#endif
{
	return palloc0(sizeof(WaitEventSet));
}

void
FreeWaitEventSet(WaitEventSet *set)
{
	pfree(set);
}

int
AddWaitEventToSet(WaitEventSet *set, uint32 events, pgsocket fd, Latch *the_latch, void *user_data)
{
	if (events == WL_EXIT_ON_PM_DEATH)
		return 0;
	set->sockets[set->n] = events == WL_LATCH_SET ? STDIN_FILENO : fd;
	set->events[set->n] = events;
	return set->n++;
}

int
WaitEventSetWait(WaitEventSet *set, long timeout, WaitEvent *occurred, int nevents,
				 uint32 wait_event_info)
{
	struct pollfd fds[600];
	int			n = 0;

	for (int i = 0; i < set->n; i++)
	{
		fds[i].fd = set->sockets[i];
		fds[i].events = (set->events[i] & WL_SOCKET_WRITEABLE) ? POLLOUT : 0;
		if (set->events[i] & (WL_LATCH_SET | WL_SOCKET_READABLE))
			fds[i].events |= POLLIN;
	}
	if (poll(fds, set->n, timeout) <= 0)
		return 0;
	for (int i = 0; i < set->n && n < nevents; i++)
	{
		if (fds[i].revents == 0)
			continue;
		occurred[n].fd = set->sockets[i];
		occurred[n].events = 0;
		if (fds[i].revents & (POLLIN | POLLERR | POLLHUP))
			occurred[n].events |= set->events[i] & (WL_LATCH_SET | WL_SOCKET_READABLE);
		if (fds[i].revents & (POLLOUT | POLLERR | POLLHUP))
			occurred[n].events |= set->events[i] & WL_SOCKET_WRITEABLE;
		n++;
		/* As in the server: a latch that is set hides the sockets. */
		if (set->events[i] == WL_LATCH_SET)
			return n;
	}
	return n;
}

void
ResetLatch(Latch *the_latch)
{
}

bool
AcquireExternalFD(void)
{
	return true;
}

void
ReserveExternalFD(void)
{
}

void
ReleaseExternalFD(void)
{
}

bool
IsTransactionState(void)
{
	return false;
}

bool
qs_header_value_ok(const char *value)
{
	for (; *value != '\0'; value++)
	{
		if (*value < 0x21 || *value > 0x7E)
			return false;
	}
	return true;
}
