/*
 * task.c
 *		One mirror in its sync worker: its phases, and what it does in a turn.
 *
 * Sync worker only.  Nothing here waits; whatever needs an answer is a call
 * whose end comes back through qs_calls_dispatch().
 */
#include "qdrant_sync.h"
#include "common/key_text.h"
#include "common/settings.h"
#include "mirror/catalog.h"
#include "mirror/key.h"
#include "net/outcome.h"
#include "sync/owners_code.h"
#include "sync/task.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/*
 * Keys in memory: a lane with its links is about 150 bytes, so 40 MB at the
 * most for all mirrors of a worker; each has its share however many there are.
 */
#define MAX_LANES 262144
#define MAX_LANES_OF_MIRROR 65536
#define SHARE_OF_MIRROR 8192

/* Reads of a mirror in one turn: others wait no longer than these. */
#define READS_PER_TURN 2

#define HOUSEKEEPING_MS 1000

/* Waits of a mirror that starts anew after an error: as the launcher's of a worker. */
#define RESTART_MS 1000
#define LONGEST_RESTART_MS (60 * 1000)

#define SKIPPING_LOOK_MS 200

/* Bytes of a key's text in the view of dead letters. */
#define KEY_TEXT_SHOWN 1000

static int	chunk_shown(void *arg, QsDebt *debt, TupleTableSlot *slot);

static void
debt_paid(void *arg, QsDebt *debt)
{
	QsTask	   *task = arg;

	switch (debt->kind)
	{
		case QS_DEBT_CHUNK:
			qs_outbox_acknowledge(task->outbox, debt);
			break;
		case QS_DEBT_BLOCKS:
		case QS_DEBT_PAGE:
			qs_sweep_paid(task, debt);
			break;
		case QS_DEBT_ECHO:
			pfree(debt);
			break;
	}
}

static void
copy_row(QsTask *task, const QsMirrorRow *row)
{
	char	   *server = task->row.server;
	char	   *collection = task->row.collection;
	char	   *alias = task->row.alias;

	task->row = *row;
	task->row.server = MemoryContextStrdup(task->context, row->server);
	task->row.collection = MemoryContextStrdup(task->context, row->collection);
	task->row.alias = row->alias ? MemoryContextStrdup(task->context, row->alias) : NULL;
	task->row.rebuild = NULL;
	if (server != NULL)
		pfree(server);
	if (collection != NULL)
		pfree(collection);
	if (alias != NULL)
		pfree(alias);
}

/* Needs a transaction. */
QsTask *
qs_task_create(MemoryContext parent, const QsMirrorRow *row)
{
	MemoryContext context = AllocSetContextCreate(parent, "qdrant_sync mirror",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	QsTask	   *task = palloc0(sizeof(QsTask));

	task->context = context;
	task->made_at = GetCurrentTimestamp();
	task->phase = QS_PHASE_CREATING;
	task->stale = true;
	task->settle = true;
	dlist_init(&task->ready);
	dlist_init(&task->flying);
	dlist_init(&task->groups);
	dlist_init(&task->doubtful);
	dlist_init(&task->suspects);
	dlist_init(&task->echoes);
	dlist_init(&task->ranges);
	copy_row(task, row);
	qs_progress_load(row->id, &task->progress);
	memcpy(task->dimensions, task->progress.dimensions, sizeof(task->dimensions));
	task->dead_letters = qs_dead_letters_count(row->id);
	task->slot = qs_mirror_slot_make(MyDatabaseId, row->id, row->relid);
	task->lanes = qs_lanes_create(context, debt_paid, task);
	task->outbox = qs_outbox_create(context, row->segments, task->slot, chunk_shown, task);
	/* What was in a segment whose storage was exchanged is not known (hazard 16). */
	if (qs_outbox_check_files(task->outbox, task->progress.segment_files))
		qs_task_want_sweep(task);
	/* A promoted standby may lack commits that the old primary sent (hazard 2). */
	if (task->progress.timeline != 0 && task->progress.timeline != (int32) qs_timeline())
		qs_task_want_sweep(task);
	/* Durable at once: a pg_upgrade that follows soon forgets the timeline. */
	if (task->progress.timeline != (int32) qs_timeline())
	{
		task->progress.timeline = qs_timeline();
		qs_progress_save(&task->progress);
	}
	if (row->dropped)
		qs_task_set_phase(task, QS_PHASE_DROPPING);
	else if (task->slot == NULL)
		qs_task_fail(task, "no slot in shared memory is free: raise qdrant_sync.max_mirrors");
	MemoryContextSwitchTo(old);
	return task;
}

/* All requests under way are given up: to the server they are in doubt. */
static void
give_up_requests(QsTask *task)
{
	qs_batch_drop_all(task);
	if (task->call != NULL)
		qs_call_cancel(task->call);
	if (task->beat_call != NULL)
		qs_call_cancel(task->beat_call);
	if (task->look_call != NULL)
		qs_call_cancel(task->look_call);
	task->call = task->beat_call = task->look_call = NULL;
}

void
qs_task_free(QsTask *task)
{
	give_up_requests(task);
	if (task->slot != NULL)
		qs_mirror_slot_free(task->slot);
	if (task->reader != NULL)
		qs_reader_free(task->reader);
	qs_lanes_free(task->lanes);
	MemoryContextDelete(task->context);
}

/*
 * After an error that nobody foresaw, such as a damaged page of a segment: the
 * mirror begins anew as after a restart of the worker, and the others go on
 * (contract 8).  Its requests are given up, hence in doubt, and the claim of the
 * new one fences them.
 */
QsTask *
qs_task_restart(QsTask *task, const char *message)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		lived = TimestampDifferenceExceeds(task->made_at, now, LONGEST_RESTART_MS);
	int			restarts = lived ? 0 : Min(task->restarts, 6);
	QsTask	   *anew;

	/* The slot stays: writers and waiters know it. */
	task->slot = NULL;
	qs_begin();
	anew = qs_task_create(MemoryContextGetParent(task->context), &task->row);
	qs_task_free(task);
	qs_task_show_error(anew, message);
	/* The same error may come before the next housekeeping does. */
	qs_progress_save(&anew->progress);
	qs_commit();
	anew->restarts = restarts + 1;
	anew->prepare_after = TimestampTzPlusMilliseconds(now, Min(RESTART_MS << restarts,
															   LONGEST_RESTART_MS));
	anew->not_before = anew->housekeep_after = anew->prepare_after;
	ereport(WARNING,
			(errmsg("qdrant_sync: mirror of collection \"%s\" starts anew after an error: %s",
					anew->row.collection, message)));
	return anew;
}

/* The only place that changes the phase. */
void
qs_task_set_phase(QsTask *task, QsPhase phase)
{
	Assert(task->phase != QS_PHASE_DROPPING || phase == QS_PHASE_DROPPING);
	Assert(phase != QS_PHASE_ACTIVE || task->phase == QS_PHASE_CLAIMING);
	if (phase != QS_PHASE_CLAIMING && phase != QS_PHASE_ACTIVE)
		task->claim = QS_CLAIM_IDLE;
	task->phase = phase;
}

void
qs_task_show_error(QsTask *task, const char *message)
{
	char	   *copy = MemoryContextStrdup(task->context, message);

	if (task->progress.error != NULL)
		pfree(task->progress.error);
	task->progress.error = copy;
	task->progress.error_at = GetCurrentTimestamp();
	task->progress_dirty = true;
}

void
qs_task_fail(QsTask *task, const char *format,...)
{
	char		message[1024];
	va_list		args;
	bool		said;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	said = task->progress.error != NULL && strcmp(task->progress.error, message) == 0;
	task->definition_failed = false;
	qs_task_show_error(task, message);
	task->progress.phase = "failed";
	/* The views say so at once. */
	task->housekeep_after = 0;
	if (task->phase != QS_PHASE_DROPPING)
		qs_task_set_phase(task, QS_PHASE_FAILED);
	ereport(said ? DEBUG1 : WARNING,
			(errmsg("qdrant_sync: mirror of collection \"%s\" has stopped: %s",
					task->row.collection, message)));
}

void
qs_task_fail_contested(QsTask *task)
{
	qs_task_fail(task, "collection \"%s\" is written by another cluster or database; if that one is gone, qdrant_resume with take_over => true",
				 task->row.collection);
}

bool
qs_task_may_take_over(const QsTask *task)
{
	return task->row.take_over > task->progress.taken_over;
}

const char *
qs_task_active_phase(const QsTask *task)
{
	if (qs_task_sweep_wanted(task) > task->progress.sweep_done)
		return "sweeping";
	return task->row.rebuilds != 0 && task->switch_step != QS_SWITCH_FILLING ? "switching" : "live";
}

void
qs_task_save(QsTask *task)
{
	qs_begin();
	qs_progress_save(&task->progress);
	qs_commit();
	task->progress_dirty = false;
}

void
qs_task_retry_later(QsTask *task, const char *message)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until;

	/* What was under way together fails together, and counts once. */
	if (now >= task->not_before)
		task->tries++;
	until = TimestampTzPlusMilliseconds(now,
										qs_backoff_ms(task->tries, qs_random32()));
	task->not_before = Max(task->not_before, until);
	qs_task_show_error(task, message);
}

void
qs_task_succeeded(QsTask *task)
{
	task->tries = 0;
	if (task->progress.error != NULL)
	{
		pfree(task->progress.error);
		task->progress.error = NULL;
		task->progress.error_at = 0;
		task->progress_dirty = true;
	}
}

void
qs_task_remote_dropped(QsTask *task)
{
	task->remote_dropped = true;
	task->housekeep_after = 0;
}

char *
qs_task_alias(const QsTask *task, int64 epoch, const char *nonce)
{
	return psprintf("%s__qs_" INT64_FORMAT "_%s", task->row.collection, epoch, nonce);
}

char *
qs_task_collection_path(const QsTask *task, const char *rest)
{
	return qs_call_path(task->row.collection, rest);
}

char *
qs_task_write_path(const QsTask *task, const char *rest)
{
	if (task->progress.fence_by_time)
		return qs_task_collection_path(task, rest);
	return qs_call_path(qs_task_alias(task, task->progress.epoch, task->progress.nonce), rest);
}

bool
qs_task_uuid_ids(const QsTask *task)
{
	return task->row.key.rule != QS_KEY_INTEGER;
}

/* A long text is cut, for it would not fit into an index, and told by its point's id. */
char *
qs_task_key_text(const QsTask *task, const QsLane *lane)
{
	int			length = lane->text ? strlen(lane->text) : 0;

	if (length == 0)
		return qs_key_to_text(lane->key, qs_task_uuid_ids(task));
	if (length <= KEY_TEXT_SHOWN)
		return pstrdup(lane->text);
	return psprintf("%.*s... (point %s)", pg_mbcliplen(lane->text, length, KEY_TEXT_SHOWN), lane->text,
					qs_key_to_text(lane->key, true));
}

bool
qs_task_runs(const QsTask *task)
{
	return !task->row.paused && task->phase != QS_PHASE_FAILED &&
		task->phase != QS_PHASE_DROPPING;
}

/* For qdrant_wait.  That a mirror runs again is shown before it is saved that it was resumed. */
static void
show_whether_stopped(QsTask *task)
{
	uint32		stopped = qs_task_runs(task) ? 0 : 1;

	if (task->slot == NULL || pg_atomic_read_u32(&task->slot->stopped) == stopped)
		return;
	pg_atomic_write_u32(&task->slot->stopped, stopped);
	ConditionVariableBroadcast(&task->slot->wait_done_cv);
}

/* Sessions changed the mirror's row, or something that may have mended it. */
void
qs_task_update(QsTask *task, const QsMirrorRow *row)
{
	bool		resumed = row->resumed > task->progress.resumed;

	copy_row(task, row);
	if (row->dropped)
	{
		if (task->phase != QS_PHASE_DROPPING)
		{
			/* What makes the collection is not given up: it has to be deleted after. */
			if (!task->making)
				give_up_requests(task);
			task->not_before = 0;
			qs_task_set_phase(task, QS_PHASE_DROPPING);
		}
		return;
	}
	if (!resumed)
		return;
	task->stale = true;
	task->progress.resumed = row->resumed;
	task->progress.fence_by_time = false;
	task->progress_dirty = true;
	task->refused_in_row = 0;
	task->not_before = 0;
	task->tries = 0;
	if (task->phase == QS_PHASE_FAILED && task->slot != NULL)
	{
		/* The collection may have been made anew with others; it is looked at again. */
		memset(task->dimensions, 0, sizeof(task->dimensions));
		qs_batch_unmake(task);
		task->progress.phase = "creating";
		qs_task_set_phase(task, QS_PHASE_CREATING);
	}
	show_whether_stopped(task);
}

/* What the mirror has in memory: keys, or chunks where many name the same keys. */
static int
held(const QsTask *task)
{
	return (int) Min(Max(qs_lanes_weight(task->lanes), qs_outbox_shown(task->outbox)), PG_INT32_MAX);
}

static bool
window_is_open(const QsTask *task)
{
	int			mine = held(task);

	return qs_task_runs(task) && mine < MAX_LANES_OF_MIRROR &&
		(qs_lanes_total() < MAX_LANES || mine < SHARE_OF_MIRROR);
}

/* Keys of the kind and of the types that the mirror has now. */
static bool
chunk_fits(const QsTask *task, const QsChunk *chunk)
{
	const QsKeySpec *key = &task->row.key;

	if (key->rule == QS_KEY_HASHED)
		return chunk->kind == QS_CHUNK_TEXTS && chunk->types == qs_key_types_hash(key);
	return (int) chunk->kind == qs_chunk_kind_of(key->types[0]);
}

static void
mark_chunk(QsTask *task, const QsChunk *chunk, QsDebt *debt)
{
	char	   *message;

	for (int i = 0; i < chunk->n; i++)
	{
		if (chunk->kind == QS_CHUNK_TEXTS)
			qs_lanes_mark(task->lanes, qs_key_text_id(chunk->texts[i], &message),
						  chunk->texts[i], debt);
		else
			qs_lanes_mark(task->lanes, chunk->keys[i], NULL, debt);
	}
}

/*
 * A chunk that was not seen before.  In a transaction.  Bytes that no version of
 * ours wrote, or keys of other types than the mirror's now, become a wish to
 * compare everything, durable before the chunk is acknowledged (hazard 11).
 */
static int
chunk_shown(void *arg, QsDebt *debt, TupleTableSlot *slot)
{
	QsTask	   *task = arg;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "qdrant_sync chunk",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext before = MemoryContextSwitchTo(context);
	bool		isnull;
	Datum		value = slot_getattr(slot, 1, &isnull);
	struct varlena *bytes = isnull ? NULL : PG_DETOAST_DATUM_PACKED(value);
	QsChunk		chunk = {0};
	int64		before_it = qs_lanes_weight(task->lanes);
	int			n = 0;

	if (bytes != NULL &&
		qs_chunk_unpack((unsigned char *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), &chunk) &&
		chunk_fits(task, &chunk))
	{
		debt->since = chunk.written_at;
		mark_chunk(task, &chunk, debt);
		n = Max(chunk.n, (int) (qs_lanes_weight(task->lanes) - before_it));
	}
	else
	{
		debt->since = chunk.written_at;
		qs_task_want_sweep(task);
		qs_progress_save(&task->progress);
	}
	qs_lanes_debt_made(task->lanes, debt);
	MemoryContextSwitchTo(before);
	MemoryContextDelete(context);
	return n;
}

void
qs_task_notice(QsTask *task, const QsNotice *notice)
{
	if (window_is_open(task))
		qs_outbox_notice(task->outbox, notice);
	else
		qs_outbox_scan(task->outbox);
}

void
qs_task_scan(QsTask *task)
{
	qs_outbox_scan(task->outbox);
}

typedef struct DefinitionRead
{
	const QsMirrorRow *row;
	QsDefinition *definition;
} DefinitionRead;

static void
read_definition(void *arg)
{
	DefinitionRead *read = arg;

	read->definition = qs_definition_read(read->row->relid, read->row->rebuilds != 0);
}

/* Under the table's lock: the owner is who is asked for. */
static QsDefinition *
definition_as_owner(const QsMirrorRow *row)
{
	DefinitionRead read = {row, NULL};
	QsOwnerScope scope;

	qs_owners_code_begin(&scope, qs_relation_owner(row->relid));
	PushActiveSnapshot(GetTransactionSnapshot());
	qs_owners_code_in_time(read_definition, &read);
	PopActiveSnapshot();
	qs_owners_code_end(&scope);
	return read.definition;
}

/*
 * Reads the definition and compiles it; an ERROR stops this mirror alone.  The old
 * one stays until the new one is whole: answers on their way look at it.
 */
static void
compile(QsTask *task)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "qdrant_sync definition",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	QsDefinition *definition = definition_as_owner(&task->row);
	QsReader   *reader;

	if (definition == NULL && task->row.rebuilds == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the mirror's trigger is gone from the table")));
	/* Abandoned, or replaced: the row that says so is read in a moment. */
	if (definition == NULL || strcmp(definition->collection, task->row.collection) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the trigger of the table holds the definition of another mirror")));
	if (!qs_key_same_ids(&task->row.key, &definition->key))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the key of table \"%s\" makes other ids than when it was mirrored",
						definition->table),
				 errhint("Mirror the table anew with qdrant_unmirror and qdrant_mirror.")));
	/* Below the transaction until here, so that an ERROR leaves nothing behind. */
	reader = qs_reader_create(definition, context);
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, task->context);
	if (task->reader != NULL)
		qs_reader_free(task->reader);
	if (task->definition_context != NULL)
		MemoryContextDelete(task->definition_context);
	task->definition_context = context;
	task->definition = definition;
	task->reader = reader;
	for (int i = 0; i < list_length(definition->vectors); i++)
		qs_reader_set_collection(reader, i, task->dimensions[i], task->halves[i]);
	task->reshaped = !qs_create_fits(task);
	task->endpoint = qs_endpoint_get(task->row.server, definition->owner);
	task->stale = false;
	task->definition_failed = false;
}

/*
 * Somebody's lock, or a shortage: the same may succeed in a moment.  What took too
 * long once would hold all mirrors up again.
 */
static bool
passes(int sqlerrcode)
{
	if (sqlerrcode == ERRCODE_QUERY_CANCELED)
		return false;
	return sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK ||
		ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES ||
		ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION;
}

/* Its new name comes with a reload; one that is missing twice is gone. */
static bool
is_being_renamed(const QsTask *task)
{
	return task->endpoint->no_such_server && !task->server_missing;
}

static void
prepare_later(QsTask *task, const char *error)
{
	if (error != NULL)
		qs_task_show_error(task, error);
	task->prepare_after = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), HOUSEKEEPING_MS);
}

/* Until the table changes, or somebody resumes the mirror. */
static void
fail_definition(QsTask *task, const ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		qs_task_fail(task, "reading the definition took longer than qdrant_sync.row_timeout, or was cancelled");
	else if (error->hint != NULL)
		qs_task_fail(task, "%s (%s)", error->message, error->hint);
	else
		qs_task_fail(task, "%s", error->message);
	task->definition_failed = true;
	task->stale = false;
}

/* False: not in this turn. */
static bool
look_up_server(QsTask *task)
{
	QsEndpoint *endpoint = task->endpoint;
	bool		usable = qs_endpoint_resolve(endpoint);

	if (!usable && is_being_renamed(task))
		prepare_later(task, NULL);
	else if (!usable && endpoint->error_passes)
		prepare_later(task, endpoint->error);
	else if (!usable)
		qs_task_fail(task, "%s", endpoint->error);
	task->server_missing = !usable && endpoint->no_such_server;
	return usable;
}

/* Table, definition and endpoint as they are now; false: not in this turn. */
static bool
prepare(QsTask *task)
{
	ErrorData  *volatile error = NULL;
	volatile bool usable = false;

	if (!task->stale && task->endpoint->server != NULL)
		return true;
	if (GetCurrentTimestamp() < task->prepare_after)
		return false;
	qs_begin();
	PG_TRY();
	{
		/* A table that was dropped meanwhile is found by the reload that follows. */
		if (ConditionalLockRelationOid(task->row.relid, AccessShareLock) &&
			SearchSysCacheExists1(RELOID, ObjectIdGetDatum(task->row.relid)))
		{
			if (task->stale)
				compile(task);
			usable = look_up_server(task);
		}
		else
			task->prepare_after = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 200);
	}
	PG_CATCH();
	{
		error = qs_catch_error(task->context);
	}
	PG_END_TRY();
	if (error == NULL)
	{
		qs_commit();
		return usable;
	}
	if (passes(error->sqlerrcode))
		prepare_later(task, error->message);
	else
		fail_definition(task, error);
	FreeErrorData(error);
	return false;
}

/* The table changed since its definition could not be followed: it may be mended. */
static void
retry_definition(QsTask *task)
{
	if (task->phase != QS_PHASE_FAILED || !task->definition_failed || !task->stale ||
		task->slot == NULL)
		return;
	task->progress.phase = "creating";
	qs_task_set_phase(task, QS_PHASE_CREATING);
}

static void
load_chunks(QsTask *task)
{
	if (!qs_outbox_more(task->outbox) || !window_is_open(task))
		return;
	qs_begin();
	(void) qs_outbox_read(task->outbox, MAX_LANES_OF_MIRROR - held(task));
	qs_commit();
}

/*
 * A script that refreshes every materialized view exchanges a segment's storage,
 * and with it what was not sent yet (hazard 16).
 */
static void
look_for_new_storage(QsTask *task)
{
	if (!qs_outbox_compare_files(task->outbox, task->progress.segment_files))
		return;
	qs_task_want_sweep(task);
	ereport(LOG,
			(errmsg("qdrant_sync: a segment of the outbox of collection \"%s\" has got new storage; the whole table is compared",
					task->row.collection)));
}

static bool
has_dirty(const QsTask *task)
{
	return qs_lanes_dirty(task->lanes) > 0 || !dlist_is_empty((dlist_head *) &task->groups);
}

/*
 * One read: live changes first, but every fourth read is the sweep's where both
 * wait (hazard 5).
 */
static bool
read_something(QsTask *task)
{
	bool		sweep = qs_sweep_wants_read(task);
	bool		dirty = has_dirty(task);

	if (sweep && (!dirty || task->turn++ % 4 == 3))
	{
		qs_sweep_read(task);
		return true;
	}
	return dirty && qs_batch_read_dirty(task);
}

/* Enough is made for now: what waits longer is only older when it is sent. */
static bool
made_enough(const QsTask *task)
{
	return task->nready >= qs_sync_connections;
}

static bool
can_send(const QsTask *task, TimestampTz now)
{
	return now >= task->not_before &&
		(qs_endpoint_room(task->endpoint, now) > 0 || task->nflying > 0);
}

static void
active_turn(QsTask *task)
{
	TimestampTz now = GetCurrentTimestamp();

	if (task->fence_wanted)
	{
		qs_claim_start(task);
		return;
	}
	if (!qs_endpoint_open(task->endpoint, now) || qs_fit_step(task))
		return;
	qs_batch_echo_due(task, now);
	qs_owner_beat(task);
	qs_sweep_step(task);
	qs_switch_step(task);
	if (can_send(task, now))
	{
		for (int i = 0; i < READS_PER_TURN && !made_enough(task) && qs_task_runs(task); i++)
		{
			if (!read_something(task))
				break;
			qs_batch_send(task);
		}
	}
	if (task->phase == QS_PHASE_ACTIVE)
		qs_batch_send(task);
}

static void
show_counters(QsTask *task)
{
	if (task->slot == NULL)
		return;
	pg_atomic_write_u64(&task->slot->pending, qs_lanes_count(task->lanes));
	pg_atomic_write_u32(&task->slot->pending_is_bound, qs_outbox_more(task->outbox) ? 1 : 0);
	if (qs_lanes_count(task->lanes) == 0)
		pg_atomic_write_u64(&task->slot->oldest, 0);
}

/* Dead letters of keys that were accepted since go.  Needs a transaction. */
void
qs_task_tell_accepted(QsTask *task)
{
	if (task->accepted == NIL)
		return;
	qs_dead_letters_remove(task->row.id, task->accepted);
	list_free_deep(task->accepted);
	task->accepted = NIL;
	task->dead_letters = qs_dead_letters_count(task->row.id);
}

static void
save_progress(QsTask *task)
{
	if (!task->progress_dirty && task->accepted == NIL)
		return;
	qs_begin();
	qs_task_tell_accepted(task);
	qs_progress_save(&task->progress);
	qs_commit();
	task->progress_dirty = false;
}

/* qdrant_wait, hazard 18: what is visible to a snapshot taken after the request. */
static void
serve_waiters(QsTask *task)
{
	uint64		requested = pg_atomic_read_u64(&task->slot->wait_requested);

	if (task->wait_number == 0 && requested > pg_atomic_read_u64(&task->slot->wait_done))
	{
		task->wait_number = requested;
		task->wait_sweep = qs_task_sweep_wanted(task);
		qs_begin();
		qs_outbox_await(task->outbox);
		qs_commit();
	}
	if (task->wait_number != 0 && qs_outbox_awaited(task->outbox) == 0 &&
		(task->progress.sweep_done >= task->wait_sweep || task->empty))
	{
		/* The views then say what the waiter was told. */
		show_counters(task);
		save_progress(task);
		pg_atomic_write_u64(&task->slot->wait_done, task->wait_number);
		task->wait_number = 0;
		ConditionVariableBroadcast(&task->slot->wait_done_cv);
	}
}

void
qs_task_turn(QsTask *task)
{
	retry_definition(task);
	if (task->phase == QS_PHASE_DROPPING)
		qs_drop_step(task);
	else if (qs_task_runs(task) && prepare(task))
	{
		load_chunks(task);
		look_for_new_storage(task);
		/* A column has another type or name: the collection is compared before a row is blamed. */
		if (task->reshaped && task->phase == QS_PHASE_ACTIVE)
			qs_task_set_phase(task, QS_PHASE_CREATING);
		if (qs_endpoint_ready(task->endpoint))
		{
			bool		open = qs_endpoint_open(task->endpoint, GetCurrentTimestamp());

			if (task->phase == QS_PHASE_CREATING && open)
				qs_create_step(task);
			else if (task->phase == QS_PHASE_CLAIMING && open)
				qs_claim_step(task);
			else if (task->phase == QS_PHASE_ACTIVE)
				active_turn(task);
		}
		else if (task->endpoint->error[0] != '\0' && task->endpoint->not_before > 0 &&
				 task->progress.error == NULL)
			qs_task_show_error(task, task->endpoint->error);
		if (qs_task_runs(task))
			serve_waiters(task);
	}
	show_whether_stopped(task);
}

/* It visits every chunk in memory: not in every turn. */
static void
show_age(QsTask *task)
{
	TimestampTz oldest;

	qs_outbox_pending(task->outbox, &oldest);
	if (task->slot != NULL)
		pg_atomic_write_u64(&task->slot->oldest, (uint64) oldest);
}

/* An unmirrored table: once Qdrant's side is done, everything of it goes. */
static bool
forget(QsTask *task)
{
	bool		dropped;

	qs_begin();
	dropped = qs_segments_drop(task->row.segments);
	if (dropped)
		qs_progress_forget(task->row.id);
	qs_commit();
	return dropped;
}

bool
qs_task_housekeep(QsTask *task)
{
	TimestampTz now = GetCurrentTimestamp();

	show_counters(task);
	if (now < task->housekeep_after)
		return true;
	task->housekeep_after = TimestampTzPlusMilliseconds(now, HOUSEKEEPING_MS);
	/* A segment may be locked, by a prepared transaction for days: tried in this pace. */
	if (task->phase == QS_PHASE_DROPPING && task->remote_dropped)
		return !forget(task);
	look_for_new_storage(task);
	show_age(task);
	save_progress(task);
	if (task->phase != QS_PHASE_DROPPING)
	{
		qs_outbox_rotate(task->outbox);
		qs_limit_check(task);
	}
	return true;
}

static TimestampTz
earlier(TimestampTz a, TimestampTz b)
{
	if (a == 0 || b == 0)
		return Max(a, b);
	return Min(a, b);
}

/* When the phase's next request can start; 0: with the answer of one under way. */
static TimestampTz
next_call(const QsTask *task, TimestampTz now)
{
	if (task->call != NULL)
		return 0;
	if (task->endpoint != NULL && task->endpoint->state == QS_ENDPOINT_ASKING)
		return 0;
	if (task->endpoint != NULL && task->endpoint->state != QS_ENDPOINT_READY)
		return Max(now, task->endpoint->not_before);
	if (task->endpoint != NULL && !qs_endpoint_open(task->endpoint, now))
		return qs_endpoint_opens_at(task->endpoint);
	return Max(now, task->not_before);
}

static TimestampTz
next_write(const QsTask *task, TimestampTz now)
{
	bool		reads = (has_dirty(task) || qs_sweep_wants_read(task)) && !made_enough(task);

	if (!reads && task->nready == 0)
		return 0;
	if (now < task->not_before)
		return task->not_before;
	return reads && can_send(task, now) ? now : 0;
}

/* The scroll asks for a page, or the backfill begins or ends. */
static TimestampTz
next_sweep(const QsTask *task, TimestampTz now)
{
	bool		begins = !task->sweeping && task->progress.sweep_done < qs_task_sweep_wanted(task);
	bool		scrolls = task->sweeping && !task->progress.scroll_done &&
		task->page == NULL && task->foreign == 0 && task->call == NULL;
	bool		turns = task->sweeping && task->progress.scroll_done && task->nranges == 0 &&
		task->foreign == 0 && !qs_sweep_wants_read(task);

	/* Transactions that may have skipped keys are looked at, not waited for. */
	if (begins && task->progress.skipping)
		return TimestampTzPlusMilliseconds(now, SKIPPING_LOOK_MS);
	return begins || scrolls || turns ? Max(now, task->not_before) : 0;
}

/* When this task can go on without an answer; 0: not by itself, now: at once. */
TimestampTz
qs_task_next_wake(const QsTask *task, TimestampTz now)
{
	TimestampTz next;

	if (task->phase == QS_PHASE_DROPPING && task->remote_dropped)
		return Max(now, task->housekeep_after);
	if (task->phase == QS_PHASE_DROPPING)
	{
		next = next_call(task, now);
		return next == 0 ? 0 : Max(next, task->not_before);
	}
	if (!qs_task_runs(task))
		return 0;
	if (now < task->prepare_after)
		return task->prepare_after;
	if (qs_outbox_more(task->outbox) && window_is_open(task))
		return now;
	if (task->phase != QS_PHASE_ACTIVE || task->endpoint->state != QS_ENDPOINT_READY)
		return next_call(task, now);
	if (task->fence_wanted)
		return now;
	if (!qs_endpoint_open(task->endpoint, now))
		return qs_endpoint_opens_at(task->endpoint);
	if (task->look_wanted)
		return task->look_call != NULL ? 0 : Max(now, task->not_before);
	next = earlier(qs_batch_echo_next(task), next_write(task, now));
	if (!task->silent && task->beat_call == NULL && task->endpoint->failures == 0 && !task->progress.fence_by_time)
		next = earlier(next, Max(now, task->beat_after));
	next = earlier(next, qs_switch_next(task, now));
	return earlier(next, next_sweep(task, now));
}
