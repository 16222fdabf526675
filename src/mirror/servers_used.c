/*
 * servers_used.c
 *		Mirrors and the servers that they are on: entries of pg_depend, and what
 *		becomes of a mirror whose server is dropped.
 *
 * Runs in sessions, and in the sync worker after pg_upgrade, which makes triggers anew
 * and knows of no such entries.  A definition names its servers in its text, where
 * PostgreSQL does not look; so the entries are ours to keep.  A table that was restored
 * has none until qdrant_resume: it writes nowhere.
 */
#include "qdrant_sync.h"
#include "common/server.h"
#include "mirror/ddl.h"
#include "mirror/servers_used.h"
#include "mirror/table.h"
#include "mirror/triggers.h"

#include "access/relation.h"
#include "catalog/dependency.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_trigger.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* ---- entries of pg_depend ---- */

/* Who drops it at the same moment is waited for. */
static void
depend_on(const ObjectAddress *trigger, const char *name)
{
	Oid			server = qs_server_oid(name);
	ObjectAddress address;

	if (!OidIsValid(server))
		return;
	LockDatabaseObject(ForeignServerRelationId, server, 0, AccessShareLock);
	if (!SearchSysCacheExists1(FOREIGNSERVEROID, ObjectIdGetDatum(server)))
		return;
	ObjectAddressSet(address, ForeignServerRelationId, server);
	recordDependencyOn(trigger, &address, DEPENDENCY_NORMAL);
}

void
qs_note_servers_used(Oid relid)
{
	Relation	rel = relation_open(relid, AccessShareLock);
	QsMirrorTriggers triggers;
	ObjectAddress address;
	List	   *names;
	ListCell   *lc;

	if (qs_mirror_triggers(rel, &triggers))
	{
		ObjectAddressSet(address, TriggerRelationId, triggers.row->tgoid);
		names = qs_triggers_servers(triggers.row);
		(void) deleteDependencyRecordsForClass(TriggerRelationId, address.objectId,
											   ForeignServerRelationId, DEPENDENCY_NORMAL);
		foreach(lc, names)
			depend_on(&address, lfirst(lc));
	}
	relation_close(rel, NoLock);
}

/* ---- DROP SERVER ... CASCADE ---- */

/*
 * It dropped the row trigger, with the rights of who owns the server.  The others go
 * in the same way; the tables are locked by that.
 */
static void
drop_truncate_trigger(Oid relid)
{
	Relation	rel = relation_open(relid, AccessExclusiveLock);
	QsMirrorTriggers triggers;
	ObjectAddress address;

	(void) qs_mirror_triggers(rel, &triggers);
	ObjectAddressSet(address, TriggerRelationId, triggers.truncate ? triggers.truncate->tgoid : InvalidOid);
	relation_close(rel, NoLock);
	if (OidIsValid(address.objectId))
		performDeletion(&address, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
}

static void
end_mirror(Oid relid)
{
	Relation	rel = relation_open(relid, AccessExclusiveLock);
	List	   *leaves = qs_leaves(relid);
	QsMirrorTriggers triggers;
	bool		whole = qs_mirror_triggers(rel, &triggers);
	ListCell   *lc;

	relation_close(rel, NoLock);
	/* The server went another way, and the definition is still there. */
	if (whole)
		return;
	drop_truncate_trigger(relid);
	foreach(lc, leaves)
		drop_truncate_trigger(lfirst_oid(lc));
	qs_ddl_end_mirror(qs_mirror_row_by_relid(relid), false);
}

/* A table that went as well takes its mirror with it. */
void
qs_end_mirrors_without_server(void)
{
	List	   *relids = NIL;
	ListCell   *lc;

	foreach(lc, qs_mirror_rows())
	{
		const QsMirrorRow *row = lfirst(lc);

		if (row->ours && !row->dropped && !OidIsValid(qs_server_oid(row->server)) &&
			SearchSysCacheExists1(RELOID, ObjectIdGetDatum(row->relid)))
			relids = list_append_unique_oid(relids, row->relid);
	}
	foreach(lc, relids)
		end_mirror(lfirst_oid(lc));
}
