/*
 * operation_sender.c
 *		Sends explicit operations: one at a time for each collection, whatever kind
 *		they are of, in the order of their queue (operation_queue.c).
 *
 * Sync worker only.  They write to collections that are not ours: there is no
 * alias to fence with, so a request in doubt settles by time, and so does what
 * an earlier worker may have left in doubt.
 */
#include "qdrant_sync.h"
#include "common/encode.h"
#include "common/settings.h"
#include "mirror/definition.h"
#include "mirror/owned.h"
#include "net/outcome.h"
#include "sync/call.h"
#include "sync/operation_progress.h"
#include "sync/operation_queue.h"
#include "sync/operation_sender.h"
#include "sync/outbox.h"
#include "sync/task.h"

#include "access/transam.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* A request in doubt can be applied that much later; then it is sent again. */
#define DOUBT_MS (10 * 1000)

/* A key that is refused, or a rate that is too low, is tried again that often. */
#define DENIED_MS (30 * 1000)

/* So many times, where operations of another role wait behind it. */
#define DENIED_TRIES 3

/* A scan that takes longer than that is followed by so many times as long without one. */
#define SCAN_QUICK_MS 5
#define SCAN_PAUSE 10

/* How an operation is sent. */
typedef struct Route
{
	const char *name;
	const char *method;
	const char *rest;
} Route;

static const Route routes[] = {
	{"upsert", "PUT", "points"},
	{"delete", "POST", "points/delete"},
	{"update_vectors", "PUT", "points/vectors"},
	{"delete_vectors", "POST", "points/vectors/delete"},
	{"set_payload", "POST", "points/payload"},
	{"overwrite_payload", "PUT", "points/payload"},
	{"delete_payload", "POST", "points/payload/delete"},
	{"clear_payload", "POST", "points/payload/clear"},
	{"batch_update_points", "POST", "points/batch"},
};

/* What is read of an operation to send or to bury it. */
typedef struct Letter
{
	char	   *name;
	char	   *text;			/* as it is in the table */
	const char *body;			/* the same in UTF-8 */
	int			length;
	char	   *error;			/* it cannot be sent; NULL: it can */
} Letter;

static MemoryContext context = NULL;
static QsOutbox *outbox = NULL;
static QsMirrorSlot *slot = NULL;
static QsOperationProgress progress;
static bool progress_changed = false;	/* since it was saved */
static int64 dead_letters = 0;	/* about how many there are */
static uint64 wait_number = 0;
static bool first_gone = false;	/* a queue's first one ended, and the next may go at once */
static TimestampTz housekeep_after = 0;
static TimestampTz scan_after = 0;

/*
 * Low-water: numbers up to candidate were drawn by transactions older than
 * candidate_xid; once all those have ended and a scan was made after that,
 * nothing with such a number can appear any more.
 */
static int64 candidate = 0;
static FullTransactionId candidate_xid;
static bool candidate_ended = false;

/* ---- what is done ---- */

static bool
is_done(int64 number)
{
	return number <= progress.low_water || qs_number_set_has(&progress.done, number);
}

static void
save(void)
{
	qs_operations_save(&progress);
	progress_changed = false;
}

static void
acknowledge_first(QsQueue *queue)
{
	QsQueued   *first = qs_queue_first(queue);

	qs_number_set_add(&progress.done, first->number);
	progress_changed = true;
	qs_outbox_acknowledge(outbox, first->debt);
	qs_queue_pop(queue);
	queue->tries = 0;
	queue->denied = 0;
	first_gone = true;
}

/*
 * What came after a filter must not be there before it when both are sent again:
 * after a crash the filter would meet points that it had not met.
 */
static void
acknowledge_sent(QsQueue *queue)
{
	acknowledge_first(queue);
	if (!queue->by_filter)
		return;
	qs_begin();
	save();
	qs_commit();
}

/* ---- start and news ---- */

/* Needs the extension's relations; begins and ends a transaction. */
void
qs_sender_init(void)
{
	Oid			segments[2];

	context = AllocSetContextCreate(TopMemoryContext, "qdrant_sync operations",
									ALLOCSET_DEFAULT_SIZES);
	slot = qs_mirror_slot_make(MyDatabaseId, 0, InvalidOid);
	qs_begin();
	segments[0] = qs_internal_relation("operations_a");
	segments[1] = qs_internal_relation("operations_b");
	qs_operations_load(&progress);
	dead_letters = qs_dead_operations_count();
	outbox = qs_outbox_create(context, segments, slot, qs_queues_show, NULL);
	/* What waits now may be what a worker before this one had under way. */
	qs_queues_init(context, outbox, is_done, !progress.sending ? 0 :
				   TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DOUBT_MS));
	qs_commit();
}

/* A notice of an operation only means "scan": order is found by scans. */
void
qs_sender_notice(Oid segment)
{
	if (qs_outbox_owns(outbox, segment))
		qs_outbox_scan(outbox);
}

void
qs_sender_scan(void)
{
	if (outbox != NULL)
		qs_outbox_scan(outbox);
}

/* What is in doubt stays so, and what was denied may be allowed now. */
void
qs_sender_server_changed(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, qs_queues())
	{
		QsQueue    *queue = dlist_container(QsQueue, node, iter.cur);

		if (queue->denied > 0)
			queue->not_before = 0;
		queue->denied = 0;
	}
}

/* ---- sending ---- */

static char *
text_attribute(TupleTableSlot *tuple, int attribute)
{
	bool		isnull;
	Datum		value = slot_getattr(tuple, attribute, &isnull);

	return isnull ? pstrdup("") : TextDatumGetCString(value);
}

static void
read_letter(void *arg, TupleTableSlot *tuple)
{
	Letter	   *letter = arg;

	letter->name = text_attribute(tuple, QS_OPERATION_NAME);
	letter->text = text_attribute(tuple, QS_OPERATION_BODY);
	letter->error = qs_to_utf8(letter->text, strlen(letter->text),
							   &letter->body, &letter->length);
}

/*
 * Refused for good: kept with its body and its error, in the transaction that
 * also says that it is done.
 */
static void
bury_first(QsQueue *queue, const char *error, int http_status)
{
	QsQueued   *first = qs_queue_first(queue);
	QsDeadOperation dead = {.number = first->number, .owner = first->owner,
		.server = queue->server, .collection = queue->collection,
		.error = error, .http_status = http_status};
	Letter		letter = {0};

	ereport(WARNING,
			(errmsg("qdrant_sync: operation " INT64_FORMAT " on collection \"%s\" was refused: %s",
					first->number, queue->collection, error)));
	qs_begin();
	qs_outbox_fetch(outbox, first->debt, read_letter, &letter);
	dead.operation = letter.name;
	dead.body = letter.text;
	qs_dead_operation_put(&dead);
	acknowledge_first(queue);
	save();
	qs_commit();
	dead_letters++;
}

static void
wait_ms(QsQueue *queue, int milliseconds)
{
	queue->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds);
}

/*
 * A role whose key is refused stops its own work: that of others goes on when it
 * has been tried for a while.
 */
static void
denied(QsQueue *queue, const QsWriteOutcome *outcome)
{
	if (++queue->denied >= DENIED_TRIES && qs_queue_has_others(queue))
		bury_first(queue, outcome->message, outcome->http_status);
	else
		wait_ms(queue, DENIED_MS);
}

static void
operation_finished(void *arg, const QsHttpOutcome *http)
{
	QsQueue    *queue = arg;
	QsWriteOutcome outcome;

	queue->call = NULL;
	qs_write_outcome(http, queue->endpoint->in_cluster, &outcome);
	switch (outcome.verdict)
	{
		case QS_DONE:
			qs_endpoint_answered(queue->endpoint);
			acknowledge_sent(queue);
			break;
		case QS_AGAIN:
		case QS_SLOWER:
			wait_ms(queue, qs_backoff_ms(++queue->tries, qs_random32()));
			if (http->status == 0)
				qs_endpoint_failed(queue->endpoint);
			break;
		case QS_LATER:
			qs_endpoint_wait(queue->endpoint, outcome.retry_after * 1000);
			break;
		case QS_SPLIT:
			/* An operation is sent whole: one day the server may take it. */
			if (http->status == 429)
			{
				wait_ms(queue, DENIED_MS);
				break;
			}
			/* FALLTHROUGH */
		case QS_REFUSED:
		case QS_MISSING:
			bury_first(queue, outcome.message, outcome.http_status);
			break;
		case QS_DENIED:
			denied(queue, &outcome);
			break;
		case QS_IN_DOUBT:
			wait_ms(queue, DOUBT_MS);
			qs_endpoint_failed(queue->endpoint);
			break;
	}
}

static const Route *
find_route(const char *name)
{
	for (int i = 0; i < lengthof(routes); i++)
	{
		if (strcmp(routes[i].name, name) == 0)
			return &routes[i];
	}
	return NULL;
}

/* The collection's name goes out in UTF-8, as the body does. */
static char *
path_of(const QsQueue *queue, const Route *route)
{
	const char *name;
	int			length;
	char	   *error = qs_to_utf8(queue->collection, strlen(queue->collection), &name, &length);

	return qs_call_path(error == NULL ? name : queue->collection,
						qs_call_points(queue->endpoint, route->rest));
}

/* A mirror may have taken the collection since the operation was enqueued. */
static const char *
why_not_to_send(const QsQueue *queue, const Letter *letter)
{
	if (letter->error != NULL)
		return letter->error;
	if (find_route(letter->name) == NULL)
		return psprintf("operation \"%s\" is not known to this version of qdrant_sync", letter->name);
	if (OidIsValid(qs_collection_table(queue->server, queue->collection)))
		return "the collection belongs to a mirror now";
	return NULL;
}

/* Its body, out of the transaction that read it. */
static char *
take_body(QsQueue *queue, const Letter *letter)
{
	char	   *body = MemoryContextAllocHuge(context, (Size) letter->length + 1);

	memcpy(body, letter->body, letter->length);
	body[letter->length] = '\0';
	/* Where that is a name in a payload, one commit more is no harm. */
	queue->by_filter = strstr(body, "filter\":") != NULL;
	return body;
}

static void
send_first(QsQueue *queue)
{
	Letter		letter = {0};
	MemoryContext turn = CurrentMemoryContext;
	const char *error = NULL;
	const Route *route = NULL;
	char	   *body = NULL;
	char	   *path = NULL;
	bool		found;

	qs_begin();
	found = qs_outbox_fetch(outbox, qs_queue_first(queue)->debt, read_letter, &letter);
	if (found)
		error = why_not_to_send(queue, &letter);
	if (error != NULL)
		error = MemoryContextStrdup(turn, error);
	else if (found)
	{
		route = find_route(letter.name);
		path = MemoryContextStrdup(turn, path_of(queue, route));
		body = take_body(queue, &letter);
		/* Durable before the first of many, so that a later worker knows. */
		if (!progress.sending)
		{
			progress.sending = true;
			save();
		}
	}
	/* Visible is not durable yet under synchronous_commit = off (hazard 2). */
	qs_flush_wal();
	qs_commit();
	if (error != NULL)
		bury_first(queue, error, 0);
	else if (!found)
		acknowledge_first(queue);
	else
		queue->call = qs_call_write(queue->endpoint, route->method, path, body, letter.length,
									operation_finished, queue);
}

/* Its server as it is now; false: not usable in this turn. */
static bool
prepare_queue(QsQueue *queue)
{
	bool		found;

	queue->endpoint = qs_endpoint_get(queue->server, qs_queue_first(queue)->owner);
	if (queue->endpoint->server == NULL)
	{
		qs_begin();
		found = qs_endpoint_resolve(queue->endpoint);
		qs_commit();
		if (!found && queue->endpoint->error_passes)
			return false;
		if (!found)
		{
			bury_first(queue, queue->endpoint->error, 0);
			return false;
		}
	}
	return qs_endpoint_ready(queue->endpoint);
}

static void
turn_queue(QsQueue *queue, TimestampTz now)
{
	if (qs_queue_first(queue) == NULL || queue->call != NULL || now < queue->not_before)
		return;
	if (prepare_queue(queue) && qs_endpoint_room(queue->endpoint, now) > 0)
		send_first(queue);
}

/* ---- housekeeping ---- */

/* Moves the durable low-water number; called with no scan under way. */
static void
move_low_water(void)
{
	int64		oldest = qs_queues_oldest();
	int64		reached;

	qs_begin();
	if (candidate > 0 && candidate_ended)
	{
		reached = oldest > 0 ? Min(candidate, oldest - 1) : candidate;
		if (reached > progress.low_water)
		{
			progress.low_water = reached;
			qs_number_set_forget_up_to(&progress.done, reached);
			progress_changed = true;
		}
		if (reached >= candidate)
			candidate = 0;
	}
	if (candidate == 0)
	{
		candidate = qs_operations_last_number();
		candidate_xid = ReadNextFullTransactionId();
		candidate_ended = false;
	}
	else if (!candidate_ended &&
			 TransactionIdFollowsOrEquals(GetLatestSnapshot()->xmin,
										  XidFromFullTransactionId(candidate_xid)))
	{
		candidate_ended = true;
		qs_outbox_scan(outbox);
	}
	/* Queues that have nothing were dropped. */
	if (progress.sending && dlist_is_empty(qs_queues()))
	{
		progress.sending = false;
		progress_changed = true;
	}
	if (progress_changed)
		save();
	qs_commit();
}

static void
serve_waiters(void)
{
	uint64		requested;

	if (slot == NULL)
		return;
	requested = pg_atomic_read_u64(&slot->wait_requested);
	if (wait_number == 0 && requested > pg_atomic_read_u64(&slot->wait_done))
	{
		wait_number = requested;
		qs_begin();
		qs_outbox_await(outbox);
		qs_commit();
	}
	if (wait_number != 0 && qs_outbox_awaited(outbox) == 0)
	{
		pg_atomic_write_u64(&slot->wait_done, wait_number);
		wait_number = 0;
		ConditionVariableBroadcast(&slot->wait_done_cv);
	}
}

/* They cannot be read again from a table: at the limit new ones are refused. */
static void
check_limit(void)
{
	bool		full = qs_outbox_bytes(outbox) > (uint64) qs_outbox_limit * 1024;

	if (dead_letters >= qs_max_dead_letters)
	{
		qs_begin();
		dead_letters = qs_dead_operations_count();
		qs_commit();
		full = full || dead_letters >= qs_max_dead_letters;
	}
	if (slot != NULL)
		pg_atomic_write_u32(&slot->skipping, full ? 1 : 0);
}

static void
housekeep(TimestampTz now)
{
	TimestampTz oldest;
	int			pending = qs_outbox_pending(outbox, &oldest);

	if (slot != NULL)
	{
		pg_atomic_write_u64(&slot->pending, pending);
		pg_atomic_write_u64(&slot->oldest, (uint64) oldest);
		pg_atomic_write_u32(&slot->pending_is_bound, qs_outbox_more(outbox) ? 1 : 0);
	}
	if (now < housekeep_after)
		return;
	housekeep_after = TimestampTzPlusMilliseconds(now, 1000);
	if ((qs_outbox_is_used(outbox) || progress.sending) && !qs_outbox_more(outbox))
		move_low_water();
	qs_outbox_rotate(outbox);
	check_limit();
}

/* With a long backlog a scan takes a while, and mirrors have their turns between two. */
static void
scan(TimestampTz begin)
{
	TimestampTz end;
	int			took;

	qs_begin();
	qs_queues_read();
	qs_commit();
	end = GetCurrentTimestamp();
	took = (int) ((end - begin) / 1000);
	if (took > SCAN_QUICK_MS)
		scan_after = TimestampTzPlusMilliseconds(end, took * SCAN_PAUSE);
}

void
qs_sender_turn(void)
{
	TimestampTz now = GetCurrentTimestamp();
	dlist_iter	iter;

	if (qs_outbox_more(outbox) && now >= scan_after)
		scan(now);
	first_gone = false;
	dlist_foreach(iter, qs_queues())
		turn_queue(dlist_container(QsQueue, node, iter.cur), now);
	qs_queues_tidy();
	serve_waiters();
	housekeep(now);
}

TimestampTz
qs_sender_next_wake(TimestampTz now)
{
	TimestampTz next = 0;
	dlist_iter	iter;

	if (first_gone)
		return now;
	if (qs_outbox_more(outbox))
		next = Max(now, scan_after);
	if ((qs_outbox_is_used(outbox) || progress.sending) &&
		(next == 0 || housekeep_after < next))
		next = Max(now, housekeep_after);
	dlist_foreach(iter, qs_queues())
	{
		QsQueue    *queue = dlist_container(QsQueue, node, iter.cur);

		if (qs_queue_first(queue) != NULL && queue->call == NULL &&
			queue->not_before > now && (next == 0 || queue->not_before < next))
			next = queue->not_before;
	}
	return next;
}
