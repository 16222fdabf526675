/*
 * operations.h
 *		Explicit operations of the current transaction, until they are in the
 *		outbox.
 */
#ifndef QS_CAPTURE_OPERATIONS_H
#define QS_CAPTURE_OPERATIONS_H

#include "qdrant_sync.h"

/* What the operations of one call have in common. */
typedef struct QsOperation
{
	Oid			owner;			/* whose key it is sent with */
	const char *server;
	const char *collection;
	const char *name;			/* "upsert": the sender knows its route */
} QsOperation;

/*
 * A QsBodySink whose arg is a QsOperation: keeps one request for after the
 * commit.  Texts are copied.  A call that has logged ends with end_call, since
 * another extension may make it in a PRE_COMMIT callback of its own.
 */
extern void qs_operation_log(void *arg, const char *body, int length);
extern void qs_operation_log_end_call(void);

/*
 * Whether one may be enqueued now: ERROR 53400 where the outbox is full; 22023 for
 * a name that no collection has, 55006 for the collection of a mirror.
 */
extern void qs_operations_check_room(void);
extern void qs_operations_check_collection(const char *server, const char *collection);

/*
 * Enqueues the operations of these dead letters again, in this order, and deletes
 * them; ids of none are passed over.  Returns how many there were.  ERROR 42501
 * where the caller is no member of an operation's role, and as above.
 */
extern int64 qs_operations_retry(const int64 *ids, int n);

/* Called by the transaction's callbacks. */
extern void qs_operation_log_sub_commit(int level);
extern void qs_operation_log_sub_abort(int level);
extern void qs_operation_log_flush(void);	/* PRE_COMMIT */
extern void qs_operation_log_refuse_prepare(void); /* PRE_PREPARE: ERROR where there are any */
extern void qs_operation_log_reset(void);	/* never raises */

extern bool qs_operation_log_pending(void);

#endif							/* QS_CAPTURE_OPERATIONS_H */
