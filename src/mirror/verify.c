/*
 * verify.c
 *		qdrant_verify: compares a mirrored table with its collection, and has what
 *		differs sent again.
 *
 * Runs in the session that calls it, in bounded memory.  Two passes, since neither
 * side can be read in the other's order:
 *
 *		points	a scroll over the collection's ids: a point without a row is left over
 *		rows	the table in ranges of blocks: a row's point is missing, stale or equal
 *
 * What a pass finds is only a suspect, because both sides go on changing.  It becomes a
 * difference in verify_confirm.c, once everything that was committed when the row was
 * read has reached Qdrant.  Nothing here writes to Qdrant: repair marks the key dirty in
 * this transaction, as a trigger would, and the mirror's lanes do the rest after COMMIT.
 */
#include "qdrant_sync.h"
#include "capture/capture.h"
#include "client/call_arguments.h"
#include "common/point_key.h"
#include "common/rows_out.h"
#include "mirror/ddl.h"
#include "mirror/verify_confirm.h"
#include "mirror/wait.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

PG_FUNCTION_INFO_V1(qs_verify);

/* Rows that a range of blocks should have; its length follows. */
#define RANGE_ROWS QS_VERIFY_ROWS
#define FIRST_RANGE_BLOCKS 8
#define MAX_RANGE_BLOCKS 1024

#define KIND_COLUMNS 3

void
qs_verify_sleep(int milliseconds)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = qs_wait_event("QdrantVerify");
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, milliseconds, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* ---- who may, and when ---- */

static void
refuse_impossible(bool repair)
{
	qs_require_preload("qdrant_verify");
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("qdrant_verify cannot be used on a standby"),
				 errdetail("Changes are sent to Qdrant by the primary.")));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("qdrant_verify cannot be used at isolation level REPEATABLE READ or SERIALIZABLE"),
				 errdetail("It has to see what others commit meanwhile.")));
	if (qs_capture_pending())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("qdrant_verify cannot be used in a transaction that has changes to send"),
				 errhint("They are sent after COMMIT. Verify then.")));
	if (repair)
		PreventCommandIfReadOnly("qdrant_verify");
}

static QsMirrorRow *
mirror_of(Oid relid)
{
	QsMirrorRow *row = qs_ddl_own_mirror(relid);

	if (row->paused)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the mirror of table \"%s\" is paused", get_rel_name(relid)),
				 errdetail("What is not sent yet cannot be told from a difference."),
				 errhint("qdrant_resume takes it up again.")));
	return row;
}

/* ---- points without a row ---- */

static bool
make_suspect(QsVerify *verify, const QsVerifyPage *page, int i, QsVerifySuspect *suspect)
{
	char	   *text;

	memset(suspect, 0, sizeof(QsVerifySuspect));
	suspect->id = page->ids[i];
	suspect->origin = qs_point_origin(&verify->table.definition->key, page->ids[i], page->keys[i],
									  &suspect->key.id, &text);
	suspect->key.text = text;
	return suspect->origin == QS_POINT_OF_KEY;
}

/* Of the points that have a key, those whose key has no row now. */
static int
without_row(QsVerify *verify, QsVerifySuspect *suspects, int n)
{
	QsRowKey   *keys = palloc((n + 1) * sizeof(QsRowKey));
	bool	   *found = palloc0((n + 1) * sizeof(bool));
	int			left = 0;

	for (int i = 0; i < n; i++)
		keys[i] = suspects[i].key;
	if (n > 0)
		qs_verify_exist(&verify->table, keys, n, found);
	for (int i = 0; i < n; i++)
	{
		if (!found[i])
			suspects[left++] = suspects[i];
	}
	return left;
}

static void
look_at_page(QsVerify *verify, const QsVerifyPage *page)
{
	QsVerifySuspect *suspects = palloc((page->n + 1) * sizeof(QsVerifySuspect));
	char	  **foreign = palloc((page->n + 1) * sizeof(char *));
	int			nsuspects = 0;
	int			nforeign = 0;

	for (int i = 0; i < page->n; i++)
	{
		QsVerifySuspect *suspect = &suspects[nsuspects];

		if (make_suspect(verify, page, i, suspect))
			nsuspects++;
		else if (suspect->origin == QS_POINT_FOREIGN)
			foreign[nforeign++] = page->ids[i];
		else if (!qs_verify_remember_unnamed(verify, suspect))
			qs_verify_found(verify, QS_VERIFY_UNCLEAR, NULL, page->ids[i],
							"too many points do not say their key");
	}
	nsuspects = without_row(verify, suspects, nsuspects);
	qs_verify_confirm(verify, suspects, nsuspects, false);
	qs_verify_confirm_ids(verify, foreign, nforeign);
	qs_verify_show_done(page->n);
}

static void
look_at_points(QsVerify *verify)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *offset = NULL;
	bool		last = false;

	qs_verify_show_phase(QS_VERIFY_POINTS, verify->remote.points);
	while (!last)
	{
		QsVerifyPage *page;

		MemoryContextSwitchTo(verify->page);
		page = qs_verify_scroll(&verify->remote, verify->mirror->key.rule == QS_KEY_HASHED, offset);
		look_at_page(verify, page);
		MemoryContextSwitchTo(caller);
		last = page->next == NULL;
		offset = last ? NULL : pstrdup(page->next);
		MemoryContextReset(verify->page);
		CHECK_FOR_INTERRUPTS();
	}
}

/* ---- rows ---- */

static void
add_suspect(QsVerify *verify, const QsVerifyRow *row)
{
	QsVerifySuspect *suspect = &verify->suspects[verify->nsuspects++];

	memset(suspect, 0, sizeof(QsVerifySuspect));
	suspect->key = row->key;
	suspect->id = qs_verify_id(verify, &row->key);
	suspect->origin = QS_POINT_OF_KEY;
}

static void
compare_group(QsVerify *verify, QsVerifyRow **rows, int n)
{
	char	  **ids = palloc((n + 1) * sizeof(char *));
	QsVerifyPoints *points;

	for (int i = 0; i < n; i++)
		ids[i] = qs_verify_id(verify, &rows[i]->key);
	points = n > 0 ? qs_verify_fetch(&verify->remote, ids, n) : NULL;
	if (points == NULL && n > 1)
	{
		compare_group(verify, rows, n / 2);
		compare_group(verify, rows + n / 2, n - n / 2);
		return;
	}
	for (int i = 0; i < n; i++)
	{
		if (points != NULL && points->points[i] != NULL &&
			qs_verify_compare(&verify->remote, points, i, rows[i]->json) == NULL)
			qs_verify_found(verify, QS_VERIFY_EQUAL, NULL, NULL, NULL);
		else
			add_suspect(verify, rows[i]);
	}
}

/* Rows without their JSON are read again by their keys, when they are confirmed. */
static void
compare_rows(QsVerify *verify, QsVerifyRows *rows)
{
	QsVerifyRow **group = palloc((rows->n + 1) * sizeof(QsVerifyRow *));
	int			n = 0;

	verify->suspects = palloc_extended((rows->n + 1) * sizeof(QsVerifySuspect), MCXT_ALLOC_HUGE);
	verify->nsuspects = 0;
	for (int i = 0; i < rows->n; i++)
	{
		qs_verify_forget_unnamed(verify, rows->rows[i].key.id);
		if (rows->rows[i].json != NULL)
			group[n++] = &rows->rows[i];
		else
			add_suspect(verify, &rows->rows[i]);
	}
	for (int i = 0; i < n; i += QS_VERIFY_ROWS)
		compare_group(verify, group + i, Min(QS_VERIFY_ROWS, n - i));
	qs_verify_confirm(verify, verify->suspects, verify->nsuspects, true);
	qs_verify_show_done(rows->n);
}

static void
adapt_range(QsVerify *verify, const QsVerifyRows *rows)
{
	if (rows->n > RANGE_ROWS || rows->bytes > QS_VERIFY_BYTES / 2)
		verify->range_blocks = Max(1, verify->range_blocks / 2);
	else if (rows->n < RANGE_ROWS / 2 && verify->range_blocks < MAX_RANGE_BLOCKS)
		verify->range_blocks *= 2;
}

/* Rows that come behind its end meanwhile were captured, and are not waited for. */
static void
compare_leaf(QsVerify *verify, Oid leaf)
{
	MemoryContext caller = MemoryContextSwitchTo(verify->page);
	int64		blocks = qs_verify_blocks(&verify->table, leaf);

	for (int64 first = 0; first < blocks;)
	{
		BlockNumber end = (BlockNumber) Min(blocks, first + verify->range_blocks);
		QsVerifyRows rows;

		qs_verify_read_blocks(&verify->table, leaf, (BlockNumber) first, end, &rows);
		compare_rows(verify, &rows);
		adapt_range(verify, &rows);
		first = end;
		MemoryContextReset(verify->page);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(caller);
}

static void
look_at_rows(QsVerify *verify)
{
	int64		rows;
	List	   *leaves = qs_verify_leaves(&verify->table, &rows);
	ListCell   *cell;

	qs_verify_show_phase(QS_VERIFY_ROWS_PHASE, rows);
	verify->range_blocks = FIRST_RANGE_BLOCKS;
	foreach(cell, leaves)
		compare_leaf(verify, lfirst_oid(cell));
}

/* ---- the whole ---- */

static void
run(QsVerify *verify)
{
	qs_verify_open_table(&verify->table, verify->mirror->relid, verify->timeout);
	/* Qdrant is asked first: where it is away, the wait would take its whole time to say so. */
	qs_verify_open_remote(&verify->remote, verify->table.definition);
	qs_verify_wait(verify);
	look_at_points(verify);
	look_at_rows(verify);
	qs_verify_show_phase(QS_VERIFY_ENDING, 0);
	qs_verify_confirm_unnamed(verify);
	if (verify->sweep)
		qs_capture_sweep(verify->mirror->relid);
	qs_verify_close_remote(&verify->remote);
	qs_verify_close_table(&verify->table);
}

static Datum
texts(List *list)
{
	Datum	   *values = palloc((list_length(list) + 1) * sizeof(Datum));
	ListCell   *cell;

	foreach(cell, list)
		values[foreach_current_index(cell)] = CStringGetTextDatum(lfirst(cell));
	return PointerGetDatum(construct_array(values, list_length(list), TEXTOID, -1, false, TYPALIGN_INT));
}

static void
put_findings(QsVerify *verify, QsRowsOut *result)
{
	static const char *const names[] = {"equal", "missing", "stale", "left over", "refused", "unclear"};

	StaticAssertStmt(lengthof(names) == QS_VERIFY_KINDS, "a name for each kind");
	for (int i = 0; i < QS_VERIFY_KINDS; i++)
	{
		Datum		values[KIND_COLUMNS];
		bool		nulls[KIND_COLUMNS] = {false};

		values[0] = CStringGetTextDatum(names[i]);
		values[1] = Int64GetDatum(verify->findings[i].n);
		values[2] = texts(verify->findings[i].examples);
		qs_rows_out_put(result, values, nulls);
	}
}

Datum
qs_verify(PG_FUNCTION_ARGS)
{
	QsRowsOut	result = qs_rows_out_begin(fcinfo);
	QsVerify	verify = {.repair = PG_GETARG_BOOL(1)};

	refuse_impossible(verify.repair);
	verify.timeout = qs_argument_timeout(fcinfo, 2);
	verify.mirror = mirror_of(PG_GETARG_OID(0));
	verify.context = CurrentMemoryContext;
	verify.page = AllocSetContextCreate(CurrentMemoryContext, "qdrant_verify page", ALLOCSET_DEFAULT_SIZES);
	qs_verify_show(qs_mirror_slot_find(MyDatabaseId, verify.mirror->id));
	PG_TRY();
	{
		run(&verify);
	}
	PG_FINALLY();
	{
		qs_verify_hide();
	}
	PG_END_TRY();
	put_findings(&verify, &result);
	return (Datum) 0;
}
