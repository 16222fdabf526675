/*
 * armed.c
 *		Which relations are captured: the catalog of mirrors, as writers' backends
 *		see it, cached.
 *
 * Looked up in qdrant_internal.mirror by relation, never in the arguments of a
 * trigger, which the table's owner writes (hazard 22).  A cached answer
 * lives until the relcache of the relation is invalidated: whoever writes a row
 * of qdrant_internal.mirror invalidates it, and so does every ALTER TABLE.
 */
#include "capture/armed.h"

#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

QsArmed    *qs_armed_last = NULL;

/* A slot that is not there is looked for again after this time; microseconds. */
#define SLOT_LOOK_INTERVAL USECS_PER_SEC

static HTAB *armed_by_relid = NULL;

static void
invalidate_one(QsArmed *armed)
{
	armed->valid = false;
	armed->stale = true;
}

static void
invalidate(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS scan;
	QsArmed    *armed;

	if (OidIsValid(relid))
	{
		armed = hash_search(armed_by_relid, &relid, HASH_FIND, NULL);
		if (armed != NULL)
			invalidate_one(armed);
		return;
	}
	hash_seq_init(&scan, armed_by_relid);
	while ((armed = hash_seq_search(&scan)) != NULL)
		invalidate_one(armed);
}

static void
make_cache(void)
{
	HASHCTL		how = {.keysize = sizeof(Oid), .entrysize = sizeof(QsArmed)};

	armed_by_relid = hash_create("qdrant_sync captured relations", 16, &how,
								 HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(invalidate, (Datum) 0);
}

/* Row of the mirror of this relation or of a partitioned table above it; NULL: none. */
static QsMirrorRow *
find_row(Oid relid)
{
	QsMirrorRow *row = qs_mirror_row_by_relid(relid);
	ListCell   *lc;

	if ((row != NULL && row->ours) || !get_rel_relispartition(relid))
		return row;
	foreach(lc, get_partition_ancestors(relid))
	{
		row = qs_mirror_row_by_relid(lfirst_oid(lc));
		if (row != NULL && row->ours)
			return row;
	}
	return NULL;
}

/* A leaf may have its columns in another order; the names are the same. */
static AttrNumber
leaf_attnum(Oid leaf, Oid root, AttrNumber attnum)
{
	char	   *name;

	if (leaf == root)
		return attnum;
	name = get_attname(root, attnum, true);
	return name == NULL ? InvalidAttrNumber : get_attnum(leaf, name);
}

/* Kind of the chunks that hold such a key; QS_CHUNK_SWEEP where none does. */
static QsChunkKind
kind_of(const QsKeySpec *key)
{
	int			kind;

	for (int i = 0; i < key->n; i++)
	{
		if (!OidIsValid(key->types[i]))
			return QS_CHUNK_SWEEP;
	}
	if (key->rule == QS_KEY_HASHED)
		return QS_CHUNK_TEXTS;
	kind = qs_chunk_kind_of(key->types[0]);
	return kind == 0 ? QS_CHUNK_SWEEP : (QsChunkKind) kind;
}

/*
 * The key is read by the types that its columns have now: a chunk says which.  A
 * column that is gone or has become something else leaves no key to note, so all
 * is to be compared.
 */
static void
set_key(QsArmed *armed, const QsMirrorRow *row)
{
	armed->key = row->key;
	for (int i = 0; i < row->key.n; i++)
	{
		AttrNumber	attnum = leaf_attnum(armed->relid, row->relid, row->key.attnums[i]);

		armed->key.attnums[i] = attnum;
		armed->key.types[i] = attnum == InvalidAttrNumber ? InvalidOid :
			getBaseType(get_atttype(armed->relid, attnum));
	}
	armed->kind = kind_of(&armed->key);
	armed->direct = armed->kind == QS_CHUNK_INTEGERS || armed->kind == QS_CHUNK_UUIDS;
	if (armed->kind != QS_CHUNK_TEXTS)
		return;
	armed->writer = qs_key_writer(&armed->key, armed->context);
	armed->types = qs_key_types_hash(&armed->key);
}

/* A column that is gone, or is in no tuple, leaves nothing to compare by. */
static void
set_columns(QsArmed *armed, const QsMirrorRow *row)
{
	MemoryContext before;

	armed->ncolumns = row->ncolumns;
	if (row->ncolumns < 0)
		return;
	before = MemoryContextSwitchTo(armed->context);
	armed->columns = palloc((row->ncolumns + 1) * sizeof(AttrNumber));
	for (int i = 0; i < row->ncolumns; i++)
	{
		AttrNumber	attnum = leaf_attnum(armed->relid, row->relid, row->columns[i]);

		if (attnum == InvalidAttrNumber)
			armed->ncolumns = -1;
		armed->columns[i] = attnum;
		armed->column_set = bms_add_member(armed->column_set, attnum - FirstLowInvalidHeapAttributeNumber);
	}
	MemoryContextSwitchTo(before);
}

static void
reset_context(QsArmed *armed)
{
	if (armed->context == NULL)
		armed->context = AllocSetContextCreate(TopMemoryContext, "qdrant_sync captured relation",
											   ALLOCSET_SMALL_SIZES);
	MemoryContextReset(armed->context);
	armed->columns = NULL;
	armed->column_set = NULL;
	armed->writer = NULL;
}

static void
take_row(QsArmed *armed, const QsMirrorRow *row)
{
	QsTarget   *target = &armed->target;
	QsChunkKind kind = armed->kind;

	armed->root = row->relid;
	reset_context(armed);
	set_key(armed, row);
	set_columns(armed, row);
	if (target->mirror == row->id && target->segments[0] == row->segments[0] &&
		target->segments[1] == row->segments[1] && armed->kind == kind)
		return;
	target->mirror = row->id;
	target->segments[0] = row->segments[0];
	target->segments[1] = row->segments[1];
	target->slot = NULL;
	target->slot_looked_for = 0;
	armed->serial = 0;
}

static QsArmed *
get_spare(QsArmed *armed)
{
	if (armed->spare == NULL)
	{
		armed->spare = MemoryContextAllocZero(TopMemoryContext, sizeof(QsArmed));
		armed->spare->relid = armed->relid;
		armed->spare->armed = true;
	}
	return armed->spare;
}

static void
read_catalog(QsArmed *armed)
{
	QsMirrorRow *row = find_row(armed->relid);

	armed->next = NULL;
	armed->armed = row != NULL && row->ours;
	if (!armed->armed)
		return;
	take_row(armed, row);
	if (row->rebuild == NULL)
		return;
	take_row(get_spare(armed), row->rebuild);
	armed->next = armed->spare;
}

/*
 * An invalidation that arrives during the scan leaves the entry invalid: this
 * answer is used once.
 */
QsArmed *
qs_armed_look_up(Oid relid)
{
	QsArmed    *armed;
	bool		found;

	if (armed_by_relid == NULL)
		make_cache();
	armed = hash_search(armed_by_relid, &relid, HASH_ENTER, &found);
	if (!found)
	{
		memset(armed, 0, sizeof(QsArmed));
		armed->relid = relid;
	}
	if (!armed->valid)
	{
		armed->stale = false;
		read_catalog(armed);
		armed->valid = !armed->stale;
	}
	qs_armed_last = armed;
	return armed;
}

bool
qs_armed_any(Oid relid)
{
	const QsMirrorRow *row = find_row(relid);

	return row != NULL && row->ours;
}

bool
qs_armed_is_leaf(Oid relid)
{
	const QsMirrorRow *row = find_row(relid);

	return row != NULL && row->ours && row->relid != relid;
}

/*
 * A slot that was freed or serves another mirror now is recognised without a
 * lock: at worst a writer appends to the segment that is not the active one,
 * which workers read as well.
 */
static bool
slot_is_of(const QsMirrorSlot *slot, int64 mirror)
{
	return slot != NULL && slot->mirror == mirror && slot->database == MyDatabaseId;
}

/* Looking takes a lock and time, and there is no slot while no worker runs. */
void
qs_target_find_slot(QsTarget *target)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();

	if (slot_is_of(target->slot, target->mirror))
		return;
	target->slot = NULL;
	if (now - target->slot_looked_for < SLOT_LOOK_INTERVAL)
		return;
	target->slot = qs_mirror_slot_find(MyDatabaseId, target->mirror);
	target->slot_looked_for = now;
}

Oid
qs_target_segment(const QsTarget *target)
{
	QsMirrorSlot *slot = target->slot;

	if (slot_is_of(slot, target->mirror))
		return target->segments[pg_atomic_read_u32(&slot->active_segment) & 1];
	return target->segments[0];
}

bool
qs_target_skips(const QsTarget *target)
{
	return slot_is_of(target->slot, target->mirror) &&
		pg_atomic_read_u32(&target->slot->skipping) != 0;
}
