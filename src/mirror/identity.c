/*
 * identity.c
 *		Whose state rows are: this database's of this cluster, a copy's, or those of
 *		the cluster that pg_upgrade made this one of.
 *
 * Runs in every process that looks at mirrors.  A state row says in which cluster
 * and database it was made.  pg_upgrade carries it into a cluster with another
 * identifier, as does whatever gives a copy of a data directory a new one
 * (pg_createsubscriber), and only the first is no copy (hazard 33).
 *
 * What tells them apart: pg_upgrade alone makes the extension's objects anew, by
 * SQL, around the old files.  The view qdrant_internal.cluster has a constant of
 * a type whose text, when it is written, names the cluster that writes it, and
 * when it is read, notes that name beside the cluster that reads.  So after
 * pg_upgrade the view says "from there to here", exactly, and everywhere else
 * what it said before.  Needs neither a file nor the library preloaded.
 *
 * Logical replication would bring rows of another cluster, too: a publication FOR
 * ALL TABLES has our tables in it.  A trigger on each leaves them out.
 */
#include "qdrant_sync.h"
#include "mirror/definition.h"
#include "mirror/identity.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xlog.h"
#include "commands/trigger.h"
#include "nodes/primnodes.h"
#include "replication/logicalworker.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(qs_cluster_in);
PG_FUNCTION_INFO_V1(qs_cluster_out);
PG_FUNCTION_INFO_V1(qs_ignore_replicated);

/* Value of qdrant_internal.cluster_identity: system identifiers. */
typedef struct ClusterIdentity
{
	uint64		from;			/* 0: CREATE EXTENSION made it */
	uint64		here;			/* where the text was read */
} ClusterIdentity;

Datum
qs_cluster_in(PG_FUNCTION_ARGS)
{
	const char *text = PG_GETARG_CSTRING(0);
	ClusterIdentity *identity = palloc(sizeof(ClusterIdentity));
	char	   *end;

	errno = 0;
	identity->from = strtoull(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid input syntax for type %s: \"%s\"", "cluster_identity", text)));
	identity->here = GetSystemIdentifier();
	PG_RETURN_POINTER(identity);
}

/* Not the value, but who writes it. */
Datum
qs_cluster_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(psprintf(UINT64_FORMAT, GetSystemIdentifier()));
}

/* The cluster that pg_upgrade made this one of; 0: none. */
static uint64
read_predecessor(Relation view)
{
	TargetEntry *entry = linitial_node(TargetEntry, get_view_query(view)->targetList);
	ClusterIdentity identity;

	if (!IsA(entry->expr, Const))
		elog(ERROR, "unexpected shape of view %s.cluster", QS_SCHEMA);
	memcpy(&identity, DatumGetPointer(((Const *) entry->expr)->constvalue), sizeof(identity));
	return identity.here == GetSystemIdentifier() ? identity.from : 0;
}

/* Kept for the life of the process: it changes only while nobody is connected. */
static uint64
predecessor(void)
{
	static uint64 found = 0;
	static bool known = false;
	Oid			relid;
	Relation	view;

	if (known)
		return found;
	relid = qs_internal_relation("cluster");
	view = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	if (view == NULL)
		return 0;
	found = read_predecessor(view);
	known = true;
	relation_close(view, AccessShareLock);
	return found;
}

bool
qs_is_ours(uint64 system_identifier, Oid database)
{
	if (database != MyDatabaseId)
		return false;
	return system_identifier == GetSystemIdentifier() ||
		(system_identifier != 0 && system_identifier == predecessor());
}

/* ---- logical replication ---- */

/*
 * BEFORE ROW on our own tables, for replication roles only: a publisher's state is
 * not the subscriber's (hazard 16).  A session may have set that role itself.
 */
Datum
qs_ignore_replicated(PG_FUNCTION_ARGS)
{
	TriggerData *event = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(event->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(event->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" is a trigger before rows of the extension's own tables",
						"ignore_replicated")));
	if (IsLogicalWorker())
		PG_RETURN_POINTER(NULL);
	PG_RETURN_POINTER(TRIGGER_FIRED_BY_UPDATE(event->tg_event) ? event->tg_newtuple :
					  event->tg_trigtuple);
}
