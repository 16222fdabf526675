/*
 * waiters.h
 *		The queue of sessions that wait for a ticket or for room for its request.
 *
 * In shared memory; every function is called under the lock of ticket.c.
 */
#ifndef QS_WAITERS_H
#define QS_WAITERS_H

#include "qdrant_sync.h"

typedef struct QsWaiters QsWaiters;

/* How many tickets that server may have still, were there enough; not positive: none. */
typedef int (*QsRoomForServer) (uint64 server);

extern Size qs_waiters_size(void);
extern void qs_waiters_init(QsWaiters *waiters);

/*
 * This process waits from now on; where it waited already it keeps its place,
 * and is called anew.  True where it had been called, and so found in vain what
 * it was called for: the caller then calls those behind it.
 */
extern bool qs_waiters_join(QsWaiters *waiters, uint64 server, Size bytes);

/* It waits and has not been called: there is nothing for it yet. */
extern bool qs_waiters_uncalled(const QsWaiters *waiters);

/* It waits no longer, if it did; true where it had been called. */
extern bool qs_waiters_leave(QsWaiters *waiters);

/*
 * Sets the latches of the first, in their order, that this many tickets and
 * bytes would do for; those called before keep their part.  behind_me: only who
 * came after this process.
 */
extern void qs_waiters_call(QsWaiters *waiters, bool behind_me, int tickets, Size bytes,
							QsRoomForServer room_for);

/* Sets the latch of each, to look whether there is a worker. */
extern void qs_waiters_wake_all(QsWaiters *waiters);

extern int	qs_waiters_count(const QsWaiters *waiters);

#endif							/* QS_WAITERS_H */
