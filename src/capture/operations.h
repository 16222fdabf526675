/*
 * operations.h
 *		Explicit operations of the current transaction, until they are in the
 *		outbox.
 */
#ifndef QS_OPERATIONS_H
#define QS_OPERATIONS_H

#include "qdrant_sync.h"

/* Called by the transaction's callbacks. */
extern void qs_operations_sub_commit(int level);
extern void qs_operations_sub_abort(int level);
extern void qs_operations_flush(void);	/* PRE_COMMIT */
extern void qs_operations_refuse_prepare(void); /* PRE_PREPARE: ERROR where there are any */
extern void qs_operations_reset(void);	/* never raises */

extern bool qs_operations_pending(void);

#endif							/* QS_OPERATIONS_H */
