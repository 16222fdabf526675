/*
 * selector.c
 *		Reads the points of an operation, of any type that may name some.
 *
 * Runs in users' backends.  Refused is what could mean two things: {} is a filter
 * of every point to Qdrant and an empty array to PostgreSQL.
 */
#include "qdrant_sync.h"
#include "capture/point_id.h"
#include "capture/points.h"
#include "capture/selector.h"
#include "client/call_arguments.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

#define ID_DETAIL "An id is an integer from 0 to 2^64 - 1 or a UUID."
#define SELECTOR_HINT "Points are named by an id or an array of ids, by a filter such as " \
	"{\"must\": [...]}, or by {\"points\": [...]} or {\"filter\": {...}}."
#define IDS_HINT "Points are named here by an id or an array of ids."

static QS_NORETURN void
refuse(const char *where, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s: %s", where, what),
			 errhint(SELECTOR_HINT)));
	pg_unreachable();
}

/* position 0: it is the only one. */
static QS_NORETURN void
refuse_id(const char *where, int position, const char *shown)
{
	if (position > 0)
		where = psprintf("%s, element %d", where, position);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s: %s is not the id of a point", where, shown),
			 errdetail(ID_DETAIL)));
	pg_unreachable();
}

static void
add_id(StringInfo ids, const char *text, bool quoted)
{
	if (ids->len > 0)
		appendStringInfoChar(ids, ',');
	appendStringInfo(ids, quoted ? "\"%s\"" : "%s", text);
}

/* ---- ids as SQL values ---- */

static bool
is_id_type(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID || type == NUMERICOID ||
		type == UUIDOID || type == TEXTOID || type == VARCHAROID || type == BPCHAROID;
}

/* Text of the value: digits where it is a number that may be an id. */
static char *
id_text(Datum value, Oid type)
{
	switch (type)
	{
		case INT2OID:
			return psprintf("%d", DatumGetInt16(value));
		case INT4OID:
			return psprintf("%d", DatumGetInt32(value));
		case INT8OID:
			return psprintf(INT64_FORMAT, DatumGetInt64(value));
		case NUMERICOID:
			return DatumGetCString(DirectFunctionCall1(numeric_out, value));
		case UUIDOID:
			return DatumGetCString(DirectFunctionCall1(uuid_out, value));
		default:
			return TextDatumGetCString(value);
	}
}

static void
add_value(StringInfo ids, const char *where, int position, Datum value, Oid type)
{
	char	   *text = id_text(value, type);
	int			length = (int) strlen(text);

	if (qs_is_unsigned_integer(text, length))
		add_id(ids, text, false);
	else if (qs_is_uuid(text, length))
		add_id(ids, text, true);
	else
		refuse_id(where, position, psprintf("\"%s\"", text));
	pfree(text);
}

static void
add_array(StringInfo ids, const char *where, ArrayType *array)
{
	Oid			type = getBaseType(ARR_ELEMTYPE(array));
	ArrayIterator iterator = array_create_iterator(array, 0, NULL);
	Datum		value;
	bool		is_null;
	int			position = 0;

	while (array_iterate(iterator, &value, &is_null))
	{
		CHECK_FOR_INTERRUPTS();
		position++;
		if (is_null)
			refuse_id(where, position, "NULL");
		add_value(ids, where, position, value, type);
	}
	array_free_iterator(iterator);
}

/* ---- JSON ---- */

/* Gives each id to ids, which may be NULL. */
static void
read_id_list(StringInfo ids, const char *where, JsonbContainer *list)
{
	JsonbIterator *iterator = JsonbIteratorInit(list);
	JsonbIteratorToken token;
	JsonbValue	value;
	int			position = 0;
	bool		inside = false;

	while ((token = JsonbIteratorNext(&iterator, &value, inside)) != WJB_DONE)
	{
		char	   *text;

		inside = true;
		if (token != WJB_ELEM)
			continue;
		CHECK_FOR_INTERRUPTS();
		position++;
		if (value.type == jbvBinary || !qs_is_point_id(&value))
			refuse_id(where, position,
					  value.type == jbvString ?
					  psprintf("\"%s\"", pnstrdup(value.val.string.val, value.val.string.len)) :
					  value.type == jbvNumeric ?
					  DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value.val.numeric))) :
					  "a value that is neither a number nor a string");
		if (ids == NULL)
			continue;
		text = value.type == jbvString ? pnstrdup(value.val.string.val, value.val.string.len) :
			DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value.val.numeric)));
		add_id(ids, text, value.type == jbvString);
		pfree(text);
	}
}

void
qs_check_id_list(const char *where, JsonbContainer *list)
{
	read_id_list(NULL, where, list);
}

void
qs_check_filter(const char *where, JsonbContainer *filter)
{
	static const char *const members[] = {"must", "should", "must_not", "min_should"};
	JsonbIterator *iterator = JsonbIteratorInit(filter);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		char	   *name;
		bool		known = false;

		if (token == WJB_VALUE && value.type != jbvBinary && value.type != jbvNull)
			refuse(where, "a filter's members are conditions, objects or arrays of objects");
		if (token != WJB_KEY)
			continue;
		name = pnstrdup(value.val.string.val, value.val.string.len);
		for (int i = 0; i < lengthof(members); i++)
			known = known || strcmp(name, members[i]) == 0;
		if (!known)
			refuse(where, psprintf("a filter has no member \"%s\"", name));
	}
	qs_json_check(where, filter);
}

static bool
is_shard_key(const JsonbValue *value)
{
	char	   *text;

	if (value->type != jbvNumeric)
		return value->type == jbvString;
	text = id_text(NumericGetDatum(value->val.numeric), NUMERICOID);
	return qs_is_unsigned_integer(text, (int) strlen(text));
}

static bool
is_shard_key_member(JsonbContainer *object, const char *name)
{
	JsonbValue *value = getKeyJsonValueFromContainer(object, name, strlen(name), NULL);

	return value != NULL && is_shard_key(value);
}

static bool
is_shard_key_selector(const JsonbValue *value)
{
	JsonbContainer *inside = value->type == jbvBinary ? value->val.binary.data : NULL;

	if (inside == NULL)
		return is_shard_key(value);
	if (JsonContainerIsObject(inside))
		return JsonContainerSize(inside) == 2 && is_shard_key_member(inside, "target") &&
			is_shard_key_member(inside, "fallback");
	for (int i = 0; i < JsonContainerSize(inside); i++)
	{
		if (!is_shard_key(getIthJsonbValueFromContainer(inside, i)))
			return false;
	}
	return true;
}

void
qs_check_shard_key(const char *where, JsonbValue *value)
{
	qs_json_check_value(where, value);
	if (!is_shard_key_selector(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s selects no shards", where),
				 errhint("It is a string, an integer from 0 on, an array of them, or {\"target\": ..., \"fallback\": ...}.")));
}

static char *
json_of(JsonbValue *value)
{
	Jsonb	   *jsonb = JsonbValueToJsonb(value);

	return JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
}

/* One of the two forms with a name in front, with a shard key or without. */
static void
read_named(QsSelector *selector, const char *where, JsonbContainer *object)
{
	JsonbValue	points;
	JsonbValue	filter;
	JsonbValue	shard_key;
	bool		has_points = getKeyJsonValueFromContainer(object, "points", 6, &points) != NULL;
	bool		has_filter = getKeyJsonValueFromContainer(object, "filter", 6, &filter) != NULL;
	bool		has_key = getKeyJsonValueFromContainer(object, "shard_key", 9, &shard_key) != NULL;

	if (has_points == has_filter || JsonContainerSize(object) != 1 + (has_key ? 1 : 0))
		refuse(where, "there is either \"points\" or \"filter\", and at most a \"shard_key\" beside it");
	if (has_key && shard_key.type != jbvNull)
	{
		qs_check_shard_key(psprintf("%s: \"shard_key\"", where), &shard_key);
		selector->shard_key = json_of(&shard_key);
	}
	if (has_points)
	{
		if (points.type != jbvBinary || !JsonContainerIsArray(points.val.binary.data))
			refuse(where, "\"points\" is not an array of ids");
		read_id_list(&selector->ids, where, points.val.binary.data);
		return;
	}
	if (filter.type != jbvBinary || !JsonContainerIsObject(filter.val.binary.data))
		refuse(where, "\"filter\" is not an object");
	qs_check_filter(where, filter.val.binary.data);
	selector->filter = json_of(&filter);
}

static void
read_object(QsSelector *selector, const char *where, Jsonb *object)
{
	JsonbValue	value;

	if (selector->only_ids && JB_ROOT_COUNT(object) == 0)
		return;
	if (selector->only_ids)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s: a JSON object is no id", where),
				 errhint(IDS_HINT)));
	if (getKeyJsonValueFromContainer(&object->root, "points", 6, &value) != NULL ||
		getKeyJsonValueFromContainer(&object->root, "filter", 6, &value) != NULL)
	{
		read_named(selector, where, &object->root);
		return;
	}
	if (JB_ROOT_COUNT(object) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s: {} may mean no point and every point", where),
				 errhint("No point is [], and every point is {\"filter\": {}}.")));
	qs_check_filter(where, &object->root);
	selector->filter = JsonbToCString(NULL, &object->root, VARSIZE(object));
}

static void
read_jsonb(QsSelector *selector, const char *where, Jsonb *jsonb)
{
	/* A scalar is an array of one to the iterator. */
	if (JB_ROOT_IS_ARRAY(jsonb))
		read_id_list(&selector->ids, where, &jsonb->root);
	else
		read_object(selector, where, jsonb);
}

/* ---- text ---- */

static const char *
skip_space(const char *c)
{
	while (isspace((unsigned char) *c))
		c++;
	return c;
}

/* Drivers send an array as {1,2} or {"1","2"}; in an object a colon follows the first string. */
static bool
is_array_text(const char *text)
{
	const char *c = skip_space(text);

	if (*c != '{')
		return false;
	c = skip_space(c + 1);
	if (*c == '}')
		return false;
	if (*c != '"')
		return true;
	for (c++; *c != '\0' && *c != '"'; c++)
	{
		if (*c == '\\' && c[1] != '\0')
			c++;
	}
	return *c == '"' && *skip_space(c + 1) != ':';
}

static void
read_array_text(QsSelector *selector, const char *where, char *text)
{
	FmgrInfo	array_input;
	Datum		array;

	fmgr_info(F_ARRAY_IN, &array_input);
	array = InputFunctionCall(&array_input, text, TEXTOID, -1);
	add_array(&selector->ids, where, DatumGetArrayTypeP(array));
}

static void
read_text(QsSelector *selector, const char *where, char *text)
{
	const char *c = skip_space(text);

	if (is_array_text(c))
		read_array_text(selector, where, text);
	else if (*c == '[' || *c == '{' || *c == '"')
		read_jsonb(selector, where,
				   DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text))));
	else
		add_value(&selector->ids, where, 0, CStringGetTextDatum(text), TEXTOID);
}

/* ---- the argument ---- */

static QS_NORETURN void
refuse_type(const QsSelector *selector, const char *where, Oid type)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("type %s of %s cannot name points", format_type_be(type), where),
			 selector->only_ids ? errhint(IDS_HINT) : errhint(SELECTOR_HINT)));
	pg_unreachable();
}

static void
read_typed(QsSelector *selector, const char *where, Datum value, Oid type)
{
	Oid			base = getBaseType(type);
	Oid			element = get_element_type(base);

	if (base == TEXTOID || base == VARCHAROID || base == BPCHAROID)
		read_text(selector, where, TextDatumGetCString(value));
	else if (base == JSONBOID)
		read_jsonb(selector, where, DatumGetJsonbP(value));
	else if (base == JSONOID)
		read_jsonb(selector, where,
				   DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
													  CStringGetDatum(TextDatumGetCString(value)))));
	else if (is_id_type(base))
		add_value(&selector->ids, where, 0, value, base);
	else if (OidIsValid(element) && is_id_type(getBaseType(element)))
		add_array(&selector->ids, where, DatumGetArrayTypeP(value));
	else
		refuse_type(selector, where, type);
}

static void
read_argument(FunctionCallInfo fcinfo, int argno, const char *name, bool only_ids,
			  QsSelector *selector)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, argno);

	if (!OidIsValid(type))
		elog(ERROR, "type of %s is not known", name);
	if (PG_ARGISNULL(argno))
		qs_refuse_null(name);
	memset(selector, 0, sizeof(*selector));
	selector->only_ids = only_ids;
	initStringInfo(&selector->ids);
	read_typed(selector, name, PG_GETARG_DATUM(argno), type);
}

void
qs_selector_read(FunctionCallInfo fcinfo, int argno, const char *name, QsSelector *selector)
{
	read_argument(fcinfo, argno, name, false, selector);
}

void
qs_selector_read_ids(FunctionCallInfo fcinfo, int argno, const char *name, QsSelector *selector)
{
	read_argument(fcinfo, argno, name, true, selector);
}

/* Neither digits nor a UUID have a comma in them. */
static void
write_ids(const char *ids, QsBodies *bodies)
{
	int			position = 1;

	qs_bodies_begin(bodies);
	while (*ids != '\0')
	{
		int			length = (int) strcspn(ids, ",");

		qs_bodies_add(bodies, position++, ids, length);
		ids += length;
		if (*ids == ',')
			ids++;
	}
	qs_bodies_end(bodies);
}

void
qs_selector_write(const QsSelector *selector, const char *after, QsBodySink sink, void *arg)
{
	QsBodies	bodies = {.sink = sink, .arg = arg};

	if (selector->filter == NULL)
	{
		bodies.before = "{\"points\":[";
		bodies.after = psprintf("]%s}", after);
		bodies.element = "element";
		write_ids(selector->ids.data, &bodies);
		return;
	}
	bodies.before = "{\"filter\":";
	bodies.after = psprintf("%s}", after);
	bodies.element = "filter";
	qs_bodies_begin(&bodies);
	qs_bodies_add(&bodies, 1, selector->filter, (int) strlen(selector->filter));
	qs_bodies_end(&bodies);
}
