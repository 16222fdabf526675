/*
 * wait.c
 *		Sleeping on the process's latch and on a changing set of sockets at once.
 *
 * Runs in both workers.  The only file with a WaitEventSet.  A WaitEventSet
 * cannot forget a socket, and rebuilding it for every request costs 15 to 40 us;
 * so where there is epoll, the sockets are in a descriptor of our own, and the
 * set, built once, holds that.  Elsewhere the set is rebuilt when it changed.
 */
#include "qdrant_sync.h"

#include "net/wait.h"

#include "storage/fd.h"
#include "utils/memutils.h"

#if defined(HAVE_SYS_EPOLL_H) && !defined(QS_WITHOUT_EPOLL)
#include <sys/epoll.h>
#define QS_NESTED_EPOLL 1
#endif

static uint32
wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = qs_wait_event("QdrantSyncNetwork");
	return event;
}

#ifdef QS_NESTED_EPOLL

struct QsWaiter
{
	int			epoll;			/* every watched socket */
	WaitEventSet *set;			/* latch, postmaster death, epoll */
};

QsWaiter *
qs_waiter_create(void)
{
	QsWaiter   *waiter = MemoryContextAllocZero(TopMemoryContext, sizeof(QsWaiter));

	ReserveExternalFD();
	waiter->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (waiter->epoll < 0)
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("could not create an epoll descriptor: %m")));
	waiter->set = qs_create_wait_event_set(3);
	AddWaitEventToSet(waiter->set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(waiter->set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(waiter->set, WL_SOCKET_READABLE, waiter->epoll, NULL, NULL);
	return waiter;
}

void
qs_waiter_destroy(QsWaiter *waiter)
{
	FreeWaitEventSet(waiter->set);
	close(waiter->epoll);
	ReleaseExternalFD();
	pfree(waiter);
}

bool
qs_waiter_watch(QsWaiter *waiter, pgsocket socket, bool readable, bool writable)
{
	struct epoll_event event = {0};

	if (!readable && !writable)
	{
		/* The kernel forgets a socket that was closed: no failure matters. */
		(void) epoll_ctl(waiter->epoll, EPOLL_CTL_DEL, socket, &event);
		return true;
	}
	event.events = (readable ? EPOLLIN : 0) | (writable ? EPOLLOUT : 0);
	event.data.fd = socket;
	if (epoll_ctl(waiter->epoll, EPOLL_CTL_MOD, socket, &event) == 0)
		return true;
	return errno == ENOENT && epoll_ctl(waiter->epoll, EPOLL_CTL_ADD, socket, &event) == 0;
}

static int
look_at_sockets(QsWaiter *waiter, QsReady *ready, int max)
{
	struct epoll_event events[16];
	int			n = epoll_wait(waiter->epoll, events, Min(max, (int) lengthof(events)), 0);

	for (int i = 0; i < n; i++)
	{
		bool		failed = (events[i].events & (EPOLLERR | EPOLLHUP)) != 0;

		ready[i].socket = events[i].data.fd;
		ready[i].readable = failed || (events[i].events & EPOLLIN) != 0;
		ready[i].writable = failed || (events[i].events & EPOLLOUT) != 0;
	}
	return Max(n, 0);
}

int
qs_waiter_wait(QsWaiter *waiter, long timeout, bool *latch_set, QsReady *ready, int max)
{
	WaitEvent	events[3];
	int			n = WaitEventSetWait(waiter->set, timeout, events, lengthof(events),
									 wait_event());

	*latch_set = false;
	for (int i = 0; i < n; i++)
		*latch_set |= (events[i].events & WL_LATCH_SET) != 0;
	if (*latch_set)
		ResetLatch(MyLatch);
	return n > 0 ? look_at_sockets(waiter, ready, max) : 0;
}

#else							/* !QS_NESTED_EPOLL */

typedef struct Watch
{
	pgsocket	socket;
	uint32		events;			/* WL_SOCKET_… */
} Watch;

/*
 * Sockets beyond this are refused, since memory must not be asked for in a
 * callback of libcurl; both workers have far fewer connections.
 */
#define MAX_WATCHES 512

struct QsWaiter
{
	WaitEventSet *set;			/* NULL: to be built */
	int			n;
	Watch		watches[MAX_WATCHES];
};

QsWaiter *
qs_waiter_create(void)
{
	return MemoryContextAllocZero(TopMemoryContext, sizeof(QsWaiter));
}

static void
drop_set(QsWaiter *waiter)
{
	if (waiter->set != NULL)
		FreeWaitEventSet(waiter->set);
	waiter->set = NULL;
}

void
qs_waiter_destroy(QsWaiter *waiter)
{
	drop_set(waiter);
	pfree(waiter);
}

bool
qs_waiter_watch(QsWaiter *waiter, pgsocket socket, bool readable, bool writable)
{
	uint32		events = (readable ? WL_SOCKET_READABLE : 0) | (writable ? WL_SOCKET_WRITEABLE : 0);
	int			i;

	for (i = 0; i < waiter->n && waiter->watches[i].socket != socket; i++)
		;
	if (i == MAX_WATCHES)
		return false;
	drop_set(waiter);
	if (events == 0)
	{
		if (i < waiter->n)
			waiter->watches[i] = waiter->watches[--waiter->n];
		return true;
	}
	waiter->watches[i].socket = socket;
	waiter->watches[i].events = events;
	if (i == waiter->n)
		waiter->n++;
	return true;
}

static void
build_set(QsWaiter *waiter)
{
	waiter->set = qs_create_wait_event_set(waiter->n + 2);
	AddWaitEventToSet(waiter->set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(waiter->set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < waiter->n; i++)
		AddWaitEventToSet(waiter->set, waiter->watches[i].events,
						  waiter->watches[i].socket, NULL, NULL);
}

/* A latch that is set hides the sockets behind it: they are looked at again. */
int
qs_waiter_wait(QsWaiter *waiter, long timeout, bool *latch_set, QsReady *ready, int max)
{
	WaitEvent	events[16];
	int			nready = 0;
	int			n;

	if (waiter->set == NULL)
		build_set(waiter);
	n = WaitEventSetWait(waiter->set, timeout, events, 1, wait_event());
	*latch_set = n > 0 && (events[0].events & WL_LATCH_SET) != 0;
	if (n == 0)
		return 0;
	if (*latch_set)
		ResetLatch(MyLatch);

	n = WaitEventSetWait(waiter->set, 0, events, Min(max, (int) lengthof(events)), wait_event());
	for (int i = 0; i < n; i++)
	{
		if (events[i].events & WL_LATCH_SET)
			continue;			/* set anew: the next sleep ends at once */
		ready[nready].socket = events[i].fd;
		ready[nready].readable = (events[i].events & WL_SOCKET_READABLE) != 0;
		ready[nready].writable = (events[i].events & WL_SOCKET_WRITEABLE) != 0;
		nready++;
	}
	return nready;
}

#endif							/* QS_NESTED_EPOLL */
