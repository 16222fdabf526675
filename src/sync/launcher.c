/*
 * launcher.c
 *		The launcher: one process that keeps one sync worker running in each
 *		database that has the extension, and starts them again with a back-off.
 *
 * It is connected to no database, so it cannot see who has the extension: a
 * worker started there looks, and leaves with QS_WORKER_NO_EXTENSION where there
 * is none.  That happens once for each database at the launcher's start, a few
 * at a time, and again where a session says that something changed.
 *
 * A slot in shared memory outlives the launcher; what it knows besides is found
 * out again.  It starts nothing in template databases, nor in one that DDL
 * blocks (utility.c).
 */
#include "qdrant_sync.h"
#include "common/settings.h"
#include "common/shared.h"
#include "sync/launcher.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "common/string.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Databases that appear without a hook (another library's commands) are seen after this. */
#define LIST_EVERY_MS (60 * 1000)
/* Workers that start at the same time: each probe is a process and a connection. */
#define MAX_STARTING 4
/* Longer than this in its start, a worker waits for a lock; others go on. */
#define START_MS (5 * 1000)
/* How soon a place among MAX_STARTING, or a worker of an earlier launcher, is looked for again. */
#define STARTING_POLL_MS 50
#define ORPHAN_POLL_MS (2 * 1000)
/* A free worker slot is tried for that often. */
#define NO_SLOT_RETRY_MS (5 * 1000)
/* A shortage that lasts that long is logged, and then that often. */
#define SHORTAGE_MS 1000
#define COMPLAIN_EVERY_MS (60 * 1000)
/* Meanwhile it is looked at that often. */
#define SHORTAGE_POLL_MS 500
/* First wait after a crash, doubled each time, and the longest. */
#define BACKOFF_MS 1000
#define LONGEST_BACKOFF_MS (60 * 1000)
/* A worker that lived that long starts the back-off anew. */
#define HEALTHY_MS (60 * 1000)
/* datconnlimit of a database whose DROP was interrupted. */
#define INVALID_DATABASE (-2)

typedef struct Known
{
	Oid			database;		/* hash key */
	char		name[NAMEDATALEN];
	bool		listed;			/* in the last list */
	bool		eligible;		/* and may have a worker */
	bool		without;		/* a worker looked: no extension */
	bool		look_again;		/* something changed since a running worker looked */
	BackgroundWorkerHandle *handle; /* of the worker that we started; NULL: none */
	TimestampTz retry_at;		/* after QS_WORKER_NO_SLOT */
} Known;

/* Databases that lack something in this turn. */
typedef struct Shortage
{
	char		names[256];
	char		said[256];		/* names when the log was told last */
	TimestampTz since;			/* 0: there was none in the turn before */
	TimestampTz said_at;
} Shortage;

static HTAB *databases = NULL;
static TimestampTz list_at = 0;
static bool list_now = true;
static Shortage of_processes;
static Shortage of_slots;

/* ---- registration: postmaster ---- */

static void
fill_worker(BackgroundWorker *worker, const char *type, const char *function,
			BgWorkerStartTime start, int restart)
{
	memset(worker, 0, sizeof(BackgroundWorker));
	snprintf(worker->bgw_name, BGW_MAXLEN, "%s", type);
	snprintf(worker->bgw_type, BGW_MAXLEN, "%s", type);
	snprintf(worker->bgw_library_name, sizeof(worker->bgw_library_name), "%s", QS_LIBRARY);
	snprintf(worker->bgw_function_name, BGW_MAXLEN, "%s", function);
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = start;
	worker->bgw_restart_time = restart;
}

/* Five seconds keep a process that dies at once from filling the log. */
void
qs_launcher_register(void)
{
	BackgroundWorker worker;

	fill_worker(&worker, "qdrant_sync launcher", "qs_launcher_main",
				BgWorkerStart_RecoveryFinished, 5);
	RegisterBackgroundWorker(&worker);
	/*
	 * As soon as anybody can connect: searches work on a hot standby, too.  Back
	 * before sessions that wait for it give up after five seconds.
	 */
	fill_worker(&worker, "qdrant_sync request worker", "qs_request_worker_main",
				BgWorkerStart_ConsistentState, 2);
	RegisterBackgroundWorker(&worker);
}

/* ---- which databases there are ---- */

static void
leave_shared(int code, Datum arg)
{
	LWLockAcquire(&qs_shared->database_lock, LW_EXCLUSIVE);
	if (qs_shared->launcher_pid == MyProcPid)
	{
		qs_shared->launcher_pid = 0;
		qs_shared->launcher_proc_number = -1;
	}
	LWLockRelease(&qs_shared->database_lock);
}

static void
enter_shared(void)
{
	before_shmem_exit(leave_shared, (Datum) 0);
	LWLockAcquire(&qs_shared->database_lock, LW_EXCLUSIVE);
	qs_shared->launcher_pid = MyProcPid;
	qs_shared->launcher_proc_number = qs_my_proc_number();
	LWLockRelease(&qs_shared->database_lock);
}

static void
note_database(Form_pg_database form)
{
	bool		found;
	Known	   *known = hash_search(databases, &form->oid, HASH_ENTER, &found);

	if (!found)
	{
		memset(known, 0, sizeof(Known));
		known->database = form->oid;
	}
	strlcpy(known->name, NameStr(form->datname), NAMEDATALEN);
	known->listed = true;
	known->eligible = form->datallowconn && !form->datistemplate &&
		form->datconnlimit != INVALID_DATABASE;
}

static void
list_databases(TimestampTz now)
{
	HASH_SEQ_STATUS seq;
	Known	   *known;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	hash_seq_init(&seq, databases);
	while ((known = hash_seq_search(&seq)) != NULL)
		known->listed = known->eligible = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
		note_database((Form_pg_database) GETSTRUCT(tuple));
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();

	list_now = false;
	list_at = TimestampTzPlusMilliseconds(now, LIST_EVERY_MS);
}

/* What made a worker end may be gone now: no back-off before the next look. */
static void
forget_failures(QsDatabaseSlot *slot)
{
	if (slot->state == QS_WORKER_CRASHED)
		slot->state = QS_WORKER_ABSENT;
	slot->failures = 0;
}

static void
look_again_at(Known *known)
{
	QsDatabaseSlot *slot = qs_database_slot_find(known->database);

	if (known->handle != NULL)
	{
		known->look_again = true;
		return;
	}
	known->without = false;
	if (slot == NULL)
		return;
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	forget_failures(slot);
	LWLockRelease(&slot->lock);
}

/* Sessions whose transaction made or dropped the extension, or a database. */
static void
take_requests(void)
{
	Oid			oids[QS_LOOK_MAX];
	int			n;
	HASH_SEQ_STATUS seq;
	Known	   *known;

	LWLockAcquire(&qs_shared->database_lock, LW_EXCLUSIVE);
	if (qs_shared->launcher_look)
		list_now = true;
	n = qs_shared->look_count;
	memcpy(oids, qs_shared->look_at, sizeof(oids));
	qs_shared->launcher_look = false;
	qs_shared->look_count = 0;
	LWLockRelease(&qs_shared->database_lock);

	for (int i = 0; i < n && n <= QS_LOOK_MAX; i++)
	{
		known = hash_search(databases, &oids[i], HASH_FIND, NULL);
		if (known != NULL)
			look_again_at(known);
	}
	if (n <= QS_LOOK_MAX)
		return;
	hash_seq_init(&seq, databases);
	while ((known = hash_seq_search(&seq)) != NULL)
		look_again_at(known);
}

/* ---- what became of workers ---- */

static long
backoff_ms(int failures)
{
	if (failures > 6)
		return LONGEST_BACKOFF_MS;
	return Min(BACKOFF_MS << (failures - 1), LONGEST_BACKOFF_MS);
}

static bool
process_exists(pid_t pid)
{
	return pid != 0 && BackendPidGetProc(pid) != NULL;
}

/*
 * Has this slot's worker ended, and was that not looked at before?  Of a worker
 * that an earlier launcher started there is no handle: its process is looked
 * for, and one that was registered and has not begun gets START_MS.
 */
static bool
worker_is_over(const Known *known, const QsDatabaseSlot *slot, TimestampTz now)
{
	pid_t		pid;

	if (known->handle != NULL)
		return GetBackgroundWorkerPid(known->handle, &pid) == BGWH_STOPPED;
	switch (slot->state)
	{
		case QS_WORKER_ABSENT:
		case QS_WORKER_NO_SLOT:
			return false;
		case QS_WORKER_STARTING:
			return !process_exists(slot->pid) &&
				TimestampDifferenceExceeds(slot->started_at, now, START_MS);
		case QS_WORKER_CRASHED:
			return slot->restart_at == 0 && !process_exists(slot->pid);
		default:
			return !process_exists(slot->pid);
	}
}

/* DDL ended it, or it crashed: sets when it may start again.  Slot is locked. */
static void
judge_end(QsDatabaseSlot *slot, TimestampTz now)
{
	if (slot->blockers > 0 || slot->state == QS_WORKER_ABSENT)
	{
		slot->state = QS_WORKER_ABSENT;
		return;
	}
	if (TimestampDifferenceExceeds(slot->started_at, now, HEALTHY_MS))
		slot->failures = 0;
	slot->failures++;
	slot->state = QS_WORKER_CRASHED;
	slot->restart_at = TimestampTzPlusMilliseconds(now, backoff_ms(slot->failures));
	/* Its database may be gone. */
	list_now = true;
}

static void
forget_handle(Known *known)
{
	if (known->handle != NULL)
		pfree(known->handle);
	known->handle = NULL;
}

static void
reap(Known *known, QsDatabaseSlot *slot, TimestampTz now)
{
	bool		without;

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	without = slot->state == QS_WORKER_NO_EXTENSION;
	slot->pid = 0;
	slot->proc_number = -1;
	if (without)
		slot->state = QS_WORKER_ABSENT;
	else
		judge_end(slot, now);
	if (known->look_again)
		forget_failures(slot);
	LWLockRelease(&slot->lock);

	forget_handle(known);
	known->without = without && !known->look_again;
	known->look_again = false;
}

/* ---- starting and stopping ---- */

/*
 * Says what is short, and for whom: not at once, since a worker that only looks
 * gives its place back soon; then whenever the databases are others, and again
 * every minute.
 */
static void
complain(Shortage *shortage, TimestampTz now, const char *what, const char *setting, int value)
{
	if (shortage->names[0] == '\0')
	{
		shortage->since = 0;
		shortage->said[0] = '\0';
		return;
	}
	if (shortage->since == 0)
		shortage->since = now;
	if (!TimestampDifferenceExceeds(shortage->since, now, SHORTAGE_MS) ||
		(strcmp(shortage->names, shortage->said) == 0 &&
		 !TimestampDifferenceExceeds(shortage->said_at, now, COMPLAIN_EVERY_MS)))
		return;
	ereport(LOG,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("no %s is free for the sync worker of: %s", what, shortage->names),
			 errhint("Raise %s (now %d) and restart the server.", setting, value)));
	strcpy(shortage->said, shortage->names);
	shortage->said_at = now;
}

/* A list that would be longer than its place ends with dots. */
static void
note_shortage(Shortage *shortage, const Known *known)
{
	size_t		length = strlen(shortage->names);

	if (length + strlen(known->name) + 8 > sizeof(shortage->names))
	{
		if (!pg_str_endswith(shortage->names, "..."))
			strlcat(shortage->names, ", ...", sizeof(shortage->names));
		return;
	}
	snprintf(shortage->names + length, sizeof(shortage->names) - length, "%s%s",
			 length > 0 ? ", " : "", known->name);
}

/* Takes the slot for a start; false where DDL came first. */
static bool
mark_starting(QsDatabaseSlot *slot, TimestampTz now)
{
	bool		free_to_start;

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	free_to_start = slot->blockers == 0 && slot->pid == 0;
	if (free_to_start)
	{
		slot->state = QS_WORKER_STARTING;
		slot->started_at = now;
		slot->restart_at = 0;
	}
	LWLockRelease(&slot->lock);
	return free_to_start;
}

static void
start_worker(Known *known, QsDatabaseSlot *slot, TimestampTz now)
{
	BackgroundWorker worker;
	MemoryContext old;
	bool		registered;

	if (!mark_starting(slot, now))
		return;
	fill_worker(&worker, "qdrant_sync worker", "qs_sync_worker_main",
				BgWorkerStart_RecoveryFinished, BGW_NEVER_RESTART);
	snprintf(worker.bgw_name, BGW_MAXLEN, "qdrant_sync worker for %s", known->name);
	worker.bgw_main_arg = ObjectIdGetDatum(known->database);
	worker.bgw_notify_pid = MyProcPid;
	old = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, &known->handle);
	MemoryContextSwitchTo(old);
	if (registered)
		return;

	known->handle = NULL;
	known->retry_at = TimestampTzPlusMilliseconds(now, NO_SLOT_RETRY_MS);
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	slot->state = QS_WORKER_NO_SLOT;
	LWLockRelease(&slot->lock);
}

/* When may a worker start here?  0: not at all as things are. */
static TimestampTz
start_due(const Known *known, const QsDatabaseSlot *slot)
{
	if (!known->eligible || known->without || known->handle != NULL)
		return 0;
	if (slot == NULL)
		return 1;
	if (slot->blockers > 0 || slot->pid != 0)
		return 0;
	switch (slot->state)
	{
		case QS_WORKER_ABSENT:
			return 1;
		case QS_WORKER_NO_SLOT:
			return Max(known->retry_at, 1);
		case QS_WORKER_CRASHED:
			return slot->restart_at;
		default:
			return 0;
	}
}

static void
stop_worker(QsDatabaseSlot *slot)
{
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (slot->pid != 0)
		kill(slot->pid, SIGTERM);
	LWLockRelease(&slot->lock);
}

/* A slot that nothing needs is another database's chance. */
static void
clear_slot(const Known *known, QsDatabaseSlot *slot)
{
	if (slot->pid != 0)
	{
		if (!known->eligible)
			stop_worker(slot);
	}
	else if (known->handle == NULL && slot->state != QS_WORKER_STARTING &&
			 (!known->eligible || known->without))
		(void) qs_database_slot_free(slot);
}

/* ---- a turn ---- */

static bool
is_starting(const QsDatabaseSlot *slot, TimestampTz now)
{
	return slot->state == QS_WORKER_STARTING &&
		!TimestampDifferenceExceeds(slot->started_at, now, START_MS);
}

static int
count_starting(TimestampTz now)
{
	int			n = 0;

	for (int i = 0; i < qs_max_databases; i++)
	{
		if (OidIsValid(qs_database_slots[i].database) && is_starting(&qs_database_slots[i], now))
			n++;
	}
	return n;
}

static void
shorten(long *timeout, long ms)
{
	*timeout = Min(*timeout, Max(ms, 1));
}

static void
shorten_until(long *timeout, TimestampTz now, TimestampTz until)
{
	shorten(timeout, TimestampDifferenceMilliseconds(now, until));
}

/* Starts a worker where one is due; *starting counts those in their start. */
static void
start_if_due(Known *known, QsDatabaseSlot *slot, TimestampTz now, int *starting, long *timeout)
{
	TimestampTz due = start_due(known, slot);

	if (due == 0)
		return;
	if (due > now)
	{
		shorten_until(timeout, now, due);
		return;
	}
	if (*starting >= MAX_STARTING)
	{
		shorten(timeout, STARTING_POLL_MS);
		return;
	}
	if (slot == NULL)
		slot = qs_database_slot_make(known->database);
	if (slot == NULL)
	{
		note_shortage(&of_slots, known);
		return;
	}
	start_worker(known, slot, now);
	if (slot->state == QS_WORKER_STARTING)
		(*starting)++;
}

static void
attend(Known *known, TimestampTz now, int *starting, long *timeout)
{
	QsDatabaseSlot *slot = qs_database_slot_find(known->database);

	if (slot != NULL && worker_is_over(known, slot, now))
		reap(known, slot, now);
	else if (slot == NULL && known->handle != NULL)
		forget_handle(known);
	if (slot != NULL)
	{
		clear_slot(known, slot);
		if (slot->database != known->database)
			slot = NULL;
	}
	start_if_due(known, slot, now, starting, timeout);
	slot = qs_database_slot_find(known->database);
	if (slot != NULL && slot->state == QS_WORKER_NO_SLOT)
		note_shortage(&of_processes, known);
	if (slot != NULL && slot->pid != 0 && known->handle == NULL)
		shorten(timeout, ORPHAN_POLL_MS);
	if (slot != NULL && slot->state == QS_WORKER_STARTING && known->handle == NULL)
		shorten(timeout, ORPHAN_POLL_MS);
	if (slot == NULL && known->handle == NULL && !known->listed)
		hash_search(databases, &known->database, HASH_REMOVE, NULL);
}

/* Slots that DDL made for a database which is not there (any more). */
static void
free_unknown_slots(void)
{
	for (int i = 0; i < qs_max_databases; i++)
	{
		QsDatabaseSlot *slot = &qs_database_slots[i];
		Oid			database = slot->database;

		if (OidIsValid(database) && slot->state == QS_WORKER_ABSENT &&
			hash_search(databases, &database, HASH_FIND, NULL) == NULL)
			(void) qs_database_slot_free(slot);
	}
}

/* Returns ms until something is due. */
static long
turn(void)
{
	TimestampTz now = GetCurrentTimestamp();
	long		timeout = LIST_EVERY_MS;
	HASH_SEQ_STATUS seq;
	Known	   *known;
	int			starting;

	take_requests();
	if (list_now || now >= list_at)
		list_databases(now);
	starting = count_starting(now);
	of_processes.names[0] = of_slots.names[0] = '\0';
	hash_seq_init(&seq, databases);
	while ((known = hash_seq_search(&seq)) != NULL)
		attend(known, now, &starting, &timeout);
	free_unknown_slots();
	complain(&of_processes, now, "background worker", "max_worker_processes", max_worker_processes);
	complain(&of_slots, now, "slot", "qdrant_sync.max_databases", qs_max_databases);
	if (of_processes.names[0] != '\0' || of_slots.names[0] != '\0')
		shorten(&timeout, SHORTAGE_POLL_MS);
	shorten_until(&timeout, now, list_at);
	return list_now ? 1 : timeout;
}

static void
handle_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

void
qs_launcher_main(Datum arg)
{
	HASHCTL		how = {.keysize = sizeof(Oid), .entrysize = sizeof(Known)};
	uint32		wait_event;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	/* die() ends with an exit code of 1, after which the postmaster starts us again. */
	pqsignal(SIGTERM, die);
	/* There is no statement of ours to cancel. */
	pqsignal(SIGINT, SIG_IGN);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	databases = hash_create("qdrant_sync databases", 32, &how, HASH_ELEM | HASH_BLOBS);
	wait_event = qs_wait_event("QdrantSyncLauncher");
	enter_shared();

	for (;;)
	{
		long		timeout;

		ResetLatch(MyLatch);
		handle_interrupts();
		timeout = turn();
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 timeout, wait_event);
	}
}
