/*
 * vector.c
 *		The vectors of a point to JSON: dense, multi and sparse ones.
 *
 * Sync worker, and sessions for what a type is.  Refuses, by a message, what
 * Qdrant would refuse with the whole request or store as something else.
 */
#include "qdrant_sync.h"
#include "common/encode.h"
#include "common/pgvector.h"
#include "common/vector.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"

/* Qdrant's own bound on the numbers of one multi-vector. */
#define MAX_MULTI_ELEMENTS 1048576

/* What a half float of Qdrant's rounds to infinity; 65504 is the largest. */
#define HALF_OVERFLOW 65520

/* ---- types ---- */

static QsVectorType
array_of(QsPgvector element)
{
	switch (element)
	{
		case QS_PGVECTOR_VECTOR:
			return QS_VECTOR_PGVECTOR_ARRAY;
		case QS_PGVECTOR_HALFVEC:
			return QS_VECTOR_HALFVEC_ARRAY;
		default:
			return QS_VECTOR_NONE;
	}
}

QsVectorType
qs_vector_type(Oid type)
{
	Oid			element;

	type = getBaseType(type);
	if (type == FLOAT4ARRAYOID)
		return QS_VECTOR_FLOAT4_ARRAY;
	if (type == FLOAT8ARRAYOID)
		return QS_VECTOR_FLOAT8_ARRAY;
	if (type == JSONBOID)
		return QS_VECTOR_JSONB;
	element = get_element_type(type);
	if (OidIsValid(element))
		return array_of(qs_pgvector_type(element));
	switch (qs_pgvector_type(type))
	{
		case QS_PGVECTOR_VECTOR:
			return QS_VECTOR_PGVECTOR;
		case QS_PGVECTOR_HALFVEC:
			return QS_VECTOR_HALFVEC;
		case QS_PGVECTOR_SPARSEVEC:
			return QS_VECTOR_SPARSEVEC;
		default:
			return QS_VECTOR_NONE;
	}
}

bool
qs_is_vector_type(Oid type)
{
	QsVectorType vector = qs_vector_type(type);

	return vector != QS_VECTOR_NONE && vector != QS_VECTOR_JSONB;
}

static bool
is_sparse(QsVectorType type)
{
	return type == QS_VECTOR_SPARSEVEC || type == QS_VECTOR_JSONB;
}

static bool
is_array_of_pgvector(QsVectorType type)
{
	return type == QS_VECTOR_PGVECTOR_ARRAY || type == QS_VECTOR_HALFVEC_ARRAY;
}

QsVectorKind
qs_vector_kind(QsVectorType type)
{
	if (is_sparse(type))
		return QS_SPARSE;
	return is_array_of_pgvector(type) ? QS_MULTI : QS_DENSE;
}

bool
qs_vector_can_be(QsVectorType type, QsVectorKind kind)
{
	if (type == QS_VECTOR_NONE)
		return false;
	if (type == QS_VECTOR_FLOAT4_ARRAY || type == QS_VECTOR_FLOAT8_ARRAY)
		return kind != QS_SPARSE;
	return kind == qs_vector_kind(type);
}

int
qs_vector_typmod_dimension(QsVectorType type, int32 typmod)
{
	if (type == QS_VECTOR_PGVECTOR || type == QS_VECTOR_HALFVEC || is_array_of_pgvector(type))
		return Max(typmod, 0);
	return 0;
}

/* Elements of a value of pgvector's types vector and halfvec, or of arrays of them. */
static char *
pgvector_floats(Datum value, QsVectorType type, const float **values, int *n)
{
	bool		half = type == QS_VECTOR_HALFVEC || type == QS_VECTOR_HALFVEC_ARRAY;

	if (qs_pgvector_floats((struct varlena *) DatumGetPointer(value),
						   half ? QS_PGVECTOR_HALFVEC : QS_PGVECTOR_VECTOR, values, n))
		return NULL;
	return pstrdup("the vector is not stored as this version of qdrant_sync knows it");
}

/* ---- shapes ---- */

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

static char *
check_rows(int rows, int width, int dimension)
{
	if ((int64) rows * width >= MAX_MULTI_ELEMENTS)
		return psprintf("the multi-vector has " INT64_FORMAT " elements, and Qdrant takes fewer than %d",
						(int64) rows * width, MAX_MULTI_ELEMENTS);
	return check_length(rows == 0 ? 0 : width, dimension);
}

/* i counts from 0, as in C; the message counts as SQL does, over all rows. */
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
check_array(ArrayType *array, int most_dimensions)
{
	if (ARR_NDIM(array) > most_dimensions)
		return psprintf("the vector is an array of %d dimensions", ARR_NDIM(array));
	if (array_contains_nulls(array))
		return first_null(array);
	return NULL;
}

/* An array of one dimension is a multi-vector of one row, as Qdrant takes it, too. */
static void
shape_of(ArrayType *array, int *rows, int *width)
{
	*rows = ARR_NDIM(array) == 2 ? ARR_DIMS(array)[0] : Min(ARR_NDIM(array), 1);
	*width = ARR_NDIM(array) == 0 ? 0 : ARR_DIMS(array)[ARR_NDIM(array) - 1];
}

/* Of an array of vectors, which may have no element or a NULL there. */
static int
first_row_dimension(ArrayType *array, QsVectorType type)
{
	int16		length;
	bool		by_value;
	char		align;
	Datum	   *elements;
	bool	   *nulls;
	const float *values;
	int			n;

	get_typlenbyvalalign(ARR_ELEMTYPE(array), &length, &by_value, &align);
	deconstruct_array(array, ARR_ELEMTYPE(array), length, by_value, align, &elements, &nulls, &n);
	if (n == 0 || nulls[0] ||
		pgvector_floats(PointerGetDatum(PG_DETOAST_DATUM(elements[0])), type, &values, &n) != NULL)
		return 0;
	return n;
}

int
qs_vector_dimension(Datum value, QsVectorType type, QsVectorKind kind)
{
	struct varlena *vector;
	const float *values;
	int			rows;
	int			n = 0;

	if (!qs_vector_can_be(type, kind) || kind == QS_SPARSE || qs_check_raw_size(value) != NULL)
		return 0;
	vector = PG_DETOAST_DATUM(value);
	if (type == QS_VECTOR_PGVECTOR || type == QS_VECTOR_HALFVEC)
		return pgvector_floats(PointerGetDatum(vector), type, &values, &n) == NULL ? n : 0;
	if (ARR_NDIM((ArrayType *) vector) > (kind == QS_MULTI ? 2 : 1))
		return 0;
	shape_of((ArrayType *) vector, &rows, &n);
	return is_array_of_pgvector(type) ? first_row_dimension((ArrayType *) vector, type) : n;
}

/* ---- dense ---- */

/* Qdrant would store infinity, without a word. */
static char *
check_half(int i, double value)
{
	if (fabs(value) < HALF_OVERFLOW)
		return NULL;
	return psprintf("element %d of the vector is %g, beyond the collection's datatype float16", i + 1, value);
}

/* before: elements of the rows before this one. */
static char *
append_floats(StringInfo out, const float *values, int n, int before, const QsVectorForm *form)
{
	char	   *message = NULL;
	int			bad;

	if (!qs_append_floats(out, values, n, &bad))
		return not_finite(before + bad, values[bad]);
	for (int i = 0; form->half && i < n && message == NULL; i++)
		message = check_half(before + i, values[i]);
	return message;
}

static char *
append_doubles(StringInfo out, const double *values, int n, int before, const QsVectorForm *form)
{
	char	   *message = NULL;
	int			bad;

	if (!qs_append_doubles(out, values, n, &bad))
		return not_finite(before + bad, values[bad]);
	for (int i = 0; form->half && i < n && message == NULL; i++)
		message = check_half(before + i, values[i]);
	return message;
}

static char *
append_pgvector(StringInfo out, struct varlena *vector, QsVectorType type, const QsVectorForm *form)
{
	const float *values;
	int			n;
	char	   *message = pgvector_floats(PointerGetDatum(vector), type, &values, &n);

	if (message == NULL)
		message = check_length(n, form->dimension);
	return message != NULL ? message : append_floats(out, values, n, 0, form);
}

/* Straight from the array: it is not deconstructed, and inline not even copied. */
static char *
append_array(StringInfo out, ArrayType *array, QsVectorType type, const QsVectorForm *form)
{
	char	   *message = check_array(array, 1);
	int			n = ARR_NDIM(array) == 0 ? 0 : ARR_DIMS(array)[0];

	if (message == NULL)
		message = check_length(n, form->dimension);
	if (message != NULL)
		return message;
	if (type == QS_VECTOR_FLOAT4_ARRAY)
		return append_floats(out, (const float *) ARR_DATA_PTR(array), n, 0, form);
	return append_doubles(out, (const double *) ARR_DATA_PTR(array), n, 0, form);
}

/* ---- multi ---- */

void
qs_fraction_in_row(StringInfo out, int begin)
{
	int			end = begin + strcspn(out->data + begin, ",]");

	if (memchr(out->data + begin, '.', end - begin) || memchr(out->data + begin, 'e', end - begin))
		return;
	enlargeStringInfo(out, 2);
	memmove(out->data + end + 2, out->data + end, out->len - end + 1);
	memcpy(out->data + end, ".0", 2);
	out->len += 2;
}

/* The row that begins at element number at of doubles or floats. */
static char *
append_row(StringInfo out, const void *numbers, bool doubles, int at, int width, const QsVectorForm *form)
{
	int			begin = out->len;
	char	   *message = doubles ?
		append_doubles(out, (const double *) numbers + at, width, at, form) :
		append_floats(out, (const float *) numbers + at, width, at, form);

	if (message == NULL)
		qs_fraction_in_row(out, begin);
	return message;
}

static char *
append_array_rows(StringInfo out, ArrayType *array, QsVectorType type, const QsVectorForm *form)
{
	char	   *message = check_array(array, 2);
	int			rows;
	int			width;

	shape_of(array, &rows, &width);
	if (message == NULL)
		message = check_rows(rows, width, form->dimension);
	if (message != NULL)
		return message;
	for (int i = 0; i < rows * width && message == NULL; i += width)
	{
		appendStringInfoCharMacro(out, i == 0 ? '[' : ',');
		message = append_row(out, ARR_DATA_PTR(array), type == QS_VECTOR_FLOAT8_ARRAY, i, width, form);
	}
	appendStringInfoCharMacro(out, ']');
	return message;
}

/* One element of an array of vectors; *width is that of the rows before, 0 at the first. */
static char *
append_element(StringInfo out, Datum element, QsVectorType type, int i, int rows, int *width,
			   const QsVectorForm *form)
{
	int			begin;
	const float *values;
	int			n;
	char	   *message = pgvector_floats(PointerGetDatum(PG_DETOAST_DATUM(element)), type, &values, &n);

	if (message == NULL)
		message = check_rows(rows, n, form->dimension);
	if (message != NULL)
		return message;
	if (*width != 0 && n != *width)
		return psprintf("row %d of the multi-vector has %d elements, and the one before %d", i + 1, n, *width);
	*width = n;
	appendStringInfoCharMacro(out, i == 0 ? '[' : ',');
	begin = out->len;
	message = append_floats(out, values, n, i * n, form);
	if (message == NULL)
		qs_fraction_in_row(out, begin);
	return message;
}

static char *
append_pgvector_rows(StringInfo out, ArrayType *array, QsVectorType type, const QsVectorForm *form)
{
	char	   *message = check_array(array, 1);
	int16		length;
	bool		by_value;
	char		align;
	Datum	   *elements;
	int			width = 0;
	int			n;

	if (message != NULL)
		return message;
	get_typlenbyvalalign(ARR_ELEMTYPE(array), &length, &by_value, &align);
	deconstruct_array(array, ARR_ELEMTYPE(array), length, by_value, align, &elements, NULL, &n);
	if (n == 0)
		return check_length(0, form->dimension);
	for (int i = 0; i < n && message == NULL; i++)
		message = append_element(out, elements[i], type, i, n, &width, form);
	if (message == NULL)
		appendStringInfoCharMacro(out, ']');
	return message;
}

/* ---- sparse ---- */

static void
append_indices(StringInfo out, const uint32 *indices, int n)
{
	appendStringInfoString(out, "{\"indices\":[");
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			appendStringInfoCharMacro(out, ',');
		enlargeStringInfo(out, 12);
		out->len += pg_ultoa_n(indices[i], out->data + out->len);
		out->data[out->len] = '\0';
	}
	appendStringInfoString(out, "],\"values\":");
}

/* pgvector keeps them in order, and no index twice. */
static char *
append_sparsevec(StringInfo out, struct varlena *value, const QsVectorForm *form)
{
	QsPgvectorSparse sparse;
	char	   *message;

	if (!qs_pgvector_sparse(value, &sparse))
		return pstrdup("the vector is not stored as this version of qdrant_sync knows it");
	append_indices(out, (const uint32 *) sparse.indices, sparse.n);
	message = append_floats(out, sparse.values, sparse.n, 0, form);
	if (message == NULL)
		appendStringInfoCharMacro(out, '}');
	return message;
}

/* Numbers of the array that the object has under this name; a message where it has none. */
static char *
take_numbers(JsonbContainer *object, const char *name, double **numbers, int *n)
{
	JsonbValue	found;
	JsonbValue	element;
	JsonbIterator *iterator;
	JsonbIteratorToken token;

	if (getKeyJsonValueFromContainer(object, name, strlen(name), &found) == NULL ||
		found.type != jbvBinary || !JsonContainerIsArray(found.val.binary.data))
		return psprintf("the sparse vector has no array \"%s\"", name);
	*numbers = palloc((JsonContainerSize(found.val.binary.data) + 1) * sizeof(double));
	*n = 0;
	iterator = JsonbIteratorInit(found.val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (element.type != jbvNumeric)
			return psprintf("element %d of \"%s\" of the sparse vector is not a number", *n + 1, name);
		(*numbers)[(*n)++] = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
																NumericGetDatum(element.val.numeric)));
	}
	return NULL;
}

static int
compare_indices(const void *a, const void *b)
{
	uint32		left = *(const uint32 *) a;
	uint32		right = *(const uint32 *) b;

	return left < right ? -1 : left > right;
}

static char *
check_unique(const uint32 *indices, int n)
{
	uint32	   *sorted = palloc((n + 1) * sizeof(uint32));

	memcpy(sorted, indices, n * sizeof(uint32));
	qsort(sorted, n, sizeof(uint32), compare_indices);
	for (int i = 1; i < n; i++)
	{
		if (sorted[i] == sorted[i - 1])
			return psprintf("index %u is twice in the sparse vector", sorted[i]);
	}
	return NULL;
}

static char *
check_indices(const double *numbers, int n, uint32 *indices)
{
	for (int i = 0; i < n; i++)
	{
		if (!(numbers[i] >= 0 && numbers[i] <= PG_UINT32_MAX) || numbers[i] != floor(numbers[i]))
			return psprintf("index %d of the sparse vector is no integer from 0 to %u", i + 1, PG_UINT32_MAX);
		indices[i] = (uint32) numbers[i];
	}
	return check_unique(indices, n);
}

static char *
append_sparse_json(StringInfo out, Jsonb *jsonb, const QsVectorForm *form)
{
	double	   *numbers;
	double	   *values;
	uint32	   *indices;
	char	   *message;
	int			n;
	int			nvalues;

	if (!JB_ROOT_IS_OBJECT(jsonb) || JB_ROOT_COUNT(jsonb) != 2)
		return pstrdup("the sparse vector is not an object of \"indices\" and \"values\"");
	message = take_numbers(&jsonb->root, "indices", &numbers, &n);
	if (message == NULL)
		message = take_numbers(&jsonb->root, "values", &values, &nvalues);
	if (message != NULL)
		return message;
	if (n != nvalues)
		return psprintf("the sparse vector has %d indices and %d values", n, nvalues);
	indices = palloc((n + 1) * sizeof(uint32));
	if ((message = check_indices(numbers, n, indices)) != NULL)
		return message;
	append_indices(out, indices, n);
	if ((message = append_doubles(out, values, n, 0, form)) == NULL)
		appendStringInfoCharMacro(out, '}');
	return message;
}

/* ---- all ---- */

char *
qs_append_vector(StringInfo out, Datum value, QsVectorType type, const QsVectorForm *form)
{
	char	   *message = qs_check_raw_size(value);
	struct varlena *detoasted;

	if (message != NULL)
		return message;
	detoasted = PG_DETOAST_DATUM(value);
	switch (type)
	{
		case QS_VECTOR_FLOAT4_ARRAY:
		case QS_VECTOR_FLOAT8_ARRAY:
			return form->kind == QS_MULTI ? append_array_rows(out, (ArrayType *) detoasted, type, form) :
				append_array(out, (ArrayType *) detoasted, type, form);
		case QS_VECTOR_PGVECTOR:
		case QS_VECTOR_HALFVEC:
			return append_pgvector(out, detoasted, type, form);
		case QS_VECTOR_PGVECTOR_ARRAY:
		case QS_VECTOR_HALFVEC_ARRAY:
			return append_pgvector_rows(out, (ArrayType *) detoasted, type, form);
		case QS_VECTOR_SPARSEVEC:
			return append_sparsevec(out, detoasted, form);
		case QS_VECTOR_JSONB:
			return append_sparse_json(out, (Jsonb *) detoasted, form);
		case QS_VECTOR_NONE:
			break;
	}
	elog(ERROR, "unrecognized vector type: %d", (int) type);
	return NULL;				/* keep the compiler quiet */
}
