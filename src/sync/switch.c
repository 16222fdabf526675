/*
 * switch.c
 *		The end of a rebuild: a mirror that was filled beside another one takes
 *		its place.
 *
 * Sync worker only.  The new mirror has been sent every change since it was made,
 * as the old one has, and goes on being sent; so nothing is stopped for the switch,
 * and writers are not waited for:
 *
 *		filling		until the first sweep is done, and any that was wished for since
 *		catching up what had been committed when it began is acknowledged; again,
 *					until that takes a short time
 *		alias		where one is asked for: one action moves it to the new collection
 *		here		one transaction: the definition in the trigger, and both rows
 *
 * A crash between the last two repeats them.  Until the transaction commits, the
 * old collection is served to SQL and kept equal; it is deleted some time after, so
 * that a search which has just looked its name up finds it.
 *
 * That transaction writes rows of qdrant_internal.mirror, which otherwise sessions
 * write.  It takes only locks that nobody holds, and tries again later.
 */
#include "qdrant_sync.h"
#include "mirror/triggers.h"
#include "net/outcome.h"
#include "sync/task.h"

#include "access/relation.h"
#include "storage/lmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* Less behind than what may take this long to be acknowledged is caught up. */
#define CAUGHT_UP_MS (10 * 1000)

/* Half as much again as qdrant_sync.request_timeout says by default. */
#define OLD_STAYS_MS (15 * 1000)

#define FIRST_WAIT_MS 100
#define LONGEST_WAIT_MS (5 * 1000)

/* Not in this step: says why, and tries again, each time a little later. */
static void
hold(QsTask *task, const char *why)
{
	int			ms = Min(FIRST_WAIT_MS << Min(task->switch_tries, 6), LONGEST_WAIT_MS);

	task->switch_tries++;
	task->switch_after = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
	if (task->progress.error == NULL || strcmp(task->progress.error, why) != 0)
	{
		qs_task_show_error(task, why);
		task->housekeep_after = 0;
	}
}

static void
set_step(QsTask *task, QsSwitchStep step)
{
	task->switch_step = step;
	task->switch_after = 0;
}

static bool
is_filled(const QsTask *task)
{
	return !task->sweeping && task->progress.sweep_done >= qs_task_sweep_wanted(task);
}

/* ---- catching up ---- */

/*
 * As qdrant_wait does.  First it is durable that a switch is near: a session that
 * waits and does not see that is covered by this wait, and one that sees it waits
 * for this mirror as well.
 */
static void
catch_up(QsTask *task)
{
	set_step(task, QS_SWITCH_CATCHING_UP);
	task->progress.phase = qs_task_active_phase(task);
	qs_task_save(task);
	task->switch_asked = GetCurrentTimestamp();
	task->switch_number = pg_atomic_add_fetch_u64(&task->slot->wait_requested, 1);
}

static bool
has_caught_up(const QsTask *task)
{
	return pg_atomic_read_u64(&task->slot->wait_done) >= task->switch_number;
}

static void
caught_up(QsTask *task)
{
	TimestampTz now = GetCurrentTimestamp();

	if (TimestampDifferenceExceeds(task->switch_asked, now, CAUGHT_UP_MS))
	{
		catch_up(task);
		return;
	}
	task->switch_asked = now;
	set_step(task, task->row.alias != NULL ? QS_SWITCH_LOOK : QS_SWITCH_HERE);
}

/* What was in the way may have been there for hours. */
static bool
has_to_catch_up_again(const QsTask *task)
{
	return task->switch_step > QS_SWITCH_CATCHING_UP &&
		TimestampDifferenceExceeds(task->switch_asked, GetCurrentTimestamp(), CAUGHT_UP_MS);
}

/* ---- here ---- */

static const char *
lock_rows(const QsTask *task)
{
	switch (qs_mirrors_lock(task->row.rebuilds, task->row.id))
	{
		case QS_MIRRORS_LOCKED:
			return NULL;
		case QS_MIRRORS_PAUSED:
			return "the switch waits for qdrant_resume: the present mirror is paused";
		case QS_MIRRORS_BUSY:
			break;
	}
	return "the switch waits for a transaction that changes one of the two mirrors";
}

/*
 * In a transaction.  A writer's lock: DDL is kept out for a moment, and neither
 * writers nor VACUUM are.  NULL, or why not.
 */
static const char *
lock_all(const QsTask *task)
{
	if (!ConditionalLockRelationOid(task->row.relid, RowExclusiveLock))
		return "the switch waits for a transaction that has locked the table";
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(task->row.relid)))
		return "the table is gone";
	return lock_rows(task);
}

/* Everything of the switch that is in this database; NULL, or why not now. */
static const char *
write_all(const QsTask *task)
{
	const char *why = lock_all(task);

	if (why != NULL)
		return why;
	if (!qs_triggers_serve_rebuild(task->row.relid))
		return "the rebuild's definition is gone from the table's trigger";
	qs_mirrors_switch(task->row.rebuilds, task->row.id);
	return NULL;
}

/* One short transaction.  An ERROR, as DDL on a partition can cause, is a reason to wait. */
static const char *
in_transaction(QsTask *task, const char *(*what) (const QsTask *))
{
	const char *volatile why = NULL;
	ErrorData  *volatile error = NULL;

	qs_begin();
	PG_TRY();
	{
		why = what(task);
	}
	PG_CATCH();
	{
		error = qs_catch_error(task->context);
	}
	PG_END_TRY();
	if (error != NULL)
	{
		why = pstrdup(error->message);
		FreeErrorData(error);
	}
	else
		qs_commit();
	return why;
}

static void
say_switched(const QsTask *task)
{
	ereport(LOG,
			(errmsg("qdrant_sync: collection \"%s\" has taken the place of the one that it was rebuilt from",
					task->row.collection),
			 task->dead_letters > 0 ?
			 errdetail("It lacks %d rows that were refused: see qdrant_dead_letters.", task->dead_letters) : 0));
}

static void
switch_here(QsTask *task)
{
	const char *why = in_transaction(task, write_all);

	if (why != NULL)
	{
		hold(task, why);
		return;
	}
	task->row.rebuilds = 0;
	task->stale = true;
	task->switch_tries = 0;
	set_step(task, QS_SWITCH_FILLING);
	task->progress.phase = qs_task_active_phase(task);
	task->progress_dirty = true;
	task->housekeep_after = 0;
	qs_task_succeeded(task);
	say_switched(task);
}

/* ---- the alias ---- */

/* Name of the old collection, where that mirror still is; palloc'd. */
static char *
find_old(const QsTask *task)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *name = NULL;
	ListCell   *lc;

	qs_begin();
	foreach(lc, qs_mirror_rows())
	{
		const QsMirrorRow *row = lfirst(lc);

		if (row->id == task->row.rebuilds && strcmp(row->server, task->row.server) == 0)
			name = MemoryContextStrdup(context, row->collection);
	}
	qs_commit();
	MemoryContextSwitchTo(context);
	return name;
}

static void
move_alias(QsTask *task, const char *collection, QsCallFinished finished)
{
	task->call = qs_call_change(task->endpoint, "POST", "/collections/aliases",
								qs_call_body(qs_json_create_alias(collection, task->row.alias)),
								finished, task);
}

static void
list_aliases(QsTask *task, QsCallFinished finished)
{
	task->call = qs_call_read(task->endpoint, "GET", "/aliases", NULL, finished, task);
}

/* What the alias means; palloc'd, NULL: nothing. */
static char *
target_of(const QsTask *task, const QsHttpOutcome *outcome)
{
	char	   *target = qs_json_alias_target(outcome->answer, outcome->answer_length, task->row.alias);
	char	   *copy = target != NULL ? pstrdup(target) : NULL;

	free(target);
	return copy;
}

static bool
answered(QsTask *task, const QsHttpOutcome *outcome)
{
	QsWriteOutcome judged;

	task->call = NULL;
	if (outcome->status == 200)
		return true;
	qs_write_outcome(outcome, false, &judged);
	if (outcome->status == 0 || outcome->status >= 500)
		qs_endpoint_failed(task->endpoint);
	hold(task, psprintf("the alias \"%s\" cannot be moved: %s", task->row.alias, judged.message));
	return false;
}

/* Whatever it answered, the list that is asked for next tells. */
static void
moved(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;

	if (answered(task, outcome))
		task->switch_after = 0;
}

static void
looked_at(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;
	char	   *target;
	char	   *old;

	if (!answered(task, outcome) || task->phase != QS_PHASE_ACTIVE || task->row.rebuilds == 0)
		return;
	target = target_of(task, outcome);
	old = find_old(task);
	if (target != NULL && strcmp(target, task->row.collection) == 0)
		set_step(task, QS_SWITCH_HERE);
	else if (target == NULL || (old != NULL && strcmp(target, old) == 0))
		move_alias(task, task->row.collection, moved);
	else
		hold(task, psprintf("the alias \"%s\" means collection \"%s\", which is not this table's",
							task->row.alias, target));
}

/* Both parts are done in a row, or none: what can be in the way here is asked first. */
static void
look_at_alias(QsTask *task)
{
	const char *why = in_transaction(task, lock_all);

	if (why != NULL)
		hold(task, why);
	else
		list_aliases(task, looked_at);
}

/* ---- turns ---- */

void
qs_switch_step(QsTask *task)
{
	if (task->row.rebuilds == 0 || task->call != NULL || GetCurrentTimestamp() < task->switch_after)
		return;
	if (!is_filled(task))
	{
		task->switch_step = QS_SWITCH_FILLING;
		return;
	}
	if (has_to_catch_up_again(task))
	{
		catch_up(task);
		return;
	}
	switch (task->switch_step)
	{
		case QS_SWITCH_FILLING:
			catch_up(task);
			break;
		case QS_SWITCH_CATCHING_UP:
			if (has_caught_up(task))
				caught_up(task);
			break;
		case QS_SWITCH_LOOK:
			look_at_alias(task);
			break;
		case QS_SWITCH_HERE:
			switch_here(task);
			break;
	}
}

TimestampTz
qs_switch_next(const QsTask *task, TimestampTz now)
{
	if (task->row.rebuilds == 0 || task->call != NULL || !is_filled(task))
		return 0;
	if (task->switch_step == QS_SWITCH_CATCHING_UP && !has_caught_up(task))
		return 0;
	return Max(now, task->switch_after);
}

/* ---- what is dropped ---- */

bool
qs_switch_old_stays(const QsTask *task, TimestampTz *until)
{
	if (task->row.replaced == 0)
		return false;
	*until = TimestampTzPlusMilliseconds(task->row.replaced, OLD_STAYS_MS);
	return GetCurrentTimestamp() < *until;
}

bool
qs_switch_drops_collection(const QsTask *task)
{
	return task->row.drop_collection && (task->row.rebuilds == 0 || task->progress.collection_made);
}

static void
moved_back(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;

	task->call = NULL;
	if (outcome->status >= 200 && outcome->status < 500)
		task->alias_is_back = true;
	else
	{
		qs_endpoint_failed(task->endpoint);
		qs_task_retry_later(task, "the server does not answer");
	}
}

static void
looked_back(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;
	char	   *target = outcome->status == 200 ? target_of(task, outcome) : NULL;
	char	   *old = target != NULL ? find_old(task) : NULL;

	if (old != NULL && strcmp(target, task->row.collection) == 0)
		move_alias(task, old, moved_back);
	else
		moved_back(task, outcome);
}

/* Abandoned between the two parts of its switch, it has the alias. */
bool
qs_switch_gives_alias_back(QsTask *task)
{
	if (task->row.rebuilds == 0 || task->row.alias == NULL || task->alias_is_back)
		return false;
	list_aliases(task, looked_back);
	return true;
}
