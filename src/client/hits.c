/*
 * hits.c
 *		Decodes points with PostgreSQL's own JSON parser: exact, and several times
 *		faster than jansson (hazard R12).
 *
 * Runs in backends; holds no ticket.  The usual way is points_reader.c's.  Only
 * where that meets a character that jsonb or the database's encoding cannot hold
 * is the answer cut into points, to find and name the one.
 */
#include "qdrant_sync.h"

#include "capture/point_id.h"
#include "client/hits.h"
#include "client/points_reader.h"
#include "lib/stringinfo.h"

#include <float.h>
#include <math.h>

#include "mb/pg_wchar.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

QS_NORETURN static void
not_understood(const QsServer *server)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("answer of Qdrant server \"%s\" is not understood", server->name),
			 errhint("Check that the option url of the server is Qdrant's REST address.")));
	pg_unreachable();
}

/*
 * What the parser raised, where that is the text's fault.  Comes back where a
 * character cannot be stored.  The parser touches nothing but memory, so that its
 * errors may be caught.
 */
static void
forget_error(const QsServer *server, MemoryContext context)
{
	int			code = geterrcode();

	MemoryContextSwitchTo(context);
	if (code != ERRCODE_UNTRANSLATABLE_CHARACTER && code != ERRCODE_INVALID_TEXT_REPRESENTATION &&
		code != ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE)
		PG_RE_THROW();
	FlushErrorState();
	if (code != ERRCODE_UNTRANSLATABLE_CHARACTER)
		not_understood(server);
}

/* NULL where the text holds a character that cannot be stored. */
static Jsonb *
parse(const QsServer *server, const char *text)
{
	MemoryContext context = CurrentMemoryContext;
	Jsonb	   *volatile jsonb = NULL;

	PG_TRY();
	{
		jsonb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	}
	PG_CATCH();
	{
		forget_error(server, context);
	}
	PG_END_TRY();
	return jsonb;
}

/* ---- one point -------------------------------------------------------- */

static Jsonb *
member(JsonbContainer *point, const char *key)
{
	JsonbValue	value;

	if (getKeyJsonValueFromContainer(point, key, strlen(key), &value) == NULL ||
		value.type == jbvNull)
		return NULL;
	return JsonbValueToJsonb(&value);
}

/* False: there is none, or null.  Not understood: anything but a number from -most to most. */
static bool
number_member(const QsServer *server, JsonbContainer *point, const char *key, double most,
			  Numeric *number, double *rounded)
{
	JsonbValue	value;

	if (getKeyJsonValueFromContainer(point, key, strlen(key), &value) == NULL ||
		value.type == jbvNull)
		return false;
	if (value.type != jbvNumeric)
		not_understood(server);
	*number = value.val.numeric;
	*rounded = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
												  NumericGetDatum(*number)));
	if (!(fabs(*rounded) <= most))
		not_understood(server);
	return true;
}

JsonbContainer *
qs_answer_object(const QsServer *server, JsonbContainer *array, uint32 i)
{
	JsonbValue *value = getIthJsonbValueFromContainer(array, i);

	if (value == NULL || value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		not_understood(server);
	return value->val.binary.data;
}

char *
qs_answer_id(const QsServer *server, const JsonbValue *id)
{
	char	   *text = NULL;
	bool		is_id = false;

	if (id->type == jbvString)
	{
		text = pnstrdup(id->val.string.val, id->val.string.len);
		is_id = qs_is_uuid(text, id->val.string.len);
	}
	else if (id->type == jbvNumeric)
	{
		text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(id->val.numeric)));
		is_id = qs_is_unsigned_integer(text, (int) strlen(text));
	}
	if (!is_id)
		not_understood(server);
	return text;
}

static void
decode_id(const QsServer *server, JsonbContainer *point, QsHit *hit)
{
	JsonbValue	id;

	if (getKeyJsonValueFromContainer(point, "id", 2, &id) == NULL)
		not_understood(server);
	hit->is_uuid = id.type == jbvString;
	hit->id = qs_answer_id(server, &id);
}

bool
qs_answer_score(const QsServer *server, JsonbContainer *object, float *score)
{
	Numeric		number;
	double		rounded;

	if (!number_member(server, object, "score", FLT_MAX, &number, &rounded))
		return false;
	*score = (float) rounded;
	return true;
}

static void
decode_point(const QsServer *server, JsonbContainer *point, QsHit *hit)
{
	Numeric		number;
	double		rounded;

	decode_id(server, point, hit);
	hit->has_score = qs_answer_score(server, point, &hit->score);
	hit->has_version = number_member(server, point, "version", QS_MAX_VERSION, &number, &rounded);
	if (hit->has_version)
		hit->version = DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(number)));
	hit->payload = member(point, "payload");
	hit->vector = member(point, "vector");
	hit->order_value = member(point, "order_value");
	hit->shard_key = member(point, "shard_key");
}

/* ---- the usual way ---------------------------------------------------- */

/* False where the text holds a character that cannot be stored. */
static bool
read_points(const QsServer *server, const QsAnswer *answer, QsHit **hits, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool read = false;

	PG_TRY();
	{
		read = qs_read_points(server, answer->body, answer->length, hits, n);
	}
	PG_CATCH();
	{
		forget_error(server, context);
	}
	PG_END_TRY();
	return read;
}

/* ---- point by point --------------------------------------------------- */

/*
 * Texts of the points: the objects in an array in an object in an object.  Only
 * for an answer that PostgreSQL's parser found well-formed as far as it came.
 */
static List *
cut_points(const char *text)
{
	List	   *points = NIL;
	const char *start = NULL;
	int			depth = 0;

	for (const char *c = text; *c; c++)
	{
		if (*c == '"')
		{
			for (c++; *c != '\0' && *c != '"'; c++)
				if (*c == '\\' && c[1] != '\0')
					c++;
			if (*c == '\0')
				break;
		}
		else if (*c == '{' || *c == '[')
		{
			if (depth++ == 3 && *c == '{')
				start = c;
		}
		else if (*c == '}' || *c == ']')
		{
			if (--depth == 3 && *c == '}' && start != NULL)
				points = lappend(points, pnstrdup(start, c + 1 - start));
		}
	}
	return points;
}

static bool
is_nul_escape(const char *c)
{
	return strncmp(c, "\\u0000", 6) == 0;
}

/* Replaces the escape of the character NUL, or all escapes of four digits. */
static char *
replace_escapes(const char *text, bool all, bool *found_nul)
{
	bool		utf8 = GetDatabaseEncoding() == PG_UTF8;
	StringInfoData out;

	initStringInfo(&out);
	*found_nul = false;
	while (*text != '\0')
	{
		int			step = text[0] == '\\' ? (text[1] == 'u' ? 6 : 2) : 1;

		step = strnlen(text, step);
		*found_nul |= is_nul_escape(text);
		if (is_nul_escape(text) || (all && step == 6))
			appendStringInfoString(&out, utf8 ? "\\ufffd" : "?");
		else
			appendBinaryStringInfo(&out, text, step);
		text += step;
	}
	return out.data;
}

QS_NORETURN static void
refuse_point(const QsServer *server, const char *text)
{
	QsHit		hit = {0};
	bool		found;
	Jsonb	   *jsonb = parse(server, replace_escapes(text, true, &found));

	if (jsonb != NULL)
		decode_id(server, &jsonb->root, &hit);
	ereport(ERROR,
			(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
			 errmsg("point %s of Qdrant server \"%s\" has a character that encoding %s lacks",
					hit.id ? hit.id : "?", server->name, GetDatabaseEncodingName()),
			 errhint("Ask without payload, or from a database with encoding UTF8.")));
	pg_unreachable();
}

static void
decode_text(const QsServer *server, const char *text, QsHit *hit)
{
	Jsonb	   *jsonb = parse(server, text);
	bool		replaced = false;

	if (jsonb == NULL)
		jsonb = parse(server, replace_escapes(text, false, &replaced));
	if (jsonb == NULL)
		refuse_point(server, text);
	decode_point(server, &jsonb->root, hit);
	if (replaced)
		ereport(WARNING,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("point %s has the character \\u0000, which is replaced: jsonb cannot hold it",
						hit->id)));
}

/* The array of points. */
static JsonbContainer *
points_of(const QsServer *server, Jsonb *jsonb)
{
	JsonbValue	result;
	JsonbValue	points;

	if (!JB_ROOT_IS_OBJECT(jsonb) ||
		getKeyJsonValueFromContainer(&jsonb->root, "result", 6, &result) == NULL ||
		result.type != jbvBinary || !JsonContainerIsObject(result.val.binary.data) ||
		getKeyJsonValueFromContainer(result.val.binary.data, "points", 6, &points) == NULL ||
		points.type != jbvBinary || !JsonContainerIsArray(points.val.binary.data))
		not_understood(server);
	return points.val.binary.data;
}

/* Without the name of a point whose character was replaced. */
static QsHit *
decode_array(const QsServer *server, JsonbContainer *array, int *n)
{
	QsHit	   *hits;

	*n = JsonContainerSize(array);
	hits = palloc_extended((*n + 1) * sizeof(QsHit), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < *n; i++)
		decode_point(server, qs_answer_object(server, array, i), &hits[i]);
	return hits;
}

/* How many points there are, and that the answer is one of points at all. */
static int
count_points(const QsServer *server, const char *text)
{
	bool		found;
	Jsonb	   *jsonb = parse(server, replace_escapes(text, true, &found));

	if (jsonb == NULL)
		not_understood(server);
	return JsonContainerSize(points_of(server, jsonb));
}

/* NULL where the text has other arrays of objects at the depth of the points. */
static QsHit *
decode_one_by_one(const QsServer *server, const char *text, int *n)
{
	List	   *points = cut_points(text);
	QsHit	   *hits;
	ListCell   *lc;

	if (list_length(points) != count_points(server, text))
		return NULL;
	hits = palloc0((list_length(points) + 1) * sizeof(QsHit));
	*n = 0;
	foreach(lc, points)
		decode_text(server, lfirst(lc), &hits[(*n)++]);
	return hits;
}

QsHit *
qs_hits_decode(const QsServer *server, const QsAnswer *answer, int *n)
{
	QsHit	   *hits;

	if (read_points(server, answer, &hits, n))
		return hits;
	hits = decode_one_by_one(server, answer->body, n);
	if (hits == NULL)
		hits = decode_array(server, points_of(server, qs_answer_document(server, answer)), n);
	return hits;
}

QsHit *
qs_hits_of_result(const QsServer *server, Jsonb *result, int *n)
{
	if (!JB_ROOT_IS_ARRAY(result) || JB_ROOT_IS_SCALAR(result))
		not_understood(server);
	return decode_array(server, &result->root, n);
}

void
qs_hit_decode(const QsServer *server, JsonbContainer *point, QsHit *hit)
{
	decode_point(server, point, hit);
}

/* ---- other answers ---------------------------------------------------- */

void
qs_answer_not_understood(const QsServer *server)
{
	not_understood(server);
}

Jsonb *
qs_answer_document(const QsServer *server, const QsAnswer *answer)
{
	Jsonb	   *jsonb = parse(server, answer->body);
	bool		replaced = false;

	if (jsonb == NULL)
		jsonb = parse(server, replace_escapes(answer->body, false, &replaced));
	if (jsonb == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("answer of Qdrant server \"%s\" has a character that encoding %s lacks",
						server->name, GetDatabaseEncodingName()),
				 errhint("Ask without payload, or from a database with encoding UTF8.")));
	if (replaced)
		ereport(WARNING,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("answer of Qdrant server \"%s\" has the character \\u0000, which is replaced: jsonb cannot hold it",
						server->name)));
	if (!JB_ROOT_IS_OBJECT(jsonb))
		not_understood(server);
	return jsonb;
}

Jsonb *
qs_answer_result(const QsServer *server, const QsAnswer *answer)
{
	Jsonb	   *document = qs_answer_document(server, answer);
	JsonbValue	result;

	if (getKeyJsonValueFromContainer(&document->root, "result", 6, &result) == NULL ||
		result.type == jbvNull)
		not_understood(server);
	return JsonbValueToJsonb(&result);
}

/* ---- columns ---------------------------------------------------------- */

static Datum
jsonb_or_null(Jsonb *jsonb, bool *is_null)
{
	*is_null = jsonb == NULL;
	return PointerGetDatum(jsonb);
}

void
qs_hit_columns(const QsHit *hit, Datum *values, bool *nulls)
{
	memset(nulls, 0, QS_HIT_COLUMNS * sizeof(bool));
	values[0] = CStringGetTextDatum(hit->id);
	values[1] = Float4GetDatum(hit->score);
	nulls[1] = !hit->has_score;
	values[2] = jsonb_or_null(hit->payload, &nulls[2]);
	values[3] = jsonb_or_null(hit->vector, &nulls[3]);
	values[4] = Int64GetDatum(hit->version);
	nulls[4] = !hit->has_version;
	values[5] = jsonb_or_null(hit->order_value, &nulls[5]);
	values[6] = jsonb_or_null(hit->shard_key, &nulls[6]);
}
