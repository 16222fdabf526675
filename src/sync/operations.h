/*
 * operations.h
 *		Sends explicit point writes (qdrant_upsert …) in the order of their
 *		numbers (hazard 7).
 *
 * Sync worker only.
 */
#ifndef QS_OPERATIONS_H
#define QS_OPERATIONS_H

#include "qdrant_sync.h"
#include "datatype/timestamp.h"

extern void qs_operations_init(void);
extern void qs_operations_notice(Oid segment);
extern void qs_operations_scan(void);
extern void qs_operations_server_changed(void);
extern void qs_operations_turn(void);
extern TimestampTz qs_operations_next_wake(TimestampTz now);

#endif							/* QS_OPERATIONS_H */
