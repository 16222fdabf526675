/*
 * waiters.c
 *		The queue of sessions that wait for a ticket or for room for its request.
 *
 * Runs in backends and in the request worker, under the lock of ticket.c, which
 * alone knows how much there is.  A call is no promise: who comes by may be
 * faster.  Whoever was called and does not take what it was called for says so
 * (qs_waiters_join, qs_waiters_leave), so that no call is lost.  A place belongs
 * to a process and not to a request: a backend waits for one thing at a time.
 */
#include "qdrant_sync.h"

#include "client/waiters.h"
#include "storage/proc.h"
#include "storage/shmem.h"

typedef struct Waiter
{
	bool		waits;			/* in the queue; the rest is unset else */
	bool		called;
	int			next;			/* in the queue; -1 ends it */
	int			prev;
	uint64		server;
	Size		bytes;			/* of the request */
} Waiter;

struct QsWaiters
{
	int			first;
	int			last;
	int			count;
	Waiter		of[FLEXIBLE_ARRAY_MEMBER];	/* by proc number */
};

Size
qs_waiters_size(void)
{
	return add_size(offsetof(QsWaiters, of), mul_size(qs_max_backends(), sizeof(Waiter)));
}

void
qs_waiters_init(QsWaiters *waiters)
{
	memset(waiters, 0, qs_waiters_size());
	waiters->first = waiters->last = -1;
}

static void
push(QsWaiters *waiters, int me)
{
	Waiter	   *waiter = &waiters->of[me];

	waiter->waits = true;
	waiter->next = -1;
	waiter->prev = waiters->last;
	if (waiters->last >= 0)
		waiters->of[waiters->last].next = me;
	else
		waiters->first = me;
	waiters->last = me;
	waiters->count++;
}

bool
qs_waiters_join(QsWaiters *waiters, uint64 server, Size bytes)
{
	int			me = qs_my_proc_number();
	Waiter	   *waiter = &waiters->of[me];
	bool		called = waiter->waits && waiter->called;

	if (!waiter->waits)
		push(waiters, me);
	waiter->called = false;
	waiter->server = server;
	waiter->bytes = bytes;
	return called;
}

bool
qs_waiters_uncalled(const QsWaiters *waiters)
{
	const Waiter *waiter = &waiters->of[qs_my_proc_number()];

	return waiter->waits && !waiter->called;
}

bool
qs_waiters_leave(QsWaiters *waiters)
{
	Waiter	   *waiter = &waiters->of[qs_my_proc_number()];

	if (!waiter->waits)
		return false;
	if (waiter->prev >= 0)
		waiters->of[waiter->prev].next = waiter->next;
	else
		waiters->first = waiter->next;
	if (waiter->next >= 0)
		waiters->of[waiter->next].prev = waiter->prev;
	else
		waiters->last = waiter->prev;
	waiter->waits = false;
	waiters->count--;
	return waiter->called;
}

static void
set_latch(int proc_number)
{
	SetLatch(&ProcGlobal->allProcs[proc_number].procLatch);
}

/*
 * What a server may have is asked for again where the next waits for another one,
 * which forgets the part of those called: then too many are called, and some in
 * vain.
 */
void
qs_waiters_call(QsWaiters *waiters, bool behind_me, int tickets, Size bytes,
				QsRoomForServer room_for)
{
	int			i = behind_me ? waiters->of[qs_my_proc_number()].next : waiters->first;
	bool		asked = false;
	uint64		server = 0;
	int			room = 0;

	for (; i >= 0 && tickets > 0; i = waiters->of[i].next)
	{
		Waiter	   *waiter = &waiters->of[i];

		if (!asked || waiter->server != server)
			room = room_for(waiter->server);
		asked = true;
		server = waiter->server;
		if (room <= 0 || waiter->bytes > bytes)
			continue;
		room--;
		tickets--;
		bytes -= waiter->bytes;
		if (!waiter->called)
			set_latch(i);
		waiter->called = true;
	}
}

void
qs_waiters_wake_all(QsWaiters *waiters)
{
	for (int i = waiters->first; i >= 0; i = waiters->of[i].next)
		set_latch(i);
}

int
qs_waiters_count(const QsWaiters *waiters)
{
	return waiters->count;
}
