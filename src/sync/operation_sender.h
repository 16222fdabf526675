/*
 * operation_sender.h
 *		Sends explicit point writes (qdrant_upsert …) in the order of their
 *		numbers (hazard 7).
 *
 * Sync worker only.
 */
#ifndef QS_OPERATION_SENDER_H
#define QS_OPERATION_SENDER_H

#include "qdrant_sync.h"
#include "datatype/timestamp.h"

extern void qs_sender_init(void);
extern void qs_sender_notice(Oid segment);
extern void qs_sender_scan(void);
extern void qs_sender_server_changed(void);
extern void qs_sender_turn(void);
extern TimestampTz qs_sender_next_wake(TimestampTz now);

#endif							/* QS_OPERATION_SENDER_H */
