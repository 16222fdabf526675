/*
 * worker.c
 *		The sync worker: one process for each database that has the extension.
 *
 * Owns the main loop and its transactions.  A turn takes notices, lets every
 * mirror do what it can, and sleeps until a notice, an answer or a deadline.
 * No transaction, snapshot or lock outlives a turn: qs_calls_wait() asserts it.
 */
#include "qdrant_sync.h"
#include "common/settings.h"
#include "common/shared.h"
#include "mirror/servers_used.h"
#include "sync/launcher.h"
#include "sync/operation_sender.h"
#include "sync/owners_code.h"
#include "sync/task.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/pg_class.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/*
 * An idle worker looks by itself that often: for prepared transactions and for
 * notices that a crash of their sender lost.  An empty segment costs one look at
 * its length.
 */
#define LOOK_MS (5 * 1000)

#define NOTICES_PER_TURN 256

static QsDatabaseSlot *slot = NULL;
static dlist_head tasks = DLIST_STATIC_INIT(tasks);
static MemoryContext tasks_context = NULL;
static MemoryContext turn_context = NULL;
static bool reload_wanted = true;
static bool endpoints_changed = false;
static TimestampTz look_after = 0;

void
qs_begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
}

void
qs_commit(void)
{
	CommitTransactionCommand();
	MemoryContextSwitchTo(turn_context);
}

/*
 * Where the next record would begin on a fresh page, the insert position is
 * already behind that page's header, and there is nothing to flush that far.
 */
void
qs_flush_wal(void)
{
	XLogRecPtr	end = GetXLogInsertRecPtr();
	uint64		offset = XLogSegmentOffset(end, wal_segment_size);

	if (offset == SizeOfXLogLongPHD)
		end -= SizeOfXLogLongPHD;
	else if (offset % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		end -= SizeOfXLogShortPHD;
	XLogFlush(end);
}

ErrorData *
qs_catch_error(MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(turn_context);
	return error;
}

/* What ALTER DATABASE and ALTER ROLE could have changed (hazard 12). */
static void
pin_settings(void)
{
	static const char *const pins[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		/* A worker that waited for a standby would stop every mirror. */
		{"synchronous_commit", "local"},
		{"statement_timeout", "0"},
		/*
		 * Shorter than anybody's deadlock_timeout by default, and whoever finds a
		 * deadlock is its victim: a DROP EXTENSION must not be.
		 */
		{"lock_timeout", "500ms"},
		{"deadlock_timeout", "50ms"},
		{"idle_in_transaction_session_timeout", "0"},
		{"session_replication_role", "origin"},
		{"row_security", "off"},
		{"event_triggers", "off"},
	};

	for (int i = 0; i < lengthof(pins); i++)
	{
		if (GetConfigOption(pins[i][0], true, false) != NULL)
			SetConfigOption(pins[i][0], pins[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	}
}

static void
leave_slot(int code, Datum arg)
{
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (slot->pid == MyProcPid)
	{
		slot->pid = 0;
		slot->proc_number = -1;
		if (slot->state == QS_WORKER_RUNNING || slot->state == QS_WORKER_STARTING)
			slot->state = QS_WORKER_CRASHED;
	}
	LWLockRelease(&slot->lock);
}

static void
take_slot(Oid database)
{
	slot = qs_database_slot_find(database);
	if (slot == NULL)
		proc_exit(0);
	before_shmem_exit(leave_slot, (Datum) 0);
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (slot->blockers > 0 || slot->pid != 0)
	{
		/* DDL needs the database without us, or another worker is there. */
		if (slot->pid == 0)
			slot->state = QS_WORKER_ABSENT;
		LWLockRelease(&slot->lock);
		proc_exit(0);
	}
	slot->pid = MyProcPid;
	slot->proc_number = qs_my_proc_number();
	slot->started_at = GetCurrentTimestamp();
	slot->state = QS_WORKER_STARTING;
	slot->scan = true;
	LWLockRelease(&slot->lock);
}

static void
set_state(QsWorkerState state)
{
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	slot->state = state;
	LWLockRelease(&slot->lock);
}

static void
leave_without_extension(void)
{
	qs_mirror_slots_free(MyDatabaseId);
	set_state(QS_WORKER_NO_EXTENSION);
	proc_exit(0);
}

static void
relation_changed(Datum arg, Oid relid)
{
	dlist_iter	iter;

	dlist_foreach(iter, &tasks)
	{
		QsTask	   *task = dlist_container(QsTask, node, iter.cur);

		if (relid == InvalidOid || relid == task->row.relid)
		{
			task->stale = true;
			/* It may have been dropped. */
			reload_wanted = true;
		}
	}
}

static void
server_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	endpoints_changed = true;
}

static QsTask *
find_task(int64 id)
{
	dlist_iter	iter;

	dlist_foreach(iter, &tasks)
	{
		QsTask	   *task = dlist_container(QsTask, node, iter.cur);

		if (task->row.id == id)
			return task;
	}
	return NULL;
}

static bool
contains(List *rows, int64 id)
{
	ListCell   *cell;

	foreach(cell, rows)
	{
		if (((QsMirrorRow *) lfirst(cell))->id == id)
			return true;
	}
	return false;
}

static void
end_task(QsTask *task)
{
	dlist_delete(&task->node);
	qs_task_free(task);
}

/* A collection whose old mirror is not cleaned up yet waits with its new one. */
static bool
is_still_dropping(const QsMirrorRow *row)
{
	dlist_iter	iter;

	if (row->dropped)
		return false;
	dlist_foreach(iter, &tasks)
	{
		QsTask	   *task = dlist_container(QsTask, node, iter.cur);

		if (task->row.id != row->id && task->row.dropped &&
			strcmp(task->row.collection, row->collection) == 0 &&
			strcmp(task->row.server, row->server) == 0)
			return true;
	}
	return false;
}

static void
take_row(QsMirrorRow *row)
{
	QsTask	   *task = find_task(row->id);

	/* A table that was dropped took its trigger with it; an unfinished rebuild goes. */
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(row->relid)))
	{
		row->drop_collection |= row->rebuilds != 0;
		row->dropped = true;
	}
	if (task != NULL)
		qs_task_update(task, row);
	else if (row->ours && !is_still_dropping(row))
	{
		task = qs_task_create(tasks_context, row);
		dlist_push_tail(&tasks, &task->node);
	}
}

/* Not where somebody changes the table at this moment: nobody is waited for. */
static void
note_servers(Oid relid)
{
	if (ConditionalLockRelationOid(relid, AccessShareLock) && get_rel_name(relid) != NULL)
		qs_note_servers_used(relid);
}

/* Rows of the mirrors; those that pg_upgrade brought are this cluster's from here on. */
static List *
read_mirrors(void)
{
	List	   *rows = qs_mirror_rows();
	bool		upgraded = false;
	ListCell   *cell;

	foreach(cell, rows)
		upgraded |= ((QsMirrorRow *) lfirst(cell))->upgraded;
	if (!upgraded)
		return rows;
	qs_mirrors_adopt();
	foreach(cell, rows)
	{
		if (((QsMirrorRow *) lfirst(cell))->upgraded)
			note_servers(((QsMirrorRow *) lfirst(cell))->relid);
	}
	return qs_mirror_rows();
}

/*
 * Reads qdrant_internal.mirror.  Dropped mirrors first, so that a new one of the
 * same collection finds them.
 */
static void
reload_mirrors(void)
{
	List	   *rows;
	ListCell   *cell;
	dlist_mutable_iter iter;

	/* Set anew by what changes while this reads. */
	reload_wanted = false;
	qs_begin();
	rows = read_mirrors();
	/* Asked last: there are no rows where it went in between, either. */
	if (!OidIsValid(qs_extension_oid()))
		leave_without_extension();
	foreach(cell, rows)
	{
		if (((QsMirrorRow *) lfirst(cell))->dropped)
			take_row(lfirst(cell));
	}
	foreach(cell, rows)
	{
		if (!((QsMirrorRow *) lfirst(cell))->dropped)
			take_row(lfirst(cell));
	}
	dlist_foreach_modify(iter, &tasks)
	{
		QsTask	   *task = dlist_container(QsTask, node, iter.cur);

		if (!contains(rows, task->row.id))
			end_task(task);
	}
	qs_commit();
}

/* A server or a key may have been mended: mirrors that failed try again. */
static void
apply_server_changes(void)
{
	dlist_iter	iter;

	endpoints_changed = false;
	qs_endpoints_invalidate();
	qs_sender_server_changed();
	dlist_foreach(iter, &tasks)
	{
		QsTask	   *task = dlist_container(QsTask, node, iter.cur);

		task->stale = true;
		if (task->phase == QS_PHASE_FAILED && task->slot != NULL)
			qs_task_set_phase(task, QS_PHASE_CREATING);
	}
}

static void
give_notice(const QsNotice *notice)
{
	dlist_iter	iter;

	dlist_foreach(iter, &tasks)
	{
		QsTask	   *task = dlist_container(QsTask, node, iter.cur);

		if (qs_outbox_owns(task->outbox, notice->segment))
		{
			qs_task_notice(task, notice);
			return;
		}
	}
	qs_sender_notice(notice->segment);
}

static void
scan_everything(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &tasks)
		qs_task_scan(dlist_container(QsTask, node, iter.cur));
	qs_sender_scan();
}

static void
take_notices(void)
{
	QsNotice	notices[NOTICES_PER_TURN];
	bool		scan;
	bool		reload;
	volatile bool failed = false;
	int			n = qs_notices_take(slot, notices, NOTICES_PER_TURN, &scan, &reload);

	if (reload)
		reload_wanted = true;
	/* A mirror's first notice may come before its row was read. */
	if (reload_wanted)
		reload_mirrors();
	if (n > 0)
	{
		qs_begin();
		PG_TRY();
		{
			for (int i = 0; i < n; i++)
				give_notice(&notices[i]);
		}
		PG_CATCH();
		{
			/* Whose it is shows in the turn of the mirror that scans. */
			FreeErrorData(qs_catch_error(turn_context));
			failed = true;
		}
		PG_END_TRY();
		if (!failed)
			qs_commit();
	}
	if (scan || failed)
		scan_everything();
	if (n == NOTICES_PER_TURN)
		SetLatch(MyLatch);
}

static void
look_by_itself(TimestampTz now)
{
	if (now < look_after)
		return;
	look_after = TimestampTzPlusMilliseconds(now, LOOK_MS);
	reload_wanted = true;
	scan_everything();
	pgstat_report_stat(true);
}

/* One mirror's error stops that mirror (hazard 12); false: it is over. */
static bool
turn_task(QsTask *task)
{
	ErrorData  *volatile error = NULL;
	volatile bool stays = true;

	PG_TRY();
	{
		qs_task_turn(task);
		stays = qs_task_housekeep(task);
	}
	PG_CATCH();
	{
		error = qs_catch_error(turn_context);
	}
	PG_END_TRY();
	if (error != NULL)
	{
		dlist_delete(&task->node);
		task = qs_task_restart(task, error->message);
		dlist_push_tail(&tasks, &task->node);
	}
	return stays;
}

static void
turn_tasks(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &tasks)
	{
		QsTask	   *task = dlist_container(QsTask, node, iter.cur);

		CHECK_FOR_INTERRUPTS();
		if (!turn_task(task))
		{
			end_task(task);
			reload_wanted = true;
		}
		MemoryContextReset(turn_context);
	}
	/* Whoever was first is last in the next turn. */
	if (!dlist_is_empty(&tasks))
		dlist_push_tail(&tasks, dlist_pop_head_node(&tasks));
}

static long
time_to_sleep(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until = look_after;
	TimestampTz wake = qs_endpoints_next_wake(now);
	dlist_iter	iter;

	if (wake > 0)
		until = Min(until, wake);
	wake = qs_sender_next_wake(now);
	if (wake > 0)
		until = Min(until, wake);
	dlist_foreach(iter, &tasks)
	{
		QsTask	   *task = dlist_container(QsTask, node, iter.cur);

		wake = qs_task_next_wake(task, now);
		if (wake > 0)
			until = Min(until, wake);
		if (task->progress_dirty || qs_lanes_count(task->lanes) > 0 ||
			task->accepted != NIL || qs_outbox_is_used(task->outbox))
			until = Min(until, Max(now, task->housekeep_after));
	}
	if (reload_wanted || endpoints_changed)
		return 0;
	return TimestampDifferenceMilliseconds(now, until);
}

static void
turn(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		pin_settings();
		qs_calls_apply_settings();
	}
	look_by_itself(GetCurrentTimestamp());
	take_notices();
	if (endpoints_changed || qs_endpoints_changed())
		apply_server_changes();
	qs_calls_dispatch();
	turn_tasks();
	qs_sender_turn();
	slot->turned_at = GetCurrentTimestamp();
	MemoryContextReset(turn_context);
}

static void
start(Oid database)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, qs_owners_code_handle_cancel);
	BackgroundWorkerUnblockSignals();
	take_slot(database);
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	pin_settings();
	tasks_context = AllocSetContextCreate(TopMemoryContext, "qdrant_sync mirrors",
										  ALLOCSET_DEFAULT_SIZES);
	turn_context = AllocSetContextCreate(TopMemoryContext, "qdrant_sync turn",
										 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(turn_context);
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, server_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, server_changed, (Datum) 0);
	reload_mirrors();
	qs_calls_init();
	qs_sender_init();
	set_state(QS_WORKER_RUNNING);
}

void
qs_sync_worker_main(Datum database)
{
	start(DatumGetObjectId(database));
	for (;;)
	{
		turn();
		pgstat_report_activity(STATE_IDLE, NULL);
		qs_calls_wait(time_to_sleep());
		pgstat_report_activity(STATE_RUNNING, "sync");
	}
}
