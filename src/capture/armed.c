/*
 * armed.c
 *		Which relations are captured: the catalog of mirrors, as writers' backends
 *		see it, cached.
 *
 * Looked up in qdrant_internal.mirror by relation, never in the arguments of a
 * trigger, which the table's owner writes (hazard 22).  The scan uses a fresh
 * snapshot of its own, so it is right in REPEATABLE READ too.  A cached answer
 * lives until the relcache of the relation is invalidated: whoever writes a row
 * of qdrant_internal.mirror invalidates it, and so does every ALTER TABLE.
 */
#include "capture/armed.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "mirror/definition.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/* Columns of qdrant_internal.mirror that are read here. */
enum
{
	MIRROR_ID = 1,
	MIRROR_RELID,
	MIRROR_SYSTEM_IDENTIFIER,
	MIRROR_DATABASE,
	MIRROR_SERVER,
	MIRROR_COLLECTION,
	MIRROR_KEY_ATTNUM,
	MIRROR_KEY_TYPE,
	MIRROR_SEGMENT_A,
	MIRROR_SEGMENT_B,
	MIRROR_DROPPED = 15
};

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

static Datum
column(HeapTuple row, TupleDesc desc, AttrNumber attnum)
{
	bool		isnull;
	Datum		value = heap_getattr(row, attnum, desc, &isnull);

	if (isnull)
		elog(ERROR, "column %d of a mirror is null", attnum);
	return value;
}

static bool
is_ours(HeapTuple row, TupleDesc desc)
{
	return !DatumGetBool(column(row, desc, MIRROR_DROPPED)) &&
		DatumGetObjectId(column(row, desc, MIRROR_DATABASE)) == MyDatabaseId &&
		(uint64) DatumGetInt64(column(row, desc, MIRROR_SYSTEM_IDENTIFIER)) == GetSystemIdentifier();
}

/*
 * The key is read by the type that the column has now: a chunk says "integers",
 * and the worker knows which.  A column that is gone or has become something
 * else leaves no key to note, so all is to be compared.
 */
static void
set_key(QsArmed *armed, AttrNumber attnum)
{
	Oid			type = getBaseType(get_atttype(armed->relid, attnum));
	int			kind = OidIsValid(type) ? qs_chunk_kind_of(type) : 0;

	armed->key_attnum = attnum;
	armed->key_type = type;
	armed->kind = kind == 0 ? QS_CHUNK_SWEEP : (QsChunkKind) kind;
}

static void
fill(QsArmed *armed, HeapTuple row, TupleDesc desc)
{
	armed->armed = true;
	armed->target.mirror = DatumGetInt64(column(row, desc, MIRROR_ID));
	armed->target.segments[0] = DatumGetObjectId(column(row, desc, MIRROR_SEGMENT_A));
	armed->target.segments[1] = DatumGetObjectId(column(row, desc, MIRROR_SEGMENT_B));
	armed->target.slot = NULL;
	armed->target.slot_looked_for = 0;
	armed->serial = 0;
	set_key(armed, DatumGetInt16(column(row, desc, MIRROR_KEY_ATTNUM)));
}

static void
read_catalog(QsArmed *armed)
{
	Oid			index = qs_internal_relation("mirror_relid");
	Relation	mirrors = NULL;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	row;

	armed->armed = false;
	if (OidIsValid(index))
		mirrors = try_relation_open(qs_internal_relation("mirror"), AccessShareLock);
	if (mirrors == NULL)
		return;
	ScanKeyInit(&key, MIRROR_RELID, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(armed->relid));
	scan = systable_beginscan(mirrors, index, true, NULL, 1, &key);
	while (!armed->armed && (row = systable_getnext(scan)) != NULL)
	{
		if (is_ours(row, RelationGetDescr(mirrors)))
			fill(armed, row, RelationGetDescr(mirrors));
	}
	systable_endscan(scan);
	relation_close(mirrors, AccessShareLock);
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
qs_collection_is_mirrored(const char *server, const char *collection)
{
	Oid			index = qs_internal_relation("mirror_collection");
	Relation	mirrors;
	SysScanDesc scan;
	ScanKeyData keys[2];
	HeapTuple	row;
	bool		found = false;

	if (!OidIsValid(index))
		return false;
	ScanKeyEntryInitialize(&keys[0], 0, MIRROR_SERVER, BTEqualStrategyNumber, InvalidOid,
						   DEFAULT_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(server));
	ScanKeyEntryInitialize(&keys[1], 0, MIRROR_COLLECTION, BTEqualStrategyNumber, InvalidOid,
						   DEFAULT_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(collection));
	mirrors = relation_open(qs_internal_relation("mirror"), AccessShareLock);
	scan = systable_beginscan(mirrors, index, true, NULL, 2, keys);
	while (!found && (row = systable_getnext(scan)) != NULL)
		found = is_ours(row, RelationGetDescr(mirrors));
	systable_endscan(scan);
	relation_close(mirrors, AccessShareLock);
	return found;
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
