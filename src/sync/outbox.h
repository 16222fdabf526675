/*
 * outbox.h
 *		Two segments that take turns, as the sync worker sees them: which tuples
 *		are there, which are acknowledged, and when a segment can be emptied.
 *
 * Neither the order of the heap nor that of notices says anything about what is
 * done (hazard 3): a bit for each tuple does, for as long as the segment keeps
 * its storage.
 */
#ifndef QS_OUTBOX_H
#define QS_OUTBOX_H

#include "common/shared.h"
#include "executor/tuptable.h"
#include "sync/lanes.h"

typedef struct QsOutbox QsOutbox;

/*
 * Receives a tuple that was not seen before, and the debt that stands for it
 * until qs_outbox_acknowledge().  Returns how many keys it was worth.
 */
typedef int (*QsTupleSink) (void *arg, QsDebt *debt, TupleTableSlot *slot);

extern QsOutbox *qs_outbox_create(MemoryContext parent, const Oid segments[2],
								  QsMirrorSlot *slot, QsTupleSink sink, void *arg);

/* True where a segment's storage is not the one in files (InvalidOid: not known
 * yet); files is brought up to date.  Needs a transaction. */
extern bool qs_outbox_check_files(QsOutbox *outbox, Oid files[2]);

/* The same of the storage seen last, without a look.  Needs no transaction. */
extern bool qs_outbox_compare_files(const QsOutbox *outbox, Oid files[2]);

extern bool qs_outbox_owns(const QsOutbox *outbox, Oid segment);

/* Scan everything, in qs_outbox_read. */
extern void qs_outbox_scan(QsOutbox *outbox);

/* There may be chunks that qs_outbox_read has not shown yet. */
extern bool qs_outbox_more(const QsOutbox *outbox);

/* Chunk of a notice; what cannot be read that way is left to a scan.  Needs a transaction. */
extern void qs_outbox_notice(QsOutbox *outbox, const QsNotice *notice);

/*
 * Goes on with the scan under way, under one snapshot, until about max keys were
 * shown.  True: the scan came to its end.  Needs a transaction.
 */
extern bool qs_outbox_read(QsOutbox *outbox, int max);

/* Shows the tuple of a debt once more to user; false: it is gone.  Needs a transaction. */
typedef void (*QsTupleUser) (void *arg, TupleTableSlot *slot);
extern bool qs_outbox_fetch(QsOutbox *outbox, const QsDebt *debt, QsTupleUser user, void *arg);

/* As if the debt's tuple had never been shown: the next scan shows it.  Frees the debt. */
extern void qs_outbox_unshow(QsOutbox *outbox, QsDebt *debt);

/* The debt's chunk is acknowledged; frees the debt. */
extern void qs_outbox_acknowledge(QsOutbox *outbox, QsDebt *debt);

/*
 * qdrant_wait: from now on count, as awaited, all chunks that are visible to a
 * snapshot taken here and not acknowledged.  Needs a transaction.
 */
extern void qs_outbox_await(QsOutbox *outbox);
extern int64 qs_outbox_awaited(const QsOutbox *outbox);

/* Chunks shown and not acknowledged, and when the oldest was written (0: none). */
extern int	qs_outbox_pending(const QsOutbox *outbox, TimestampTz *oldest);

/* Only how many there are. */
extern int	qs_outbox_shown(const QsOutbox *outbox);

/* Length of both segments when they were last looked at. */
extern uint64 qs_outbox_bytes(const QsOutbox *outbox);

/* A segment had rows when it was last looked at: it waits to be emptied. */
extern bool qs_outbox_is_used(const QsOutbox *outbox);

/*
 * Housekeeping, at most once a second: sends writers to the other segment where
 * this one is large or idle, and empties the inactive one once all of it is
 * acknowledged and nobody holds a lock on it (hazards 3, 13, 21).  Begins and
 * ends transactions of its own.
 */
extern void qs_outbox_rotate(QsOutbox *outbox);

#endif							/* QS_OUTBOX_H */
