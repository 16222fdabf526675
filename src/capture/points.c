/*
 * points.c
 *		Points in jsonb: what Qdrant would refuse is refused here, where the
 *		caller can still see it.
 *
 * Runs in users' backends.  What the collection's vectors are called and how
 * long they have to be is not known here, and nobody waits for the network to
 * ask; that the vectors of one name agree with each other is.  A point that does
 * not fit its collection becomes a dead letter.
 */
#include "capture/points.h"
#include "capture/point_id.h"
#include "common/json_number.h"

#include <float.h>
#include <math.h>

#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

/* Qdrant's reader gives up at 128; the request around a payload has at most 7 of them. */
#define MAX_DEPTH 120

/* Names of vectors that are compared; who has more has their lengths found by Qdrant. */
#define MAX_WIDTHS 64

/* How long the first vector of a name was. */
typedef struct Width
{
	char	   *name;			/* "": the unnamed one */
	int			size;
	int			position;		/* of its point */
} Width;

/* What is being looked at. */
typedef struct Place
{
	QsPointsCheck *check;
	int			position;
	const char *vector;			/* name; "": the unnamed one */
} Place;

static QS_NORETURN void
refuse(const Place *place, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%spoint %d: %s", place->check->where, place->position, what),
			 errdetail("Positions count from 1.")));
	pg_unreachable();
}

static QS_NORETURN void
refuse_vector(const Place *place, const char *what)
{
	if (place->vector[0] == '\0')
		refuse(place, psprintf("a vector in \"vector\" %s", what));
	refuse(place, psprintf("a vector in \"vector\", \"%s\", %s", place->vector, what));
}

/* It would refuse the whole request. */
static void
check_range(const char *where, Numeric number)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));

	if (!qs_json_number_fits(text, strlen(text)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s has a number that is beyond the range of a double, which Qdrant does not read",
						where)));
	pfree(text);
}

void
qs_json_check(const char *where, JsonbContainer *json)
{
	JsonbIterator *iterator = JsonbIteratorInit(json);
	JsonbIteratorToken token;
	JsonbValue	value;
	int			depth = 0;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		if (token == WJB_BEGIN_ARRAY || token == WJB_BEGIN_OBJECT)
			depth++;
		else if (token == WJB_END_ARRAY || token == WJB_END_OBJECT)
			depth--;
		if (depth > MAX_DEPTH)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s is nested deeper than %d levels, which Qdrant does not read",
							where, MAX_DEPTH)));
		if ((token == WJB_ELEM || token == WJB_VALUE) && value.type == jbvNumeric)
			check_range(where, value.val.numeric);
	}
}

void
qs_json_check_value(const char *where, JsonbValue *value)
{
	if (value->type == jbvBinary)
		qs_json_check(where, value->val.binary.data);
	else if (value->type == jbvNumeric)
		check_range(where, value->val.numeric);
}

static void
check_id(const Place *place, JsonbContainer *point)
{
	JsonbValue	id;

	if (getKeyJsonValueFromContainer(point, "id", 2, &id) == NULL)
		refuse(place, "there is no \"id\"");
	if (!qs_is_point_id(&id))
		refuse(place, "\"id\" is neither an integer from 0 to 2^64 - 1 nor a UUID");
}

/* ---- vectors ---- */

/* Qdrant keeps 32-bit floats; JSON knows neither NaN nor infinity. */
static void
check_number(const Place *place, Numeric number)
{
	double		value = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
														   NumericGetDatum(number)));

	if (!(fabs(value) <= FLT_MAX))
		refuse_vector(place, "has a number that is beyond the range of a 32-bit float");
}

static void
add_width(const Place *place, int size)
{
	/* The memory of one point is freed after it. */
	MemoryContext before = MemoryContextSwitchTo(place->check->context);
	Width	   *width = palloc(sizeof(Width));

	width->name = pstrdup(place->vector);
	width->size = size;
	width->position = place->position;
	place->check->widths = lappend(place->check->widths, width);
	MemoryContextSwitchTo(before);
}

/* All vectors of a name are equally long, whatever that length has to be. */
static void
check_width(const Place *place, int size)
{
	ListCell   *lc;

	if (size > QS_MAX_DIMENSION)
		refuse_vector(place, psprintf("has %d numbers, and Qdrant takes at most %d",
									  size, QS_MAX_DIMENSION));
	foreach(lc, place->check->widths)
	{
		const Width *width = lfirst(lc);

		if (strcmp(width->name, place->vector) != 0)
			continue;
		if (width->size != size)
			refuse_vector(place, psprintf("has %d numbers, and that of point %d has %d",
										  size, width->position, width->size));
		return;
	}
	if (list_length(place->check->widths) < MAX_WIDTHS)
		add_width(place, size);
}

/* Written as Qdrant reads an index: without sign, fraction or exponent. */
static bool
is_whole(const JsonbValue *number)
{
	return qs_is_point_id(number);
}

/*
 * Of two rows under a name Qdrant makes a sparse vector, indices and values, where
 * the first may be indices.
 */
static QS_NORETURN void
refuse_two_rows(const Place *place)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%spoint %d: Qdrant would read the multi-vector \"%s\", two rows of which the first has whole numbers only, as a sparse vector",
					place->check->where, place->position, place->vector),
			 errhint("Write one of them with a fraction, as in [[1.0, 2], [3, 4]].")));
	pg_unreachable();
}

/* A dense vector, or the rows of a multi-vector, which are equally long. */
static void
check_array(const Place *place, JsonbContainer *array)
{
	JsonbIterator *iterator = JsonbIteratorInit(array);
	JsonbIteratorToken token;
	JsonbValue	value;
	int			level = 0;
	int			rows = 0;
	int			numbers = 0;	/* of this row */
	int			width = 0;		/* of the rows before */
	bool		whole = true;	/* the first row has whole numbers only */

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		if (token == WJB_ELEM && value.type == jbvNumeric && (level == 2 || rows == 0))
		{
			check_number(place, value.val.numeric);
			numbers++;
			whole = whole && (level == 1 || rows > 0 || is_whole(&value));
		}
		else if (token == WJB_BEGIN_ARRAY && level < 2 && (rows > 0 || numbers == 0))
			level++;
		else if (token == WJB_END_ARRAY)
		{
			if (level-- == 1 && rows > 0)
				break;
			if (numbers == 0)
				refuse_vector(place, "is empty");
			if (rows > 0 && numbers != width)
				refuse_vector(place, "has rows that are not equally long");
			width = numbers;
			if (level == 1)
			{
				rows++;
				numbers = 0;
			}
		}
		else
			refuse_vector(place, "has an element that is not a number");
	}
	if (rows == 2 && whole && place->vector[0] != '\0')
		refuse_two_rows(place);
	check_width(place, width);
}

static int
by_value(const void *a, const void *b)
{
	uint32		left = *(const uint32 *) a;
	uint32		right = *(const uint32 *) b;

	return left < right ? -1 : left > right;
}

/* Member of a sparse vector: an array of numbers, and how many there are. */
static JsonbContainer *
sparse_member(const Place *place, JsonbContainer *sparse, const char *name, int *size)
{
	JsonbValue	value;

	if (getKeyJsonValueFromContainer(sparse, name, strlen(name), &value) == NULL ||
		value.type != jbvBinary || !JsonContainerIsArray(value.val.binary.data))
		refuse_vector(place, psprintf("is a sparse one whose \"%s\" are not an array", name));
	*size = JsonContainerSize(value.val.binary.data);
	return value.val.binary.data;
}

static void
check_indices(const Place *place, JsonbContainer *indices, int size)
{
	JsonbIterator *iterator = JsonbIteratorInit(indices);
	JsonbIteratorToken token;
	JsonbValue	value;
	uint32	   *seen = palloc(sizeof(uint32) * (size + 1));
	int			n = 0;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (value.type != jbvNumeric || !qs_is_point_id(&value) ||
			DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
											   NumericGetDatum(value.val.numeric))) > PG_UINT32_MAX)
			refuse_vector(place, "has an index that is not an integer from 0 to 2^32 - 1");
		seen[n++] = (uint32) DatumGetInt64(DirectFunctionCall1(numeric_int8,
															   NumericGetDatum(value.val.numeric)));
	}
	qsort(seen, n, sizeof(uint32), by_value);
	for (int i = 1; i < n; i++)
	{
		if (seen[i] == seen[i - 1])
			refuse_vector(place, psprintf("has the index %u twice", seen[i]));
	}
}

/* {"indices": [1, 7], "values": [0.5, 2]} */
static void
check_sparse(const Place *place, JsonbContainer *sparse)
{
	int			nindices;
	int			nvalues;
	JsonbContainer *indices = sparse_member(place, sparse, "indices", &nindices);
	JsonbContainer *values = sparse_member(place, sparse, "values", &nvalues);
	JsonbIterator *iterator = JsonbIteratorInit(values);
	JsonbIteratorToken token;
	JsonbValue	value;

	if (nindices != nvalues)
		refuse_vector(place, psprintf("has %d indices and %d values", nindices, nvalues));
	check_indices(place, indices, nindices);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (value.type != jbvNumeric)
			refuse_vector(place, "has an element that is not a number");
		check_number(place, value.val.numeric);
	}
}

/* {"text": …, "model": …} and the like: Qdrant makes a vector of it.  False: it is none. */
static bool
check_inference(const Place *place, JsonbContainer *object)
{
	JsonbValue	model;

	if (getKeyJsonValueFromContainer(object, "model", 5, &model) == NULL || model.type != jbvString)
		return false;
	qs_json_check(psprintf("%spoint %d: \"vector\"", place->check->where, place->position), object);
	return true;
}

static bool
has_member(JsonbContainer *object, const char *name)
{
	JsonbValue	value;

	return getKeyJsonValueFromContainer(object, name, strlen(name), &value) != NULL;
}

static void
check_named_vector(const Place *place, const JsonbValue *value)
{
	JsonbContainer *vector;

	if (value->type != jbvBinary)
		refuse_vector(place, "is neither an array nor an object");
	vector = value->val.binary.data;
	if (JsonContainerIsArray(vector))
		check_array(place, vector);
	else if (has_member(vector, "indices") || has_member(vector, "values"))
		check_sparse(place, vector);
	else if (!check_inference(place, vector))
		refuse_vector(place, "is an object with neither \"indices\" and \"values\" nor a \"model\"");
}

static void
check_named(Place *place, JsonbContainer *named)
{
	JsonbIterator *iterator = JsonbIteratorInit(named);
	JsonbIteratorToken token;
	JsonbValue	value;

	if (check_inference(place, named))
		return;
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			place->vector = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
			check_named_vector(place, &value);
	}
	place->vector = "";
}

/* What stands behind "vector". */
static void
check_vector_value(Place *place, const JsonbValue *vector)
{
	if (vector->type != jbvBinary)
		refuse(place, "\"vector\" is neither an array nor an object");
	if (JsonContainerIsArray(vector->val.binary.data))
		check_array(place, vector->val.binary.data);
	else
		check_named(place, vector->val.binary.data);
}

static void
check_vector(Place *place, JsonbContainer *point)
{
	JsonbValue	vector;

	if (getKeyJsonValueFromContainer(point, "vector", 6, &vector) == NULL)
	{
		if (place->check->only_vectors)
			refuse(place, "there is no \"vector\"");
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%spoint %d: there is no \"vector\"", place->check->where, place->position),
				 errdetail("Positions count from 1."),
				 errhint("A point that has only a payload is written with \"vector\": {}.")));
	}
	check_vector_value(place, &vector);
}

void
qs_points_check_vector(QsPointsCheck *check, int position, const Jsonb *vector)
{
	Place		place = {.check = check, .position = position, .vector = ""};
	JsonbValue	value = {.type = jbvBinary};

	if (JB_ROOT_IS_SCALAR(vector))
		value.type = jbvNull;
	value.val.binary.data = unconstify(JsonbContainer *, &vector->root);
	value.val.binary.len = VARSIZE(vector) - VARHDRSZ;
	check_vector_value(&place, &value);
}

void
qs_points_check_width(QsPointsCheck *check, int position, const char *name, int size)
{
	Place		place = {.check = check, .position = position, .vector = name};

	check_width(&place, size);
}

/* ---- points ---- */

/* Absent and null are the same to Qdrant: the point has no payload. */
static void
check_payload(const Place *place, JsonbContainer *point)
{
	JsonbValue	payload;

	if (getKeyJsonValueFromContainer(point, "payload", 7, &payload) == NULL ||
		payload.type == jbvNull)
		return;
	if (payload.type != jbvBinary || !JsonContainerIsObject(payload.val.binary.data))
		refuse(place, "\"payload\" is neither an object nor null");
	qs_json_check(psprintf("%spoint %d: \"payload\"", place->check->where, place->position),
				  payload.val.binary.data);
}

/* A misspelt "vectors" or "payloads" would be lost in silence. */
static void
check_members(const Place *place, JsonbContainer *point)
{
	JsonbIterator *iterator = JsonbIteratorInit(point);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		char	   *name;

		if (token != WJB_KEY)
			continue;
		name = pnstrdup(value.val.string.val, value.val.string.len);
		if (strcmp(name, "id") == 0 || strcmp(name, "vector") == 0 ||
			(strcmp(name, "payload") == 0 && !place->check->only_vectors))
			continue;
		refuse(place, psprintf("\"%s\" is no part of it", name));
	}
}

/*
 * Calls with each element, counted from 1; the memory of each call is freed.
 * Jsonb's iterator keeps its place, so this is linear.
 */
static void
for_each_point(JsonbContainer *points, void (*call) (int position, JsonbValue *point, void *arg),
			   void *arg)
{
	JsonbIterator *iterator = JsonbIteratorInit(points);
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
	Place		place = {.check = arg, .position = position, .vector = ""};

	if (point->type != jbvBinary || !JsonContainerIsObject(point->val.binary.data))
		refuse(&place, "it is not an object");
	check_id(&place, point->val.binary.data);
	check_vector(&place, point->val.binary.data);
	check_payload(&place, point->val.binary.data);
	check_members(&place, point->val.binary.data);
}

void
qs_points_check(QsPointsCheck *check, JsonbContainer *points)
{
	if (!JsonContainerIsArray(points) || JsonContainerIsScalar(points))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%spoints must be a JSON array of points", check->where),
				 errhint("A point is an object such as {\"id\": 1, \"vector\": [0.1, 0.2], \"payload\": {\"city\": \"Berlin\"}}.")));
	if (check->context == NULL)
		check->context = CurrentMemoryContext;
	for_each_point(points, check_point, check);
}

/* Points stay in their order: of two with the same id the last one wins. */
static void
write_point(int position, JsonbValue *point, void *arg)
{
	StringInfoData text;

	initStringInfo(&text);
	JsonbToCString(&text, point->val.binary.data, point->val.binary.len);
	qs_bodies_add(arg, position, text.data, text.len);
}

void
qs_points_write(JsonbContainer *points, QsBodies *bodies)
{
	for_each_point(points, write_point, bodies);
}
