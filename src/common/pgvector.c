/*
 * pgvector.c
 *		The types of the extension pgvector: which type is one, and what is in a
 *		value.
 *
 * Runs in sessions and in the sync worker.  The structs are copied from no
 * header: a later pgvector that stores something else must not be sent as noise.
 * So a value's size and its counts have to agree, or it is refused.
 */
#include "qdrant_sync.h"
#include "common/pgvector.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "utils/syscache.h"

/* Types vector and halfvec; data are floats or half floats. */
typedef struct StoredVector
{
	int32		vl_len_;
	int16		dim;
	int16		unused;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} StoredVector;

typedef struct StoredSparse
{
	int32		vl_len_;
	int32		dim;
	int32		nnz;
	int32		unused;
	int32		indices[FLEXIBLE_ARRAY_MEMBER]; /* from 0; then nnz floats */
} StoredSparse;

/*
 * Any schema may have a type of this name: only membership tells.  No type that
 * initdb made is an extension's, which spares the look-up for most columns.
 */
QsPgvector
qs_pgvector_type(Oid type)
{
	Oid			extension;
	HeapTuple	tuple;
	const char *name;
	QsPgvector	found = QS_PGVECTOR_NONE;

	if (type < FirstNormalObjectId)
		return QS_PGVECTOR_NONE;
	extension = getExtensionOfObject(TypeRelationId, type);
	if (!OidIsValid(extension) || extension != get_extension_oid("vector", true))
		return QS_PGVECTOR_NONE;
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		return QS_PGVECTOR_NONE;
	name = NameStr(((Form_pg_type) GETSTRUCT(tuple))->typname);
	if (strcmp(name, "vector") == 0)
		found = QS_PGVECTOR_VECTOR;
	else if (strcmp(name, "halfvec") == 0)
		found = QS_PGVECTOR_HALFVEC;
	else if (strcmp(name, "sparsevec") == 0)
		found = QS_PGVECTOR_SPARSEVEC;
	ReleaseSysCache(tuple);
	return found;
}

/* Exact: every half is a float.  Those without an exponent are multiples of 2^-24. */
static float
half_to_float(uint16 half)
{
	uint32		sign = (uint32) (half & 0x8000) << 16;
	uint32		exponent = (half >> 10) & 0x1F;
	uint32		mantissa = half & 0x3FF;
	uint32		bits;
	float		value;

	if (exponent == 0)
	{
		value = mantissa / 16777216.0f;
		memcpy(&bits, &value, sizeof(bits));
	}
	else
		bits = (exponent == 0x1F ? 0x7F800000 : (exponent + 112) << 23) | mantissa << 13;
	bits |= sign;
	memcpy(&value, &bits, sizeof(value));
	return value;
}

static const float *
floats_of_halves(const uint16 *halves, int n)
{
	float	   *values = palloc((n + 1) * sizeof(float));

	for (int i = 0; i < n; i++)
		values[i] = half_to_float(halves[i]);
	return values;
}

bool
qs_pgvector_floats(const struct varlena *value, QsPgvector type, const float **values, int *n)
{
	const StoredVector *vector = (const StoredVector *) value;
	bool		half = type == QS_PGVECTOR_HALFVEC;
	Size		width = half ? sizeof(uint16) : sizeof(float);

	if (VARSIZE(vector) < offsetof(StoredVector, data) || vector->dim < 0 ||
		VARSIZE(vector) != offsetof(StoredVector, data) + vector->dim * width)
		return false;
	*n = vector->dim;
	*values = half ? floats_of_halves((const uint16 *) vector->data, *n) :
		(const float *) vector->data;
	return true;
}

bool
qs_pgvector_sparse(const struct varlena *value, QsPgvectorSparse *sparse)
{
	const StoredSparse *stored = (const StoredSparse *) value;

	if (VARSIZE(stored) < offsetof(StoredSparse, indices) || stored->nnz < 0 ||
		VARSIZE(stored) != offsetof(StoredSparse, indices) +
		stored->nnz * (sizeof(int32) + sizeof(float)))
		return false;
	sparse->n = stored->nnz;
	sparse->indices = stored->indices;
	sparse->values = (const float *) (stored->indices + stored->nnz);
	return true;
}
