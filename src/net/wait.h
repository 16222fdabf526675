/*
 * wait.h
 *		Sleeping on the process's latch and on a changing set of sockets at once.
 */
#ifndef QS_WAIT_H
#define QS_WAIT_H

#include "qdrant_sync.h"

typedef struct QsWaiter QsWaiter;	/* opaque: wait event set, descriptors */

typedef struct QsReady
{
	pgsocket	socket;
	bool		readable;		/* both are set where the socket failed */
	bool		writable;
} QsReady;

/* For MyLatch; ends the process when the postmaster dies.  TopMemoryContext. */
extern QsWaiter *qs_waiter_create(void);
extern void qs_waiter_destroy(QsWaiter *waiter);

/*
 * Watches a socket for what is asked for; for nothing: forgets it, also where
 * it was never known or is closed already.  Raises nothing: libcurl calls it.
 * False: the system refused, and nothing will be heard of the socket.
 */
extern bool qs_waiter_watch(QsWaiter *waiter, pgsocket socket, bool readable, bool writable);

/*
 * Sleeps until the latch is set, a socket is ready, or timeout ms passed (-1:
 * for ever).  Resets the latch.  Tells of up to max ready sockets whatever woke
 * it, so that a latch that is always set starves none.
 */
extern int	qs_waiter_wait(QsWaiter *waiter, long timeout, bool *latch_set,
						   QsReady *ready, int max);

#endif							/* QS_WAIT_H */
