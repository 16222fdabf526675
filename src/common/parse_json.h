/*
 * parse_json.h
 *		JSON that may be none.
 */
#ifndef QS_PARSE_JSON_H
#define QS_PARSE_JSON_H

#include "qdrant_sync.h"
#include "utils/jsonb.h"

/* NULL for text that is no JSON, or that no jsonb can hold. */
extern Jsonb *qs_parse_json(const char *text);

#endif							/* QS_PARSE_JSON_H */
