/*
 * body.c
 *		Writes bodies of requests.
 *
 * Runs in backends.  Documents of the caller come as jsonb, so that they are
 * JSON; strings are escaped and floats written by common/encode.h.
 */
#include "qdrant_sync.h"

#include <math.h>

#include "client/body.h"
#include "client/query_members.h"
#include "catalog/pg_type.h"
#include "common/encode.h"
#include "common/shortest_dec.h"
#include "utils/array.h"
#include "utils/builtins.h"

void
qs_body_begin(StringInfo body)
{
	initStringInfo(body);
	appendStringInfoChar(body, '{');
}

void
qs_body_end(StringInfo body)
{
	appendStringInfoChar(body, '}');
}

/* Keys are ours: nothing in them needs to be escaped. */
void
qs_body_key(StringInfo body, const char *key)
{
	appendStringInfo(body, "%s\"%s\":", body->len > 1 ? "," : "", key);
}

void
qs_append_text(StringInfo out, const char *text)
{
	char	   *message = qs_append_json_string(out, text, strlen(text));

	if (message != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("text cannot be sent to Qdrant: %s", message)));
}

void
qs_append_jsonb(StringInfo out, Jsonb *value)
{
	char	   *text = JsonbToCString(NULL, &value->root, VARSIZE(value));
	const char *utf8;
	int			length;
	char	   *message = qs_to_utf8(text, strlen(text), &utf8, &length);

	if (message != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("JSON cannot be sent to Qdrant: %s", message)));
	appendBinaryStringInfo(out, utf8, length);
}

void
qs_body_bool(StringInfo body, const char *key, bool value)
{
	qs_body_key(body, key);
	appendStringInfoString(body, value ? "true" : "false");
}

void
qs_body_int(StringInfo body, const char *key, int64 value)
{
	qs_body_key(body, key);
	appendStringInfo(body, INT64_FORMAT, value);
}

/* The shortest text that gives the same value back. */
void
qs_body_float(StringInfo body, const char *key, double value)
{
	char		text[DOUBLE_SHORTEST_DECIMAL_LEN];

	if (isnan(value) || isinf(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is NaN or infinite", key)));
	double_to_shortest_decimal_buf(value, text);
	qs_body_key(body, key);
	appendStringInfoString(body, text);
}

void
qs_body_text(StringInfo body, const char *key, const char *value)
{
	qs_body_key(body, key);
	qs_append_text(body, value);
}

void
qs_body_jsonb(StringInfo body, const char *key, Jsonb *value)
{
	qs_check_query_members(key, value);
	qs_body_key(body, key);
	qs_append_jsonb(body, value);
}

void
qs_body_text_array(StringInfo body, const char *key, Datum array)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &n);
	qs_body_key(body, key);
	appendStringInfoChar(body, '[');
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("element %d of an array of names is NULL", i + 1)));
		if (i > 0)
			appendStringInfoChar(body, ',');
		qs_append_text(body, TextDatumGetCString(elements[i]));
	}
	appendStringInfoChar(body, ']');
}
