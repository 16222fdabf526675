/*
 * points.c
 *		Points in jsonb: what Qdrant would refuse is refused here, where the
 *		caller can still see it.
 *
 * Runs in users' backends.  Dimensions and names of vectors are not known here;
 * a point that does not fit its collection becomes a dead letter.
 */
#include "capture/points.h"

#include <float.h>
#include <math.h>

#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

/* A body is one request to Qdrant; it answers 400 to more than 32 MiB. */
#define BODY_BYTES (1024 * 1024)
#define POINT_MAX_BYTES (31 * 1024 * 1024)

static QS_NORETURN void
refuse(int position, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("point %d: %s", position, what),
			 errdetail("Positions count from 1.")));
}

static bool
all_hex(const char *text, int length)
{
	for (int i = 0; i < length; i++)
	{
		if (!isxdigit((unsigned char) text[i]))
			return false;
	}
	return true;
}

/* As Qdrant takes them: 32 digits, or 8-4-4-4-12 of them. */
static bool
is_uuid(const char *text, int length)
{
	static const int groups[] = {8, 4, 4, 4, 12};
	int			at = 0;

	if (length == 32)
		return all_hex(text, length);
	if (length != 36)
		return false;
	for (int i = 0; i < lengthof(groups); i++)
	{
		if (!all_hex(text + at, groups[i]))
			return false;
		at += groups[i];
		if (i < lengthof(groups) - 1 && text[at++] != '-')
			return false;
	}
	return true;
}

/* Written without fraction or exponent, as Qdrant's reader of integers wants it. */
static bool
is_unsigned_integer(Numeric number)
{
	static const char greatest[] = "18446744073709551615";
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));
	size_t		length = strlen(text);

	return strspn(text, "0123456789") == length &&
		(length < strlen(greatest) ||
		 (length == strlen(greatest) && strcmp(text, greatest) <= 0));
}

static void
check_id(int position, JsonbContainer *point)
{
	JsonbValue	id;

	if (getKeyJsonValueFromContainer(point, "id", 2, &id) == NULL)
		refuse(position, "there is no \"id\"");
	if (id.type == jbvNumeric && is_unsigned_integer(id.val.numeric))
		return;
	if (id.type == jbvString && is_uuid(id.val.string.val, id.val.string.len))
		return;
	refuse(position, "\"id\" is neither an integer from 0 to 2^64 - 1 nor a UUID");
}

/* Qdrant keeps 32-bit floats; JSON knows neither NaN nor infinity. */
static void
check_number(int position, Numeric number)
{
	double		value = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
														   NumericGetDatum(number)));

	if (!(fabs(value) <= FLT_MAX))
		refuse(position, "a number in \"vector\" is beyond the range of a 32-bit float");
}

/* A dense vector, or the rows of a multi-vector. */
static void
check_array(int position, JsonbContainer *array)
{
	JsonbIterator *iterator = JsonbIteratorInit(array);
	JsonbIteratorToken token;
	JsonbValue	value;

	if (JsonContainerSize(array) == 0)
		refuse(position, "a vector in \"vector\" is empty");
	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		if (token == WJB_ELEM && value.type == jbvNumeric)
			check_number(position, value.val.numeric);
		else if (token != WJB_BEGIN_ARRAY && token != WJB_END_ARRAY)
			refuse(position, "a vector in \"vector\" has an element that is not a number");
	}
}

/*
 * Named vectors, of which the dense are checked; what is an object in turn is
 * sparse, or something that Qdrant makes a vector of.
 */
static void
check_named(int position, JsonbContainer *named)
{
	JsonbIterator *iterator = JsonbIteratorInit(named);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token != WJB_VALUE || value.type != jbvBinary)
			continue;
		if (JsonContainerIsArray(value.val.binary.data))
			check_array(position, value.val.binary.data);
	}
}

static void
check_vector(int position, JsonbContainer *point)
{
	JsonbValue	vector;

	if (getKeyJsonValueFromContainer(point, "vector", 6, &vector) == NULL)
	{
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("point %d: there is no \"vector\"", position),
				 errdetail("Positions count from 1."),
				 errhint("A point that has only a payload is written with \"vector\": {}.")));
	}
	if (vector.type != jbvBinary)
		refuse(position, "\"vector\" is neither an array nor an object");
	if (JsonContainerIsArray(vector.val.binary.data))
		check_array(position, vector.val.binary.data);
	else
		check_named(position, vector.val.binary.data);
}

/* Absent and null are the same to Qdrant: the point has no payload. */
static void
check_payload(int position, JsonbContainer *point)
{
	JsonbValue	payload;

	if (getKeyJsonValueFromContainer(point, "payload", 7, &payload) == NULL)
		return;
	if (payload.type == jbvNull ||
		(payload.type == jbvBinary && JsonContainerIsObject(payload.val.binary.data)))
		return;
	refuse(position, "\"payload\" is neither an object nor null");
}

/*
 * Calls with each element, counted from 1; the memory of each call is freed.
 * Jsonb's iterator keeps its place, so this is linear.
 */
static void
for_each_point(const Jsonb *points, void (*call) (int position, JsonbValue *point, void *arg),
			   void *arg)
{
	JsonbIterator *iterator = JsonbIteratorInit(unconstify(JsonbContainer *, &points->root));
	MemoryContext each = AllocSetContextCreate(CurrentMemoryContext, "qdrant_sync point",
											   ALLOCSET_DEFAULT_SIZES);
	JsonbIteratorToken token;
	JsonbValue	point;
	int			position = 0;

	while ((token = JsonbIteratorNext(&iterator, &point, position > 0)) != WJB_DONE)
	{
		MemoryContext before;

		if (position == 0)
			position = 1;		/* past the start of the array itself */
		if (token != WJB_ELEM)
			continue;
		CHECK_FOR_INTERRUPTS();
		before = MemoryContextSwitchTo(each);
		call(position++, &point, arg);
		MemoryContextSwitchTo(before);
		MemoryContextReset(each);
	}
	MemoryContextDelete(each);
}

static void
check_point(int position, JsonbValue *point, void *arg)
{
	if (point->type != jbvBinary || !JsonContainerIsObject(point->val.binary.data))
		refuse(position, "it is not an object");
	check_id(position, point->val.binary.data);
	check_vector(position, point->val.binary.data);
	check_payload(position, point->val.binary.data);
}

void
qs_points_check(const Jsonb *points)
{
	if (!JB_ROOT_IS_ARRAY(points) || JB_ROOT_IS_SCALAR(points))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("points must be a JSON array of points"),
				 errhint("A point is an object such as {\"id\": 1, \"vector\": [0.1, 0.2], \"payload\": {\"city\": \"Berlin\"}}.")));
	for_each_point(points, check_point, NULL);
}

/* The body being filled. */
typedef struct BodyState
{
	StringInfoData body;
	int			points;			/* in it */
	const char *extra;
	QsBodySink	sink;
	void	   *arg;
} BodyState;

static void
begin_body(BodyState *state)
{
	resetStringInfo(&state->body);
	appendStringInfoString(&state->body, "{\"points\":[");
	state->points = 0;
}

static void
end_body(BodyState *state)
{
	if (state->points == 0)
		return;
	appendStringInfo(&state->body, "]%s}", state->extra);
	state->sink(state->arg, state->body.data, state->body.len);
}

/* Points stay in their order: of two with the same id the last one wins. */
static void
add_point(int position, JsonbValue *point, void *arg)
{
	BodyState  *state = arg;
	StringInfoData text;

	initStringInfo(&text);
	JsonbToCString(&text, point->val.binary.data, point->val.binary.len);
	if (text.len > POINT_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("point %d has %d bytes, and Qdrant takes at most 32 MB in a request",
						position, text.len)));
	if (state->points > 0 && state->body.len + text.len > BODY_BYTES)
	{
		end_body(state);
		begin_body(state);
	}
	if (state->points++ > 0)
		appendStringInfoChar(&state->body, ',');
	appendBinaryStringInfo(&state->body, text.data, text.len);
}

void
qs_points_to_bodies(const Jsonb *points, const char *extra, QsBodySink sink, void *arg)
{
	BodyState	state = {.extra = extra, .sink = sink, .arg = arg};

	initStringInfo(&state.body);
	begin_body(&state);
	for_each_point(points, add_point, &state);
	end_body(&state);
	pfree(state.body.data);
}
