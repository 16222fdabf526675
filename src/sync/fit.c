/*
 * fit.c
 *		Is it the row that was refused, or has the collection become another one?
 *		(hazard 19)
 *
 * Sync worker only.  Whoever wants to bury a row first asks here whether the
 * collection is known to fit.  Where it is not, the row is put aside with its lane
 * closed, nothing more of the mirror is sent, and the collection is looked at: it
 * fits, and the rows are buried; or it does not, and the mirror stops with its
 * work, without a dead letter.
 *
 * A look is believed for a while, and only for the first refusal after a point
 * that was accepted: two in a row are looked into again, so that a collection
 * that is exchanged between two looks costs one dead letter at the most.
 */
#include "qdrant_sync.h"
#include "net/outcome.h"
#include "sync/task.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

/* A mirror with bad rows now and then is held up for one answer in that time. */
#define BELIEVED_MS (10 * 1000)

/* So many unsendable rows, no point between them, are looked into before the next. */
#define BAD_IN_ROW_LIMIT 20

/* A row that waits for the look. */
typedef struct Suspect
{
	dlist_node	node;
	QsLane	   *lane;
	int			http_status;
	char		error[FLEXIBLE_ARRAY_MEMBER];
} Suspect;

static bool
is_believed(const QsTask *task)
{
	return task->fitted_at != 0 &&
		!TimestampDifferenceExceeds(task->fitted_at, GetCurrentTimestamp(), BELIEVED_MS);
}

bool
qs_fit_is_known(const QsTask *task)
{
	return task->refused_in_row <= 1 && is_believed(task);
}

/*
 * The collection's dimension is known from before: where every row is of another,
 * it is perhaps the collection that was exchanged, and no answer would say so,
 * since nothing is sent.
 */
bool
qs_fit_bad_rows(QsTask *task, int n)
{
	task->bad_in_row += n;
	if (task->bad_in_row < BAD_IN_ROW_LIMIT || is_believed(task))
		return true;
	task->look_wanted = true;
	return false;
}

void
qs_fit_accepted(QsTask *task)
{
	task->refused_in_row = 0;
	task->bad_in_row = 0;
}

void
qs_fit_suspect(QsTask *task, QsLane *lane, const char *error, int http_status)
{
	Size		length = strlen(error) + 1;
	Suspect    *suspect = MemoryContextAlloc(task->context, offsetof(Suspect, error) + length);

	suspect->lane = lane;
	suspect->http_status = http_status;
	memcpy(suspect->error, error, length);
	dlist_push_tail(&task->suspects, &suspect->node);
	task->look_wanted = true;
}

static Suspect *
next_suspect(QsTask *task)
{
	if (dlist_is_empty(&task->suspects))
		return NULL;
	return dlist_container(Suspect, node, dlist_pop_head_node(&task->suspects));
}

static void
reopen_suspects(QsTask *task)
{
	Suspect    *suspect;

	while ((suspect = next_suspect(task)) != NULL)
	{
		qs_lanes_reopen(task->lanes, suspect->lane);
		pfree(suspect);
	}
}

static void
bury_suspects(QsTask *task)
{
	Suspect    *suspect;

	while ((suspect = next_suspect(task)) != NULL)
	{
		qs_batch_bury(task, suspect->lane, suspect->error, suspect->http_status);
		pfree(suspect);
	}
}

/* What is not an answer about the collection: the look is repeated, or the mirror stops. */
static void
not_seen(QsTask *task, const QsHttpOutcome *outcome)
{
	QsWriteOutcome judged;

	qs_write_outcome(outcome, false, &judged);
	if (judged.verdict == QS_DENIED)
		qs_task_fail(task, "%s", judged.message);
	else if (judged.verdict == QS_MISSING)
	{
		qs_task_retry_later(task, judged.message);
		qs_task_set_phase(task, QS_PHASE_CREATING);
	}
	else
	{
		qs_endpoint_failed(task->endpoint);
		qs_task_retry_later(task, judged.message);
		return;
	}
	task->look_wanted = false;
	reopen_suspects(task);
}

static void
looked(void *arg, const QsHttpOutcome *outcome)
{
	QsTask	   *task = arg;
	QsCollectionInfo info = {0};

	task->look_call = NULL;
	if (task->phase != QS_PHASE_ACTIVE)
	{
		/* Stopped, or claimed anew, meanwhile: they are read and sent again. */
		task->look_wanted = false;
		reopen_suspects(task);
		return;
	}
	if (outcome->status == 200)
		qs_json_collection_info(outcome->answer, outcome->answer_length, &info);
	if (!info.valid)
	{
		not_seen(task, outcome);
		return;
	}
	task->look_wanted = false;
	if (qs_create_check(task, &info))
	{
		task->fitted_at = GetCurrentTimestamp();
		task->bad_in_row = 0;
		bury_suspects(task);
	}
	else
		reopen_suspects(task);
}

/* True: a look is due or under way, and nothing else of this mirror is sent. */
bool
qs_fit_step(QsTask *task)
{
	if (!task->look_wanted)
		return false;
	if (task->look_call == NULL && GetCurrentTimestamp() >= task->not_before &&
		qs_endpoint_open(task->endpoint, GetCurrentTimestamp()))
		task->look_call = qs_call_read(task->endpoint, "GET", qs_task_collection_path(task, ""),
									   NULL, looked, task);
	return true;
}
