/*
 * ddl_watch.c
 *		What changes a mirrored table's rows, or what is captured of them, without
 *		firing a row trigger (hazard 4): the mirror is compared as a whole.
 *
 * Runs in sessions of a server that preloads the library.  Here is what an
 * object_access_hook sees wherever it comes from, as DROP OWNED or an event
 * trigger; what is known only with its statement is in mirror/follow.c.  The
 * wish goes into the transaction's log, so that a rollback takes it back.
 */
#include "capture/armed.h"
#include "capture/capture.h"
#include "capture/ddl_watch.h"
#include "capture/key_log.h"
#include "mirror/catalog.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

static object_access_hook_type prev_object_access = NULL;

/* ---- relations ---- */

/* A table that goes takes its mirror with it; a leaf leaves points behind. */
static void
relation_dropped(Oid relid)
{
	if (get_rel_relispartition(relid) && qs_armed_is_leaf(relid))
		qs_capture_sweep(relid);
}

/* Points have a field for it, unless the definition chose its columns. */
static void
column_dropped(Oid relid)
{
	const QsArmed *armed = qs_armed_any(relid) ? qs_armed_find(relid) : NULL;

	for (; armed != NULL; armed = armed->next)
	{
		if (armed->ncolumns < 0)
		{
			qs_capture_sweep(relid);
			return;
		}
	}
}

/* ---- triggers ---- */

/* Relation of a trigger of ours, also of one that this command has just made. */
static Oid
relation_of_trigger(Oid trigger)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			relid = InvalidOid;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(trigger));
	scan = systable_beginscan(catalog, TriggerOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);

		if (form->tgfoid == qs_trigger_function("capture") ||
			form->tgfoid == qs_trigger_function("capture_truncate"))
			relid = form->tgrelid;
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return relid;
}

/* Made by this transaction, and nobody has written a row yet. */
static bool
is_new_and_empty(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	bool		result;

	if (rel == NULL)
		return true;
	result = rel->rd_createSubid != InvalidSubTransactionId &&
		(rel->rd_rel->relkind != RELKIND_RELATION || RelationGetNumberOfBlocks(rel) == 0);
	relation_close(rel, AccessShareLock);
	return result;
}

/*
 * One that was disabled or altered has missed changes, and misses more until it is
 * mended: all is compared after both.  Those of a new partition have missed
 * nothing.
 */
static void
trigger_changed(Oid trigger)
{
	Oid			relid = relation_of_trigger(trigger);

	if (OidIsValid(relid) && qs_armed_any(relid) && !is_new_and_empty(relid))
		qs_capture_sweep(relid);
}

/* ---- the hook ---- */

static void
object_accessed(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class_id, object_id, sub_id, arg);
	if (class_id != RelationRelationId && class_id != TriggerRelationId)
		return;
	if (!IsTransactionState() || !OidIsValid(MyDatabaseId) || !OidIsValid(qs_extension_oid()))
		return;
	if (class_id == RelationRelationId && access == OAT_TRUNCATE)
	{
		if (qs_armed_any(object_id))
			qs_capture_sweep(object_id);
	}
	else if (class_id == RelationRelationId && access == OAT_DROP)
	{
		if (sub_id == 0)
			relation_dropped(object_id);
		else
			column_dropped(object_id);
	}
	else if (class_id == TriggerRelationId &&
			 (access == OAT_POST_ALTER || access == OAT_POST_CREATE))
		trigger_changed(object_id);
}

void
qs_ddl_watch_install_hook(void)
{
	prev_object_access = object_access_hook;
	object_access_hook = object_accessed;
}
