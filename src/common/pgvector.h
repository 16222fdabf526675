/*
 * pgvector.h
 *		The types of the extension pgvector, which we do not link against: which
 *		type is one, and what is in a value.
 */
#ifndef QS_PGVECTOR_H
#define QS_PGVECTOR_H

#include "qdrant_sync.h"

typedef enum QsPgvector
{
	QS_PGVECTOR_NONE,
	QS_PGVECTOR_VECTOR,
	QS_PGVECTOR_HALFVEC,
	QS_PGVECTOR_SPARSEVEC
} QsPgvector;

/* A sparsevec's elements, in the value itself. */
typedef struct QsPgvectorSparse
{
	int			n;
	const int32 *indices;		/* from 0, ascending; its text counts from 1 */
	const float *values;
} QsPgvectorSparse;

/* Of a type that is no domain; the extension may be in any schema. */
extern QsPgvector qs_pgvector_type(Oid type);

/*
 * Elements of a detoasted vector or halfvec: in the value, or palloc'd.  False
 * where it is not stored as we know it.
 */
extern bool qs_pgvector_floats(const struct varlena *value, QsPgvector type,
							   const float **values, int *n);

/* The same of a sparsevec. */
extern bool qs_pgvector_sparse(const struct varlena *value, QsPgvectorSparse *sparse);

#endif							/* QS_PGVECTOR_H */
