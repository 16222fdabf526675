/*
 * compare.c
 *		A row's point, as it is sent, beside the point that Qdrant has: equal, or
 *		what is not.
 *
 * Runs in the session that verifies.  Pure: neither Qdrant nor a table is asked.
 *
 * Payload: Qdrant keeps integers of 64 bits exactly and every other number as a
 * double, so numbers are compared by value, and as doubles where ours is no such
 * integer.  Its JSON parser may miss the nearest double by one.
 *
 * Vectors: a number is read as a double and cut to a float; then float16 is the
 * nearest half, uint8 cuts off, and under Cosine the whole is divided by its length,
 * unless that is 0 or 1 already.  The sum of squares depends on the processor (its
 * order is that of the SIMD lanes), so the length is only known to a few units;
 * but all numbers are divided by the same one.  So the factor is taken from the
 * stored vector itself, has to be near enough to 1/length, and then every number
 * has to fit it to two units of a float.
 */
#include "qdrant_sync.h"
#include "common/parse_json.h"
#include "mirror/compare.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include <float.h>
#include <math.h>

/* Half a unit in the last place, relative, of float and of half; and half of half's least. */
#define FLOAT_HALF_UNIT (1.0 / (1 << 24))
#define HALF_HALF_UNIT (1.0 / (1 << 11))
#define HALF_LEAST (1.0 / (1 << 25))

/* Qdrant divides neither below this sum of squares nor this near to 1. */
#define NO_LENGTH FLT_EPSILON
#define NEAR_ONE 1.0e-6

/* Names that a difference lists. */
#define MAX_NAMES 5

typedef struct Differences
{
	StringInfoData text;
	int			n;
	const char *what;			/* of the last name */
} Differences;

/* ---- reading ---- */

/* A character beyond ASCII, the backslash and NUL, as text of ASCII in a JSON string. */
static void
append_character(StringInfo out, pg_wchar code)
{
	if (code == '"')
		appendStringInfoString(out, "\\\"");
	else if (code == '\\')
		appendStringInfoString(out, "\\\\\\\\");
	else if (code >= ' ' && code < 0x7F)
		appendStringInfoChar(out, (char) code);
	else
		appendStringInfo(out, "\\\\%x;", code);
}

static bool
read_hex(const char *text, pg_wchar *code)
{
	*code = 0;
	for (int i = 0; i < 4; i++)
	{
		char		c = text[i];
		int			digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 :
			c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;

		if (digit < 0)
			return false;
		*code = *code * 16 + digit;
	}
	return true;
}

/* The escape at text, behind its backslash; returns how long it was; 0: it is none. */
static int
read_escape(const char *text, pg_wchar *code)
{
	static const char escapes[] = "\"\\/bfnrt";
	static const char meanings[] = "\"\\/\b\f\n\r\t";
	const char *escape = *text != '\0' ? strchr(escapes, *text) : NULL;
	pg_wchar	low;

	if (escape != NULL)
	{
		*code = (unsigned char) meanings[escape - escapes];
		return 1;
	}
	if (*text != 'u' || !read_hex(text + 1, code))
		return 0;
	if (*code >= 0xD800 && *code < 0xDC00 && text[5] == '\\' && text[6] == 'u' &&
		read_hex(text + 7, &low) && low >= 0xDC00 && low < 0xE000)
	{
		*code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
		return 11;
	}
	return 5;
}

/* Characters beyond ASCII stand only in JSON's strings; NULL: not JSON. */
static char *
escape(const char *text)
{
	StringInfoData out;
	bool		in_string = false;

	initStringInfo(&out);
	while (*text != '\0')
	{
		pg_wchar	code = (unsigned char) *text;
		int			length = 1;

		if (!in_string || code == '"')
		{
			in_string ^= code == '"';
			appendStringInfoChar(&out, *text++);
			continue;
		}
		if (code == '\\')
		{
			length = read_escape(text + 1, &code);
			if (length++ == 0)
				return NULL;
		}
		else if (IS_HIGHBIT_SET(*text))
		{
			length = strnlen(text, pg_utf_mblen((const unsigned char *) text));
			code = utf8_to_unicode((const unsigned char *) text);
		}
		append_character(&out, code);
		text += length;
	}
	return out.data;
}

Jsonb *
qs_compare_parse(const char *text, bool escaped)
{
	const char *readable = escaped ? escape(text) : text;

	return readable == NULL ? NULL : qs_parse_json(readable);
}

JsonbValue *
qs_compare_member(JsonbContainer *object, const char *name)
{
	JsonbValue *value = getKeyJsonValueFromContainer(object, name, strlen(name), NULL);

	return value == NULL || value->type == jbvNull ? NULL : value;
}

static JsonbContainer *
as_object(const JsonbValue *value)
{
	return value != NULL && value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data)
		? value->val.binary.data : NULL;
}

static JsonbContainer *
as_array(const JsonbValue *value)
{
	return value != NULL && value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data)
		? value->val.binary.data : NULL;
}

static JsonbContainer *
object_member(JsonbContainer *object, const char *name)
{
	return object == NULL ? NULL : as_object(qs_compare_member(object, name));
}

/* ---- a collection's configuration ---- */

static bool
string_is(JsonbContainer *object, const char *name, const char *value)
{
	JsonbValue *member = qs_compare_member(object, name);

	return member != NULL && member->type == jbvString &&
		member->val.string.len == strlen(value) &&
		memcmp(member->val.string.val, value, strlen(value)) == 0;
}

static QsStoredAs
stored_as(JsonbContainer *config)
{
	if (qs_compare_member(config, "datatype") == NULL || string_is(config, "datatype", "float32"))
		return QS_STORED_FLOAT32;
	if (string_is(config, "datatype", "float16"))
		return QS_STORED_FLOAT16;
	return string_is(config, "datatype", "uint8") ? QS_STORED_UINT8 : QS_STORED_LOSSY;
}

/* Integers of a byte are not normalised: their metric divides instead. */
static void
add_stored(QsStoredVectors *stored, char *name, JsonbContainer *config)
{
	QsStoredVector *vector = &stored->vectors[stored->n++];

	vector->name = name;
	vector->stored_as = stored_as(config);
	vector->normalised = string_is(config, "distance", "Cosine") && vector->stored_as != QS_STORED_UINT8;
}

static void
read_stored(JsonbContainer *vectors, QsStoredVectors *stored)
{
	JsonbIterator *iterator = JsonbIteratorInit(vectors);
	JsonbValue	key;
	JsonbValue	value;

	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (as_object(&value) != NULL)
			add_stored(stored, pnstrdup(key.val.string.val, key.val.string.len), as_object(&value));
	}
}

bool
qs_stored_vectors(Jsonb *answer, QsStoredVectors *stored, int64 *points_count)
{
	JsonbContainer *result = object_member(&answer->root, "result");
	JsonbContainer *params = object_member(object_member(result, "config"), "params");
	JsonbContainer *vectors = object_member(params, "vectors");
	JsonbValue *count;

	stored->n = 0;
	stored->vectors = NULL;
	if (params == NULL)
		return false;
	count = qs_compare_member(result, "points_count");
	*points_count = count != NULL && count->type == jbvNumeric ?
		DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(count->val.numeric))) : 0;
	if (vectors == NULL)
		return true;
	stored->vectors = palloc((JsonContainerSize(vectors) + 1) * sizeof(QsStoredVector));
	count = qs_compare_member(vectors, "size");
	if (count != NULL && count->type == jbvNumeric)
		add_stored(stored, pstrdup(""), vectors);
	else
		read_stored(vectors, stored);
	return true;
}

/* ---- JSON values ---- */

static char *
number_text(const JsonbValue *value)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
}

/* What Qdrant keeps to the last digit. */
static bool
is_exact(const char *number)
{
	const char *digits = number + (*number == '-');

	if (digits[strspn(digits, "0123456789")] != '\0')
		return false;
	errno = 0;
	if (*number == '-')
		(void) strtoll(number, NULL, 10);
	else
		(void) strtoull(number, NULL, 10);
	return errno == 0;
}

static bool
same_number(const JsonbValue *ours, const JsonbValue *theirs)
{
	char	   *text;
	double		x;
	double		y;

	if (DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(ours->val.numeric),
										 NumericGetDatum(theirs->val.numeric))))
		return true;
	text = number_text(ours);
	if (is_exact(text))
		return false;
	x = strtod(text, NULL);
	y = strtod(number_text(theirs), NULL);
	return x == y || nextafter(x, y) == y;
}

static bool same_value(JsonbValue *ours, JsonbValue *theirs);

static bool
same_array(JsonbContainer *a, JsonbContainer *b)
{
	uint32		n = JsonContainerSize(a);

	if (n != JsonContainerSize(b))
		return false;
	for (uint32 i = 0; i < n; i++)
	{
		if (!same_value(getIthJsonbValueFromContainer(a, i), getIthJsonbValueFromContainer(b, i)))
			return false;
	}
	return true;
}

static void
add_difference(Differences *differences, const char *what, const char *name, int length)
{
	if (++differences->n > MAX_NAMES)
		return;
	if (differences->n > 1)
		appendStringInfoString(&differences->text, ", ");
	if (differences->what != what)
		appendStringInfoString(&differences->text, what);
	if (name != NULL)
		appendStringInfo(&differences->text, "%s\"%.*s\"", differences->what != what ? " " : "", length, name);
	differences->what = what;
}

/* Fields of the one that the other lacks or, where values is true, has otherwise. */
static bool
compare_fields(JsonbContainer *a, JsonbContainer *b, bool values, Differences *differences)
{
	JsonbIterator *iterator = JsonbIteratorInit(a);
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;
	bool		same = true;

	(void) JsonbIteratorNext(&iterator, &key, false);
	while ((token = JsonbIteratorNext(&iterator, &key, true)) == WJB_KEY)
	{
		JsonbValue *other = getKeyJsonValueFromContainer(b, key.val.string.val, key.val.string.len, NULL);

		(void) JsonbIteratorNext(&iterator, &value, true);
		if (other != NULL && (!values || same_value(&value, other)))
			continue;
		same = false;
		if (differences == NULL)
			break;
		add_difference(differences, "payload", key.val.string.val, key.val.string.len);
	}
	return same;
}

static bool
same_object(JsonbContainer *a, JsonbContainer *b)
{
	return JsonContainerSize(a) == JsonContainerSize(b) && compare_fields(a, b, true, NULL);
}

static bool
same_value(JsonbValue *a, JsonbValue *b)
{
	check_stack_depth();
	if (a->type != b->type)
		return false;
	switch (a->type)
	{
		case jbvNull:
			return true;
		case jbvBool:
			return a->val.boolean == b->val.boolean;
		case jbvNumeric:
			return same_number(a, b);
		case jbvString:
			return a->val.string.len == b->val.string.len &&
				memcmp(a->val.string.val, b->val.string.val, a->val.string.len) == 0;
		default:
			if (as_object(a) != NULL)
				return as_object(b) != NULL && same_object(as_object(a), as_object(b));
			return as_array(b) != NULL && same_array(as_array(a), as_array(b));
	}
}

static bool
is_empty(JsonbContainer *object)
{
	return object == NULL || JsonContainerSize(object) == 0;
}

/* A payload that is null and one without fields are one. */
static void
compare_payloads(JsonbContainer *ours, JsonbContainer *theirs, Differences *differences)
{
	if (is_empty(ours) && is_empty(theirs))
		return;
	if (is_empty(ours) || is_empty(theirs))
	{
		add_difference(differences, "payload", NULL, 0);
		return;
	}
	(void) compare_fields(ours, theirs, true, differences);
	(void) compare_fields(theirs, ours, false, differences);
}

/* ---- dense vectors ---- */

/* Numbers of an array; null, which is what Qdrant writes for it, is infinite. NULL: not numbers. */
static double *
read_numbers(JsonbContainer *array, int n)
{
	double	   *numbers = palloc_extended((n + 1) * sizeof(double), MCXT_ALLOC_HUGE);
	JsonbIterator *iterator = JsonbIteratorInit(array);
	JsonbValue	value;
	int			i = 0;

	(void) JsonbIteratorNext(&iterator, &value, false);
	while (JsonbIteratorNext(&iterator, &value, true) == WJB_ELEM)
	{
		char	   *text;

		if (value.type == jbvNull)
		{
			numbers[i++] = INFINITY;
			continue;
		}
		if (value.type != jbvNumeric)
			return NULL;
		text = number_text(&value);
		numbers[i++] = strtod(text, NULL);
		pfree(text);
	}
	return numbers;
}

/* The nearest half, as _Float16 would have it. */
static double
to_half(double value)
{
	float		number = (float) value;
	int			exponent;
	double		unit;

	if (number == 0 || isinf(number))
		return number;
	(void) frexp(number, &exponent);
	unit = ldexp(1, Max(exponent, -13) - 11);
	number = (float) (rint(number / unit) * unit);
	return fabs(number) > 65504 ? copysign(INFINITY, number) : number;
}

static double
to_byte(double value)
{
	return value <= 0 ? 0 : value >= 255 ? 255 : trunc(value);
}

static double
reduce(double value, QsStoredAs stored_as)
{
	switch (stored_as)
	{
		case QS_STORED_FLOAT16:
			return to_half(value);
		case QS_STORED_UINT8:
			return to_byte((float) value);
		default:
			return (float) value;
	}
}

/* A double that Qdrant's parser missed by one may be cut to another float. */
static bool
fits(double ours, double theirs, QsStoredAs stored_as)
{
	return reduce(ours, stored_as) == (float) theirs ||
		reduce(nextafter(ours, INFINITY), stored_as) == (float) theirs ||
		reduce(nextafter(ours, -INFINITY), stored_as) == (float) theirs;
}

static bool
all_fit(const double *ours, const double *theirs, int n, QsStoredAs stored_as)
{
	for (int i = 0; i < n; i++)
	{
		if (!fits(ours[i], theirs[i], stored_as))
			return false;
	}
	return true;
}

/*
 * Every number is factor times ours: to the rounding of one division and of what
 * it is stored as.
 */
static bool
all_scaled(const double *ours, const double *theirs, int n, double factor, QsStoredAs stored_as)
{
	double		relative = 4 * FLOAT_HALF_UNIT;
	double		absolute = 2 * FLT_TRUE_MIN;

	if (stored_as == QS_STORED_FLOAT16)
	{
		relative += HALF_HALF_UNIT + n * FLOAT_HALF_UNIT;
		absolute = HALF_LEAST * (1 + n * FLOAT_HALF_UNIT);
	}
	for (int i = 0; i < n; i++)
	{
		double		expected = factor * ours[i];

		if (!(fabs(theirs[i] - expected) <= fabs(expected) * relative + absolute))
			return false;
	}
	return true;
}

static double
dot(const double *a, const double *b, int n)
{
	double		sum = 0;

	for (int i = 0; i < n; i++)
		sum += a[i] * b[i];
	return sum;
}

static bool
is_zero(const double *numbers, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (numbers[i] != 0)
			return false;
	}
	return true;
}

/* n additions, each wrong by half a unit at most; a root halves that. */
static bool
same_direction(const double *ours, const double *theirs, int n, QsStoredAs stored_as)
{
	double		squares = dot(ours, ours, n);
	double		error = (n + 4) * FLOAT_HALF_UNIT;
	double		factor;

	if (squares <= NO_LENGTH * (1 + error) || fabs(squares - 1) <= NEAR_ONE + error)
	{
		if (all_fit(ours, theirs, n, stored_as))
			return true;
	}
	if (squares < NO_LENGTH * (1 - error))
		return false;
	/* The sum overflows a float, and what is divided by infinity is nothing. */
	if (squares * (1 + error) > FLT_MAX && is_zero(theirs, n))
		return true;
	factor = 1 / sqrt(squares);
	if (stored_as == QS_STORED_FLOAT16)
		return all_scaled(ours, theirs, n, factor, stored_as);
	factor = dot(ours, theirs, n) / squares;
	return fabs(factor * sqrt(squares) - 1) <= error && all_scaled(ours, theirs, n, factor, stored_as);
}

static bool
same_dense(JsonbContainer *ours, JsonbContainer *theirs, const QsStoredVector *stored)
{
	int			n = JsonContainerSize(ours);
	double	   *a;
	double	   *b;
	bool		same;

	if (n != JsonContainerSize(theirs))
		return false;
	if (stored->stored_as == QS_STORED_LOSSY)
		return true;
	a = read_numbers(ours, n);
	b = read_numbers(theirs, n);
	if (a == NULL || b == NULL)
		return false;
	for (int i = 0; i < n; i++)
	{
		a[i] = stored->normalised ? (float) a[i] : a[i];
		b[i] = (float) b[i];
	}
	same = stored->normalised ? same_direction(a, b, n, stored->stored_as)
		: all_fit(a, b, n, stored->stored_as);
	pfree(a);
	pfree(b);
	return same;
}

/* ---- sparse and multi-vectors ---- */

typedef struct SparseEntry
{
	double		index;
	double		value;
} SparseEntry;

static int
compare_entries(const void *a, const void *b)
{
	double		x = ((const SparseEntry *) a)->index;
	double		y = ((const SparseEntry *) b)->index;

	return (x > y) - (x < y);
}

/* Sorted by index; NULL: not a sparse vector. */
static SparseEntry *
read_sparse(JsonbContainer *sparse, int *n)
{
	JsonbContainer *indices = as_array(qs_compare_member(sparse, "indices"));
	JsonbContainer *values = as_array(qs_compare_member(sparse, "values"));
	double	   *a;
	double	   *b;
	SparseEntry *entries;

	if (indices == NULL || values == NULL || JsonContainerSize(indices) != JsonContainerSize(values))
		return NULL;
	*n = JsonContainerSize(indices);
	a = read_numbers(indices, *n);
	b = read_numbers(values, *n);
	if (a == NULL || b == NULL)
		return NULL;
	entries = palloc((*n + 1) * sizeof(SparseEntry));
	for (int i = 0; i < *n; i++)
		entries[i] = (SparseEntry) {a[i], b[i]};
	qsort(entries, *n, sizeof(SparseEntry), compare_entries);
	return entries;
}

static bool
same_sparse(JsonbContainer *ours, JsonbContainer *theirs)
{
	int			n = 0;
	int			m = 0;
	SparseEntry *a = read_sparse(ours, &n);
	SparseEntry *b = read_sparse(theirs, &m);

	if (a == NULL || b == NULL || n != m)
		return false;
	for (int i = 0; i < n; i++)
	{
		if (a[i].index != b[i].index || !fits(a[i].value, b[i].value, QS_STORED_FLOAT32))
			return false;
	}
	return true;
}

static bool
same_multi(JsonbContainer *ours, JsonbContainer *theirs, const QsStoredVector *stored)
{
	uint32		n = JsonContainerSize(ours);

	if (n != JsonContainerSize(theirs))
		return false;
	for (uint32 i = 0; i < n; i++)
	{
		JsonbContainer *a = as_array(getIthJsonbValueFromContainer(ours, i));
		JsonbContainer *b = as_array(getIthJsonbValueFromContainer(theirs, i));

		if (a == NULL || b == NULL || !same_dense(a, b, stored))
			return false;
	}
	return true;
}

static bool
is_multi(JsonbContainer *array)
{
	return JsonContainerSize(array) > 0 && as_array(getIthJsonbValueFromContainer(array, 0)) != NULL;
}

/* ---- all vectors of a point ---- */

static const QsStoredVector *
find_stored(const QsStoredVectors *stored, const char *name, int length)
{
	static const QsStoredVector as_sent = {"", false, QS_STORED_FLOAT32};

	for (int i = 0; i < stored->n; i++)
	{
		if (strlen(stored->vectors[i].name) == length && memcmp(stored->vectors[i].name, name, length) == 0)
			return &stored->vectors[i];
	}
	return &as_sent;
}

static bool
same_vector(const JsonbValue *ours, const JsonbValue *theirs, const QsStoredVector *stored)
{
	if (as_object(ours) != NULL)
		return as_object(theirs) != NULL && same_sparse(as_object(ours), as_object(theirs));
	if (as_array(ours) == NULL || as_array(theirs) == NULL)
		return false;
	if (is_multi(as_array(ours)))
		return same_multi(as_array(ours), as_array(theirs), stored);
	return same_dense(as_array(ours), as_array(theirs), stored);
}

/* Vectors of the one that the other lacks or, where values is true, has otherwise. */
static void
compare_named(JsonbContainer *a, JsonbContainer *b, bool values, const QsStoredVectors *stored,
			  Differences *differences)
{
	JsonbIterator *iterator = JsonbIteratorInit(a);
	JsonbValue	key;
	JsonbValue	value;

	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		JsonbValue *other = getKeyJsonValueFromContainer(b, key.val.string.val, key.val.string.len, NULL);

		(void) JsonbIteratorNext(&iterator, &value, true);
		if (other != NULL && (!values || same_vector(&value, other,
													 find_stored(stored, key.val.string.val, key.val.string.len))))
			continue;
		add_difference(differences, "vector", key.val.string.val, key.val.string.len);
	}
}

static void
compare_vectors(const JsonbValue *ours, const JsonbValue *theirs, const QsStoredVectors *stored,
				Differences *differences)
{
	JsonbContainer *a = as_object(ours);
	JsonbContainer *b = as_object(theirs);

	if (a != NULL && b != NULL)
	{
		compare_named(a, b, true, stored, differences);
		compare_named(b, a, false, stored, differences);
	}
	else if (ours == NULL || theirs == NULL || a != NULL || b != NULL ||
			 !same_vector(ours, theirs, find_stored(stored, "", 0)))
		add_difference(differences, "vector", NULL, 0);
}

char *
qs_compare_points(Jsonb *ours, JsonbContainer *theirs, const QsStoredVectors *stored)
{
	Differences differences = {.n = 0};

	initStringInfo(&differences.text);
	compare_vectors(qs_compare_member(&ours->root, "vector"), qs_compare_member(theirs, "vector"),
					stored, &differences);
	compare_payloads(object_member(&ours->root, "payload"), object_member(theirs, "payload"),
					 &differences);
	if (differences.n > MAX_NAMES)
		appendStringInfo(&differences.text, " and %d more", differences.n - MAX_NAMES);
	return differences.n > 0 ? differences.text.data : NULL;
}
