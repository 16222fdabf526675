/*
 * outbox.c
 *		Scans a mirror's segments, keeps the bits of what was seen and what was
 *		acknowledged, and empties segments.
 *
 * Sync worker only.  A scan goes through both segments in pieces; a chunk that
 * appears behind it is found by its notice or by the next scan.
 */
#include "qdrant_sync.h"
#include "common/settings.h"
#include "sync/outbox.h"
#include "sync/task.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "port/pg_bitutils.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Offsets of a page: MaxHeapTuplesPerPage of an 8 kB page is 291. */
#define WORDS_PER_BLOCK ((MaxHeapTuplesPerPage + 64) / 64)

/* Blocks that one piece of a scan looks at: 8 MB, some milliseconds. */
#define BLOCKS_PER_PIECE 1024

typedef struct BlockBits
{
	uint64		seen[WORDS_PER_BLOCK];	/* shown to the sink */
	uint64		acked[WORDS_PER_BLOCK];
	uint64		awaited[WORDS_PER_BLOCK];
} BlockBits;

typedef struct Segment
{
	Oid			relid;
	RelFileNumber file;			/* storage that the bits are of */
	BlockBits **blocks;
	BlockNumber nblocks;		/* length of that array */
	MemoryContext context;		/* of the bits; reset when they become void */
	BlockNumber cursor;			/* next block of the scan under way */
	bool		scanned;		/* the scan under way is through with it */
	BlockNumber size;			/* when it was last looked at */
	int64		awaited;		/* bits set in awaited */
} Segment;

struct QsOutbox
{
	Segment		segments[2];
	QsMirrorSlot *slot;			/* NULL: writers use segment 0 for good */
	QsTupleSink sink;
	void	   *arg;
	MemoryContext context;
	MemoryContext debt_slab;
	bool		scanning;		/* a scan is under way */
	bool		scan_again;		/* another was asked for after it had begun */
	dlist_head	debts;			/* of chunks shown and not acknowledged */
	int			ndebts;
	TimestampTz rotate_after;
	int			failures;		/* tries in a row to empty a segment that failed */
};

QsOutbox *
qs_outbox_create(MemoryContext parent, const Oid segments[2], QsMirrorSlot *slot,
				 QsTupleSink sink, void *arg)
{
	QsOutbox   *outbox = MemoryContextAllocZero(parent, sizeof(QsOutbox));

	outbox->context = parent;
	outbox->debt_slab = SlabContextCreate(parent, "qdrant_sync debt",
										  SLAB_DEFAULT_BLOCK_SIZE, sizeof(QsDebt));
	for (int i = 0; i < 2; i++)
	{
		outbox->segments[i].relid = segments[i];
		outbox->segments[i].context = AllocSetContextCreate(parent, "qdrant_sync segment bits",
															ALLOCSET_DEFAULT_SIZES);
	}
	outbox->slot = slot;
	outbox->sink = sink;
	outbox->arg = arg;
	dlist_init(&outbox->debts);
	qs_outbox_scan(outbox);
	return outbox;
}

static void
forget_bits(Segment *segment)
{
	MemoryContextReset(segment->context);
	segment->blocks = NULL;
	segment->nblocks = 0;
	segment->awaited = 0;
}

/*
 * Opens a segment and throws the bits away where its storage is another one
 * than they are of.  NULL: the segment was dropped.
 */
static Relation
open_segment(Segment *segment, LOCKMODE lockmode)
{
	Relation	rel = try_relation_open(segment->relid, lockmode);

	if (rel == NULL)
		return NULL;
	if (segment->file != qs_relfilenumber(rel))
	{
		forget_bits(segment);
		segment->file = qs_relfilenumber(rel);
	}
	segment->size = RelationGetNumberOfBlocks(rel);
	return rel;
}

bool
qs_outbox_compare_files(const QsOutbox *outbox, Oid files[2])
{
	bool		changed = false;

	for (int i = 0; i < 2; i++)
	{
		Oid			file = outbox->segments[i].file;

		if (!OidIsValid(file))
			continue;
		if (OidIsValid(files[i]) && files[i] != file)
			changed = true;
		files[i] = file;
	}
	return changed;
}

bool
qs_outbox_check_files(QsOutbox *outbox, Oid files[2])
{
	for (int i = 0; i < 2; i++)
	{
		Relation	rel = open_segment(&outbox->segments[i], AccessShareLock);

		if (rel != NULL)
			relation_close(rel, AccessShareLock);
	}
	return qs_outbox_compare_files(outbox, files);
}

bool
qs_outbox_owns(const QsOutbox *outbox, Oid segment)
{
	return outbox->segments[0].relid == segment || outbox->segments[1].relid == segment;
}

void
qs_outbox_scan(QsOutbox *outbox)
{
	if (outbox->scanning)
	{
		outbox->scan_again = true;
		return;
	}
	outbox->scanning = true;
	for (int i = 0; i < 2; i++)
	{
		outbox->segments[i].cursor = 0;
		outbox->segments[i].scanned = false;
	}
}

bool
qs_outbox_more(const QsOutbox *outbox)
{
	return outbox->scanning;
}

static BlockBits *
bits_of(Segment *segment, BlockNumber block)
{
	if (block >= segment->nblocks)
	{
		BlockNumber n = Max(block + 1, segment->nblocks * 2);
		Size		size = n * sizeof(BlockBits *);

		if (segment->blocks == NULL)
			segment->blocks = MemoryContextAllocHuge(segment->context, size);
		else
			segment->blocks = repalloc_huge(segment->blocks, size);
		memset(segment->blocks + segment->nblocks, 0,
			   (n - segment->nblocks) * sizeof(BlockBits *));
		segment->nblocks = n;
	}
	if (segment->blocks[block] == NULL)
		segment->blocks[block] = MemoryContextAllocZero(segment->context, sizeof(BlockBits));
	return segment->blocks[block];
}

static inline bool
bit_is_set(const uint64 *words, int offset)
{
	return (words[offset / 64] >> (offset % 64)) & 1;
}

static inline void
set_bit(uint64 *words, int offset)
{
	words[offset / 64] |= UINT64CONST(1) << (offset % 64);
}

static inline void
clear_bit(uint64 *words, int offset)
{
	words[offset / 64] &= ~(UINT64CONST(1) << (offset % 64));
}

static QsDebt *
make_debt(QsOutbox *outbox, int which, ItemPointer tid)
{
	QsDebt	   *debt = MemoryContextAllocZero(outbox->debt_slab, sizeof(QsDebt));

	debt->kind = QS_DEBT_CHUNK;
	debt->lanes = 1;
	debt->segment = which;
	debt->file = outbox->segments[which].file;
	debt->block = ItemPointerGetBlockNumber(tid);
	debt->offset = ItemPointerGetOffsetNumber(tid);
	dlist_push_tail(&outbox->debts, &debt->node);
	outbox->ndebts++;
	return debt;
}

/* Shows the tuple in the slot unless it was shown before; returns its keys. */
static int
show_once(QsOutbox *outbox, int which, TupleTableSlot *slot)
{
	Segment    *segment = &outbox->segments[which];
	BlockBits  *bits = bits_of(segment, ItemPointerGetBlockNumber(&slot->tts_tid));
	int			offset = ItemPointerGetOffsetNumber(&slot->tts_tid);

	if (bit_is_set(bits->seen, offset))
		return 0;
	set_bit(bits->seen, offset);
	return outbox->sink(outbox->arg, make_debt(outbox, which, &slot->tts_tid), slot);
}

/* Gives the visible tuple at tid to user; false: there is none. */
static bool
visit_tuple(Relation rel, ItemPointerData tid, QsTupleUser user, void *arg)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		found = table_tuple_fetch_row_version(rel, &tid, snapshot, slot);

	if (found)
		user(arg, slot);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	return found;
}

typedef struct ShowTarget
{
	QsOutbox   *outbox;
	int			which;
} ShowTarget;

static void
show_target(void *arg, TupleTableSlot *slot)
{
	ShowTarget *target = arg;

	show_once(target->outbox, target->which, slot);
}

bool
qs_outbox_fetch(QsOutbox *outbox, const QsDebt *debt, QsTupleUser user, void *arg)
{
	Relation	rel = open_segment(&outbox->segments[debt->segment], AccessShareLock);
	ItemPointerData tid;
	bool		found;

	if (rel == NULL)
		return false;
	ItemPointerSet(&tid, debt->block, debt->offset);
	found = visit_tuple(rel, tid, user, arg);
	relation_close(rel, AccessShareLock);
	return found;
}

void
qs_outbox_notice(QsOutbox *outbox, const QsNotice *notice)
{
	int			which = outbox->segments[1].relid == notice->segment;
	Segment    *segment = &outbox->segments[which];
	ShowTarget	target = {outbox, which};
	Relation	rel;
	bool		found = false;

	if (outbox->scanning && outbox->scan_again)
		return;
	rel = open_segment(segment, AccessShareLock);
	if (rel == NULL)
		return;
	if (segment->file == notice->relfilenumber &&
		ItemPointerGetBlockNumber(&notice->tid) < segment->size)
		found = visit_tuple(rel, notice->tid, show_target, &target);
	relation_close(rel, AccessShareLock);
	if (!found)
		qs_outbox_scan(outbox);
}

/* One piece of the scan of one segment; returns the keys it showed. */
static int
scan_piece(QsOutbox *outbox, int which, Snapshot snapshot, int max)
{
	Segment    *segment = &outbox->segments[which];
	Relation	rel = open_segment(segment, AccessShareLock);
	BlockNumber end;
	TableScanDesc scan;
	TupleTableSlot *slot;
	int			shown = 0;

	if (rel == NULL || segment->cursor >= segment->size)
	{
		segment->scanned = true;
		if (rel != NULL)
			relation_close(rel, AccessShareLock);
		return 0;
	}
	end = Min(segment->size, segment->cursor + BLOCKS_PER_PIECE);
	scan = table_beginscan_strat(rel, snapshot, 0, NULL, true, false);
	heap_setscanlimits(scan, segment->cursor, end - segment->cursor);
	slot = table_slot_create(rel, NULL);
	while (shown < max && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		segment->cursor = ItemPointerGetBlockNumber(&slot->tts_tid);
		shown += show_once(outbox, which, slot);
	}
	/* A page that was not finished is looked at again: its bits are set. */
	if (shown < max)
		segment->cursor = end;
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	relation_close(rel, AccessShareLock);
	return shown;
}

/*
 * One snapshot for both segments: with one for each piece, an operation could be
 * shown whose predecessor, committed earlier, lies where an earlier piece has
 * looked already (hazard 7).
 */
bool
qs_outbox_read(QsOutbox *outbox, int max)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		ended;

	for (int i = 0; i < 2 && max > 0; i++)
	{
		while (!outbox->segments[i].scanned && max > 0)
		{
			max -= scan_piece(outbox, i, snapshot, max);
			CHECK_FOR_INTERRUPTS();
		}
	}
	UnregisterSnapshot(snapshot);
	ended = outbox->segments[0].scanned && outbox->segments[1].scanned;
	if (ended)
	{
		outbox->scanning = false;
		if (outbox->scan_again)
		{
			outbox->scan_again = false;
			qs_outbox_scan(outbox);
		}
	}
	return ended;
}

void
qs_outbox_unshow(QsOutbox *outbox, QsDebt *debt)
{
	Segment    *segment = &outbox->segments[debt->segment];

	/* In another storage nothing was shown yet. */
	if (debt->file == segment->file && debt->block < segment->nblocks &&
		segment->blocks[debt->block] != NULL)
		clear_bit(segment->blocks[debt->block]->seen, debt->offset);
	dlist_delete(&debt->node);
	outbox->ndebts--;
	pfree(debt);
}

void
qs_outbox_acknowledge(QsOutbox *outbox, QsDebt *debt)
{
	Segment    *segment = &outbox->segments[debt->segment];

	/* In another storage another chunk may lie at the same place. */
	if (debt->file == segment->file && debt->block < segment->nblocks &&
		segment->blocks[debt->block] != NULL)
	{
		BlockBits  *bits = segment->blocks[debt->block];

		set_bit(bits->acked, debt->offset);
		if (bit_is_set(bits->awaited, debt->offset))
		{
			clear_bit(bits->awaited, debt->offset);
			segment->awaited--;
		}
	}
	dlist_delete(&debt->node);
	outbox->ndebts--;
	pfree(debt);
}

/* Visits every visible tuple of a segment under a snapshot taken here. */
static void
await_segment(QsOutbox *outbox, Segment *segment)
{
	Relation	rel = open_segment(segment, AccessShareLock);
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;

	if (rel == NULL)
		return;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = table_beginscan_strat(rel, snapshot, 0, NULL, true, false);
	slot = table_slot_create(rel, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		BlockBits  *bits = bits_of(segment, ItemPointerGetBlockNumber(&slot->tts_tid));
		int			offset = ItemPointerGetOffsetNumber(&slot->tts_tid);

		if (!bit_is_set(bits->acked, offset) && !bit_is_set(bits->awaited, offset))
		{
			set_bit(bits->awaited, offset);
			segment->awaited++;
			if (!bit_is_set(bits->seen, offset))
				qs_outbox_scan(outbox);
		}
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	relation_close(rel, AccessShareLock);
}

void
qs_outbox_await(QsOutbox *outbox)
{
	for (int i = 0; i < 2; i++)
		await_segment(outbox, &outbox->segments[i]);
}

int64
qs_outbox_awaited(const QsOutbox *outbox)
{
	return outbox->segments[0].awaited + outbox->segments[1].awaited;
}

int
qs_outbox_pending(const QsOutbox *outbox, TimestampTz *oldest)
{
	dlist_iter	iter;

	*oldest = 0;
	dlist_foreach(iter, &((QsOutbox *) outbox)->debts)
	{
		QsDebt	   *debt = dlist_container(QsDebt, node, iter.cur);

		if (*oldest == 0 || debt->since < *oldest)
			*oldest = debt->since;
	}
	return outbox->ndebts;
}

int
qs_outbox_shown(const QsOutbox *outbox)
{
	return outbox->ndebts;
}

uint64
qs_outbox_bytes(const QsOutbox *outbox)
{
	return ((uint64) outbox->segments[0].size + outbox->segments[1].size) * BLCKSZ;
}

bool
qs_outbox_is_used(const QsOutbox *outbox)
{
	return outbox->segments[0].size > 0 || outbox->segments[1].size > 0;
}

/*
 * True where every visible tuple is acknowledged.  The caller holds
 * AccessExclusiveLock, so no writer is under way in the segment, and the
 * snapshot, taken here, sees all that committed.
 */
static bool
all_acknowledged(QsOutbox *outbox, int which, Relation rel)
{
	Segment    *segment = &outbox->segments[which];
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan_strat(rel, snapshot, 0, NULL, true, false);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		all = true;

	while (all && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		BlockBits  *bits = bits_of(segment, ItemPointerGetBlockNumber(&slot->tts_tid));

		all = bit_is_set(bits->acked, ItemPointerGetOffsetNumber(&slot->tts_tid));
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	return all;
}

/* Empties the inactive segment if that can be done at once. */
static bool
empty_segment(QsOutbox *outbox, int which)
{
	Segment    *segment = &outbox->segments[which];
	bool		emptied = false;
	Relation	rel;

	qs_begin();
	if (ConditionalLockRelationOid(segment->relid, AccessExclusiveLock))
	{
		rel = open_segment(segment, NoLock);
		if (rel != NULL && segment->size > 0)
		{
			if (all_acknowledged(outbox, which, rel))
			{
				/* In place: no new storage, no catalog change; with its TOAST. */
				heap_truncate_one_rel(rel);
				qs_flush_wal();
				forget_bits(segment);
				segment->size = 0;
				emptied = true;
			}
			else
				qs_outbox_scan(outbox);
		}
		if (rel != NULL)
			relation_close(rel, NoLock);
	}
	qs_commit();
	return emptied;
}

static BlockNumber
segment_size(QsOutbox *outbox, int which)
{
	Relation	rel = open_segment(&outbox->segments[which], AccessShareLock);

	if (rel == NULL)
		return 0;
	relation_close(rel, AccessShareLock);
	return outbox->segments[which].size;
}

/* No chunk of this segment is waiting for its acknowledgement. */
static bool
segment_settled(QsOutbox *outbox, int which)
{
	dlist_iter	iter;

	if (outbox->scanning)
		return false;
	dlist_foreach(iter, &outbox->debts)
	{
		if (dlist_container(QsDebt, node, iter.cur)->segment == which)
			return false;
	}
	return true;
}

void
qs_outbox_rotate(QsOutbox *outbox)
{
	TimestampTz now = GetCurrentTimestamp();
	int			active = outbox->slot ? (int) pg_atomic_read_u32(&outbox->slot->active_segment) : 0;
	BlockNumber sizes[2];

	if (now < outbox->rotate_after)
		return;
	outbox->rotate_after = TimestampTzPlusMilliseconds(now, 1000);

	qs_begin();
	sizes[0] = segment_size(outbox, 0);
	sizes[1] = segment_size(outbox, 1);
	qs_commit();

	if (sizes[!active] > 0 && segment_settled(outbox, !active))
	{
		if (empty_segment(outbox, !active))
		{
			outbox->failures = 0;
			sizes[!active] = 0;
		}
		else
		{
			/* Each failed try costs a transaction id where WAL is for a standby. */
			outbox->failures = Min(outbox->failures + 1, 6);
			outbox->rotate_after = TimestampTzPlusMilliseconds(now, 1000 << outbox->failures);
		}
	}
	if (outbox->slot != NULL && sizes[!active] == 0 && sizes[active] > 0 &&
		(sizes[active] >= (BlockNumber) qs_segment_size / (BLCKSZ / 1024) ||
		 (outbox->ndebts == 0 && !outbox->scanning)))
		pg_atomic_write_u32(&outbox->slot->active_segment, !active);
}
