/*
 * operations.h
 *		Explicit operations of the current transaction, until they are in the
 *		outbox.
 */
#ifndef QS_CAPTURE_OPERATIONS_H
#define QS_CAPTURE_OPERATIONS_H

#include "qdrant_sync.h"

/* Called by the transaction's callbacks. */
extern void qs_operation_log_sub_commit(int level);
extern void qs_operation_log_sub_abort(int level);
extern void qs_operation_log_flush(void);	/* PRE_COMMIT */
extern void qs_operation_log_refuse_prepare(void); /* PRE_PREPARE: ERROR where there are any */
extern void qs_operation_log_reset(void);	/* never raises */

extern bool qs_operation_log_pending(void);

#endif							/* QS_CAPTURE_OPERATIONS_H */
