/*
 * verify_table.c
 *		The table's side of qdrant_verify: rows as the sync worker would send them.
 *
 * Runs in a session.  Every read is in a subtransaction that is rolled back, so that
 * the lock it took is given back: somebody's ALTER TABLE may wait for it, and the
 * sync worker, which we wait for, never reads behind a lock that is waited for.
 *
 * The reader arms statement_timeout for itself; the session's own is armed again after
 * each read.
 */
#include "qdrant_sync.h"
#include "common/settings.h"
#include "mirror/verify.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#define LOCKED_SLEEP_MS 20

typedef struct Scope
{
	MemoryContext context;
	ResourceOwner owner;
} Scope;

/* One read: false where the table is locked. */
typedef bool (*Read) (QsVerifyTable *table, void *arg);

/* ---- subtransactions ---- */

static void
begin_scope(Scope *scope)
{
	scope->context = CurrentMemoryContext;
	scope->owner = CurrentResourceOwner;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(scope->context);
}

static void
end_scope(Scope *scope)
{
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(scope->context);
	CurrentResourceOwner = scope->owner;
}

static void
arm_statement_timeout(const QsVerifyTable *table)
{
	if (table->statement_end != 0)
		enable_timeout_at(STATEMENT_TIMEOUT, table->statement_end);
	CHECK_FOR_INTERRUPTS();
}

/* Reads once; an ERROR comes back as its data. */
static bool
try_read(QsVerifyTable *table, Read read, void *arg, ErrorData **error)
{
	TimestampTz start = GetCurrentTimestamp();
	Scope		scope;
	volatile bool done = false;

	*error = NULL;
	begin_scope(&scope);
	PG_TRY();
	{
		done = read(table, arg);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(scope.context);
		*error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	end_scope(&scope);
	table->overran = TimestampDifferenceExceeds(start, GetCurrentTimestamp(), qs_row_timeout);
	arm_statement_timeout(table);
	return done;
}

static void
still_locked(const QsVerifyTable *table, TimestampTz since)
{
	if (TimestampDifferenceExceeds(since, GetCurrentTimestamp(), table->lock_timeout))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("table \"%s\" stays locked", table->definition->table)));
	qs_verify_sleep(LOCKED_SLEEP_MS);
}

/* The time limit of a read, or an expression, and not whoever cancels the statement. */
static bool
is_rows_fault(const QsVerifyTable *table, int sqlerrcode)
{
	return qs_is_rows_fault(sqlerrcode) && (sqlerrcode != ERRCODE_QUERY_CANCELED || table->overran);
}

/* The row that raised it is not known: the caller reads them one by one. */
static bool
read_or_error(QsVerifyTable *table, Read read, void *arg, char **message)
{
	TimestampTz start = GetCurrentTimestamp();
	ErrorData  *error;

	*message = NULL;
	while (!try_read(table, read, arg, &error))
	{
		if (error == NULL)
			still_locked(table, start);
		else if (is_rows_fault(table, error->sqlerrcode))
		{
			*message = error->message;
			return false;
		}
		else if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		{
			FreeErrorData(error);
			still_locked(table, start);
		}
		else
			ThrowErrorData(error);
	}
	return true;
}

/* ---- the definition ---- */

static void
lock_and_read(QsVerifyTable *table)
{
	LockRelationOid(table->relid, AccessShareLock);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(table->relid)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the table that is verified was dropped")));
	table->definition = qs_definition_read(table->relid, false);
	if (table->definition == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" has no mirror", get_rel_name(table->relid))));
}

/*
 * In a context of its own, so that what was read before goes with it.  An ERROR leaves
 * when its subtransaction is ended, or the session would be left inside of it.
 */
static void
read_definition(QsVerifyTable *table)
{
	MemoryContext caller = MemoryContextSwitchTo(table->context);
	Scope		scope;
	ErrorData  *volatile error = NULL;

	begin_scope(&scope);
	PG_TRY();
	{
		lock_and_read(table);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	end_scope(&scope);
	if (error != NULL)
		ReThrowError(error);
	table->reader = qs_reader_create(table->definition, table->context);
	qs_reader_want_versions(table->reader);
	MemoryContextSwitchTo(caller);
}

void
qs_verify_open_table(QsVerifyTable *table, Oid relid, int lock_timeout)
{
	table->relid = relid;
	table->context = AllocSetContextCreate(CurrentMemoryContext, "qdrant_verify table",
										   ALLOCSET_DEFAULT_SIZES);
	table->statement_end = get_timeout_active(STATEMENT_TIMEOUT) ?
		get_timeout_finish_time(STATEMENT_TIMEOUT) : 0;
	table->lock_timeout = lock_timeout;
	read_definition(table);
}

void
qs_verify_renew_table(QsVerifyTable *table)
{
	qs_reader_free(table->reader);
	table->reader = NULL;
	MemoryContextReset(table->context);
	read_definition(table);
}

void
qs_verify_close_table(QsVerifyTable *table)
{
	qs_reader_free(table->reader);
	MemoryContextDelete(table->context);
}

/* ---- leaves ---- */

typedef struct Leaves
{
	List	   *oids;
	int64		rows;
} Leaves;

static int64
rows_of(Oid leaf)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(leaf));
	int64		rows = 0;

	if (!HeapTupleIsValid(tuple))
		return 0;
	if (((Form_pg_class) GETSTRUCT(tuple))->reltuples > 0)
		rows = (int64) ((Form_pg_class) GETSTRUCT(tuple))->reltuples;
	ReleaseSysCache(tuple);
	return rows;
}

static bool
find_leaves(QsVerifyTable *table, void *arg)
{
	Leaves	   *leaves = arg;
	ListCell   *cell;

	if (!ConditionalLockRelationOid(table->relid, AccessShareLock))
		return false;
	foreach(cell, find_all_inheritors(table->relid, NoLock, NULL))
	{
		Oid			leaf = lfirst_oid(cell);

		if (get_rel_relkind(leaf) != RELKIND_RELATION)
			continue;
		leaves->oids = lappend_oid(leaves->oids, leaf);
		leaves->rows += rows_of(leaf);
	}
	return true;
}

List *
qs_verify_leaves(QsVerifyTable *table, int64 *rows)
{
	Leaves		leaves = {NIL, 0};
	char	   *message;

	if (!read_or_error(table, find_leaves, &leaves, &message))
		elog(ERROR, "%s", message);
	*rows = leaves.rows;
	return leaves.oids;
}

typedef struct LeafLength
{
	Oid			leaf;
	int64		blocks;
} LeafLength;

static bool
measure_leaf(QsVerifyTable *table, void *arg)
{
	LeafLength *length = arg;
	Relation	rel;

	length->blocks = -1;
	if (!ConditionalLockRelationOid(length->leaf, AccessShareLock))
		return false;
	rel = try_relation_open(length->leaf, NoLock);
	if (rel == NULL)
		return true;
	length->blocks = RelationGetNumberOfBlocks(rel);
	relation_close(rel, NoLock);
	return true;
}

int64
qs_verify_blocks(QsVerifyTable *table, Oid leaf)
{
	LeafLength	length = {.leaf = leaf};
	char	   *message;

	if (!read_or_error(table, measure_leaf, &length, &message))
		elog(ERROR, "%s", message);
	return length.blocks;
}

/* ---- rows ---- */

/* Runs inside the executor: looks at no catalog, and raises nothing but "out of memory". */
static QsVerifyRow *
add_row(QsVerifyRows *rows, const QsRowKey *key)
{
	QsVerifyRow *row;

	if (rows->n == rows->capacity)
	{
		rows->capacity = Max(256, rows->capacity * 2);
		rows->rows = rows->rows == NULL ? palloc(rows->capacity * sizeof(QsVerifyRow))
			: repalloc_huge(rows->rows, rows->capacity * sizeof(QsVerifyRow));
	}
	row = &rows->rows[rows->n++];
	memset(row, 0, sizeof(QsVerifyRow));
	row->key.id = key->id;
	row->key.text = key->text ? pstrdup(key->text) : NULL;
	return row;
}

static bool
has_room(const QsVerifyRows *rows, int length)
{
	return rows->bytes == 0 || rows->bytes + length <= QS_VERIFY_BYTES;
}

static void
keep_row(QsVerifyRow *row, QsVerifyRows *rows, QsRowKind kind, const char *json, int length,
		 const char *error)
{
	row->kind = kind;
	row->error = error ? pstrdup(error) : NULL;
	if (kind == QS_ROW_POINT && has_room(rows, length))
	{
		row->json = pnstrdup(json, length);
		rows->bytes += length;
	}
}

static bool
take_row_of_blocks(void *arg, const QsRowKey *key, QsRowKind kind, const char *json, int length,
				   const char *error)
{
	QsVerifyRows *rows = arg;

	/* Without a vector it is no point: whatever has its id is found from the other side. */
	if (kind != QS_ROW_ABSENT)
		keep_row(add_row(rows, key), rows, kind, json, length, error);
	return true;
}

typedef struct ByBlocks
{
	Oid			leaf;
	BlockNumber first;
	BlockNumber end;
	QsVerifyRows *rows;
} ByBlocks;

static void
forget_rows(QsVerifyRows *rows)
{
	memset(rows, 0, sizeof(QsVerifyRows));
}

static bool
read_blocks(QsVerifyTable *table, void *arg)
{
	ByBlocks   *by = arg;

	forget_rows(by->rows);
	return qs_reader_by_blocks(table->reader, by->leaf, by->first, by->end, take_row_of_blocks, by->rows);
}

static bool
read_keys_of_blocks(QsVerifyTable *table, void *arg)
{
	ByBlocks   *by = arg;
	QsRowKey   *keys;
	int			n;

	forget_rows(by->rows);
	if (!qs_reader_keys_by_blocks(table->reader, by->leaf, by->first, by->end, &keys, &n))
		return false;
	for (int i = 0; i < n; i++)
		add_row(by->rows, &keys[i])->kind = QS_ROW_POINT;
	return true;
}

void
qs_verify_read_blocks(QsVerifyTable *table, Oid leaf, BlockNumber first, BlockNumber end,
					  QsVerifyRows *rows)
{
	ByBlocks	by = {leaf, first, end, rows};
	char	   *message;

	if (read_or_error(table, read_blocks, &by, &message))
		return;
	if (!read_or_error(table, read_keys_of_blocks, &by, &message))
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("rows of table \"%s\" cannot be read: %s", table->definition->table, message)));
}

typedef struct ByKeys
{
	const QsRowKey *keys;
	int			n;
	QsReader   *reader;
	QsVerifyRows *rows;
	bool	   *found;
} ByKeys;

static bool
take_row_of_keys(void *arg, const QsRowKey *key, QsRowKind kind, const char *json, int length,
				 const char *error)
{
	ByKeys	   *by = arg;
	QsVerifyRow *row;

	if (kind == QS_ROW_POINT && !has_room(by->rows, length))
	{
		by->rows->more = true;
		return false;
	}
	row = add_row(by->rows, key);
	row->version = qs_reader_version(by->reader);
	keep_row(row, by->rows, kind, json, length, error);
	return true;
}

static bool
read_keys(QsVerifyTable *table, void *arg)
{
	ByKeys	   *by = arg;

	forget_rows(by->rows);
	by->reader = table->reader;
	return qs_reader_by_keys(table->reader, by->keys, by->n, take_row_of_keys, by);
}

/* The first half at least is read, or one row that is bad. */
void
qs_verify_read_keys(QsVerifyTable *table, const QsRowKey *keys, int n, QsVerifyRows *rows)
{
	ByKeys		by = {.keys = keys, .n = n, .rows = rows};
	bool		halved = false;
	char	   *message;

	while (!read_or_error(table, read_keys, &by, &message))
	{
		if (by.n == 1)
		{
			QsVerifyRow *row;

			forget_rows(rows);
			row = add_row(rows, &keys[0]);
			row->kind = QS_ROW_BAD;
			row->error = message;
			break;
		}
		by.n /= 2;
		halved = true;
	}
	rows->more |= halved;
}

static bool
look_for_keys(QsVerifyTable *table, void *arg)
{
	ByKeys	   *by = arg;

	return qs_reader_exists(table->reader, by->keys, by->n, by->found);
}

void
qs_verify_exist(QsVerifyTable *table, const QsRowKey *keys, int n, bool *found)
{
	ByKeys		by = {.keys = keys, .n = n, .found = found};
	char	   *message;

	if (!read_or_error(table, look_for_keys, &by, &message))
		memset(found, 0, n * sizeof(bool));
}
