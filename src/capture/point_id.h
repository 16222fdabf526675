/*
 * point_id.h
 *		What can be the id of a point.
 */
#ifndef QS_POINT_ID_H
#define QS_POINT_ID_H

#include "qdrant_sync.h"
#include "lib/stringinfo.h"
#include "utils/jsonb.h"

/* A number or a string that Qdrant takes as an id. */
extern bool qs_is_point_id(const JsonbValue *value);

/* Digits of an integer from 0 to 2^64 - 1; the two forms of a UUID that Qdrant takes. */
extern bool qs_is_unsigned_integer(const char *text, int length);
extern bool qs_is_uuid(const char *text, int length);

#endif							/* QS_POINT_ID_H */
