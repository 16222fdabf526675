/*
 * claim.c
 *		The fence: a mirror's writes go through an alias that only its present
 *		claim knows, `<collection>__qs_<epoch>_<nonce>`.
 *
 * Sync worker only.  A claim renames the alias of the claim before it.  Requests
 * that are still in limbo under the old name then find no collection, and of
 * two clusters that both believe they own the mirror one loses (hazards 1, 23).
 * Without the right to manage aliases the fence is by time (hazard 28).
 *
 * A claim is a chain of requests, one at a time (task->call); each answer
 * decides the next step.  A step whose outcome is not known is followed by
 * CLAIM_LIST, which finds out.
 */
#include "qdrant_sync.h"
#include "net/outcome.h"
#include "sync/task.h"

#include "utils/timestamp.h"

/*
 * Measured on a standalone server: late effects of a vanished client came at
 * most 64 ms after the rename's answer; 0.5 s with three pings answered in it
 * leaves room for a busy one.
 */
#define SETTLE_MS 500
#define SETTLE_PINGS 3

/* Without an alias only time fences. */
#define SETTLE_BY_TIME_MS (10 * 1000)

/*
 * In a cluster a rename that one peer has not heard of is no fence there.  One
 * that was answered fast was heard by all; a slow one is repeated (renaming to
 * itself is answered as the first time), and after a minute time has to do.
 */
#define FAST_RENAME_MS 1000
#define SLOW_RENAMES_MS (60 * 1000)

static char *
my_alias(const QsTask *task)
{
	return qs_task_alias(task, task->progress.epoch + 1, task->progress.next_nonce);
}

static char *
seed_alias(const QsTask *task)
{
	return psprintf("%s__qs_0", task->row.collection);
}

static void
new_nonce(char *nonce)
{
	static const char digits[] = "0123456789abcdef";
	uint8		bytes[QS_NONCE_LENGTH / 2];

	if (!pg_strong_random(bytes, sizeof(bytes)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random bytes for the alias of a mirror")));
	for (int i = 0; i < (int) sizeof(bytes); i++)
	{
		nonce[2 * i] = digits[bytes[i] >> 4];
		nonce[2 * i + 1] = digits[bytes[i] & 15];
	}
	nonce[QS_NONCE_LENGTH] = '\0';
}

/*
 * Begins a claim.  Its nonce is durable before anybody else can see it, so that
 * after a crash the alias is recognised as ours.
 */
void
qs_claim_start(QsTask *task)
{
	qs_task_set_phase(task, QS_PHASE_CLAIMING);
	task->fence_wanted = false;
	task->pings = 0;
	task->settle_until = 0;
	task->settle_by_time = task->progress.fence_by_time;
	task->claim_started = GetCurrentTimestamp();
	if (task->progress.fence_by_time)
	{
		task->claim = QS_CLAIM_SETTLE;
		return;
	}
	if (task->progress.next_nonce[0] == '\0')
		new_nonce(task->progress.next_nonce);
	task->progress.phase = "claiming";
	task->progress.owner = task->endpoint->owner;
	qs_task_save(task);
	task->claim = QS_CLAIM_LIST;
}

/* An action on aliases; json is malloc'd and taken. */
static void
act(QsTask *task, char *json, QsCallFinished finished)
{
	task->call = qs_call_change(task->endpoint, "POST", "/collections/aliases",
								qs_call_body(json), finished, task);
}

/* Transport failures and the server's own: again, from the list. */
static void
claim_again(QsTask *task, const QsHttpOutcome *outcome)
{
	QsWriteOutcome judged;

	qs_write_outcome(outcome, false, &judged);
	task->claim = QS_CLAIM_LIST;
	qs_endpoint_failed(task->endpoint);
	qs_task_retry_later(task, judged.message);
}

static void
fence_by_time(QsTask *task)
{
	ereport(LOG,
			(errmsg("qdrant_sync: the key of server \"%s\" may not manage aliases; collection \"%s\" is fenced by time",
					task->row.server, task->row.collection)));
	task->progress.fence_by_time = true;
	task->settle_by_time = true;
	task->progress.next_nonce[0] = '\0';
	task->claim = QS_CLAIM_SETTLE;
	task->settle_until = 0;
}

/* What is common to the answers of all steps; true: the step may go on. */
static bool
step_answered(QsTask *task, const QsHttpOutcome *outcome)
{
	QsWriteOutcome judged;

	task->call = NULL;
	if (task->phase != QS_PHASE_CLAIMING)
		return false;
	if (outcome->status == 403)
	{
		fence_by_time(task);
		return false;
	}
	if (outcome->status == 401)
	{
		qs_write_outcome(outcome, false, &judged);
		qs_task_fail(task, "%s", judged.message);
		return false;
	}
	if (outcome->status == 200)
		return true;
	if (outcome->status == 404)
	{
		/*
		 * The collection is gone, or a rename lost its race: look again, and
		 * soon, since the server is back.  Qdrant lists the aliases of a
		 * collection that is not there, and they are none; that it is not is
		 * told by the first alias that cannot be made.
		 */
		task->tries = Min(task->tries, 2);
		qs_task_retry_later(task, "the collection or its alias is gone");
		if (task->claim == QS_CLAIM_LIST || task->claim == QS_CLAIM_VERIFY ||
			task->claim == QS_CLAIM_SEED)
			qs_task_set_phase(task, QS_PHASE_CREATING);
		else
			task->claim = QS_CLAIM_LIST;
		return false;
	}
	claim_again(task, outcome);
	return false;
}

static void
renamed(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;
	TimestampTz now = GetCurrentTimestamp();

	if (!step_answered(task, outcome))
		return;
	task->claim = QS_CLAIM_VERIFY;
	if (!task->endpoint->in_cluster ||
		!TimestampDifferenceExceeds(task->rename_sent, now, FAST_RENAME_MS))
		return;
	if (TimestampDifferenceExceeds(task->claim_started, now, SLOW_RENAMES_MS))
	{
		task->settle = true;
		task->settle_by_time = true;
		return;
	}
	strlcpy(task->claim_old, my_alias(task), sizeof(task->claim_old));
	task->claim = QS_CLAIM_RENAME;
}

static void
changed(void *arg, const QsHttpOutcome *outcome)
{
	if (step_answered(arg, outcome))
		((QsTask *) arg)->claim = QS_CLAIM_LIST;
}

static void
withdrawn(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;

	if (!step_answered(task, outcome))
		return;
	task->progress.next_nonce[0] = '\0';
	qs_task_fail_contested(task);
}

/* Claimed: what is in limbo can only meet an alias that is no more. */
static void
claimed(QsTask *task)
{
	task->progress.epoch++;
	strlcpy(task->progress.last_nonce, task->progress.nonce, sizeof(task->progress.last_nonce));
	strlcpy(task->progress.nonce, task->progress.next_nonce, sizeof(task->progress.nonce));
	task->progress.next_nonce[0] = '\0';
	task->progress.taken_over = task->row.take_over;
	task->claim = QS_CLAIM_SETTLE;
	task->settle_until = 0;
}

/* Aliases of the collection that are of this extension. */
typedef struct Claims
{
	const char *mine;			/* of this claim; NULL: not there */
	const char *old;			/* that this claim may rename; NULL: none */
	bool		old_is_seed;
	const char *other;			/* one that is neither */
} Claims;

/* Alias of an earlier claim; the seed where there was none. */
static char *
alias_or_seed(const QsTask *task, int64 epoch, const char *nonce)
{
	return nonce[0] == '\0' ? seed_alias(task) : qs_task_alias(task, epoch, nonce);
}

/* The last alias but one can be there: the server lost a rename in a crash. */
static void
sort_claims(QsTask *task, char **names, int n, Claims *claims)
{
	char	   *prefix = psprintf("%s__qs_", task->row.collection);
	char	   *mine = my_alias(task);
	char	   *seed = seed_alias(task);
	char	   *current = alias_or_seed(task, task->progress.epoch, task->progress.nonce);
	char	   *last = alias_or_seed(task, task->progress.epoch - 1, task->progress.last_nonce);

	memset(claims, 0, sizeof(*claims));
	for (int i = 0; i < n; i++)
	{
		if (strncmp(names[i], prefix, strlen(prefix)) != 0)
			continue;
		if (strcmp(names[i], mine) == 0)
			claims->mine = names[i];
		else if (strcmp(names[i], seed) == 0 || strcmp(names[i], current) == 0 ||
				 strcmp(names[i], last) == 0)
		{
			claims->old = names[i];
			claims->old_is_seed = strcmp(names[i], seed) == 0;
		}
		else
			claims->other = names[i];
	}
}

/*
 * Where our alias was and now none is but the seed, the collection may be another
 * one: made anew by somebody, restored, or another server's.  What is in it is not
 * known (hazard 32).  Durable before the seed is renamed: after that nobody sees it.
 */
static void
sweep_if_our_alias_is_gone(QsTask *task, const Claims *claims)
{
	bool		seed_only = claims->old == NULL || claims->old_is_seed;

	if (task->progress.nonce[0] == '\0' || !seed_only || claims->mine || claims->other)
		return;
	qs_task_want_sweep(task);
	qs_task_save(task);
}

/* Decides the next step from the list of aliases. */
static void
decide(QsTask *task, const Claims *claims)
{
	sweep_if_our_alias_is_gone(task, claims);
	if (claims->other != NULL && qs_task_may_take_over(task))
	{
		strlcpy(task->claim_old, claims->other, sizeof(task->claim_old));
		task->settle = true;
		task->claim = claims->mine || claims->old ? QS_CLAIM_EXTRA : QS_CLAIM_RENAME;
	}
	else if (claims->other != NULL)
	{
		if (claims->mine != NULL)
			task->claim = QS_CLAIM_WITHDRAW;
		else
			qs_task_fail_contested(task);
	}
	else if (claims->mine != NULL && claims->old == NULL)
		claimed(task);
	else if (claims->mine != NULL)
	{
		/* The old one came back: a late create of its alias. */
		strlcpy(task->claim_old, claims->old, sizeof(task->claim_old));
		task->claim = QS_CLAIM_EXTRA;
	}
	else if (claims->old != NULL)
	{
		strlcpy(task->claim_old, claims->old, sizeof(task->claim_old));
		task->claim = QS_CLAIM_RENAME;
	}
	else
		task->claim = QS_CLAIM_SEED;
}

static void
listed(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;
	char	  **names;
	int			n;
	Claims		claims;

	if (!step_answered(task, outcome))
		return;
	n = qs_json_aliases(outcome->answer, outcome->answer_length, NULL, &names);
	if (n < 0)
	{
		claim_again(task, outcome);
		return;
	}
	sort_claims(task, names, n, &claims);
	decide(task, &claims);
	qs_json_free_names(names, n);
}

static void
list_aliases(QsTask *task)
{
	task->call = qs_call_read(task->endpoint, "GET", qs_task_collection_path(task, "/aliases"),
							  NULL, listed, task);
}

static void
pinged(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;

	task->call = NULL;
	if (outcome->status != 0)
		task->pings++;
	else
		qs_task_retry_later(task, outcome->error);
}

static void
settled(QsTask *task)
{
	task->claim = QS_CLAIM_IDLE;
	task->settle = false;
	task->progress.phase = qs_task_active_phase(task);
	qs_task_save(task);
	qs_task_set_phase(task, QS_PHASE_ACTIVE);
	qs_task_succeeded(task);
	qs_batch_reopen_doubtful(task);
}

/*
 * Waits until a server that answers had the time to end what is in limbo.  The
 * wall clock alone runs on while a server is stopped: hence the pings.
 */
static void
settle(QsTask *task)
{
	TimestampTz now = GetCurrentTimestamp();
	int			wait = task->settle_by_time ? SETTLE_BY_TIME_MS : SETTLE_MS;

	if (!task->settle)
	{
		settled(task);
		return;
	}
	if (task->settle_until == 0)
	{
		/* The clock starts with the first answer. */
		if (task->pings == 0)
		{
			task->call = qs_call_read(task->endpoint, "GET", "/", NULL, pinged, task);
			return;
		}
		task->settle_until = TimestampTzPlusMilliseconds(now, wait);
		task->not_before = TimestampTzPlusMilliseconds(now, wait / SETTLE_PINGS);
		return;
	}
	if (task->pings <= SETTLE_PINGS)
	{
		task->not_before = TimestampTzPlusMilliseconds(now, wait / SETTLE_PINGS);
		task->call = qs_call_read(task->endpoint, "GET", "/", NULL, pinged, task);
		return;
	}
	if (now >= task->settle_until)
	{
		task->pings = 0;
		settled(task);
	}
	else
		task->not_before = task->settle_until;
}

void
qs_claim_step(QsTask *task)
{
	if (task->call != NULL || GetCurrentTimestamp() < task->not_before)
		return;
	switch (task->claim)
	{
		case QS_CLAIM_IDLE:
			qs_claim_start(task);
			break;
		case QS_CLAIM_LIST:
		case QS_CLAIM_VERIFY:
			list_aliases(task);
			break;
		case QS_CLAIM_SEED:
			act(task, qs_json_create_alias(task->row.collection, seed_alias(task)), changed);
			break;
		case QS_CLAIM_RENAME:
			task->rename_sent = GetCurrentTimestamp();
			act(task, qs_json_rename_alias(task->claim_old, my_alias(task)), renamed);
			break;
		case QS_CLAIM_EXTRA:
			act(task, qs_json_delete_alias(task->claim_old), changed);
			break;
		case QS_CLAIM_WITHDRAW:
			act(task, qs_json_delete_alias(my_alias(task)), withdrawn);
			break;
		case QS_CLAIM_SETTLE:
			settle(task);
			break;
	}
}
