/*
 * armed.h
 *		Which relations this backend captures, and where their keys go.
 */
#ifndef QS_ARMED_H
#define QS_ARMED_H

#include "qdrant_sync.h"
#include "common/key_text.h"
#include "common/shared.h"
#include "mirror/definition.h"
#include "nodes/bitmapset.h"

/* Identity of the slot of explicit operations. */
#define QS_OPERATIONS_MIRROR 0

/* What a log keeps of a mirror until the end of the transaction. */
typedef struct QsTarget
{
	int64		mirror;			/* or QS_OPERATIONS_MIRROR */
	Oid			segments[2];
	QsMirrorSlot *slot;			/* NULL: none; its identity is checked at use */
	TimestampTz slot_looked_for;	/* when */
} QsTarget;

/* Cached per relation; kept to the end of the process. */
typedef struct QsArmed
{
	Oid			relid;
	bool		valid;			/* false: look it up again */
	bool		stale;			/* invalidated since the look-up began */
	bool		armed;			/* false: nothing below holds */
	bool		direct;			/* the key is one integer or uuid, and noted as such */
	Oid			root;			/* the mirrored table: relid, or what it is a leaf of */
	QsChunkKind kind;			/* QS_CHUNK_SWEEP: its keys cannot be noted */
	QsKeySpec	key;			/* columns as this relation numbers them, with the
								 * base types that they have now */
	int			ncolumns;		/* -1: a change of any column counts */
	AttrNumber *columns;		/* else: of these, as this relation numbers them */
	Bitmapset  *column_set;		/* the same, as tg_updatedcols numbers them */
	QsKeyWriter *writer;		/* QS_CHUNK_TEXTS */
	uint32		types;			/* QS_CHUNK_TEXTS: hash of the key's types */
	MemoryContext context;		/* of columns and writer; NULL: none yet */
	QsTarget	target;
	struct QsArmed *next;		/* of the mirror that is filled to take this one's
								 * place: it gets the same changes; NULL: none */
	struct QsArmed *spare;		/* what next points to, where there is one */

	/* key_log.c's: the mirror's number in the transaction of that serial. */
	uint64		serial;
	uint32		tag;
} QsArmed;

extern QsArmed *qs_armed_last;
extern QsArmed *qs_armed_look_up(Oid relid);

/* The relation's mirror, or that of the partitioned table that it is a leaf of; NULL
 * where none of this cluster and database is armed. */
static inline QsArmed *
qs_armed_find(Oid relid)
{
	QsArmed    *armed = qs_armed_last;

	if (unlikely(armed == NULL || armed->relid != relid || !armed->valid))
		armed = qs_armed_look_up(relid);
	return armed->armed ? armed : NULL;
}

/*
 * Is the relation, or a partitioned table above it, mirrored?  Of those that are
 * not, nothing is cached: for DDL, which names any relation.
 */
extern bool qs_armed_any(Oid relid);
extern bool qs_armed_is_leaf(Oid relid);

/* Once in each transaction: brings target->slot up to date. */
extern void qs_target_find_slot(QsTarget *target);

/* The segment to which writers append now. */
extern Oid	qs_target_segment(const QsTarget *target);

/* The outbox is at its limit: nothing is recorded, and a sweep will find it. */
extern bool qs_target_skips(const QsTarget *target);

#endif							/* QS_ARMED_H */
