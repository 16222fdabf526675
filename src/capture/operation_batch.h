/*
 * operation_batch.h
 *		The operations of qdrant_batch_update_points.
 */
#ifndef QS_OPERATION_BATCH_H
#define QS_OPERATION_BATCH_H

#include "capture/bodies.h"
#include "utils/jsonb.h"

/*
 * ERROR 22023, naming the position, unless it is an array of operations that
 * Qdrant can take.
 */
extern void qs_operation_batch_check(const Jsonb *operations);

/* Writes {"operations":[…]} in bodies of about a megabyte, never out of order. */
extern void qs_operation_batch_write(const Jsonb *operations, QsBodySink sink, void *arg);

#endif							/* QS_OPERATION_BATCH_H */
