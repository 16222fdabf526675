/*
 * compare.h
 *		A row's point, as it is sent, beside the point that Qdrant has.
 */
#ifndef QS_COMPARE_H
#define QS_COMPARE_H

#include "qdrant_sync.h"
#include "utils/jsonb.h"

/* What a vector is reduced to when Qdrant stores it. */
typedef enum QsStoredAs
{
	QS_STORED_FLOAT32,
	QS_STORED_FLOAT16,
	QS_STORED_UINT8,
	QS_STORED_LOSSY				/* any other: its numbers cannot be foretold */
} QsStoredAs;

typedef struct QsStoredVector
{
	char	   *name;			/* "": the unnamed one */
	bool		normalised;
	QsStoredAs	stored_as;
} QsStoredVector;

typedef struct QsStoredVectors
{
	int			n;
	QsStoredVector *vectors;	/* dense and multi; one that is not here is sparse */
} QsStoredVectors;

/* From the answer to GET /collections/{c}; false: it is none. */
extern bool qs_stored_vectors(Jsonb *answer, QsStoredVectors *stored, int64 *points_count);

/*
 * JSON text as jsonb; NULL where it is none, or holds what jsonb or the database's
 * encoding cannot.  escaped: every character but ASCII's is first replaced by a
 * text of its own, so that any JSON text in UTF-8 can be read; two texts read like
 * that are equal only if they were before.
 */
extern Jsonb *qs_compare_parse(const char *text, bool escaped);

/*
 * What is not the same in two points ({"id", "vector", "payload"}): names of the
 * vectors and fields of the payload; NULL: nothing.  Palloc'd.
 */
extern char *qs_compare_points(Jsonb *ours, JsonbContainer *theirs, const QsStoredVectors *stored);

/* Member of an object; NULL: none, or null. */
extern JsonbValue *qs_compare_member(JsonbContainer *object, const char *name);

#endif							/* QS_COMPARE_H */
