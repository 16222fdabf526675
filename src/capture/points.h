/*
 * points.h
 *		Points that a user wrote as jsonb: checked, and made into request bodies.
 */
#ifndef QS_POINTS_H
#define QS_POINTS_H

#include "qdrant_sync.h"
#include "lib/stringinfo.h"
#include "utils/jsonb.h"

/*
 * ERROR 22023, naming the position, unless points is an array of points that
 * Qdrant can take: id, vector, payload.
 */
extern void qs_points_check(const Jsonb *points);

/* Receives a whole body; it is the callee's to copy. */
typedef void (*QsBodySink) (void *arg, const char *body, int length);

/*
 * Gives bodies {"points":[…]} of about a megabyte at most, or of one larger
 * point; extra, such as ",\"shard_key\":1", follows the array in each.
 */
extern void qs_points_to_bodies(const Jsonb *points, const char *extra,
								QsBodySink sink, void *arg);

#endif							/* QS_POINTS_H */
