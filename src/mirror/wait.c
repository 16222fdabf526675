/*
 * wait.c
 *		qdrant_wait: until everything that was committed before the call has
 *		reached Qdrant.
 *
 * Runs in the session that calls it.  A wait raises a number in the mirror's
 * slot and wakes the worker; the worker scans the outbox with a snapshot taken
 * after it read that number, and raises another one once all of what it saw is
 * acknowledged (hazard 18).  What the session itself has changed and not
 * committed can never be waited for, so that is an error.
 *
 * The answer is honest: false where time was up or a mirror has stopped.  A mirror
 * that is not followed is told of in a NOTICE, and what can still arrive is waited
 * for before that answer.
 */
#include "qdrant_sync.h"
#include "capture/capture.h"
#include "common/settings.h"
#include "common/shared.h"
#include "mirror/catalog.h"
#include "mirror/triggers.h"
#include "mirror/wait.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "storage/condition_variable.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* How soon a slot that the worker has not made yet is looked for again. */
#define LOOK_MS 20
/* How often a sleeping waiter looks whether the mirror is still there. */
#define SLEEP_MS 1000

/* The mirror id under which the worker answers for explicit operations. */
#define OPERATIONS_ID 0

/* One thing that is waited for. */
typedef struct Awaited
{
	int64		mirror;
	Oid			relid;			/* InvalidOid: explicit operations */
	QsMirrorSlot *slot;			/* NULL: the worker has not made it yet */
	uint64		number;			/* ours, in that slot */
	bool		rebuild;		/* about to serve the table; if it stops, it will not */
} Awaited;

typedef enum Progress
{
	WAITING,
	REACHED,
	STOPPED
} Progress;

PG_FUNCTION_INFO_V1(qs_wait);

static void
refuse_impossible(void)
{
	qs_require_preload("qdrant_wait");
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("qdrant_wait cannot be used on a standby"),
				 errdetail("Changes are sent to Qdrant by the primary.")));
	if (!OidIsValid(qs_extension_oid()))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database", QS_EXTENSION)));
	if (qs_capture_pending())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("qdrant_wait cannot be used in a transaction that has changes to send"),
				 errhint("They are sent after COMMIT. Wait then.")));
}

/* Where no worker can come, waiting would be for ever. */
static void
refuse_without_worker(void)
{
	QsDatabaseSlot *slot = qs_database_slot_find(MyDatabaseId);
	QsWorkerState state = slot ? slot->state : QS_WORKER_ABSENT;

	if (state == QS_WORKER_NO_SLOT)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("the sync worker of this database could not be started"),
				 errhint("Raise max_worker_processes (now %d) and restart the server.",
						 max_worker_processes)));
}

static void
require_mirror_slots(void)
{
	for (int i = 0; i < qs_max_mirrors; i++)
	{
		if (!OidIsValid(qs_mirror_slots[i].database))
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("there are more mirrors than qdrant_sync.max_mirrors allows"),
			 errhint("Raise qdrant_sync.max_mirrors (now %d) and restart the server.", qs_max_mirrors)));
}

/* An interval from now on; NULL: no end. */
static TimestampTz
deadline_argument(FunctionCallInfo fcinfo)
{
	Interval   *interval;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz deadline;

	if (PG_ARGISNULL(0))
		return DT_NOEND;
	interval = PG_GETARG_INTERVAL_P(0);
	deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													   TimestampTzGetDatum(now),
													   IntervalPGetDatum(interval)));
	if (deadline < now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative")));
	return deadline;
}

/* ---- what is waited for ---- */

static Awaited *
make_awaited(int64 mirror, Oid relid)
{
	Awaited    *awaited = palloc0(sizeof(Awaited));

	awaited->mirror = mirror;
	awaited->relid = relid;
	return awaited;
}

static void
notice_stopped(Oid relid, const char *state)
{
	ereport(NOTICE,
			(errmsg("the mirror of table \"%s\" is %s, and is not waited for",
					get_rel_name(relid) ? get_rel_name(relid) : "", state),
			 errhint("The view qdrant_mirrors says why; qdrant_resume takes it up again.")));
}

static bool
exists(Oid relid)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid));
}

/*
 * False, with a notice, where the mirror is not being followed.  Of a table that was
 * dropped nothing is left to reach Qdrant, whether or not the worker has seen that.
 */
static bool
add_mirror(List **list, const QsMirrorRow *row)
{
	if (row->dropped || !exists(row->relid))
		return true;
	if (!row->ours || row->paused)
	{
		notice_stopped(row->relid, row->ours ? "paused" : "restored");
		return false;
	}
	*list = lappend(*list, make_awaited(row->id, row->relid));
	return true;
}

/*
 * A rebuild that is filled serves the table from one moment to the next.  One that
 * is said not to be filled yet will ask for everything committed until then.
 */
static void
add_rebuild(List **list, const QsMirrorRow *row)
{
	Awaited    *awaited;

	if (!row->ours || row->dropped ||
		qs_execute_as_owner("SELECT FROM " QS_SCHEMA ".progress WHERE mirror = $1 AND phase = 'switching'",
							1, &row->id) == 0)
		return;
	awaited = make_awaited(row->id, row->relid);
	awaited->rebuild = true;
	*list = lappend(*list, awaited);
}

static bool
add_source(List **list, Oid relid)
{
	QsMirrorRow *row;
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("there is no table with OID %u", relid)));
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(relid)), name);
	row = qs_mirror_row_by_relid(relid);
	/* As it comes out of a dump, until qdrant_resume. */
	if (row == NULL && list_member_oid(qs_triggers_tables(), relid))
	{
		notice_stopped(relid, "restored");
		return false;
	}
	if (row == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" has no mirror", name),
				 errhint("qdrant_mirror makes one.")));
	if (!add_mirror(list, row))
		return false;
	if (row->rebuild != NULL)
		add_rebuild(list, row->rebuild);
	return true;
}

/* False where one of them is not being followed; the others are in the list all the same. */
static bool
add_all(List **list)
{
	bool		all = true;
	ListCell   *lc;

	foreach(lc, qs_mirror_rows())
	{
		const QsMirrorRow *row = lfirst(lc);

		if (row->rebuilds != 0)
			add_rebuild(list, row);
		else if (!add_mirror(list, row))
			all = false;
	}
	foreach(lc, qs_triggers_tables())
	{
		if (qs_mirror_row_by_relid(lfirst_oid(lc)) == NULL)
		{
			notice_stopped(lfirst_oid(lc), "restored");
			all = false;
		}
	}
	*list = lappend(*list, make_awaited(OPERATIONS_ID, InvalidOid));
	return all;
}

/* ---- one of them ---- */

static bool
is_still_of(const Awaited *awaited)
{
	return awaited->slot != NULL && awaited->slot->database == MyDatabaseId &&
		awaited->slot->mirror == awaited->mirror;
}

/* Takes a number in the mirror's slot, where there is one. */
static void
ask(Awaited *awaited)
{
	awaited->slot = qs_mirror_slot_find(MyDatabaseId, awaited->mirror);
	if (awaited->slot == NULL)
		return;
	awaited->number = pg_atomic_add_fetch_u64(&awaited->slot->wait_requested, 1);
	qs_notices_post(NULL, 0, true);
}

/* Unmirrored or dropped meanwhile: there is nothing left to reach Qdrant. */
static bool
is_gone(const Awaited *awaited)
{
	QsMirrorRow *row;

	if (!OidIsValid(awaited->relid))
		return false;
	row = qs_mirror_row_by_relid(awaited->relid);
	return row == NULL || row->id != awaited->mirror || !exists(awaited->relid);
}

/* Another mirror serves the table now: that one is waited for. */
static bool
follow_replacement(Awaited *awaited)
{
	QsMirrorRow *row = OidIsValid(awaited->relid) ? qs_mirror_row_by_relid(awaited->relid) : NULL;

	if (row == NULL || row->id == awaited->mirror || !row->ours || row->paused)
		return false;
	awaited->mirror = row->id;
	ask(awaited);
	return true;
}

/*
 * A worker that has not yet acted on qdrant_resume still says "stopped"; once it has,
 * it says otherwise before that can be read here, so "stopped" is looked at again.
 */
static bool
is_being_resumed(const Awaited *awaited)
{
	int64		parameters[] = {awaited->mirror};

	return qs_execute_as_owner("SELECT FROM " QS_SCHEMA ".mirror m LEFT JOIN " QS_SCHEMA ".progress p "
							   "ON p.mirror = m.id WHERE m.id = $1 AND NOT m.paused "
							   "AND m.resumed > coalesce(p.resumed, 0)", 1, parameters) > 0;
}

/* *ms is how long to sleep before the next look, where it is WAITING. */
static Progress
look(Awaited *awaited, long *ms)
{
	*ms = LOOK_MS;
	if (!is_still_of(awaited))
	{
		if (follow_replacement(awaited))
			return WAITING;
		if (is_gone(awaited))
			return REACHED;
		ask(awaited);
		if (awaited->slot == NULL)
		{
			refuse_without_worker();
			require_mirror_slots();
			return WAITING;
		}
	}
	if (pg_atomic_read_u64(&awaited->slot->wait_done) >= awaited->number)
		return REACHED;
	if (pg_atomic_read_u32(&awaited->slot->stopped) == 0)
		*ms = SLEEP_MS;
	else if (!is_being_resumed(awaited) && pg_atomic_read_u32(&awaited->slot->stopped) != 0 &&
			 !follow_replacement(awaited))
		return awaited->rebuild || is_gone(awaited) ? REACHED : STOPPED;
	return WAITING;
}

static void
sleep_on(const Awaited *awaited, long ms)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = qs_wait_event("QdrantWait");
	if (awaited->slot != NULL)
	{
		(void) ConditionVariableTimedSleep(&awaited->slot->wait_done_cv, ms, wait_event);
		return;
	}
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * The condition variable is joined before the look, so that a broadcast between
 * look and sleep is not missed.
 */
static Progress
wait_until_reached(Awaited *awaited, TimestampTz deadline)
{
	Progress	progress;
	long		ms;

	for (;;)
	{
		TimestampTz now;

		if (awaited->slot != NULL)
			ConditionVariablePrepareToSleep(&awaited->slot->wait_done_cv);
		progress = look(awaited, &ms);
		now = GetCurrentTimestamp();
		if (progress != WAITING || now >= deadline)
			break;
		if (deadline != DT_NOEND)
			ms = Min(ms, TimestampDifferenceMilliseconds(now, deadline) + 1);
		sleep_on(awaited, ms);
	}
	ConditionVariableCancelSleep();
	return progress;
}

static bool
wait_for(Awaited *awaited, TimestampTz deadline)
{
	Progress	progress = wait_until_reached(awaited, deadline);

	if (progress == STOPPED && OidIsValid(awaited->relid))
		notice_stopped(awaited->relid, "stopped");
	return progress == REACHED;
}

void
qs_wait_for_mirror(int64 mirror, Oid relid, TimestampTz deadline)
{
	Awaited    *awaited = make_awaited(mirror, relid);
	Progress	progress;

	ask(awaited);
	progress = wait_until_reached(awaited, deadline);
	pfree(awaited);
	if (progress == STOPPED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the mirror of table \"%s\" is paused or has stopped",
						get_rel_name(relid) ? get_rel_name(relid) : ""),
				 errdetail("What is not sent yet cannot be told from a difference."),
				 errhint("The view qdrant_mirrors says why; qdrant_resume takes it up again.")));
	if (progress == WAITING)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("changes of table \"%s\" that are committed did not reach Qdrant in time",
						get_rel_name(relid) ? get_rel_name(relid) : ""),
				 errdetail("What is not sent yet cannot be told from a difference."),
				 errhint("The view qdrant_mirrors says how far its mirror is; give a longer timeout.")));
}

Datum
qs_wait(PG_FUNCTION_ARGS)
{
	TimestampTz deadline;
	List	   *awaited = NIL;
	ListCell   *lc;
	bool		all;

	refuse_impossible();
	deadline = deadline_argument(fcinfo);
	all = PG_ARGISNULL(1) ? add_all(&awaited) : add_source(&awaited, PG_GETARG_OID(1));
	/* All are asked before any is waited for. */
	foreach(lc, awaited)
		ask(lfirst(lc));
	foreach(lc, awaited)
	{
		if (!wait_for(lfirst(lc), deadline))
			all = false;
	}
	PG_RETURN_BOOL(all);
}
