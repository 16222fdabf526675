/*
 * encode.c
 *		Vectors and strings to JSON.
 *
 * Sync worker.  Refuses, by a message, what Qdrant would store as something
 * else: NaN, infinity and values beyond a 32-bit float, bytes that are no UTF-8.
 */
#include "qdrant_sync.h"
#include "common/encode.h"

#include <float.h>
#include <math.h>

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* What pgvector stores for its type vector; we do not link against it. */
typedef struct PgVector
{
	int32		vl_len_;
	int16		dim;
	int16		unused;
	float		x[FLEXIBLE_ARRAY_MEMBER];
} PgVector;

char *
qs_check_raw_size(Datum value)
{
	Size		size = toast_raw_datum_size(value);

	if (size <= QS_VALUE_MAX_BYTES)
		return NULL;
	return psprintf("the value has %zu bytes, more than fit in one request to Qdrant", size);
}

/* --- floats --- */

/* Room for n floats as a JSON array; where the text goes. */
static char *
begin_floats(StringInfo out, int n)
{
	enlargeStringInfo(out, n * (QS_FLOAT_MAX_TEXT + 1) + 3);
	out->data[out->len] = '[';
	return out->data + out->len + 1;
}

/* end is behind the last comma, or behind the bracket where there is no float. */
static void
end_floats(StringInfo out, char *end, int n)
{
	if (n > 0)
		end--;
	*end++ = ']';
	*end = '\0';
	out->len = end - out->data;
}

bool
qs_append_floats(StringInfo out, const float *values, int n, int *bad)
{
	char	   *end = qs_put_floats(begin_floats(out, n), values, n, bad);

	if (end == NULL)
	{
		out->data[out->len] = '\0';
		return false;
	}
	end_floats(out, end, n);
	return true;
}

/* Rounding to nearest is what Qdrant would do with the longer text of the double. */
bool
qs_append_doubles(StringInfo out, const double *values, int n, int *bad)
{
	char	   *end = begin_floats(out, n);

	for (int i = 0; i < n; i++)
	{
		float		value = (float) values[i];

		if (unlikely(!isfinite(value)))
		{
			out->data[out->len] = '\0';
			*bad = i;
			return false;
		}
		end = qs_put_float(end, value);
		*end++ = ',';
	}
	end_floats(out, end, n);
	return true;
}

/* --- vectors --- */

/*
 * The extension may be in any schema, and any schema may have a type of this name:
 * only membership tells.
 */
static bool
is_pgvector(Oid type)
{
	Oid			extension = getExtensionOfObject(TypeRelationId, type);
	HeapTuple	tuple;
	bool		named;

	if (!OidIsValid(extension) || extension != get_extension_oid("vector", true))
		return false;
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		return false;
	named = strcmp(NameStr(((Form_pg_type) GETSTRUCT(tuple))->typname), "vector") == 0;
	ReleaseSysCache(tuple);
	return named;
}

QsVectorType
qs_vector_type(Oid type)
{
	type = getBaseType(type);
	if (type == FLOAT4ARRAYOID)
		return QS_VECTOR_FLOAT4_ARRAY;
	if (type == FLOAT8ARRAYOID)
		return QS_VECTOR_FLOAT8_ARRAY;
	return is_pgvector(type) ? QS_VECTOR_PGVECTOR : QS_VECTOR_NONE;
}

int
qs_vector_typmod_dimension(QsVectorType type, int32 typmod)
{
	return type == QS_VECTOR_PGVECTOR && typmod > 0 ? typmod : 0;
}

int
qs_vector_dimension(Datum value, QsVectorType type)
{
	struct varlena *vector;

	if (type == QS_VECTOR_NONE || qs_check_raw_size(value) != NULL)
		return 0;
	vector = PG_DETOAST_DATUM(value);
	if (type == QS_VECTOR_PGVECTOR)
		return ((PgVector *) vector)->dim;
	return ARR_NDIM((ArrayType *) vector) == 1 ? ARR_DIMS((ArrayType *) vector)[0] : 0;
}

/* dimension 0: the collection's is not known, any will do. */
static char *
check_length(int n, int dimension)
{
	if (n == 0)
		return pstrdup("the vector is empty");
	if (dimension != 0 && n != dimension)
		return psprintf("the vector has %d elements, and the collection's have %d", n, dimension);
	if (n > QS_MAX_DIMENSION)
		return psprintf("the vector has %d elements, and Qdrant takes at most %d", n, QS_MAX_DIMENSION);
	return NULL;
}

/* i counts from 0, as in C; the message counts as SQL does. */
static char *
not_finite(int i, double value)
{
	if (isnan(value))
		return psprintf("element %d of the vector is NaN", i + 1);
	if (isinf(value))
		return psprintf("element %d of the vector is infinite", i + 1);
	return psprintf("element %d of the vector is %g, beyond a 32-bit float", i + 1, value);
}

/* Only of an array that has a NULL. */
static char *
first_null(ArrayType *array)
{
	const bits8 *bitmap = ARR_NULLBITMAP(array);
	int			i = 0;

	while (bitmap[i / 8] & (1 << (i % 8)))
		i++;
	return psprintf("element %d of the vector is NULL", i + 1);
}

/* A bitmap of NULLs may be there though no element is NULL. */
static char *
check_array(ArrayType *array, int dimension)
{
	if (ARR_NDIM(array) > 1)
		return psprintf("the vector is an array of %d dimensions", ARR_NDIM(array));
	if (array_contains_nulls(array))
		return first_null(array);
	return check_length(ARR_NDIM(array) == 0 ? 0 : ARR_DIMS(array)[0], dimension);
}

/*
 * The struct is copied from no header: a later pgvector that stores something else
 * must not be sent as noise.  Its size and dimension have to agree.
 */
static char *
append_pgvector(StringInfo out, PgVector *vector, int dimension)
{
	char	   *message;
	int			bad;

	if (VARSIZE(vector) < offsetof(PgVector, x) || vector->dim < 0 ||
		VARSIZE(vector) != offsetof(PgVector, x) + vector->dim * sizeof(float))
		return pstrdup("the vector is not stored as this version of qdrant_sync knows it");
	message = check_length(vector->dim, dimension);
	if (message == NULL && !qs_append_floats(out, vector->x, vector->dim, &bad))
		message = not_finite(bad, vector->x[bad]);
	return message;
}

/* Straight from the array: it is not deconstructed, and inline not even copied. */
static char *
append_float4_array(StringInfo out, ArrayType *array, int dimension)
{
	char	   *message = check_array(array, dimension);
	const float *values = (const float *) ARR_DATA_PTR(array);
	int			bad;

	if (message == NULL && !qs_append_floats(out, values, ARR_DIMS(array)[0], &bad))
		message = not_finite(bad, values[bad]);
	return message;
}

static char *
append_float8_array(StringInfo out, ArrayType *array, int dimension)
{
	char	   *message = check_array(array, dimension);
	const double *values = (const double *) ARR_DATA_PTR(array);
	int			bad;

	if (message == NULL && !qs_append_doubles(out, values, ARR_DIMS(array)[0], &bad))
		message = not_finite(bad, values[bad]);
	return message;
}

char *
qs_append_vector(StringInfo out, Datum value, QsVectorType type, int dimension)
{
	char	   *message = qs_check_raw_size(value);
	struct varlena *detoasted;

	if (message != NULL)
		return message;
	detoasted = PG_DETOAST_DATUM(value);
	switch (type)
	{
		case QS_VECTOR_FLOAT4_ARRAY:
			return append_float4_array(out, (ArrayType *) detoasted, dimension);
		case QS_VECTOR_FLOAT8_ARRAY:
			return append_float8_array(out, (ArrayType *) detoasted, dimension);
		case QS_VECTOR_PGVECTOR:
			return append_pgvector(out, (PgVector *) detoasted, dimension);
		case QS_VECTOR_NONE:
			break;
	}
	elog(ERROR, "unrecognized vector type: %d", (int) type);
	return NULL;				/* keep the compiler quiet */
}

/* --- strings --- */

#define BYTES(byte) (UINT64CONST(0x0101010101010101) * (byte))

/* Nonzero where a byte of the word is zero. */
static inline uint64
zero_byte(uint64 word)
{
	return (word - BYTES(0x01)) & ~word & BYTES(0x80);
}

/* Bytes from text on that JSON takes as they are: all but controls, " and \. */
static int
plain_run(const char *text, int length)
{
	int			i = 0;

	while (i + (int) sizeof(uint64) <= length)
	{
		uint64		word;

		memcpy(&word, text + i, sizeof(word));
		if (((word - BYTES(0x20)) & ~word & BYTES(0x80)) != 0 ||
			zero_byte(word ^ BYTES('"')) != 0 || zero_byte(word ^ BYTES('\\')) != 0)
			break;
		i += sizeof(word);
	}
	while (i < length && (unsigned char) text[i] >= ' ' && text[i] != '"' && text[i] != '\\')
		i++;
	return i;
}

/* One of the characters that end a plain run. */
static void
append_escaped(StringInfo out, char c)
{
	switch (c)
	{
		case '"':
		case '\\':
			appendStringInfoChar(out, '\\');
			appendStringInfoChar(out, c);
			break;
		case '\n':
			appendBinaryStringInfo(out, "\\n", 2);
			break;
		case '\r':
			appendBinaryStringInfo(out, "\\r", 2);
			break;
		case '\t':
			appendBinaryStringInfo(out, "\\t", 2);
			break;
		default:
			appendStringInfo(out, "\\u%04x", (unsigned char) c);
	}
}

/* All server encodings contain ASCII as it is: no conversion then. */
static bool
is_ascii(const char *text, int length)
{
	for (int i = 0; i < length; i++)
		if (IS_HIGHBIT_SET(text[i]))
			return false;
	return true;
}

/* The database's encoding never changes, and pg_catalog's conversions are pinned. */
static Oid
conversion_to_utf8(void)
{
	static Oid	conversion = InvalidOid;

	if (!OidIsValid(conversion))
		conversion = FindDefaultConversionProc(GetDatabaseEncoding(), PG_UTF8);
	if (!OidIsValid(conversion))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("default conversion function for encoding \"%s\" to \"%s\" does not exist",
						GetDatabaseEncodingName(), "UTF8")));
	return conversion;
}

/*
 * The conversion is asked for no error: one bad character is this row's fault and
 * must not abort the read of the others.
 */
static char *
convert_to_utf8(const char *text, int length, const char **utf8, int *utf8_length)
{
	int			size = length * MAX_CONVERSION_GROWTH + 1;
	char	   *converted = palloc(size);
	int			done = pg_do_encoding_conversion_buf(conversion_to_utf8(), GetDatabaseEncoding(),
													 PG_UTF8, (unsigned char *) unconstify(char *, text),
													 length, (unsigned char *) converted, size, true);

	if (done < length)
		return psprintf("the character at byte %d has no equivalent in UTF-8", done + 1);
	*utf8 = converted;
	*utf8_length = strlen(converted);
	return NULL;
}

/*
 * Text in a UTF-8 database was checked when it was stored.  SQL_ASCII stores any
 * bytes; they are sent if they happen to be UTF-8.
 */
char *
qs_to_utf8(const char *text, int length, const char **utf8, int *utf8_length)
{
	int			encoding = GetDatabaseEncoding();

	*utf8 = text;
	*utf8_length = length;
	if (encoding == PG_UTF8 || is_ascii(text, length))
		return NULL;
	if (encoding != PG_SQL_ASCII)
		return convert_to_utf8(text, length, utf8, utf8_length);
	if (pg_verify_mbstr(PG_UTF8, text, length, true))
		return NULL;
	return pstrdup("the text is not valid UTF-8, and the database's encoding SQL_ASCII does not say what it is");
}

bool
qs_from_utf8(const char *utf8, const char **text)
{
	int			length = strlen(utf8);
	int			encoding = GetDatabaseEncoding();
	int			size = length * MAX_CONVERSION_GROWTH + 1;
	Oid			conversion;

	*text = utf8;
	if (is_ascii(utf8, length))
		return true;
	if (!pg_verify_mbstr(PG_UTF8, utf8, length, true))
		return false;
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return true;
	conversion = FindDefaultConversionProc(PG_UTF8, encoding);
	*text = palloc(size);
	return OidIsValid(conversion) &&
		pg_do_encoding_conversion_buf(conversion, PG_UTF8, encoding,
									  (unsigned char *) unconstify(char *, utf8), length,
									  (unsigned char *) unconstify(char *, *text), size, true) == length;
}

char *
qs_append_json_string(StringInfo out, const char *text, int length)
{
	char	   *message = qs_to_utf8(text, length, &text, &length);

	if (message != NULL)
		return message;
	appendStringInfoCharMacro(out, '"');
	for (;;)
	{
		int			run = plain_run(text, length);

		appendBinaryStringInfo(out, text, run);
		if (run == length)
			break;
		/* Control characters become six each. */
		if (unlikely(out->len > QS_VALUE_MAX_BYTES))
			return psprintf("the value has more than %d bytes as JSON", QS_VALUE_MAX_BYTES);
		append_escaped(out, text[run]);
		text += run + 1;
		length -= run + 1;
	}
	appendStringInfoCharMacro(out, '"');
	return NULL;
}
