/*
 * points_reader.c
 *		Reads points as the JSON parser goes through an answer.
 *
 * Runs in backends.  Only what is a document of its own, such as a payload, is made a
 * jsonb: ids, scores and versions are read where they stand, and what nobody asked for
 * is passed over.  That is half the work of making a jsonb of the whole answer first.
 *
 * An answer of another shape is an ERROR 08P01, as everywhere.
 */
#include "qdrant_sync.h"

#include "capture/point_id.h"
#include "client/points_reader.h"
#include "common/jsonapi.h"

#include <math.h>

#include "mb/pg_wchar.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#define FIRST_ROOM 16

/* How deep the reader is in {"result": {"points": [{…}]}}. */
typedef enum Place
{
	OUTSIDE,
	IN_ANSWER,
	IN_RESULT,
	IN_POINTS,
	IN_POINT
} Place;

typedef enum Member
{
	NOT_WANTED,
	ON_THE_WAY,					/* result, points */
	ID,
	SCORE,
	VERSION,
	PAYLOAD,
	VECTOR,
	ORDER_VALUE,
	SHARD_KEY
} Member;

typedef struct Reader
{
	const QsServer *server;
	Place		place;
	Member		member;			/* whose value comes next */
	int			skipped;		/* levels inside of a value that is not wanted */
	int			built;			/* levels inside of a value that becomes a jsonb */
	JsonbParseState *state;		/* of that value */
	bool		found;			/* the points */
	QsHit	   *hits;
	int			n;
	int			room;
} Reader;

static QsHit *
current(Reader *reader)
{
	return &reader->hits[reader->n - 1];
}

static void
refuse(Reader *reader)
{
	qs_answer_not_understood(reader->server);
}

/* ---- members ---------------------------------------------------------- */

static Member
member_of_point(const char *name)
{
	static const struct
	{
		const char *name;
		Member		member;
	}			members[] = {
		{"id", ID}, {"version", VERSION}, {"score", SCORE}, {"payload", PAYLOAD},
		{"vector", VECTOR}, {"order_value", ORDER_VALUE}, {"shard_key", SHARD_KEY}
	};

	for (size_t i = 0; i < lengthof(members); i++)
	{
		if (strcmp(name, members[i].name) == 0)
			return members[i].member;
	}
	return NOT_WANTED;
}

static Member
member_named(Place place, const char *name)
{
	switch (place)
	{
		case IN_ANSWER:
			return strcmp(name, "result") == 0 ? ON_THE_WAY : NOT_WANTED;
		case IN_RESULT:
			return strcmp(name, "points") == 0 ? ON_THE_WAY : NOT_WANTED;
		default:
			return member_of_point(name);
	}
}

static Jsonb **
document_of(QsHit *hit, Member member)
{
	switch (member)
	{
		case PAYLOAD:
			return &hit->payload;
		case VECTOR:
			return &hit->vector;
		case ORDER_VALUE:
			return &hit->order_value;
		default:
			return &hit->shard_key;
	}
}

static void
add_hit(Reader *reader)
{
	if (reader->n == reader->room)
	{
		reader->room *= 2;
		reader->hits = repalloc_huge(reader->hits, reader->room * sizeof(QsHit));
	}
	memset(&reader->hits[reader->n++], 0, sizeof(QsHit));
}

static void
read_id(Reader *reader, char *token, JsonTokenType type)
{
	QsHit	   *hit = current(reader);

	hit->is_uuid = type == JSON_TOKEN_STRING;
	hit->id = token;
	if (type == JSON_TOKEN_STRING ? !qs_is_uuid(token, strlen(token)) :
		type != JSON_TOKEN_NUMBER || !qs_is_unsigned_integer(token, strlen(token)))
		refuse(reader);
}

/* False: null.  A score is read to the nearest float. */
static bool
read_score(Reader *reader, const char *token, JsonTokenType type)
{
	QsHit	   *hit = current(reader);

	if (type == JSON_TOKEN_NULL)
		return false;
	if (type != JSON_TOKEN_NUMBER)
		refuse(reader);
	hit->score = strtof(token, NULL);
	if (isinf(hit->score))
		refuse(reader);
	return true;
}

/* False: null. */
static bool
read_version(Reader *reader, const char *token, JsonTokenType type)
{
	QsHit	   *hit = current(reader);
	char	   *end;

	if (type == JSON_TOKEN_NULL)
		return false;
	if (type != JSON_TOKEN_NUMBER)
		refuse(reader);
	errno = 0;
	hit->version = strtoll(token, &end, 10);
	if (errno != 0 || *end != '\0')
	{
		double		rounded = rint(strtod(token, NULL));

		if (!(fabs(rounded) <= QS_MAX_VERSION))
			refuse(reader);
		hit->version = (int64) rounded;
	}
	return true;
}

/* ---- documents -------------------------------------------------------- */

static JsonbValue
value_of(char *token, JsonTokenType type)
{
	JsonbValue	value;

	switch (type)
	{
		case JSON_TOKEN_STRING:
			value.type = jbvString;
			value.val.string.val = token;
			value.val.string.len = strlen(token);
			break;
		case JSON_TOKEN_NUMBER:
			value.type = jbvNumeric;
			value.val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(token),
																	ObjectIdGetDatum(InvalidOid),
																	Int32GetDatum(-1)));
			break;
		case JSON_TOKEN_NULL:
			value.type = jbvNull;
			break;
		default:
			value.type = jbvBool;
			value.val.boolean = type == JSON_TOKEN_TRUE;
	}
	return value;
}

static void
begin_built(Reader *reader, JsonbIteratorToken token)
{
	if (reader->built++ == 0)
		reader->state = NULL;
	pushJsonbValue(&reader->state, token, NULL);
}

static void
end_built(Reader *reader, JsonbIteratorToken token)
{
	JsonbValue *value = pushJsonbValue(&reader->state, token, NULL);

	if (--reader->built == 0)
		*document_of(current(reader), reader->member) = JsonbValueToJsonb(value);
}

/* What stands in an object comes after its key, in an array as an element. */
static void
add_built(Reader *reader, char *token, JsonTokenType type)
{
	JsonbValue	value = value_of(token, type);

	pushJsonbValue(&reader->state,
				   reader->state->contVal.type == jbvArray ? WJB_ELEM : WJB_VALUE, &value);
}

static void
read_scalar_document(Reader *reader, char *token, JsonTokenType type)
{
	JsonbValue	value = value_of(token, type);

	*document_of(current(reader), reader->member) =
		type == JSON_TOKEN_NULL ? NULL : JsonbValueToJsonb(&value);
}

/* ---- what the parser calls -------------------------------------------- */

static bool
wanted(const Reader *reader)
{
	return reader->skipped == 0 && reader->member != NOT_WANTED;
}

/* Steps into the answer, the result, the points or a point. */
static void
enter(Reader *reader, bool object)
{
	if (object == (reader->place == IN_RESULT))
		refuse(reader);
	switch (++reader->place)
	{
		case IN_POINTS:
			reader->n = 0;
			reader->found = true;
			reader->member = ON_THE_WAY;
			break;
		case IN_POINT:
			add_hit(reader);
			break;
		default:
			break;
	}
}

static void
start(Reader *reader, bool object)
{
	if (!wanted(reader))
		reader->skipped++;
	else if (reader->place < IN_POINT)
		enter(reader, object);
	else if (reader->member >= PAYLOAD)
		begin_built(reader, object ? WJB_BEGIN_OBJECT : WJB_BEGIN_ARRAY);
	else
		refuse(reader);
}

static void
end(Reader *reader, bool object)
{
	if (reader->skipped > 0)
		reader->skipped--;
	else if (reader->built > 0)
		end_built(reader, object ? WJB_END_OBJECT : WJB_END_ARRAY);
	else
	{
		if (reader->place == IN_POINT && current(reader)->id == NULL)
			refuse(reader);
		reader->place--;
		reader->member = ON_THE_WAY;
	}
}

static qs_json_action
object_start(void *reader)
{
	start(reader, true);
	QS_JSON_GO_ON;
}

static qs_json_action
object_end(void *reader)
{
	end(reader, true);
	QS_JSON_GO_ON;
}

static qs_json_action
array_start(void *reader)
{
	start(reader, false);
	QS_JSON_GO_ON;
}

static qs_json_action
array_end(void *reader)
{
	end(reader, false);
	QS_JSON_GO_ON;
}

static qs_json_action
field_start(void *arg, char *name, bool is_null)
{
	Reader	   *reader = arg;

	if (reader->built > 0)
	{
		JsonbValue	key = value_of(name, JSON_TOKEN_STRING);

		pushJsonbValue(&reader->state, WJB_KEY, &key);
	}
	else if (reader->skipped == 0)
		reader->member = member_named(reader->place, name);
	QS_JSON_GO_ON;
}

static qs_json_action
scalar(void *arg, char *token, JsonTokenType type)
{
	Reader	   *reader = arg;

	if (!wanted(reader))
		QS_JSON_GO_ON;
	if (reader->built > 0)
		add_built(reader, token, type);
	else if (reader->member == ID)
		read_id(reader, token, type);
	else if (reader->member == SCORE)
		current(reader)->has_score = read_score(reader, token, type);
	else if (reader->member == VERSION)
		current(reader)->has_version = read_version(reader, token, type);
	else if (reader->member >= PAYLOAD)
		read_scalar_document(reader, token, type);
	else
		refuse(reader);
	QS_JSON_GO_ON;
}

/* ---- the answer ------------------------------------------------------- */

static bool
is_unstorable(JsonParseErrorType error)
{
	return error == JSON_UNICODE_CODE_POINT_ZERO || error == JSON_UNICODE_HIGH_ESCAPE ||
		error == JSON_UNICODE_UNTRANSLATABLE;
}

bool
qs_read_points(const QsServer *server, const char *text, Size length, QsHit **hits, int *n)
{
	Reader		reader = {.server = server, .member = ON_THE_WAY, .room = FIRST_ROOM};
	JsonSemAction actions = {
		.semstate = &reader, .object_start = object_start, .object_end = object_end,
		.array_start = array_start, .array_end = array_end, .object_field_start = field_start,
		.scalar = scalar
	};
	JsonParseErrorType error;

	reader.hits = palloc(reader.room * sizeof(QsHit));
	error = pg_parse_json(qs_json_lexer(text, length), &actions);
	if (is_unstorable(error))
		return false;
	if (error != JSON_SUCCESS || !reader.found)
		refuse(&reader);
	*hits = reader.hits;
	*n = reader.n;
	return true;
}
