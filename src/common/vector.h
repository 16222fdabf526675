/*
 * vector.h
 *		The vectors of a point: which types can be one, and how a value is written.
 *
 * A message is palloc'd text that says what is wrong with this value, without
 * the column's name, to be read after "column: ".
 */
#ifndef QS_VECTOR_H
#define QS_VECTOR_H

#include "qdrant_sync.h"
#include "lib/stringinfo.h"

/* How a vector's type is read. */
typedef enum QsVectorType
{
	QS_VECTOR_NONE,				/* not a type that we can send */
	QS_VECTOR_FLOAT4_ARRAY,
	QS_VECTOR_FLOAT8_ARRAY,
	QS_VECTOR_PGVECTOR,			/* type vector of extension vector, wherever it is */
	QS_VECTOR_HALFVEC,
	QS_VECTOR_SPARSEVEC,
	QS_VECTOR_PGVECTOR_ARRAY,
	QS_VECTOR_HALFVEC_ARRAY,
	QS_VECTOR_JSONB				/* {"indices": […], "values": […]} */
} QsVectorType;

/* What Qdrant makes of it. */
typedef enum QsVectorKind
{
	QS_DENSE,
	QS_MULTI,					/* rows of one width */
	QS_SPARSE
} QsVectorKind;

/* What a collection's vector asks of values. */
typedef struct QsVectorForm
{
	QsVectorKind kind;
	int			dimension;		/* of a row where it is a multi-vector; 0: any */
	bool		half;			/* stored as half floats, which are not normalised before */
} QsVectorForm;

extern QsVectorType qs_vector_type(Oid type);

/* A column of this type is meant for a vector; a jsonb becomes one only by name. */
extern bool qs_is_vector_type(Oid type);

/* Without more being said; QS_DENSE for QS_VECTOR_NONE. */
extern QsVectorKind qs_vector_kind(QsVectorType type);
extern bool qs_vector_can_be(QsVectorType type, QsVectorKind kind);

/* Dimension that the type modifier fixes (pgvector's vector(384)); 0: none. */
extern int	qs_vector_typmod_dimension(QsVectorType type, int32 typmod);

/*
 * Dimension of a value that is not NULL, of a row where it is a multi-vector; 0
 * where it has none or is over-long, and of sparse vectors.
 */
extern int	qs_vector_dimension(Datum value, QsVectorType type, QsVectorKind kind);

/*
 * Appends a vector of a kind that its type can be.  NULL where done; else a
 * message: NULL element, array of another shape or length, a number that is not
 * finite or would not be as it is stored; out is then of no use from its old length
 * on.
 */
extern char *qs_append_vector(StringInfo out, Datum value, QsVectorType type,
							  const QsVectorForm *form);

/*
 * The row of a multi-vector that was written as an array of numbers from begin on
 * gets a fraction in its first number, "1.0" for "1": of two rows of whole numbers
 * Qdrant 1.18 makes a sparse vector (indices, values).
 */
extern void qs_fraction_in_row(StringInfo out, int begin);

#endif							/* QS_VECTOR_H */
