/*
 * query_argument.c
 *		A query of any usual type to the JSON that Qdrant takes.
 *
 * Runs in backends.  Refuses what Qdrant would misread or answer with a message
 * that names nothing: NaN, infinity, values beyond a 32-bit float, NULL elements,
 * empty vectors, numbers that are neither an id nor a vector.
 */
#include "qdrant_sync.h"

#include <float.h>
#include <math.h>

#include "capture/point_id.h"
#include "catalog/pg_type.h"
#include "client/body.h"
#include "client/query_argument.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "common/encode.h"
#include "common/pgvector.h"
#include "common/vector.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/uuid.h"

/* How a type is read. */
typedef enum ArgumentForm
{
	FORM_NONE,
	FORM_TEXT,
	FORM_JSON,
	FORM_JSONB,
	FORM_INTEGER,
	FORM_NUMERIC,				/* an id that no bigint can hold */
	FORM_UUID,
	FORM_ARRAY,					/* of numbers */
	FORM_VECTOR,				/* pgvector's */
	FORM_HALFVEC,
	FORM_SPARSEVEC
} ArgumentForm;

/* In fn_extra: what was found for the argument's type. */
typedef struct KnownType
{
	Oid			type;
	Oid			base;
	ArgumentForm form;
} KnownType;

QS_NORETURN static void refuse(const char *format,...) pg_attribute_printf(1, 2);

static void
refuse(const char *format,...)
{
	char		message[256];
	va_list		args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg_internal("%s", message)));
	pg_unreachable();
}

/* ---- numbers ---------------------------------------------------------- */

static void
check_dimension(int n)
{
	if (n == 0)
		refuse("query vector is empty");
	if (n > QS_MAX_DIMENSION)
		refuse("query vector has %d elements, and Qdrant takes at most %d", n, QS_MAX_DIMENSION);
}

QS_NORETURN static void
refuse_number(int at, double value)
{
	if (isnan(value))
		refuse("element %d of the query vector is NaN", at + 1);
	if (isinf(value))
		refuse("element %d of the query vector is infinite", at + 1);
	refuse("element %d of the query vector is %g, beyond a 32-bit float", at + 1, value);
}

static void
append_numbers(StringInfo out, const double *values, int n)
{
	int			bad;

	check_dimension(n);
	if (!qs_append_doubles(out, values, n, &bad))
		refuse_number(bad, values[bad]);
}

static void
append_floats(StringInfo out, const float *values, int n)
{
	int			bad;

	check_dimension(n);
	if (!qs_append_floats(out, values, n, &bad))
		refuse_number(bad, values[bad]);
}

/* indices count from 0.  Unlike a dense vector it may be empty. */
static void
append_sparse(StringInfo out, const int32 *indices, const double *values, int n)
{
	appendStringInfoString(out, "{\"indices\":[");
	for (int i = 0; i < n; i++)
		appendStringInfo(out, "%s%d", i > 0 ? "," : "", indices[i]);
	appendStringInfoString(out, "],\"values\":");
	if (n == 0)
		appendStringInfoString(out, "[]");
	else
		append_numbers(out, values, n);
	appendStringInfoChar(out, '}');
}

/* ---- arrays ----------------------------------------------------------- */

static bool
is_number_type(Oid type)
{
	return type == FLOAT4OID || type == FLOAT8OID || type == NUMERICOID ||
		type == INT2OID || type == INT4OID || type == INT8OID;
}

static double
number_of(Datum value, Oid type)
{
	switch (type)
	{
		case FLOAT4OID:
			return DatumGetFloat4(value);
		case FLOAT8OID:
			return DatumGetFloat8(value);
		case NUMERICOID:
			return DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow, value));
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		default:
			return DatumGetInt64(value);
	}
}

/* All elements, in the order of storage; lower bounds do not matter. */
static double *
array_numbers(ArrayType *array, int *n)
{
	Oid			type = ARR_ELEMTYPE(array);
	Oid			base = getBaseType(type);
	int16		length;
	bool		by_value;
	char		align;
	Datum	   *elements;
	bool	   *nulls;
	double	   *numbers;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	deconstruct_array(array, type, length, by_value, align, &elements, &nulls, n);
	numbers = palloc((*n + 1) * sizeof(double));
	for (int i = 0; i < *n; i++)
	{
		if (nulls[i])
			refuse("element %d of the query vector is NULL", i + 1);
		numbers[i] = number_of(elements[i], base);
	}
	return numbers;
}

static void
append_row(StringInfo out, const double *numbers, int n)
{
	int			begin = out->len;

	append_numbers(out, numbers, n);
	qs_fraction_in_row(out, begin);
}

/* One dimension is a vector, two are a multi-vector. */
static void
append_array(StringInfo out, ArrayType *array)
{
	int			n;
	double	   *numbers;
	int			width;

	/* The usual case, without a copy. */
	if (ARR_ELEMTYPE(array) == FLOAT4OID && ARR_NDIM(array) == 1 && !array_contains_nulls(array))
	{
		append_floats(out, (float *) ARR_DATA_PTR(array), ARR_DIMS(array)[0]);
		return;
	}
	numbers = array_numbers(array, &n);
	if (ARR_NDIM(array) > 2)
		refuse("query is an array of %d dimensions", ARR_NDIM(array));
	if (ARR_NDIM(array) < 2)
	{
		append_numbers(out, numbers, n);
		return;
	}
	width = ARR_DIMS(array)[1];
	for (int i = 0; i < n; i += width)
	{
		appendStringInfoChar(out, i == 0 ? '[' : ',');
		append_row(out, numbers + i, width);
	}
	appendStringInfoChar(out, ']');
}

/* ---- pgvector --------------------------------------------------------- */

QS_NORETURN static void
refuse_storage(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("query is not stored as this version of qdrant_sync knows pgvector's types"),
			 errhint("Cast the query to real[].")));
	pg_unreachable();
}

static double *
doubles_of(const float *values, int n)
{
	double	   *numbers = palloc((n + 1) * sizeof(double));

	for (int i = 0; i < n; i++)
		numbers[i] = values[i];
	return numbers;
}

static void
append_vector(StringInfo out, Datum value, QsPgvector type)
{
	const float *values;
	int			n;

	if (!qs_pgvector_floats(PG_DETOAST_DATUM(value), type, &values, &n))
		refuse_storage();
	append_floats(out, values, n);
}

static void
append_sparsevec(StringInfo out, Datum value)
{
	QsPgvectorSparse sparse;

	if (!qs_pgvector_sparse(PG_DETOAST_DATUM(value), &sparse))
		refuse_storage();
	append_sparse(out, sparse.indices, doubles_of(sparse.values, sparse.n), sparse.n);
}

/* ---- JSON ------------------------------------------------------------- */

/* An array of numbers, or of arrays of numbers (nested). */
static void
append_json_array(StringInfo out, JsonbContainer *array, bool nested)
{
	int			n = JsonContainerSize(array);
	double	   *numbers = palloc((n + 1) * sizeof(double));
	int			done = 0;

	for (int i = 0; i < n; i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(array, i);

		if (element->type == jbvBinary && JsonContainerIsArray(element->val.binary.data) &&
			!nested && done == 0)
		{
			appendStringInfoChar(out, i == 0 ? '[' : ',');
			append_json_array(out, element->val.binary.data, true);
		}
		else if (element->type == jbvNumeric && done == i)
			numbers[done++] = number_of(NumericGetDatum(element->val.numeric), NUMERICOID);
		else if (element->type == jbvNull)
			refuse("element %d of the query vector is null", i + 1);
		else
			refuse("element %d of the query vector is not a number", i + 1);
	}
	if (done == n && nested)
		append_row(out, numbers, n);
	else if (done == n)
		append_numbers(out, numbers, n);
	else
		appendStringInfoChar(out, ']');
}

static bool
uuid_text_ok(const char *text)
{
	int			digits = 0;

	for (; *text; text++)
	{
		if (isxdigit((unsigned char) *text))
			digits++;
		else if (*text != '-')
			return false;
	}
	return digits == 32;
}

/* A number or string alone is the id of a point. */
static void
append_json_scalar(StringInfo out, Jsonb *jsonb)
{
	JsonbValue *value = getIthJsonbValueFromContainer(&jsonb->root, 0);
	char	   *text = "";

	if (value->type == jbvNumeric)
	{
		text = numeric_normalize(value->val.numeric);
		if (strspn(text, "0123456789") == strlen(text))
		{
			appendStringInfoString(out, text);
			return;
		}
	}
	else if (value->type == jbvString)
	{
		text = pnstrdup(value->val.string.val, value->val.string.len);
		if (uuid_text_ok(text))
		{
			appendStringInfo(out, "\"%s\"", text);
			return;
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("query is a JSON value that is neither a vector, a query object nor a point's id"),
			 errdetail("A point's id is an integer from 0 on or a uuid.")));
}

static bool
is_sparse_object(JsonbContainer *object)
{
	JsonbValue	indices;
	JsonbValue	values;

	return JsonContainerSize(object) == 2 &&
		getKeyJsonValueFromContainer(object, "indices", 7, &indices) != NULL &&
		getKeyJsonValueFromContainer(object, "values", 6, &values) != NULL;
}

static QsQueryKind
append_json(StringInfo out, Jsonb *jsonb)
{
	if (JB_ROOT_IS_SCALAR(jsonb))
	{
		append_json_scalar(out, jsonb);
		return QS_QUERY_ID;
	}
	if (JB_ROOT_IS_ARRAY(jsonb))
	{
		append_json_array(out, &jsonb->root, false);
		return QS_QUERY_VECTOR;
	}
	if (JB_ROOT_COUNT(jsonb) == 0)
		refuse("query is an empty JSON object");
	qs_append_jsonb(out, jsonb);
	return is_sparse_object(&jsonb->root) ? QS_QUERY_VECTOR : QS_QUERY_OBJECT;
}

/* ---- text ------------------------------------------------------------- */

static const char *
skip_space(const char *c)
{
	while (isspace((unsigned char) *c))
		c++;
	return c;
}

QS_NORETURN static void
refuse_text(const char *text)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("query is not understood: \"%.*s%s\"",
					pg_mbcliplen(text, strlen(text), 40), text, strlen(text) > 40 ? "..." : ""),
			 errhint("A query is a vector such as [0.1, 0.2], {0.1,0.2} or, sparse, {1:0.5,3:0.2}/4, "
					 "or a query object of Qdrant's in JSON. "
					 "An id is given as bigint or uuid.")));
	pg_unreachable();
}

static Jsonb *
json_of_text(const char *text)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

/*
 * "[1, 2.5, …]" read directly: a literal may hold thousands of numbers.  False
 * where it holds anything else, which JSON's parser then reads or refuses.
 */
static bool
append_number_list(StringInfo out, const char *text)
{
	const char *c = skip_space(text + 1);
	int			room = 1024;
	int			n = 0;
	double	   *numbers = palloc(room * sizeof(double));

	while (*c != '\0' && strchr("[{\"]", *c) == NULL)
	{
		char	   *end;

		if (n == room)
			numbers = repalloc(numbers, (room *= 2) * sizeof(double));
		if (pg_strncasecmp(c, "null", 4) == 0)
			refuse("element %d of the query vector is NULL", n + 1);
		numbers[n++] = strtod(c, &end);
		if (end == c)
			return false;
		c = skip_space(end);
		if (*c == ',')
			c = skip_space(c + 1);
		else if (*c != ']')
			return false;
	}
	if (*c != ']' || *skip_space(c + 1) != '\0')
		return false;
	append_numbers(out, numbers, n);
	return true;
}

/* One "index:value"; returns what follows it. */
static const char *
read_sparse_element(const char *text, const char *c, int32 *index, double *value)
{
	char	   *end;
	long		number = strtol(c, &end, 10);

	if (end == c || *skip_space(end) != ':')
		refuse_text(text);
	c = skip_space(end) + 1;
	if (number < 1 || number > PG_INT32_MAX)
		refuse("index %ld of the sparse query vector is not between 1 and its dimension", number);
	*index = number - 1;
	*value = strtod(c, &end);
	if (end == c)
		refuse_text(text);
	return skip_space(end);
}

/* pgvector's "{index:value,…}/dimension", indices from 1. */
static void
append_sparse_text(StringInfo out, const char *text)
{
	const char *c = text;
	int			room = 1;
	int			n = 0;
	int32	   *indices;
	double	   *values;
	char	   *end;
	long		dimension;

	for (const char *comma = c; *comma; comma++)
		room += *comma == ',';
	indices = palloc(room * sizeof(int32));
	values = palloc(room * sizeof(double));
	if (*skip_space(c + 1) == '}')
		c = skip_space(c + 1);
	else
	{
		do
		{
			c = read_sparse_element(text, c + 1, &indices[n], &values[n]);
			n++;
		} while (*c == ',');
	}
	if (*c != '}' || *(c = skip_space(c + 1)) != '/')
		refuse_text(text);
	dimension = strtol(c + 1, &end, 10);
	if (end == c + 1 || *skip_space(end) != '\0')
		refuse_text(text);
	for (int i = 0; i < n; i++)
		if (indices[i] >= dimension)
			refuse("index %d of the sparse query vector is not between 1 and its dimension", indices[i] + 1);
	append_sparse(out, indices, values, n);
}

static void
append_array_text(StringInfo out, const char *text)
{
	Datum		array = OidFunctionCall3(F_ARRAY_IN, CStringGetDatum(text),
										 ObjectIdGetDatum(FLOAT8OID), Int32GetDatum(-1));

	append_array(out, DatumGetArrayTypeP(array));
}

/* '{' begins a JSON object, a sparse vector or an array: what follows the first word says which. */
static char
sign_of_braces(const char *text)
{
	const char *c = skip_space(text + 1);

	if (*c == '"')
	{
		for (c++; *c != '\0' && *c != '"'; c++)
			if (*c == '\\' && c[1] != '\0')
				c++;
		c = *c == '"' ? skip_space(c + 1) : c;
		return *c == ':' ? 'o' : 'a';
	}
	if (*c == '}')
		return *skip_space(c + 1) == '/' ? 's' : 'a';
	return c[strcspn(c, ":,}{")] == ':' ? 's' : 'a';
}

static QsQueryKind
append_text_query(StringInfo out, const char *text)
{
	const char *c = skip_space(text);

	if (*c == '[')
	{
		if (strstr(c, "]=") != NULL)
			append_array_text(out, c);
		else if (!append_number_list(out, c))
			return append_json(out, json_of_text(c));
		return QS_QUERY_VECTOR;
	}
	if (*c != '{')
		refuse_text(text);
	switch (sign_of_braces(c))
	{
		case 'o':
			return append_json(out, json_of_text(c));
		case 's':
			append_sparse_text(out, c);
			break;
		default:
			append_array_text(out, c);
	}
	return QS_QUERY_VECTOR;
}

/* ---- types ------------------------------------------------------------ */

static ArgumentForm
form_of_pgvector(Oid type)
{
	switch (qs_pgvector_type(type))
	{
		case QS_PGVECTOR_VECTOR:
			return FORM_VECTOR;
		case QS_PGVECTOR_HALFVEC:
			return FORM_HALFVEC;
		case QS_PGVECTOR_SPARSEVEC:
			return FORM_SPARSEVEC;
		default:
			return FORM_NONE;
	}
}

static ArgumentForm
form_of(Oid type)
{
	Oid			element;

	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return FORM_TEXT;
		case JSONOID:
			return FORM_JSON;
		case JSONBOID:
			return FORM_JSONB;
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return FORM_INTEGER;
		case NUMERICOID:
			return FORM_NUMERIC;
		case UUIDOID:
			return FORM_UUID;
		default:
			break;
	}
	element = get_element_type(type);
	if (OidIsValid(element))
		return is_number_type(getBaseType(element)) ? FORM_ARRAY : FORM_NONE;
	return form_of_pgvector(type);
}

static const char *
hint_for_type(Oid type)
{
	if (type == FLOAT4OID || type == FLOAT8OID || type == NUMERICOID)
		return "A vector is an array, such as ARRAY[0.1, 0.2] or '[0.1, 0.2]'; an id is a bigint.";
	if (type == TEXTARRAYOID || type == VARCHARARRAYOID)
		return "Cast the query to real[].";
	return "A query is a vector (text, real[], float8[], numeric[], pgvector's types), "
		"a query object of Qdrant's (jsonb), or a point's id (bigint, uuid).";
}

QS_NORETURN static void
refuse_type(Oid type, Oid base)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("type %s cannot be a query", format_type_be(type)),
			 errhint("%s", hint_for_type(base))));
	pg_unreachable();
}

static KnownType *
know_type(FunctionCallInfo fcinfo, int argno)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, argno);
	KnownType  *known = fcinfo->flinfo->fn_extra;

	if (known != NULL && known->type == type)
		return known;
	if (!OidIsValid(type))
		elog(ERROR, "type of the query is not known");
	known = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt, sizeof(KnownType));
	known->type = type;
	known->base = getBaseType(type);
	known->form = form_of(known->base);
	if (known->form == FORM_NONE)
		refuse_type(type, known->base);
	fcinfo->flinfo->fn_extra = known;
	return known;
}

static void
append_integer(StringInfo out, Datum value, Oid type)
{
	int64		id;

	if (type == INT2OID)
		id = DatumGetInt16(value);
	else if (type == INT4OID)
		id = DatumGetInt32(value);
	else
		id = DatumGetInt64(value);
	if (id < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("query " INT64_FORMAT " is not the id of a point", id),
				 errdetail("A point's id is an integer from 0 on or a uuid."),
				 errhint("A row with that key is named by like_key => '" INT64_FORMAT "' of qdrant_search.", id)));
	appendStringInfo(out, INT64_FORMAT, id);
}

/* Ids go up to 2^64 - 1, and a literal or parameter beyond bigint is numeric. */
static void
append_numeric(StringInfo out, Datum value)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out, value));

	if (!qs_is_unsigned_integer(text, (int) strlen(text)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("query %s is not the id of a point", text),
				 errdetail("A point's id is an integer from 0 to 2^64 - 1 or a uuid."),
				 errhint("%s", hint_for_type(NUMERICOID))));
	appendStringInfoString(out, text);
}

static QsQueryKind
append_value(StringInfo out, Datum value, const KnownType *known)
{
	switch (known->form)
	{
		case FORM_TEXT:
			return append_text_query(out, TextDatumGetCString(value));
		case FORM_JSON:
			return append_json(out, json_of_text(TextDatumGetCString(value)));
		case FORM_JSONB:
			return append_json(out, DatumGetJsonbP(value));
		case FORM_INTEGER:
			append_integer(out, value, known->base);
			return QS_QUERY_ID;
		case FORM_NUMERIC:
			append_numeric(out, value);
			return QS_QUERY_ID;
		case FORM_UUID:
			appendStringInfo(out, "\"%s\"", DatumGetCString(DirectFunctionCall1(uuid_out, value)));
			return QS_QUERY_ID;
		case FORM_ARRAY:
			append_array(out, DatumGetArrayTypeP(value));
			break;
		case FORM_SPARSEVEC:
			append_sparsevec(out, value);
			break;
		default:
			append_vector(out, value, known->form == FORM_HALFVEC ? QS_PGVECTOR_HALFVEC : QS_PGVECTOR_VECTOR);
	}
	return QS_QUERY_VECTOR;
}

QsQuery
qs_query_argument(FunctionCallInfo fcinfo, int argno)
{
	QsQuery		query = {QS_QUERY_NULL, NULL};
	KnownType  *known = know_type(fcinfo, argno);
	StringInfoData out;

	if (PG_ARGISNULL(argno))
		return query;
	initStringInfo(&out);
	query.kind = append_value(&out, PG_GETARG_DATUM(argno), known);
	query.json = out.data;
	return query;
}

Jsonb *
qs_query_argument_object(FunctionCallInfo fcinfo, int argno)
{
	Datum		value = PG_GETARG_DATUM(argno);

	if (know_type(fcinfo, argno)->form == FORM_JSONB)
		return DatumGetJsonbP(value);
	return json_of_text(TextDatumGetCString(value));
}
