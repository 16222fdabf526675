/*
 * filter.c
 *		qdrant_filter and the conditions that it is made of: SQL values to Qdrant's
 *		own JSON.
 *
 * Runs in backends; asks Qdrant nothing.  A NULL never makes a condition vanish,
 * which would show what it was to hide: it is an error, except for the bounds of
 * a range and the lists of a filter, whose defaults are NULL.  All is immutable:
 * types whose text depends on settings are refused, or written in UTC.
 */
#include "qdrant_sync.h"

#include "capture/point_id.h"
#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "client/call_arguments.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(qs_filter);
PG_FUNCTION_INFO_V1(qs_filter_match);
PG_FUNCTION_INFO_V1(qs_filter_match_text);
PG_FUNCTION_INFO_V1(qs_filter_range);
PG_FUNCTION_INFO_V1(qs_filter_has_id);
PG_FUNCTION_INFO_V1(qs_filter_is_null);
PG_FUNCTION_INFO_V1(qs_filter_is_empty);

/* Appends a value of that type; ERROR where it is none for this kind of condition. */
typedef void (*Writer) (StringInfo out, Datum value, Oid type);

static Datum
jsonb_of(const char *text)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
}

QS_NORETURN static void
refuse_null(const char *name, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("argument \"%s\" must not be NULL", name),
			 hint != NULL ? errhint("%s", hint) : 0));
	pg_unreachable();
}

QS_NORETURN static void
refuse_type(Oid type, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("type %s cannot be %s", format_type_be(type), what),
			 errhint("%s", hint)));
	pg_unreachable();
}

static void
append_output(StringInfo out, Datum value, Oid type)
{
	Oid			output;
	bool		varlena;

	getTypeOutputInfo(type, &output, &varlena);
	appendStringInfoString(out, OidOutputFunctionCall(output, value));
}

static void
append_string_value(StringInfo out, Datum value, Oid type)
{
	StringInfoData text;

	initStringInfo(&text);
	append_output(&text, value, type);
	escape_json(out, text.data);
}

/* ---- conditions ---- */

/* {"key": … of a condition on a field; the caller adds the rest. */
static void
begin_condition(StringInfo out, FunctionCallInfo fcinfo)
{
	initStringInfo(out);
	appendStringInfoString(out, "{\"key\":");
	escape_json(out, qs_argument_name(fcinfo, 0, "key"));
}

/* The elements of an array, or the value alone: a, b, c. */
static void
append_values(StringInfo out, FunctionCallInfo fcinfo, int argno, const char *name, Writer write)
{
	Oid			type = getBaseType(get_fn_expr_argtype(fcinfo->flinfo, argno));
	Oid			element = get_base_element_type(type);
	Datum	   *values;
	bool	   *nulls;
	int			n;
	int16		length;
	bool		by_value;
	char		align;

	if (!OidIsValid(element))
	{
		write(out, PG_GETARG_DATUM(argno), type);
		return;
	}
	get_typlenbyvalalign(element, &length, &by_value, &align);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argno), element, length, by_value, align,
					  &values, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("element %d of argument \"%s\" is NULL", i + 1, name)));
		if (i > 0)
			appendStringInfoChar(out, ',');
		write(out, values[i], getBaseType(element));
	}
}

static bool
is_array(FunctionCallInfo fcinfo, int argno)
{
	return OidIsValid(get_base_element_type(getBaseType(get_fn_expr_argtype(fcinfo->flinfo, argno))));
}

static void
write_match(StringInfo out, Datum value, Oid type)
{
	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case NAMEOID:
		case UUIDOID:
			append_string_value(out, value, type);
			break;
		case INT2OID:
		case INT4OID:
		case INT8OID:
			append_output(out, value, type);
			break;
		case BOOLOID:
			appendStringInfoString(out, DatumGetBool(value) ? "true" : "false");
			break;
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
			refuse_type(type, "matched", "Qdrant matches integers, texts and booleans. "
						"qdrant_range takes other numbers.");
		default:
			refuse_type(type, "matched", "Cast the value to text, bigint, boolean or uuid.");
	}
}

Datum
qs_filter_match(PG_FUNCTION_ARGS)
{
	StringInfoData out;
	bool		any = is_array(fcinfo, 1);

	begin_condition(&out, fcinfo);
	if (PG_ARGISNULL(1))
		refuse_null("value", "qdrant_is_null and qdrant_is_empty find points without a value.");
	appendStringInfoString(&out, any ? ",\"match\":{\"any\":[" : ",\"match\":{\"value\":");
	append_values(&out, fcinfo, 1, "value", write_match);
	appendStringInfoString(&out, any ? "]}}" : "}}");
	return jsonb_of(out.data);
}

Datum
qs_filter_match_text(PG_FUNCTION_ARGS)
{
	StringInfoData out;

	begin_condition(&out, fcinfo);
	appendStringInfoString(&out, ",\"match\":{\"text\":");
	escape_json(&out, qs_argument_name(fcinfo, 1, "words"));
	appendStringInfoString(&out, "}}");
	return jsonb_of(out.data);
}

/* A condition on nothing but the key. */
static Datum
of_key(FunctionCallInfo fcinfo, const char *kind)
{
	StringInfoData out;

	begin_condition(&out, fcinfo);
	return jsonb_of(psprintf("{\"%s\":%s}}", kind, out.data));
}

Datum
qs_filter_is_null(PG_FUNCTION_ARGS)
{
	return of_key(fcinfo, "is_null");
}

Datum
qs_filter_is_empty(PG_FUNCTION_ARGS)
{
	return of_key(fcinfo, "is_empty");
}

/* Ids come back as text, and are then written as such: digits are an integer. */
static void
write_id(StringInfo out, Datum value, Oid type)
{
	StringInfoData text;

	initStringInfo(&text);
	append_output(&text, value, type);
	if (type != TEXTOID && type != VARCHAROID && type != UUIDOID &&
		type != INT2OID && type != INT4OID && type != INT8OID &&
		(type != NUMERICOID || !qs_is_unsigned_integer(text.data, text.len)))
		refuse_type(type, "a point's id", "A point's id is an integer from 0 on, a uuid, or either as text.");
	if (text.len > 0 && text.len <= 20 && strspn(text.data, "0123456789") == text.len)
		appendStringInfoString(out, text.data[0] == '0' && text.len > 1 ?
							   text.data + Min(strspn(text.data, "0"), text.len - 1) : text.data);
	else
	{
		if (text.data[0] == '-' && type != UUIDOID)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" is not the id of a point", text.data),
					 errdetail("A point's id is an integer from 0 on or a uuid.")));
		/* Refuses what is no uuid. */
		append_string_value(out, DirectFunctionCall1(uuid_in, CStringGetDatum(text.data)), UUIDOID);
	}
}

Datum
qs_filter_has_id(PG_FUNCTION_ARGS)
{
	StringInfoData out;

	if (PG_ARGISNULL(0))
		refuse_null("ids", NULL);
	initStringInfo(&out);
	appendStringInfoString(&out, "{\"has_id\":[");
	append_values(&out, fcinfo, 0, "ids", write_id);
	appendStringInfoString(&out, "]}");
	return jsonb_of(out.data);
}

/* ---- ranges ---- */

QS_NORETURN static void
refuse_bound(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument \"%s\" is NaN or infinite", name),
			 errhint("Leave out the bound.")));
	pg_unreachable();
}

/* Floats as the shortest text that gives the same value back, whatever extra_float_digits. */
static char *
number_text(Datum value, Oid type)
{
	char		buffer[DOUBLE_SHORTEST_DECIMAL_LEN];
	Oid			output;
	bool		varlena;

	if (type == FLOAT8OID)
		double_to_shortest_decimal_buf(DatumGetFloat8(value), buffer);
	else if (type == FLOAT4OID)
		float_to_shortest_decimal_buf(DatumGetFloat4(value), buffer);
	else
	{
		getTypeOutputInfo(type, &output, &varlena);
		return OidOutputFunctionCall(output, value);
	}
	return pstrdup(buffer);
}

static void
append_number(StringInfo out, Datum value, Oid type, const char *name)
{
	char	   *text = number_text(value, type);

	if (strpbrk(text, "NIn") != NULL)
		refuse_bound(name);
	appendStringInfoString(out, text);
}

/* Of a finite value, which is kept in UTC. */
static int
year_of(Datum value, Oid type)
{
	struct pg_tm tm;
	fsec_t		fraction;

	if (type == DATEOID)
		j2date(DatumGetDateADT(value) + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	else if (timestamp2tm(DatumGetTimestamp(value), NULL, &tm, &fraction, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return tm.tm_year;
}

/*
 * In UTC, whatever TimeZone is; a timestamp without a zone is in UTC for Qdrant too.
 * RFC 3339 has years of four digits, and none before 1.
 */
static void
append_moment(StringInfo out, Datum value, Oid type, const char *name)
{
	char		buffer[MAXDATELEN + 1];
	int			utc = 0;

	if (type == DATEOID ? DATE_NOT_FINITE(DatumGetDateADT(value)) :
		TIMESTAMP_NOT_FINITE(DatumGetTimestamp(value)))
		refuse_bound(name);
	if (year_of(value, type) < 1 || year_of(value, type) > 9999)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is before the year 1 or after the year 9999", name),
				 errdetail("Qdrant has no such dates."),
				 errhint("Leave out the bound.")));
	JsonEncodeDateTime(buffer, value, type, type == TIMESTAMPTZOID ? &utc : NULL);
	escape_json(out, buffer);
}

static bool
is_number_text(const char *text)
{
	char	   *end;

	(void) strtod(text, &end);
	return end != text && end[strspn(end, " \t\r\n")] == '\0';
}

/* All dates and times that Qdrant reads begin with a date. */
static bool
begins_with_date(const char *text)
{
	static const char form[] = "dddd-dd-dd";

	for (const char *c = form; *c != '\0'; c++, text++)
	{
		if (*c == 'd' ? !isdigit((unsigned char) *text) : *text != *c)
			return false;
	}
	return true;
}

/* Qdrant compares no number with a text, and a number's text would be no date to it. */
static void
append_moment_text(StringInfo out, const char *text, const char *name)
{
	if (!begins_with_date(text))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is a text that is no date and time: \"%s\"", name, text),
				 is_number_text(text) ? errhint("Cast a number to its type, a parameter as in $1::numeric.") :
				 errhint("A bound is a number, a date or a timestamp.")));
	escape_json(out, text);
}

static void
append_bound(StringInfo out, Datum value, Oid type, const char *name)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
			append_number(out, value, type, name);
			break;
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			append_moment(out, value, type, name);
			break;
		case TEXTOID:
		case VARCHAROID:
			append_moment_text(out, TextDatumGetCString(value), name);
			break;
		default:
			refuse_type(type, "a bound of a range", "A bound is a number, a date or a timestamp.");
	}
}

Datum
qs_filter_range(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"gte", "gt", "lte", "lt"};
	StringInfoData out;
	int			bounds = 0;

	begin_condition(&out, fcinfo);
	appendStringInfoString(&out, ",\"range\":{");
	for (int i = 0; i < lengthof(names); i++)
	{
		if (PG_ARGISNULL(i + 1))
			continue;
		appendStringInfo(&out, "%s\"%s\":", bounds++ > 0 ? "," : "", names[i]);
		append_bound(&out, PG_GETARG_DATUM(i + 1),
					 getBaseType(get_fn_expr_argtype(fcinfo->flinfo, i + 1)), names[i]);
	}
	if (bounds == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("range has no bound"),
				 errhint("Give one or more of gte, gt, lte and lt.")));
	appendStringInfoString(&out, "}}");
	return jsonb_of(out.data);
}

/* ---- the filter ---- */

static Jsonb *
one_jsonb(Datum value, Oid type)
{
	Oid			output;
	bool		varlena;

	switch (type)
	{
		case JSONBOID:
			return DatumGetJsonbP(value);
		case UNKNOWNOID:
			return DatumGetJsonbP(jsonb_of(DatumGetCString(value)));
		case JSONOID:
		case TEXTOID:
		case VARCHAROID:
			getTypeOutputInfo(type, &output, &varlena);
			return DatumGetJsonbP(jsonb_of(OidOutputFunctionCall(output, value)));
		default:
			refuse_type(type, "a condition of a filter",
						"Conditions are jsonb or an array of jsonb.");
	}
}

QS_NORETURN static void
refuse_condition(const char *list, int n, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("condition %d of \"%s\" is %s", n, list, why),
			 errhint("A condition is a JSON object, as qdrant_match and qdrant_range make one.")));
	pg_unreachable();
}

static void
append_condition(StringInfo out, Jsonb *condition, const char *list, int *n)
{
	(*n)++;
	if (!JB_ROOT_IS_OBJECT(condition))
		refuse_condition(list, *n, "not a JSON object");
	if (*n > 1)
		appendStringInfoChar(out, ',');
	JsonbToCString(out, &condition->root, VARSIZE(condition));
}

/* A condition, or a JSON array of conditions. */
static void
append_conditions(StringInfo out, Jsonb *jsonb, const char *list, int *n)
{
	if (!JB_ROOT_IS_ARRAY(jsonb) || JB_ROOT_IS_SCALAR(jsonb))
	{
		append_condition(out, jsonb, list, n);
		return;
	}
	for (int i = 0; i < JB_ROOT_COUNT(jsonb); i++)
		append_condition(out, JsonbValueToJsonb(getIthJsonbValueFromContainer(&jsonb->root, i)), list, n);
}

/* An SQL array of conditions. */
static void
append_array(StringInfo out, ArrayType *array, const char *list, int *n)
{
	Oid			element = ARR_ELEMTYPE(array);
	Datum	   *values;
	bool	   *nulls;
	int			count;
	int16		length;
	bool		by_value;
	char		align;

	get_typlenbyvalalign(element, &length, &by_value, &align);
	deconstruct_array(array, element, length, by_value, align, &values, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			refuse_condition(list, *n + 1, "NULL");
		append_condition(out, one_jsonb(values[i], getBaseType(element)), list, n);
	}
}

/*
 * Qdrant takes a list of alternatives that is empty for no condition at all, which
 * would let every point through: some is set, and the list then gets one that no
 * point passes, since no id is in an empty list.
 */
static void
append_list(StringInfo out, FunctionCallInfo fcinfo, int argno, const char *list, bool some)
{
	Oid			type = getBaseType(get_fn_expr_argtype(fcinfo->flinfo, argno));
	int			n = 0;

	appendStringInfoChar(out, '[');
	if (OidIsValid(get_base_element_type(type)))
		append_array(out, PG_GETARG_ARRAYTYPE_P(argno), list, &n);
	else
		append_conditions(out, one_jsonb(PG_GETARG_DATUM(argno), type), list, &n);
	if (some && n == 0)
		appendStringInfoString(out, "{\"has_id\":[]}");
	appendStringInfoChar(out, ']');
}

static void
append_min_should(StringInfo out, FunctionCallInfo fcinfo, int conditions, int count)
{
	if (PG_ARGISNULL(conditions) && PG_ARGISNULL(count))
		return;
	if (PG_ARGISNULL(conditions) || PG_ARGISNULL(count))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("arguments \"min_should\" and \"min_count\" belong together")));
	appendStringInfo(out, "%s\"min_should\":{\"min_count\":%d,\"conditions\":", out->len > 1 ? "," : "",
					 qs_argument_int(fcinfo, count, "min_count", 0, 0));
	append_list(out, fcinfo, conditions, "min_should", true);
	appendStringInfoChar(out, '}');
}

Datum
qs_filter(PG_FUNCTION_ARGS)
{
	static const char *const lists[] = {"must", "should", "must_not"};
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoChar(&out, '{');
	for (int i = 0; i < lengthof(lists); i++)
	{
		if (PG_ARGISNULL(i))
			continue;
		appendStringInfo(&out, "%s\"%s\":", out.len > 1 ? "," : "", lists[i]);
		append_list(&out, fcinfo, i, lists[i], strcmp(lists[i], "should") == 0);
	}
	append_min_should(&out, fcinfo, 3, 4);
	appendStringInfoChar(&out, '}');
	return jsonb_of(out.data);
}
