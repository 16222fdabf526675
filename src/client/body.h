/*
 * body.h
 *		Bodies of requests: a JSON object, key by key, in UTF-8.
 */
#ifndef QS_BODY_H
#define QS_BODY_H

#include "qdrant_sync.h"
#include "lib/stringinfo.h"
#include "utils/jsonb.h"

extern void qs_body_begin(StringInfo body);
extern void qs_body_end(StringInfo body);

/* Begins a member; the value is appended by one of the functions below, or directly. */
extern void qs_body_key(StringInfo body, const char *key);

extern void qs_body_bool(StringInfo body, const char *key, bool value);
extern void qs_body_int(StringInfo body, const char *key, int64 value);
extern void qs_body_float(StringInfo body, const char *key, double value);
extern void qs_body_text(StringInfo body, const char *key, const char *value);

/* Of a query request: ERROR 22023 where Qdrant would ignore members of the value. */
extern void qs_body_jsonb(StringInfo body, const char *key, Jsonb *value);
extern void qs_body_text_array(StringInfo body, const char *key, Datum array);

/* Values alone. */
extern void qs_append_jsonb(StringInfo out, Jsonb *value);
extern void qs_append_text(StringInfo out, const char *text);

#endif							/* QS_BODY_H */
