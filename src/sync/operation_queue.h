/*
 * operation_queue.h
 *		Explicit operations that wait to be sent: a queue for each collection, in
 *		the order of commits, of which a window is in memory.
 *
 * Sync worker only.
 */
#ifndef QS_OPERATION_QUEUE_H
#define QS_OPERATION_QUEUE_H

#include "datatype/timestamp.h"
#include "sync/call.h"
#include "sync/outbox.h"

typedef struct QsQueued
{
	int64		transaction;	/* first number of its transaction */
	int64		number;
	QsDebt	   *debt;			/* where it lies */
	Oid			owner;			/* whose key it is sent with */
} QsQueued;

/* Operations on one collection of one server, whoever asked for them. */
typedef struct QsQueue
{
	/* operation_queue.c's. */
	dlist_node	node;
	char	   *server;
	char	   *collection;
	QsQueued   *waiting;		/* from first on, in the order in which they are sent */
	int			first;
	int			nwaiting;
	int			nshown;			/* behind them: by the scan under way, not sorted yet */
	int			capacity;
	int64		last_transaction;	/* of what is last in waiting, or was before it was sent */
	bool		left;			/* the scan found more than there was room for */
	QsQueued	next_left;		/* smallest of those */
	int64		begun;			/* transaction of which a part is in waiting, the rest left; 0: none */

	/* The sender's. */
	QsEndpoint *endpoint;
	QsCall	   *call;			/* of the first one; NULL: none under way */
	bool		by_filter;		/* that one finds its points by a filter */
	TimestampTz not_before;
	int			tries;
	int			denied;			/* in a row */
} QsQueue;

/* Whether a number is known to be acknowledged already. */
typedef bool (*QsQueuedDone) (int64 number);

/* not_before of the queues that the first scan makes. */
extern void qs_queues_init(MemoryContext parent, QsOutbox *outbox, QsQueuedDone done,
						   TimestampTz settled);

/* A QsTupleSink, for the outbox. */
extern int	qs_queues_show(void *arg, QsDebt *debt, TupleTableSlot *tuple);

/* Scans the outbox, and puts what is new behind what waits.  Needs a transaction. */
extern void qs_queues_read(void);

/* Drops queues that have nothing, and asks for a scan where there is room for what was left. */
extern void qs_queues_tidy(void);

extern dlist_head *qs_queues(void);	/* of QsQueue by node */

static inline QsQueued *
qs_queue_first(QsQueue *queue)
{
	return queue->nwaiting > 0 ? &queue->waiting[queue->first] : NULL;
}

/* The first is acknowledged and leaves. */
extern void qs_queue_pop(QsQueue *queue);

/* One that is not the first's owner's waits behind it, as far as is known. */
extern bool qs_queue_has_others(const QsQueue *queue);

/* Smallest number that is known and not acknowledged; 0: none. */
extern int64 qs_queues_oldest(void);

/* Attributes of qdrant_internal.operations_a and _b. */
enum
{
	QS_OPERATION_NUMBER = 1,
	QS_OPERATION_TRANSACTION,
	QS_OPERATION_DATABASE,
	QS_OPERATION_OWNER,
	QS_OPERATION_SERVER,
	QS_OPERATION_COLLECTION,
	QS_OPERATION_NAME,
	QS_OPERATION_BODY
};

#endif							/* QS_OPERATION_QUEUE_H */
