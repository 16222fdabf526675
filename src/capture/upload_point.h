/*
 * upload_point.h
 *		A row of the query of qdrant_upload as a point.
 */
#ifndef QS_UPLOAD_POINT_H
#define QS_UPLOAD_POINT_H

#include "capture/points.h"

#include "access/htup.h"
#include "access/tupdesc.h"

/* What each column of a query is for; made once, in the current context. */
typedef struct QsUploadShape QsUploadShape;

/*
 * ERROR 42703 without a column id, 42701 for a name that is there twice, 42804 for a
 * type that is none of an id, 22023 for a column that has no place in the point.
 */
extern QsUploadShape *qs_upload_shape(TupleDesc desc);

/*
 * Writes the row as a point into out, in the database's encoding, and checks it;
 * position is the row's, from 1.  ERROR 22004 for an id that is NULL, 22023 for what
 * Qdrant could not take.  The settings of qs_encode_settings are pinned.
 */
extern void qs_upload_point(const QsUploadShape *shape, HeapTuple row, int position,
							QsPointsCheck *check, StringInfo out);

#endif							/* QS_UPLOAD_POINT_H */
