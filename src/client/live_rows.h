/*
 * live_rows.h
 *		Rows of a mirrored table for the points of an answer.
 */
#ifndef QS_LIVE_ROWS_H
#define QS_LIVE_ROWS_H

#include "client/hits.h"
#include "mirror/definition.h"

/* Takes a row (a composite datum, valid during the call); false: no more. */
typedef bool (*QsLiveRowTaker) (void *arg, Datum row, const QsHit *hit);

/*
 * Gives the rows whose keys are the ids of hits, in the order of hits, as the
 * caller may see them under the active snapshot.  Hits without a row are passed
 * over.  ERROR 42501 where the caller may not read the table.
 */
extern void qs_live_rows(const QsMirrorRow *mirror, const QsHit *hits, int n,
						 QsLiveRowTaker take, void *arg);

/*
 * Gives the row of a mirror with QS_KEY_HASHED whose key's columns have these
 * texts, with a hit of NULL, in the caller's memory context.  ERROR where a text
 * is none of the column's type.
 */
extern void qs_live_row_by_texts(const QsMirrorRow *mirror, char *const *texts,
								 QsLiveRowTaker take, void *arg);

/* True where the caller can see the row whose key is this id (JSON). */
extern bool qs_live_row_visible(const QsMirrorRow *mirror, const char *id);

#endif							/* QS_LIVE_ROWS_H */
