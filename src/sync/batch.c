/*
 * batch.c
 *		The life of one write: lanes are read, their points encoded into a body,
 *		the body sent, its answer judged, the lanes settled or read again.
 *
 * Sync worker only.  A body is never sent twice: whoever tries again reads the
 * rows again (hazard 8).
 */
#include "qdrant_sync.h"
#include "common/settings.h"
#include "net/outcome.h"
#include "sync/task.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Keys of one read: so many batches' worth; reading costs less by the thousand. */
#define BATCHES_PER_READ 8

/*
 * That many single rows refused, none accepted between them, and it is not the
 * rows that are wrong (hazard 19).
 */
#define REFUSED_IN_ROW_LIMIT 20

/*
 * Rows of one range of the filling, whose blocks follow the rows before it: where
 * an emptied part of a table ends, a range of that size could be a gigabyte.
 */
#define ROWS_PER_RANGE_LIMIT 8192

/* After the fence the keys in doubt are sent once more (hazard 1). */
#define ECHO_MS (10 * 1000)
#define ECHO_IN_CLUSTER_MS (60 * 1000)

typedef enum BatchKind
{
	BATCH_UPSERT,
	BATCH_DELETE
} BatchKind;

typedef struct Batch
{
	dlist_node	node;			/* in ready, flying or doubtful */
	QsTask	   *task;
	BatchKind	kind;
	StringInfoData body;		/* handed over when it is sent */
	QsLane	  **lanes;			/* none: ids that are no keys of ours */
	int			n;
	int			capacity;
	int64		epoch;			/* of the alias that it was sent through */
	QsCall	   *call;
} Batch;

/* Lanes that are read and sent by themselves: half of a batch that was refused. */
typedef struct Group
{
	dlist_node	node;
	int			n;
	QsLane	   *lanes[FLEXIBLE_ARRAY_MEMBER];
} Group;

/* Keys that were in doubt, to be sent once more when due. */
typedef struct Echo
{
	dlist_node	node;
	TimestampTz due;
	int			n;
	QsRowKey	keys[FLEXIBLE_ARRAY_MEMBER];
} Echo;

/* A row of which nothing is sent. */
typedef struct BadRow
{
	QsLane	   *lane;
	char	   *error;			/* its dead letter; NULL: there is nothing to delete either */
} BadRow;

/* One read. */
typedef struct Read
{
	QsTask	   *task;
	QsDebt	   *range;			/* reading blocks: owed to; NULL: lanes are closed already */
	bool		single;			/* a group: one batch whatever its size */
	bool		overfull;		/* range: it was broken off, and is to be smaller */
	int			rows;
	dlist_head	made;			/* full batches */
	Batch	   *upsert;
	Batch	   *delete;
	BadRow	   *bad;
	int			nbad;
	int			bad_capacity;
} Read;

static const char *const points_opening = "{\"points\":[";

static Batch *
make_batch(QsTask *task, BatchKind kind)
{
	MemoryContext old = MemoryContextSwitchTo(task->context);
	Batch	   *batch = palloc0(sizeof(Batch));

	batch->task = task;
	batch->kind = kind;
	initStringInfo(&batch->body);
	appendStringInfoString(&batch->body, points_opening);
	MemoryContextSwitchTo(old);
	return batch;
}

static void
free_batch(Batch *batch)
{
	if (batch->body.data != NULL)
		pfree(batch->body.data);
	if (batch->lanes != NULL)
		pfree(batch->lanes);
	pfree(batch);
}

static void
add_lane(Batch *batch, QsLane *lane)
{
	if (batch->n == batch->capacity)
	{
		Size		size;

		batch->capacity = batch->capacity ? batch->capacity * 2 : 128;
		size = batch->capacity * sizeof(QsLane *);
		batch->lanes = batch->lanes ? repalloc(batch->lanes, size)
			: MemoryContextAlloc(batch->task->context, size);
	}
	batch->lanes[batch->n++] = lane;
}

static void
append_id(QsTask *task, StringInfo body, QsKey key)
{
	bool		uuid = qs_task_uuid_ids(task);
	char	   *text = qs_key_to_text(key, uuid);

	if (uuid)
		appendStringInfo(body, "\"%s\"", text);
	else
		appendStringInfoString(body, text);
	pfree(text);
}

static bool
is_full(const Batch *batch)
{
	return batch->n >= qs_batch_rows || batch->body.len >= qs_batch_bytes * 1024;
}

/* The batch that the next row of this kind goes into. */
static Batch *
open_batch(Read *read, Batch **current, BatchKind kind)
{
	if (*current != NULL && !read->single && is_full(*current))
	{
		dlist_push_tail(&read->made, &(*current)->node);
		*current = NULL;
	}
	if (*current == NULL)
		*current = make_batch(read->task, kind);
	else
		appendStringInfoChar(&(*current)->body, ',');
	return *current;
}

static void
note_bad_row(Read *read, QsLane *lane, const char *error)
{
	MemoryContext old = MemoryContextSwitchTo(read->task->context);

	if (read->nbad == read->bad_capacity)
	{
		read->bad_capacity = read->bad_capacity ? read->bad_capacity * 2 : 16;
		read->bad = read->bad ? repalloc(read->bad, read->bad_capacity * sizeof(BadRow))
			: palloc(read->bad_capacity * sizeof(BadRow));
	}
	read->bad[read->nbad].lane = lane;
	read->bad[read->nbad++].error = error ? pstrdup(error) : NULL;
	MemoryContextSwitchTo(old);
}

/* Negative integers never became points. */
static bool
is_no_id(QsTask *task, QsKey key)
{
	return !qs_task_uuid_ids(task) && (int64) key.lo < 0;
}

/* A row of the read; see QsRowSink. */
static bool
take_row(void *arg, const QsRowKey *key, QsRowKind kind, const char *json, int length,
		 const char *error)
{
	Read	   *read = arg;
	QsLane	   *lane;
	Batch	   *batch;

	read->rows++;
	lane = read->range ? qs_lanes_close_new(read->task->lanes, key->id, key->text, read->range)
		: qs_lanes_find(read->task->lanes, key->id);
	if (lane == NULL)
		return true;
	switch (kind)
	{
		case QS_ROW_POINT:
			batch = open_batch(read, &read->upsert, BATCH_UPSERT);
			appendBinaryStringInfo(&batch->body, json, length);
			add_lane(batch, lane);
			break;
		case QS_ROW_ABSENT:
			if (is_no_id(read->task, key->id))
			{
				note_bad_row(read, lane, NULL);
				break;
			}
			batch = open_batch(read, &read->delete, BATCH_DELETE);
			append_id(read->task, &batch->body, key->id);
			add_lane(batch, lane);
			break;
		case QS_ROW_BAD:
			note_bad_row(read, lane, error);
			break;
	}
	read->overfull = read->range != NULL && read->rows >= ROWS_PER_RANGE_LIMIT &&
		read->range->end - read->range->block > 1;
	return !read->overfull;
}

static void
finish_batch(Read *read, Batch **current)
{
	if (*current != NULL)
		dlist_push_tail(&read->made, &(*current)->node);
	*current = NULL;
}

static void
start_read(Read *read, QsTask *task, QsDebt *range, bool single)
{
	memset(read, 0, sizeof(*read));
	read->task = task;
	read->range = range;
	read->single = single;
	dlist_init(&read->made);
}

static void
forget_bad_rows(Read *read)
{
	for (int i = 0; i < read->nbad; i++)
	{
		if (read->bad[i].error != NULL)
			pfree(read->bad[i].error);
	}
	if (read->bad != NULL)
		pfree(read->bad);
	read->bad = NULL;
	read->nbad = 0;
}

/* The read failed: what it made is thrown away.  Its lanes are the caller's. */
static void
abandon_read(Read *read)
{
	dlist_mutable_iter iter;

	finish_batch(read, &read->upsert);
	finish_batch(read, &read->delete);
	dlist_foreach_modify(iter, &read->made)
		free_batch(dlist_container(Batch, node, iter.cur));
	forget_bad_rows(read);
}

/* True: the row had a dead letter already. */
static bool
put_dead_letter(QsTask *task, const QsLane *lane, const char *error, int http_status)
{
	char	   *text = qs_task_key_text(task, lane);
	bool		again;

	/* What was accepted before this refusal is told first. */
	qs_task_tell_accepted(task);
	again = qs_dead_letter_put(task->row.id, task->row.server, task->row.collection,
							   text, error, http_status, NULL);
	ereport(LOG,
			(errmsg("qdrant_sync: row with key %s of collection \"%s\" was refused: %s",
					text, task->row.collection, error)));
	if (!again)
		task->dead_letters++;
	pfree(text);
	return again;
}

/* A row that is refused again has no second letter: they are counted before they stop a mirror. */
static void
check_dead_letter_limit(QsTask *task)
{
	if (task->dead_letters <= qs_max_dead_letters)
		return;
	qs_begin();
	task->dead_letters = qs_dead_letters_count(task->row.id);
	qs_commit();
	if (task->dead_letters > qs_max_dead_letters)
		qs_task_fail(task, "more than %d dead letters (qdrant_sync.max_dead_letters)",
					 qs_max_dead_letters);
}

/* What was refused before may be accepted now: its dead letter goes. */
static void
note_accepted(QsTask *task, const QsLane *lane)
{
	MemoryContext old;

	if (task->dead_letters == 0)
		return;
	old = MemoryContextSwitchTo(task->context);
	task->accepted = lappend(task->accepted, qs_task_key_text(task, lane));
	MemoryContextSwitchTo(old);
}

/* The read's transaction is about to end well: what it found becomes durable. */
static void
keep_bad_rows(Read *read)
{
	for (int i = 0; i < read->nbad; i++)
	{
		BadRow	   *bad = &read->bad[i];

		if (bad->error != NULL)
			(void) put_dead_letter(read->task, bad->lane, bad->error, 0);
		else
			note_accepted(read->task, bad->lane);
	}
}

static int
count_bad_rows(const Read *read)
{
	int			n = 0;

	for (int i = 0; i < read->nbad; i++)
	{
		if (read->bad[i].error != NULL)
			n++;
	}
	return n;
}

/* It is not known yet who is to blame: they are read again after the look. */
static void
spare_bad_rows(Read *read)
{
	int			left = 0;

	for (int i = 0; i < read->nbad; i++)
	{
		BadRow	   *bad = &read->bad[i];

		if (bad->error == NULL)
		{
			read->bad[left++] = *bad;
			continue;
		}
		qs_lanes_reopen(read->task->lanes, bad->lane);
		pfree(bad->error);
	}
	read->nbad = left;
}

static void
conclude_read(Read *read)
{
	QsTask	   *task = read->task;
	dlist_mutable_iter iter;

	finish_batch(read, &read->upsert);
	finish_batch(read, &read->delete);
	dlist_foreach_modify(iter, &read->made)
	{
		Batch	   *batch = dlist_container(Batch, node, iter.cur);

		appendStringInfoString(&batch->body, "]}");
		dlist_delete(&batch->node);
		dlist_push_tail(&task->ready, &batch->node);
		task->nready++;
	}
	for (int i = 0; i < read->nbad; i++)
		qs_lanes_settle(task->lanes, read->bad[i].lane);
	forget_bad_rows(read);
	check_dead_letter_limit(task);
}

static void
make_group(QsTask *task, QsLane **lanes, int n)
{
	Group	   *group = MemoryContextAlloc(task->context,
										   offsetof(Group, lanes) + n * sizeof(QsLane *));

	group->n = n;
	for (int i = 0; i < n; i++)
	{
		qs_lane_group(lanes[i]);
		group->lanes[i] = lanes[i];
	}
	dlist_push_head(&task->groups, &group->node);
}

/* One row that is refused for good. */
void
qs_batch_bury(QsTask *task, QsLane *lane, const char *error, int http_status)
{
	bool		again;

	qs_begin();
	again = put_dead_letter(task, lane, error, http_status);
	qs_commit();
	/* One that was refused before says nothing of the others. */
	if (again && http_status != 0 && task->refused_in_row > 0)
		task->refused_in_row--;
	qs_lanes_settle(task->lanes, lane);
	check_dead_letter_limit(task);
}

/* Closed lanes one of which is at fault: halves, or the dead letter. */
static void
split_or_bury(QsTask *task, QsLane **lanes, int n, const char *error, int http_status)
{
	if (n == 1)
	{
		qs_batch_bury(task, lanes[0], error, http_status);
		return;
	}
	make_group(task, lanes + n / 2, n - n / 2);
	make_group(task, lanes, n / 2);
}

/* Errors that say that the definition, or a right, is not as it was. */
static bool
is_definitions_fault(int sqlerrcode)
{
	return ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION ||
		sqlerrcode == ERRCODE_UNDEFINED_OBJECT;
}

/* The same read may succeed later: nobody is to blame. */
static bool
passes_by_itself(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_CONNECTION_EXCEPTION:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
		case ERRCODE_SYSTEM_ERROR:
			return true;
		case ERRCODE_OPERATOR_INTERVENTION:
			/* The time limit of one read. */
			return sqlerrcode != ERRCODE_QUERY_CANCELED;
	}
	return false;
}

/* An expression may raise whatever it likes, and must stop one row only. */
bool
qs_is_rows_fault(int sqlerrcode)
{
	return !is_definitions_fault(sqlerrcode) && !passes_by_itself(sqlerrcode);
}

/*
 * Where the table changed since the definition was read, the next turn reads it
 * again, and says what is wrong if that does not fit any more.
 */
static void
stop_or_prepare_again(QsTask *task, const ErrorData *error)
{
	if (is_definitions_fault(error->sqlerrcode) && !task->stale)
		qs_task_fail(task, "rows cannot be read: %s", error->message);
	else
		qs_task_retry_later(task, error->message);
}

static void
reopen_all(QsTask *task, QsLane **lanes, int n)
{
	for (int i = n - 1; i >= 0; i--)
		qs_lanes_reopen(task->lanes, lanes[i]);
}

static void
key_read_failed(QsTask *task, QsLane **lanes, int n, ErrorData *error)
{
	if (qs_is_rows_fault(error->sqlerrcode))
		split_or_bury(task, lanes, n, error->message, 0);
	else
	{
		reopen_all(task, lanes, n);
		stop_or_prepare_again(task, error);
	}
}

/*
 * Rows were read under a snapshot that may show commits which are not durable
 * yet (synchronous_commit = off): flush before anybody else sees them (hazard 2).
 */
static void
end_read(Read *read)
{
	int			nbad = count_bad_rows(read);

	if (nbad > 0 && !qs_fit_bad_rows(read->task, nbad))
		spare_bad_rows(read);
	keep_bad_rows(read);
	qs_flush_wal();
	qs_commit();
	conclude_read(read);
}

/* Reads keys, or (keys NULL) the read's range; an ERROR comes back as its data. */
static ErrorData *
protected_read(Read *read, const QsRowKey *keys, int n, bool *locked)
{
	QsReader   *reader = read->task->reader;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		if (keys != NULL)
			*locked = qs_reader_by_keys(reader, keys, n, take_row, read);
		else
			*locked = qs_reader_by_blocks(reader, read->task->progress.backfill_leaf,
										  read->range->block, read->range->end, take_row, read);
	}
	PG_CATCH();
	{
		error = qs_catch_error(read->task->context);
	}
	PG_END_TRY();
	return error;
}

static void
read_lanes(QsTask *task, QsLane **lanes, int n, bool single)
{
	Read		read;
	QsRowKey   *keys = palloc(n * sizeof(QsRowKey));
	ErrorData  *error;
	bool		locked = true;

	for (int i = 0; i < n; i++)
	{
		keys[i].id = lanes[i]->key;
		keys[i].text = lanes[i]->text;
	}
	start_read(&read, task, NULL, single);
	qs_begin();
	error = protected_read(&read, keys, n, &locked);
	pfree(keys);

	if (error != NULL)
	{
		abandon_read(&read);
		key_read_failed(task, lanes, n, error);
		FreeErrorData(error);
	}
	else if (!locked)
	{
		qs_commit();
		reopen_all(task, lanes, n);
		task->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 200);
	}
	else
		end_read(&read);
}

bool
qs_batch_read_dirty(QsTask *task)
{
	QsLane	  **lanes;
	int			n;

	if (!dlist_is_empty(&task->groups))
	{
		Group	   *group = dlist_container(Group, node, dlist_pop_head_node(&task->groups));

		for (int i = 0; i < group->n; i++)
			qs_lane_close(group->lanes[i]);
		read_lanes(task, group->lanes, group->n, true);
		pfree(group);
		return true;
	}
	n = Min(qs_lanes_dirty(task->lanes), qs_batch_rows * BATCHES_PER_READ);
	if (n == 0)
		return false;
	lanes = MemoryContextAlloc(task->context, n * sizeof(QsLane *));
	n = qs_lanes_take(task->lanes, lanes, n);
	read_lanes(task, lanes, n, false);
	pfree(lanes);
	return true;
}

/* An error in a range of blocks: its keys go the way of single rows. */
static bool
mark_range_by_keys(QsTask *task, QsDebt *range)
{
	QsRowKey   *keys;
	int			n;
	volatile bool locked = false;
	ErrorData  *volatile error = NULL;

	qs_begin();
	PG_TRY();
	{
		locked = qs_reader_keys_by_blocks(task->reader, task->progress.backfill_leaf,
										  range->block, range->end, &keys, &n);
	}
	PG_CATCH();
	{
		/* Not even keys can be read, as on a damaged page: this mirror says so and waits. */
		error = qs_catch_error(task->context);
	}
	PG_END_TRY();
	if (error != NULL)
	{
		qs_task_retry_later(task, error->message);
		FreeErrorData(error);
		return false;
	}
	for (int i = 0; locked && i < n; i++)
		qs_lanes_mark(task->lanes, keys[i].id, keys[i].text, range);
	qs_commit();
	return locked;
}

/* Lanes that a failed read of a range closed are opened again; they are owed to it. */
static void
reopen_read(Read *read)
{
	dlist_iter	iter;

	finish_batch(read, &read->upsert);
	finish_batch(read, &read->delete);
	dlist_foreach(iter, &read->made)
	{
		Batch	   *batch = dlist_container(Batch, node, iter.cur);

		reopen_all(read->task, batch->lanes, batch->n);
	}
	for (int i = 0; i < read->nbad; i++)
		qs_lanes_reopen(read->task->lanes, read->bad[i].lane);
	abandon_read(read);
}

/* As key_read_failed(); true: the range is read all the same, by its keys. */
static bool
range_read_failed(Read *read, ErrorData *error)
{
	QsTask	   *task = read->task;

	reopen_read(read);
	if (qs_is_rows_fault(error->sqlerrcode))
		return mark_range_by_keys(task, read->range);
	stop_or_prepare_again(task, error);
	return false;
}

/*
 * Reads a range of the filling.  False: nothing was read, the table is locked or
 * the mirror has stopped.
 */
bool
qs_batch_read_blocks(QsTask *task, QsDebt *range, int *rows)
{
	Read		read;
	ErrorData  *error;
	bool		locked = true;

	start_read(&read, task, range, false);
	qs_begin();
	error = protected_read(&read, NULL, 0, &locked);
	*rows = read.rows;
	if (error != NULL)
	{
		locked = range_read_failed(&read, error);
		FreeErrorData(error);
	}
	else if (read.overfull)
	{
		/* What was read goes by its keys; the rest is read in smaller ranges. */
		qs_commit();
		reopen_read(&read);
		task->range_blocks = Max(1, task->range_blocks / 8);
		locked = false;
	}
	else if (locked)
		end_read(&read);
	else
		qs_commit();
	return locked;
}

static void
batch_done(QsTask *task, Batch *batch)
{
	for (int i = 0; i < batch->n; i++)
	{
		note_accepted(task, batch->lanes[i]);
		qs_lanes_settle(task->lanes, batch->lanes[i]);
	}
	if (task->slot != NULL)
		pg_atomic_fetch_add_u64(&task->slot->points_sent, batch->n);
	/* That it takes deletes says nothing of the points that it takes. */
	if (batch->kind == BATCH_UPSERT)
		qs_fit_accepted(task);
	task->slow = false;
	qs_task_succeeded(task);
	qs_endpoint_answered(task->endpoint);
}

static void
batch_refused(QsTask *task, Batch *batch, const QsWriteOutcome *outcome)
{
	if (batch->n == 0)
		return;
	if (batch->n == 1 && ++task->refused_in_row >= REFUSED_IN_ROW_LIMIT)
	{
		qs_lanes_reopen(task->lanes, batch->lanes[0]);
		/* Others that were under way with it are refused as well. */
		if (task->phase != QS_PHASE_FAILED)
			qs_task_fail(task, "%d rows in a row were refused, the last one: %s",
						 task->refused_in_row, outcome->message);
		return;
	}
	if (batch->n == 1 && !qs_fit_is_known(task))
	{
		qs_fit_suspect(task, batch->lanes[0], outcome->message, outcome->http_status);
		return;
	}
	split_or_bury(task, batch->lanes, batch->n, outcome->message, outcome->http_status);
}

/*
 * 404.  Under an alias that is no longer ours: fenced, read again.  Under the
 * one that is: alias or collection is gone, and the claim finds out.
 */
static void
batch_missing(QsTask *task, Batch *batch, const QsWriteOutcome *outcome)
{
	reopen_all(task, batch->lanes, batch->n);
	if (batch->epoch != task->progress.epoch || task->phase != QS_PHASE_ACTIVE)
		return;
	qs_task_retry_later(task, outcome->message);
	qs_task_set_phase(task, QS_PHASE_CREATING);
}

static void
batch_doubtful(QsTask *task, Batch *batch, const QsWriteOutcome *outcome)
{
	dlist_push_tail(&task->doubtful, &batch->node);
	task->fence_wanted = true;
	task->settle = true;
	qs_task_retry_later(task, outcome->message);
	qs_endpoint_failed(task->endpoint);
}

static void
foreign_finished(QsTask *task, QsVerdict verdict)
{
	task->foreign--;
	qs_sweep_foreign_done(task, verdict == QS_DONE);
}

static void
batch_finished(void *arg, const QsHttpOutcome *http)
{
	Batch	   *batch = arg;
	QsTask	   *task = batch->task;
	QsWriteOutcome outcome;

	dlist_delete(&batch->node);
	task->nflying--;
	batch->call = NULL;
	qs_write_outcome(http, task->endpoint->in_cluster, &outcome);
	if (batch->n == 1)
		qs_write_outcome_single(&outcome);
	if (batch->n == 0)
		foreign_finished(task, outcome.verdict);
	if (outcome.verdict != QS_DONE && task->slot != NULL)
		pg_atomic_fetch_add_u64(&task->slot->retries, 1);

	switch (outcome.verdict)
	{
		case QS_DONE:
			batch_done(task, batch);
			break;
		case QS_SLOWER:
			task->slow = true;
			/* FALLTHROUGH */
		case QS_AGAIN:
			reopen_all(task, batch->lanes, batch->n);
			qs_task_retry_later(task, outcome.message);
			if (http->status == 0 || http->status >= 500)
				qs_endpoint_failed(task->endpoint);
			break;
		case QS_LATER:
			reopen_all(task, batch->lanes, batch->n);
			qs_task_show_error(task, outcome.message);
			qs_endpoint_wait(task->endpoint, outcome.retry_after * 1000);
			break;
		case QS_SPLIT:
		case QS_REFUSED:
			batch_refused(task, batch, &outcome);
			break;
		case QS_MISSING:
			batch_missing(task, batch, &outcome);
			break;
		case QS_DENIED:
			reopen_all(task, batch->lanes, batch->n);
			qs_task_fail(task, "%s", outcome.message);
			break;
		case QS_IN_DOUBT:
			batch_doubtful(task, batch, &outcome);
			return;
	}
	free_batch(batch);
}

static void
send_batch(QsTask *task, Batch *batch)
{
	bool		deletes = batch->kind == BATCH_DELETE;
	char	   *rest = qs_call_points(task->endpoint, deletes ? "points/delete" : "points");
	char	   *path = qs_task_write_path(task, rest);
	char	   *body = batch->body.data;

	batch->epoch = task->progress.epoch;
	batch->body.data = NULL;
	dlist_push_tail(&task->flying, &batch->node);
	task->nflying++;
	batch->call = qs_call_write(task->endpoint, deletes ? "POST" : "PUT", path,
								body, batch->body.len, batch_finished, batch);
	if (task->slot != NULL)
		pg_atomic_fetch_add_u64(&task->slot->requests, 1);
	pfree(path);
	pfree(rest);
}

void
qs_batch_send(QsTask *task)
{
	TimestampTz now = GetCurrentTimestamp();
	int			room = qs_endpoint_room(task->endpoint, now);

	if (now < task->not_before)
		return;
	if (task->slow)
		room = Min(room, 1 - task->nflying);
	while (room-- > 0 && task->nready > 0)
	{
		Batch	   *batch = dlist_container(Batch, node, dlist_pop_head_node(&task->ready));

		task->nready--;
		send_batch(task, batch);
	}
}

/*
 * What was encoded before the mirror stopped is of rows, and for a collection, that
 * may have been mended since: it is read again.
 */
void
qs_batch_unmake(QsTask *task)
{
	while (!dlist_is_empty(&task->ready))
	{
		Batch	   *batch = dlist_container(Batch, node, dlist_pop_head_node(&task->ready));

		task->nready--;
		if (batch->n == 0)
			foreign_finished(task, QS_AGAIN);
		reopen_all(task, batch->lanes, batch->n);
		free_batch(batch);
	}
}

/* Points of the collection whose id no key of the mirror can have. */
void
qs_batch_delete_foreign(QsTask *task, char **ids, int n)
{
	Batch	   *batch = make_batch(task, BATCH_DELETE);

	for (int i = 0; i < n; i++)
	{
		bool		digits = strspn(ids[i], "0123456789") == strlen(ids[i]);

		appendStringInfo(&batch->body, digits ? "%s%s" : "%s\"%s\"", i ? "," : "", ids[i]);
	}
	appendStringInfoString(&batch->body, "]}");
	dlist_push_tail(&task->ready, &batch->node);
	task->nready++;
	task->foreign++;
}

static void
remember_echo(QsTask *task, const Batch *batch, int milliseconds)
{
	Echo	   *echo = MemoryContextAlloc(task->context,
										  offsetof(Echo, keys) + batch->n * sizeof(QsRowKey));

	echo->due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds);
	echo->n = batch->n;
	for (int i = 0; i < batch->n; i++)
	{
		const char *text = batch->lanes[i]->text;

		echo->keys[i].id = batch->lanes[i]->key;
		echo->keys[i].text = text ? MemoryContextStrdup(task->context, text) : NULL;
	}
	dlist_push_tail(&task->echoes, &echo->node);
}

void
qs_batch_reopen_doubtful(QsTask *task)
{
	int			echo_ms = task->endpoint->in_cluster ? ECHO_IN_CLUSTER_MS : ECHO_MS;

	while (!dlist_is_empty(&task->doubtful))
	{
		Batch	   *batch = dlist_container(Batch, node, dlist_pop_head_node(&task->doubtful));

		remember_echo(task, batch, echo_ms);
		reopen_all(task, batch->lanes, batch->n);
		free_batch(batch);
	}
}

void
qs_batch_echo_due(QsTask *task, TimestampTz now)
{
	while (!dlist_is_empty(&task->echoes))
	{
		Echo	   *echo = dlist_head_element(Echo, node, &task->echoes);
		QsDebt	   *debt;

		if (echo->due > now)
			return;
		dlist_delete(&echo->node);
		debt = MemoryContextAllocZero(task->context, sizeof(QsDebt));
		debt->kind = QS_DEBT_ECHO;
		debt->lanes = 1;
		for (int i = 0; i < echo->n; i++)
		{
			qs_lanes_mark(task->lanes, echo->keys[i].id, echo->keys[i].text, debt);
			if (echo->keys[i].text != NULL)
				pfree(unconstify(char *, echo->keys[i].text));
		}
		qs_lanes_debt_made(task->lanes, debt);
		pfree(echo);
	}
}

TimestampTz
qs_batch_echo_next(const QsTask *task)
{
	if (dlist_is_empty((dlist_head *) &task->echoes))
		return 0;
	return dlist_head_element(Echo, node, (dlist_head *) &task->echoes)->due;
}

/* The task ends: requests under way are given up; its memory goes with its context. */
void
qs_batch_drop_all(QsTask *task)
{
	dlist_iter	iter;

	/* An error may have come between the list and the call. */
	dlist_foreach(iter, &task->flying)
	{
		Batch	   *batch = dlist_container(Batch, node, iter.cur);

		if (batch->call != NULL)
			qs_call_cancel(batch->call);
	}
	dlist_init(&task->flying);
	task->nflying = 0;
}
