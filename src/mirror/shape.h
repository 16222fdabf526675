/*
 * shape.h
 *		Whether a collection that exists has the vectors and indexes of a mirror.
 *
 * The session that makes a mirror looks, and the sync worker before it writes:
 * both say the same.
 */
#ifndef QS_SHAPE_H
#define QS_SHAPE_H

#include "mirror/definition.h"
#include "net/qdrant_json.h"

/*
 * What is wrong, to be read after "collection ...: ", and what can be done where the
 * mirror is being made.
 */
typedef struct QsMismatch
{
	char	   *what;
	char	   *hint;
} QsMismatch;

/* The collection's vector; NULL, with a mismatch, where it is not there or another. */
extern const QsVectorConfig *qs_shape_vector(const QsVectorSpec *spec, const QsCollectionInfo *info,
											 QsMismatch *mismatch);

/*
 * True where the index is not there or as asked; document is the answer to
 * GET /collections/{c}.
 */
extern bool qs_shape_index(const QsIndex *index, const char *document, Size length,
						   bool *there, QsMismatch *mismatch);

#endif							/* QS_SHAPE_H */
