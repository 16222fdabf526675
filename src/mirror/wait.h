/*
 * wait.h
 *		Until everything that was committed has reached Qdrant.
 */
#ifndef QS_MIRROR_WAIT_H
#define QS_MIRROR_WAIT_H

#include "qdrant_sync.h"
#include "datatype/timestamp.h"

/*
 * For one mirror, what was committed before the call.  ERROR 55000 where it is
 * paused or has stopped, or the deadline has passed.  Unlike qdrant_wait it does not
 * mind changes of the caller's own transaction: they are not waited for.
 */
extern void qs_wait_for_mirror(int64 mirror, Oid relid, TimestampTz deadline);

#endif							/* QS_MIRROR_WAIT_H */
