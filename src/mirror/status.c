/*
 * status.c
 *		What the views show of shared memory, and of triggers that came out of a
 *		dump.
 *
 * Runs in sessions.  Works where the library is not preloaded: there is nothing
 * to show then.  Rows about a table are given only to who may read it, here and
 * not only in the views, since anybody can call these functions.
 */
#include "qdrant_sync.h"
#include "client/ticket.h"
#include "common/rows_out.h"
#include "common/settings.h"
#include "common/shared.h"
#include "mirror/identity.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(qs_mirror_slots_show);
PG_FUNCTION_INFO_V1(qs_worker_slots_show);
PG_FUNCTION_INFO_V1(qs_armed_here);

/* Was this row armed by this cluster in this database, or came it with a copy? */
Datum
qs_armed_here(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(qs_is_ours((uint64) PG_GETARG_INT64(0), PG_GETARG_OID(1)));
}

static Datum
timestamp_or_null(TimestampTz time, bool *isnull)
{
	*isnull = time == 0;
	return TimestampTzGetDatum(time);
}

static Datum
text_or_null(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

/* ---- mirrors of this database ---- */

#define MIRROR_COLUMNS 8

static void
put_mirror(QsRowsOut *result, QsMirrorSlot *slot)
{
	Datum		values[MIRROR_COLUMNS];
	bool		nulls[MIRROR_COLUMNS] = {false};

	values[0] = Int64GetDatum(slot->mirror);
	values[1] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->pending));
	values[2] = BoolGetDatum(pg_atomic_read_u32(&slot->pending_is_bound) != 0);
	values[3] = timestamp_or_null((TimestampTz) pg_atomic_read_u64(&slot->oldest), &nulls[3]);
	values[4] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->points_sent));
	values[5] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->requests));
	values[6] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->retries));
	values[7] = BoolGetDatum(pg_atomic_read_u32(&slot->stopped) != 0);
	qs_rows_out_put(result, values, nulls);
}

/* A table that is gone has no privileges to look at. */
static bool
may_see(Oid relid)
{
	bool		missing = false;

	if (!OidIsValid(relid))
		return true;
	return pg_class_aclcheck_ext(relid, GetUserId(), ACL_SELECT, &missing) == ACLCHECK_OK;
}

Datum
qs_mirror_slots_show(PG_FUNCTION_ARGS)
{
	QsRowsOut	result = qs_rows_out_begin(fcinfo);

	for (int i = 0; qs_shared != NULL && i < qs_max_mirrors; i++)
	{
		QsMirrorSlot *slot = &qs_mirror_slots[i];

		if (slot->database == MyDatabaseId && may_see(slot->relid))
			put_mirror(&result, slot);
	}
	return (Datum) 0;
}

/* ---- processes ---- */

#define WORKER_COLUMNS 8

typedef struct WorkerRow
{
	const char *kind;
	Oid			database;		/* InvalidOid: of none */
	pid_t		pid;
	const char *state;
	TimestampTz started_at;
	TimestampTz last_turn;
	int			failures;
	const char *note;
} WorkerRow;

static void
put_worker(QsRowsOut *result, const WorkerRow *row)
{
	Datum		values[WORKER_COLUMNS];
	bool		nulls[WORKER_COLUMNS] = {false};

	values[0] = CStringGetTextDatum(row->kind);
	values[1] = ObjectIdGetDatum(row->database);
	nulls[1] = !OidIsValid(row->database);
	values[2] = Int32GetDatum((int32) row->pid);
	nulls[2] = row->pid == 0;
	values[3] = CStringGetTextDatum(row->state);
	values[4] = timestamp_or_null(row->started_at, &nulls[4]);
	values[5] = timestamp_or_null(row->last_turn, &nulls[5]);
	values[6] = Int32GetDatum(row->failures);
	values[7] = text_or_null(row->note, &nulls[7]);
	qs_rows_out_put(result, values, nulls);
}

/* One of the two processes that a server has once. */
static void
put_single(QsRowsOut *result, const char *kind, pid_t pid, const char *absent_note)
{
	WorkerRow	row = {.kind = kind, .pid = pid};

	row.state = pid != 0 ? "running" : "absent";
	row.note = pid != 0 ? NULL : absent_note;
	put_worker(result, &row);
}

static const char *
state_name(QsWorkerState state)
{
	switch (state)
	{
		case QS_WORKER_ABSENT:
			return "absent";
		case QS_WORKER_STARTING:
			return "starting";
		case QS_WORKER_RUNNING:
			return "running";
		case QS_WORKER_NO_EXTENSION:
			return "no extension";
		case QS_WORKER_NO_SLOT:
			return "no slot";
		case QS_WORKER_CRASHED:
			return "ended";
	}
	return "unknown";
}

static const char *
note_of(const QsDatabaseSlot *slot)
{
	if (slot->blockers > 0)
		return "waits for DDL on the database to end";
	if (slot->state == QS_WORKER_NO_SLOT)
		return psprintf("raise max_worker_processes (now %d) and restart the server",
						max_worker_processes);
	if (slot->state == QS_WORKER_CRASHED)
		return psprintf("is started again at %s; the server's log says why it ended",
						timestamptz_to_str(slot->restart_at));
	return NULL;
}

/* Reads the slot under its lock, and makes the row without it. */
static void
put_database(QsRowsOut *result, QsDatabaseSlot *slot)
{
	QsDatabaseSlot copy;
	WorkerRow	row = {.kind = "sync"};

	LWLockAcquire(&slot->lock, LW_SHARED);
	memcpy(&copy, slot, offsetof(QsDatabaseSlot, ring));
	LWLockRelease(&slot->lock);
	if (!OidIsValid(copy.database))
		return;
	row.database = copy.database;
	row.pid = copy.pid;
	row.state = state_name(copy.state);
	row.started_at = copy.started_at;
	row.last_turn = copy.turned_at;
	row.failures = copy.failures;
	row.note = note_of(&copy);
	put_worker(result, &row);
}

Datum
qs_worker_slots_show(PG_FUNCTION_ARGS)
{
	QsRowsOut	result = qs_rows_out_begin(fcinfo);

	if (qs_shared == NULL)
		return (Datum) 0;
	put_single(&result, "launcher", qs_shared->launcher_pid,
			   RecoveryInProgress() ? "runs after promotion" : NULL);
	put_single(&result, "request", qs_ticket_worker_pid(), NULL);
	for (int i = 0; i < qs_max_databases; i++)
		put_database(&result, &qs_database_slots[i]);
	return (Datum) 0;
}
