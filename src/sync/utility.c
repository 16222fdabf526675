/*
 * utility.c
 *		ProcessUtility hook: commands that need a database without our worker, and
 *		commands that a worker or the launcher has to hear of.
 *
 * Runs in sessions of a server that preloads the library.  A worker holds a
 * connection to its database, which DROP DATABASE, ALTER DATABASE RENAME or SET
 * TABLESPACE, and CREATE DATABASE ... TEMPLATE would wait for and then refuse
 * (hazard 14).  So its slot gets a blocker and the worker is ended first; the
 * blocker goes with the transaction, however that ends.
 *
 * Nobody ends a worker by a command that he may not run.
 */
#include "qdrant_sync.h"
#include "capture/capture.h"
#include "common/shared.h"
#include "sync/launcher.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* A worker ends within a few ms; one that does not leaves the error to the command. */
#define STOP_WAIT_MS (10 * 1000)
#define STOP_POLL_MS 2

static ProcessUtility_hook_type prev_process_utility = NULL;

/* Databases that this transaction blocks; in TopMemoryContext. */
static List *blocked = NIL;

/* ---- blockers ---- */

/* The slot of a database, made if need be, with one blocker more; NULL: all are taken. */
static QsDatabaseSlot *
add_blocker(Oid database)
{
	for (;;)
	{
		QsDatabaseSlot *slot = qs_database_slot_make(database);
		bool		added = false;

		if (slot == NULL)
			return NULL;
		LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
		if (slot->database == database)
		{
			slot->blockers++;
			added = true;
		}
		LWLockRelease(&slot->lock);
		if (added)
			return slot;
	}
}

static void
remove_blocker(Oid database)
{
	QsDatabaseSlot *slot = qs_database_slot_find(database);

	if (slot == NULL)
		return;
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (slot->database == database && slot->blockers > 0)
		slot->blockers--;
	LWLockRelease(&slot->lock);
}

/* Allocates nothing and raises nothing: a commit cannot fail any more (hazard 15). */
static void
unblock_all(XactEvent event, void *arg)
{
	ListCell   *lc;

	if (blocked == NIL || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
						   event != XACT_EVENT_PREPARE))
		return;
	foreach(lc, blocked)
		remove_blocker(lfirst_oid(lc));
	list_free(blocked);
	blocked = NIL;
	qs_post_launcher_look();
}

/* ---- ending a worker ---- */

static pid_t
signal_worker(QsDatabaseSlot *slot)
{
	pid_t		pid;

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	pid = slot->pid;
	if (pid != 0)
		kill(pid, SIGTERM);
	else
		slot->state = QS_WORKER_ABSENT;
	LWLockRelease(&slot->lock);
	return pid;
}

/*
 * The slot is left before the process's entry in the list of all processes, and
 * it is the latter that DROP DATABASE looks at.
 */
static bool
has_ended(QsDatabaseSlot *slot, pid_t pid)
{
	bool		left;

	LWLockAcquire(&slot->lock, LW_SHARED);
	left = slot->pid != pid;
	LWLockRelease(&slot->lock);
	return left && BackendPidGetProc(pid) == NULL;
}

static void
stop_worker(QsDatabaseSlot *slot)
{
	TimestampTz start = GetCurrentTimestamp();
	pid_t		pid = signal_worker(slot);

	if (pid == 0)
		return;
	while (!has_ended(slot, pid) &&
		   !TimestampDifferenceExceeds(start, GetCurrentTimestamp(), STOP_WAIT_MS))
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 STOP_POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Until the end of this transaction no worker of ours is in the database. */
static void
block(Oid database)
{
	QsDatabaseSlot *slot;
	MemoryContext old;

	if (!OidIsValid(database) || list_member_oid(blocked, database))
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	blocked = lappend_oid(blocked, database);
	MemoryContextSwitchTo(old);
	slot = add_blocker(database);
	if (slot != NULL)
		stop_worker(slot);
	else
		blocked = list_delete_oid(blocked, database);
}

/* ---- which commands ---- */

static void
block_own(const char *name)
{
	Oid			database = get_database_oid(name, true);

	if (OidIsValid(database) && qs_database_ownercheck(database, GetUserId()))
		block(database);
}

static const char *
string_option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, name) == 0 && def->arg != NULL)
			return defGetString(def);
	}
	return NULL;
}

static bool
is_template(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return result;
}

/* PostgreSQL's own function for this is not in the headers of every minor release. */
static bool
may_make_databases(void)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	bool		result = superuser();

	if (!HeapTupleIsValid(tuple))
		return result;
	result |= ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	ReleaseSysCache(tuple);
	return result;
}

/* Who may make databases may copy templates and his own. */
static void
block_template(const CreatedbStmt *create)
{
	const char *name = string_option(create->options, "template");
	Oid			database = get_database_oid(name ? name : "template1", true);

	if (OidIsValid(database) && may_make_databases() &&
		(is_template(database) || qs_database_ownercheck(database, GetUserId())))
		block(database);
}

/* Any of these fails inside a function or a transaction block, and then ends nothing. */
static bool
can_run(ProcessUtilityContext context)
{
	return context == PROCESS_UTILITY_TOPLEVEL && !IsTransactionBlock();
}

static void
before_command(Node *command, ProcessUtilityContext context)
{
	switch (nodeTag(command))
	{
		case T_DropdbStmt:
			if (can_run(context))
				block_own(((DropdbStmt *) command)->dbname);
			break;
		case T_CreatedbStmt:
			if (can_run(context))
				block_template((CreatedbStmt *) command);
			break;
		case T_AlterDatabaseStmt:
			if (can_run(context) &&
				string_option(((AlterDatabaseStmt *) command)->options, "tablespace"))
				block_own(((AlterDatabaseStmt *) command)->dbname);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) command)->renameType == OBJECT_DATABASE)
				block_own(((RenameStmt *) command)->subname);
			break;
		default:
			break;
	}
}

static bool
drops_extension(const DropStmt *drop)
{
	ListCell   *lc;

	if (drop->removeType != OBJECT_EXTENSION)
		return false;
	foreach(lc, drop->objects)
	{
		if (strcmp(strVal(lfirst(lc)), QS_EXTENSION) == 0)
			return true;
	}
	return false;
}

static bool
changes_extension(const Node *command)
{
	switch (nodeTag(command))
	{
		case T_CreateExtensionStmt:
			return strcmp(((CreateExtensionStmt *) command)->extname, QS_EXTENSION) == 0;
		case T_AlterExtensionStmt:
			return strcmp(((AlterExtensionStmt *) command)->extname, QS_EXTENSION) == 0;
		case T_DropStmt:
			return drops_extension((DropStmt *) command);
		default:
			return false;
	}
}

static bool
is_commit_prepared(const Node *command)
{
	return IsA(command, TransactionStmt) &&
		((TransactionStmt *) command)->kind == TRANS_STMT_COMMIT_PREPARED;
}

static bool
changes_databases(const Node *command)
{
	return IsA(command, CreatedbStmt) || IsA(command, DropdbStmt) ||
		IsA(command, AlterDatabaseStmt);
}

/* The command has succeeded; its transaction has still to commit. */
static void
after_command(const Node *command)
{
	if (is_commit_prepared(command))
		qs_at_commit_scan();
	/* What the prepared transaction did was forgotten at PREPARE. */
	if (is_commit_prepared(command) || changes_extension(command))
	{
		qs_at_commit_launcher_look();
		qs_at_commit_reload();
	}
	if (changes_databases(command))
		qs_at_commit_launcher_look();
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
				DestReceiver *dest, QueryCompletion *completion)
{
	/* The tree may be freed by a command that ends the transaction. */
	Node	   *command = pstmt->utilityStmt;
	bool		tell = is_commit_prepared(command) || changes_extension(command) ||
		changes_databases(command);

	if (tell)
		command = copyObject(command);
	before_command(command, context);
	if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params, environment,
							 dest, completion);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, environment,
								dest, completion);
	if (tell)
		after_command(command);
}

void
qs_utility_install_hook(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	RegisterXactCallback(unblock_all, NULL);
}
