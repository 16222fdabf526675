/*
 * page.h
 *		The page of a segment to which this backend appended last.
 */
#ifndef QS_PAGE_H
#define QS_PAGE_H

#include "qdrant_sync.h"
#include "access/htup.h"

/* Where a tuple of that segment was put by heap_insert; the tuple has one column, in PLAIN. */
extern void qs_page_remember(Relation rel, ItemPointer tid);

/*
 * Puts the tuple beside the last one, which is what heap_insert would do, and
 * sets its t_self and *storage.  False: heap_insert has to be asked.  The caller
 * holds the segment's lock.
 */
extern bool qs_page_append(Oid segment, HeapTuple tuple, CommandId cid, RelFileNumber *storage);

#endif							/* QS_PAGE_H */
