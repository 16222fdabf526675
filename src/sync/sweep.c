/*
 * sweep.c
 *		Makes a collection equal to its table whatever happened before: a scroll
 *		over the collection's ids that finds points without a row, then a
 *		backfill in ranges of blocks.
 *
 * Sync worker only.  A sweep has a number; it completes that one, and a wish
 * that came meanwhile has a higher one (hazard 5).  Both halves keep durable
 * progress and go on after a crash.  The scroll deletes nothing itself: a
 * suspect becomes a dirty key, and its lane reads the current state.
 */
#include "qdrant_sync.h"
#include "common/key_text.h"
#include "common/point_key.h"
#include "net/qdrant_json.h"
#include "sync/task.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * Ids of a page: 629,000 ids/s were measured with this many.  Keys that come with
 * them may be long, so a page that fails is asked for in smaller ones.
 */
#define PAGE_IDS 10000
#define PAGE_KEYS 2500

/* Ranges read and not settled: enough that reading never waits for the oldest. */
#define MAX_RANGES 64

/* Rows that a range should have; its blocks follow. */
#define RANGE_ROWS 800
#define MAX_RANGE_BLOCKS 1024

int64
qs_task_sweep_wanted(const QsTask *task)
{
	return task->row.sweep + task->progress.sweep_wanted;
}

/* Durable with the caller's next save. */
void
qs_task_want_sweep(QsTask *task)
{
	task->progress.sweep_wanted++;
	task->progress_dirty = true;
	task->sweep_again = task->sweeping;
	if (task->wait_number != 0)
		task->wait_sweep = qs_task_sweep_wanted(task);
}

/*
 * The first filling of a collection that this mirror made has nothing to find.  One
 * that begins again, as after a TRUNCATE, has: what the first had sent.
 */
static bool
scroll_is_needed(const QsTask *task)
{
	return !(task->progress.collection_made && task->progress.sweep_done == 0 &&
			 qs_task_sweep_wanted(task) <= 1);
}

/*
 * What was read before the wish and is still on its way may reach Qdrant after the
 * scroll has passed its ids, and then nothing would find that its row is gone: no
 * trigger saw it go.  Such keys are read again, and the first page waits for them.
 */
static void
settle_before_scroll(QsTask *task)
{
	QsDebt	   *debt = MemoryContextAllocZero(task->context, sizeof(QsDebt));

	debt->kind = QS_DEBT_PAGE;
	debt->lanes = 1;
	task->page = debt;
	task->page_again = false;
	task->page_last = false;
	task->page_next = task->progress.scroll_offset == NULL ? NULL :
		MemoryContextStrdup(task->context, task->progress.scroll_offset);
	qs_lanes_mark_closed(task->lanes, debt);
	qs_lanes_debt_made(task->lanes, debt);
}

static void
start_sweep(QsTask *task)
{
	bool		resumed = task->progress.scroll_offset != NULL ||
		task->progress.scroll_done || OidIsValid(task->progress.backfill_file) ||
		OidIsValid(task->progress.backfill_after);

	/* After a restart it is not known which wish the sweep under way had seen. */
	task->sweep_number = resumed ? task->progress.sweep_done + 1 : qs_task_sweep_wanted(task);
	task->sweep_again = false;
	task->sweeping = true;
	task->backfill_cursor = (BlockNumber) task->progress.backfill_next;
	if (task->range_blocks == 0)
		task->range_blocks = 16;
	if (!scroll_is_needed(task))
		task->progress.scroll_done = true;
	if (!task->progress.scroll_done)
		settle_before_scroll(task);
}

/* What a look at a leaf found. */
typedef enum Look
{
	LOOK_LOCKED,				/* somebody holds a lock: later */
	LOOK_GONE,
	LOOK_FOUND
} Look;

/* Current storage and length of a leaf. */
static Look
look_at_leaf(Oid leaf, Oid *file, BlockNumber *blocks)
{
	Relation	rel;
	Look		look = LOOK_LOCKED;

	qs_begin();
	if (ConditionalLockRelationOid(leaf, AccessShareLock))
	{
		rel = try_relation_open(leaf, NoLock);
		look = rel != NULL ? LOOK_FOUND : LOOK_GONE;
		if (rel != NULL)
		{
			*file = qs_relfilenumber(rel);
			*blocks = RelationGetNumberOfBlocks(rel);
			relation_close(rel, NoLock);
		}
	}
	qs_commit();
	return look;
}

static void
look_later(QsTask *task)
{
	task->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 200);
}

/* Leaves of the table, or itself, by their OIDs; false: it is locked. */
static bool
find_leaves(QsTask *task, List **leaves)
{
	MemoryContext context = CurrentMemoryContext;
	bool		found = false;

	*leaves = NIL;
	qs_begin();
	if (ConditionalLockRelationOid(task->row.relid, AccessShareLock))
	{
		List	   *all = find_all_inheritors(task->row.relid, NoLock, NULL);
		ListCell   *cell;

		MemoryContextSwitchTo(context);
		foreach(cell, all)
		{
			if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_RELATION)
				*leaves = lappend_oid(*leaves, lfirst_oid(cell));
		}
		list_sort(*leaves, list_oid_cmp);
		found = true;
	}
	qs_commit();
	return found;
}

static int64
blocks_of(List *leaves)
{
	int64		total = 0;
	ListCell   *cell;

	foreach(cell, leaves)
	{
		Oid			file;
		BlockNumber blocks;

		if (look_at_leaf(lfirst_oid(cell), &file, &blocks) == LOOK_FOUND)
			total += blocks;
	}
	return total;
}

static void
begin_backfill(QsTask *task, List *leaves)
{
	task->progress.backfill_base = 0;
	task->progress.backfill_total = blocks_of(leaves);
	task->progress.backfill_rows = 0;
	task->progress.backfill_started = GetCurrentTimestamp();
	task->progress.backfill_finished = 0;
}

/* Rows that come later are captured: the length now is the end. */
static bool
begin_leaf(QsTask *task, Oid leaf)
{
	Oid			file;
	BlockNumber blocks;

	switch (look_at_leaf(leaf, &file, &blocks))
	{
		case LOOK_LOCKED:
			look_later(task);
			return true;
		case LOOK_GONE:
			return false;
		case LOOK_FOUND:
			break;
	}
	task->progress.backfill_leaf = leaf;
	task->progress.backfill_file = file;
	task->progress.backfill_next = 0;
	task->progress.backfill_end = blocks;
	task->backfill_cursor = 0;
	qs_task_save(task);
	return true;
}

/*
 * The first leaf behind those that are done.  False: there is none.  A partition
 * that comes meanwhile is new, or brings a wish for another sweep.
 */
static bool
next_leaf(QsTask *task)
{
	List	   *leaves;
	ListCell   *cell;

	if (!find_leaves(task, &leaves))
	{
		look_later(task);
		return true;
	}
	if (!OidIsValid(task->progress.backfill_after))
		begin_backfill(task, leaves);
	foreach(cell, leaves)
	{
		if (lfirst_oid(cell) > task->progress.backfill_after && begin_leaf(task, lfirst_oid(cell)))
			return true;
	}
	return false;
}

/* A leaf that was dropped has no rows to read; its points are the next sweep's. */
static void
pass_over_leaf(QsTask *task)
{
	task->progress.backfill_after = task->progress.backfill_leaf;
	task->progress.backfill_base += task->progress.backfill_end;
	task->progress.backfill_file = InvalidOid;
	task->progress.backfill_next = task->progress.backfill_end = 0;
	task->progress_dirty = true;
}

/*
 * All of a leaf was read, or a read of it failed.  One that was rewritten meanwhile (VACUUM FULL, CLUSTER)
 * may have moved rows to blocks that were already read: it is read again.
 */
static void
finish_leaf(QsTask *task)
{
	Oid			file;
	BlockNumber blocks;
	Look		look = look_at_leaf(task->progress.backfill_leaf, &file, &blocks);

	if (look == LOOK_LOCKED)
	{
		/* The end waits, and what was read stays read. */
		look_later(task);
		return;
	}
	task->look_at_leaf = false;
	if (look == LOOK_GONE ||
		(file == task->progress.backfill_file &&
		 task->progress.backfill_next >= task->progress.backfill_end))
		pass_over_leaf(task);
	else if (file != task->progress.backfill_file)
	{
		task->progress.backfill_file = InvalidOid;
		task->progress.backfill_next = task->progress.backfill_end = 0;
		task->progress_dirty = true;
	}
}

/* Takes a string of the task's own. */
static void
set_scroll_offset(QsTask *task, char *offset)
{
	if (task->progress.scroll_offset != NULL)
		pfree(task->progress.scroll_offset);
	task->progress.scroll_offset = offset;
}

static void
forget_position(QsTask *task)
{
	set_scroll_offset(task, NULL);
	task->progress.scroll_done = false;
	task->progress.backfill_file = InvalidOid;
	task->progress.backfill_after = InvalidOid;
}

static void
finish_sweep(QsTask *task)
{
	bool		again = task->sweep_again;

	forget_position(task);
	task->sweeping = false;
	if (!again)
	{
		task->progress.sweep_done = task->sweep_number;
		task->progress.backfill_finished = GetCurrentTimestamp();
		qs_task_succeeded(task);
	}
	task->progress.phase = qs_task_active_phase(task);
	qs_task_save(task);
}

/*
 * A point that does not say its key is sent anew by the lane that its id has
 * already; else it is foreign, or the backfill that follows brings it back.
 */
static bool
is_foreign(const QsTask *task, QsPointOrigin origin, QsKey id)
{
	return origin == QS_POINT_FOREIGN ||
		(origin == QS_POINT_WITHOUT_KEY && qs_lanes_find(task->lanes, id) == NULL);
}

/* Marks the ids of a page that have no row; collects those that cannot have one. */
static bool
look_up_page(QsTask *task, const QsIdPage *page, QsDebt *debt, bool all_suspect)
{
	QsRowKey   *keys = palloc(sizeof(QsRowKey) * (page->n + 1));
	bool	   *found = palloc0(sizeof(bool) * (page->n + 1));
	char	  **foreign = palloc(sizeof(char *) * (page->n + 1));
	int			nkeys = 0;
	int			nforeign = 0;

	for (int i = 0; i < page->n; i++)
	{
		char	   *text;
		QsPointOrigin origin = qs_point_origin(&task->definition->key, page->ids[i], page->keys[i],
											   &keys[nkeys].id, &text);

		keys[nkeys].text = text;
		if (origin == QS_POINT_OF_KEY)
			nkeys++;
		else if (is_foreign(task, origin, keys[nkeys].id))
			foreign[nforeign++] = page->ids[i];
	}
	if (!all_suspect && nkeys > 0 && !qs_reader_exists(task->reader, keys, nkeys, found))
		return false;
	for (int i = 0; i < nkeys; i++)
	{
		if (!found[i])
			qs_lanes_mark(task->lanes, keys[i].id, keys[i].text, debt);
	}
	if (nforeign > 0)
	{
		debt->lanes++;
		qs_batch_delete_foreign(task, foreign, nforeign);
	}
	return true;
}

/*
 * A page owes the removal of its foreign points as well: one whose id is a row's is
 * sent by the backfill, which must come after that, and a crash in between must not
 * have passed the page by.
 */
void
qs_sweep_foreign_done(QsTask *task, bool deleted)
{
	task->page_again |= !deleted;
	if (task->page != NULL)
		qs_lanes_debt_made(task->lanes, task->page);
}

static void
keep_page_end(QsTask *task, const QsIdPage *page)
{
	if (task->page_next != NULL)
		pfree(task->page_next);
	task->page_last = page->next == NULL;
	task->page_next = page->next ? MemoryContextStrdup(task->context, page->next) : NULL;
}

static void
page_read(QsTask *task, const QsIdPage *page)
{
	QsDebt	   *debt = MemoryContextAllocZero(task->context, sizeof(QsDebt));
	ErrorData  *volatile error = NULL;
	volatile bool looked_up = false;

	debt->kind = QS_DEBT_PAGE;
	debt->lanes = 1;
	task->page_again = false;
	keep_page_end(task, page);
	task->page = debt;
	qs_begin();
	PG_TRY();
	{
		looked_up = look_up_page(task, page, debt, false);
	}
	PG_CATCH();
	{
		error = qs_catch_error(task->context);
	}
	PG_END_TRY();
	if (error == NULL)
		qs_commit();
	else if (qs_is_rows_fault(error->sqlerrcode))
	{
		/* One row's expression raised it: the lanes read each for itself (contract 8). */
		qs_begin();
		looked_up = look_up_page(task, page, debt, true);
		qs_commit();
		FreeErrorData(error);
	}
	if (!looked_up)
	{
		/* The same page is asked for again. */
		pfree(debt);
		task->page = NULL;
		qs_task_retry_later(task, error ? error->message : "the table is locked");
		if (error != NULL)
			FreeErrorData(error);
		return;
	}
	qs_lanes_debt_made(task->lanes, debt);
}

static int
largest_page(const QsTask *task)
{
	int			most = task->definition->key.rule == QS_KEY_HASHED ? PAGE_KEYS : PAGE_IDS;

	return task->page_most > 0 ? Min(most, task->page_most) : most;
}

/*
 * A collection in strict mode bounds what may be asked for at once, and refuses the
 * rest as a bad request.  True: smaller pages are asked for from now on.
 */
static bool
shrink_page(QsTask *task, const QsHttpOutcome *outcome)
{
	if (outcome->status != 400 || task->page_ids <= 1)
		return false;
	task->page_ids = task->page_most = Max(task->page_ids / 4, 1);
	return true;
}

static void
page_answered(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;
	QsIdPage	page;

	task->call = NULL;
	if (task->phase != QS_PHASE_ACTIVE || !task->sweeping)
		return;
	if (shrink_page(task, outcome))
		return;
	page.valid = false;
	if (outcome->status == 200)
		qs_json_id_page(outcome->answer, outcome->answer_length, &page);
	task->page_ids = page.valid ? Min(task->page_ids * 2, largest_page(task)) : Max(task->page_ids / 4, 1);
	if (page.valid)
	{
		page_read(task, &page);
		qs_json_free_id_page(&page);
		return;
	}
	if (outcome->status == 404)
		qs_task_set_phase(task, QS_PHASE_CREATING);
	else if (outcome->status == 401 || outcome->status == 403)
	{
		qs_task_fail(task, "server \"%s\" does not let its points be read (HTTP status %d)",
					 task->row.server, outcome->status);
		return;
	}
	else
		qs_endpoint_failed(task->endpoint);
	qs_task_retry_later(task, outcome->status == 0 ? outcome->error
						: "the collection's ids could not be read");
}

static const char *
key_field(const QsTask *task)
{
	return task->definition->key.rule == QS_KEY_HASHED ? QS_KEY_FIELD : NULL;
}

static void
ask_for_page(QsTask *task)
{
	if (task->page_ids == 0)
		task->page_ids = largest_page(task);
	task->call = qs_call_read(task->endpoint, "POST",
							  qs_task_collection_path(task, "/points/scroll"),
							  qs_call_body(qs_json_scroll(task->page_ids, key_field(task),
														 task->progress.scroll_offset)),
							  page_answered, task);
}

/* All suspects of the page are settled: the next one, or the backfill. */
static void
page_settled(QsTask *task)
{
	if (task->page_again)
		return;
	set_scroll_offset(task, task->page_next);
	task->page_next = NULL;
	task->progress.scroll_done = task->page_last;
	task->progress_dirty = true;
}

/* Called by the lanes for pages and ranges. */
void
qs_sweep_paid(QsTask *task, QsDebt *debt)
{
	if (debt->kind == QS_DEBT_PAGE)
	{
		task->page = NULL;
		page_settled(task);
		pfree(debt);
		return;
	}
	/* Ranges are settled in any order; the durable position is the first gap. */
	while (!dlist_is_empty(&task->ranges))
	{
		QsDebt	   *first = dlist_head_element(QsDebt, node, &task->ranges);

		if (first->lanes > 0)
			break;
		task->progress.backfill_next = first->end;
		task->progress.backfill_rows += first->rows;
		task->progress_dirty = true;
		dlist_delete(&first->node);
		task->nranges--;
		pfree(first);
	}
}

bool
qs_sweep_wants_read(const QsTask *task)
{
	return task->sweeping && task->progress.scroll_done && !task->look_at_leaf &&
		OidIsValid(task->progress.backfill_file) && task->nranges < MAX_RANGES &&
		task->backfill_cursor < (BlockNumber) task->progress.backfill_end;
}

static void
adapt_range(QsTask *task, int rows)
{
	if (rows < RANGE_ROWS / 2 && task->range_blocks < MAX_RANGE_BLOCKS)
		task->range_blocks *= 2;
	else if (rows > RANGE_ROWS * 2 && task->range_blocks > 1)
		task->range_blocks /= 2;
}

void
qs_sweep_read(QsTask *task)
{
	QsDebt	   *range = MemoryContextAllocZero(task->context, sizeof(QsDebt));

	range->kind = QS_DEBT_BLOCKS;
	range->lanes = 1;
	range->block = task->backfill_cursor;
	range->end = Min((BlockNumber) task->progress.backfill_end,
					 task->backfill_cursor + task->range_blocks);
	dlist_push_tail(&task->ranges, &range->node);
	task->nranges++;
	if (!qs_batch_read_blocks(task, range, &range->rows))
	{
		/* Nothing was marked, or the marked lanes are read once more as well. */
		task->look_at_leaf = true;
		task->not_before = Max(task->not_before,
							   TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 200));
		range->rows = 0;
		range->end = range->block;
	}
	else
	{
		adapt_range(task, range->rows);
		task->backfill_cursor = range->end;
	}
	qs_lanes_debt_made(task->lanes, range);
}

void
qs_sweep_step(QsTask *task)
{
	if (!task->sweeping)
	{
		if (task->progress.sweep_done >= qs_task_sweep_wanted(task) || !qs_limit_lift(task))
			return;
		start_sweep(task);
	}
	if (!task->progress.scroll_done)
	{
		if (task->page == NULL && task->foreign == 0 && task->call == NULL &&
			GetCurrentTimestamp() >= task->not_before)
			ask_for_page(task);
	}
	else if (task->nranges > 0 || GetCurrentTimestamp() < task->not_before)
		return;
	else if (!OidIsValid(task->progress.backfill_file))
	{
		if (!next_leaf(task) && task->foreign == 0)
			finish_sweep(task);
	}
	else if (task->progress.backfill_next >= task->progress.backfill_end || task->look_at_leaf)
		finish_leaf(task);
}
