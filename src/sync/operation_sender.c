/*
 * operation_sender.c
 *		Sends explicit operations: one at a time for each collection, in the order
 *		of their numbers within what each scan newly shows.
 *
 * Sync worker only.  Why that order is the commits': if one transaction
 * committed before another drew its number, every snapshot that shows the
 * second shows the first, with a smaller number (hazard 7).  They write to
 * collections that are not ours: there is no alias to fence with, so a request
 * in doubt settles by time.
 */
#include "qdrant_sync.h"
#include "common/encode.h"
#include "common/settings.h"
#include "mirror/definition.h"
#include "net/outcome.h"
#include "sync/call.h"
#include "sync/operation_sender.h"
#include "sync/outbox.h"
#include "sync/progress.h"
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

/* Attributes of qdrant_internal.operations_a and _b. */
enum
{
	ATTR_NUMBER = 1,
	ATTR_OWNER,
	ATTR_SERVER,
	ATTR_COLLECTION,
	ATTR_OPERATION,
	ATTR_BODY
};

typedef struct Queue Queue;

typedef struct Operation
{
	dlist_node	node;
	int64		number;
	QsDebt	   *debt;			/* where it lies */
	Queue	   *queue;
} Operation;

/* Operations on one collection with one role's key. */
struct Queue
{
	dlist_node	node;
	char	   *server;
	char	   *collection;
	Oid			owner;
	QsEndpoint *endpoint;
	dlist_head	waiting;		/* in the order in which they are sent */
	QsCall	   *call;			/* of the first one; NULL: none under way */
	TimestampTz not_before;
	int			tries;
};

/* What is read of an operation to send it. */
typedef struct Letter
{
	char	   *text;			/* as it is in the table */
	const char *body;			/* the same in UTF-8 */
	int			length;
	char	   *error;			/* it cannot be sent; NULL: it can */
} Letter;

static MemoryContext context = NULL;
static QsOutbox *outbox = NULL;
static QsMirrorSlot *slot = NULL;
static dlist_head queues = DLIST_STATIC_INIT(queues);
static Operation **shown = NULL;	/* by the scan under way, not sorted yet */
static int	nshown = 0;
static int	shown_capacity = 0;
static int64 low_water = 0;
static uint64 wait_number = 0;
static bool first_gone = false;	/* a queue's first one ended, and the next may go at once */
static TimestampTz housekeep_after = 0;

/*
 * Low-water: numbers up to candidate were drawn by transactions older than
 * candidate_xid; once all those have ended and a scan was made after that,
 * nothing with such a number can appear any more.
 */
static int64 candidate = 0;
static FullTransactionId candidate_xid;
static bool candidate_ended = false;

static Queue *
queue_get(const char *server, const char *collection, Oid owner)
{
	Queue	   *queue;
	dlist_iter	iter;

	dlist_foreach(iter, &queues)
	{
		queue = dlist_container(Queue, node, iter.cur);
		if (queue->owner == owner && strcmp(queue->server, server) == 0 &&
			strcmp(queue->collection, collection) == 0)
			return queue;
	}
	queue = MemoryContextAllocZero(context, sizeof(Queue));
	queue->server = MemoryContextStrdup(context, server);
	queue->collection = MemoryContextStrdup(context, collection);
	queue->owner = owner;
	dlist_init(&queue->waiting);
	dlist_push_tail(&queues, &queue->node);
	return queue;
}

static char *
text_attribute(TupleTableSlot *tuple, int attribute)
{
	bool		isnull;
	Datum		value = slot_getattr(tuple, attribute, &isnull);

	return isnull ? pstrdup("") : TextDatumGetCString(value);
}

/* A tuple that was not seen before; QsTupleSink. */
static int
operation_shown(void *arg, QsDebt *debt, TupleTableSlot *tuple)
{
	bool		isnull;
	int64		number = DatumGetInt64(slot_getattr(tuple, ATTR_NUMBER, &isnull));
	Operation  *operation;

	debt->since = GetCurrentTimestamp();
	if (isnull || number <= low_water)
	{
		qs_outbox_acknowledge(outbox, debt);
		return 1;
	}
	operation = MemoryContextAllocZero(context, sizeof(Operation));
	operation->number = number;
	operation->debt = debt;
	operation->queue = queue_get(text_attribute(tuple, ATTR_SERVER),
								 text_attribute(tuple, ATTR_COLLECTION),
								 DatumGetObjectId(slot_getattr(tuple, ATTR_OWNER, &isnull)));
	if (nshown == shown_capacity)
	{
		shown_capacity = Max(64, shown_capacity * 2);
		shown = shown ? repalloc_huge(shown, shown_capacity * sizeof(Operation *))
			: MemoryContextAlloc(context, shown_capacity * sizeof(Operation *));
	}
	shown[nshown++] = operation;
	return 1;
}

static int
by_number(const void *a, const void *b)
{
	int64		left = (*(Operation *const *) a)->number;
	int64		right = (*(Operation *const *) b)->number;

	return left < right ? -1 : left > right;
}

/* A scan is complete: what it newly showed goes behind what was there. */
static void
queue_shown(void)
{
	qsort(shown, nshown, sizeof(Operation *), by_number);
	for (int i = 0; i < nshown; i++)
		dlist_push_tail(&shown[i]->queue->waiting, &shown[i]->node);
	nshown = 0;
}

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
	low_water = qs_operations_begin();
	outbox = qs_outbox_create(context, segments, slot, operation_shown, NULL);
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

void
qs_sender_server_changed(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &queues)
		dlist_container(Queue, node, iter.cur)->not_before = 0;
}

static void
acknowledge_first(Queue *queue)
{
	Operation  *operation = dlist_container(Operation, node, dlist_pop_head_node(&queue->waiting));

	qs_outbox_acknowledge(outbox, operation->debt);
	pfree(operation);
	queue->tries = 0;
	first_gone = true;
}

/* Whoever writes to ever new collections must not fill the worker's memory. */
static void
forget_empty_queues(void)
{
	dlist_mutable_iter iter;

	/* What is shown and not sorted yet points to its queue. */
	if (nshown > 0)
		return;
	dlist_foreach_modify(iter, &queues)
	{
		Queue	   *queue = dlist_container(Queue, node, iter.cur);

		if (!dlist_is_empty(&queue->waiting) || queue->call != NULL)
			continue;
		dlist_delete(&queue->node);
		pfree(queue->server);
		pfree(queue->collection);
		pfree(queue);
	}
}

static void
read_letter(void *arg, TupleTableSlot *tuple)
{
	Letter	   *letter = arg;

	letter->text = text_attribute(tuple, ATTR_BODY);
	letter->error = qs_to_utf8(letter->text, strlen(letter->text),
							   &letter->body, &letter->length);
}

/* Refused for good: kept with its body and its error. */
static void
bury_first(Queue *queue, const char *error, int http_status)
{
	Operation  *operation = dlist_head_element(Operation, node, &queue->waiting);
	Letter		letter = {0};

	qs_begin();
	qs_outbox_fetch(outbox, operation->debt, read_letter, &letter);
	qs_dead_letter_put(0, queue->server, queue->collection,
					   psprintf(INT64_FORMAT, operation->number), error, http_status, letter.text);
	qs_commit();
	ereport(WARNING,
			(errmsg("qdrant_sync: operation " INT64_FORMAT " on collection \"%s\" was refused: %s",
					operation->number, queue->collection, error)));
	acknowledge_first(queue);
}

static void
wait_ms(Queue *queue, int milliseconds)
{
	queue->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds);
}

static void
operation_finished(void *arg, const QsHttpOutcome *http)
{
	Queue	   *queue = arg;
	QsWriteOutcome outcome;

	queue->call = NULL;
	qs_write_outcome(http, queue->endpoint->in_cluster, &outcome);
	switch (outcome.verdict)
	{
		case QS_DONE:
			qs_endpoint_answered(queue->endpoint);
			acknowledge_first(queue);
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
			wait_ms(queue, DENIED_MS);
			break;
		case QS_IN_DOUBT:
			wait_ms(queue, DOUBT_MS);
			qs_endpoint_failed(queue->endpoint);
			break;
	}
}

static void
send_first(Queue *queue)
{
	Operation  *operation = dlist_head_element(Operation, node, &queue->waiting);
	Letter		letter = {0};
	MemoryContext turn = CurrentMemoryContext;
	char	   *body = NULL;
	char	   *error = NULL;
	bool		found;

	qs_begin();
	found = qs_outbox_fetch(outbox, operation->debt, read_letter, &letter);
	if (found && letter.error != NULL)
		error = MemoryContextStrdup(turn, letter.error);
	else if (found)
	{
		body = MemoryContextAllocHuge(context, letter.length + 1);
		memcpy(body, letter.body, letter.length);
	}
	/* Visible is not durable yet under synchronous_commit = off (hazard 2). */
	qs_flush_wal();
	qs_commit();
	if (!found)
	{
		acknowledge_first(queue);
		return;
	}
	if (error != NULL)
	{
		bury_first(queue, error, 0);
		return;
	}
	queue->call = qs_call_write(queue->endpoint, "PUT",
								qs_call_path(queue->collection,
											 qs_call_points(queue->endpoint, "points")),
								body, letter.length, operation_finished, queue);
}

/* Its server as it is now; false: not usable in this turn. */
static bool
prepare_queue(Queue *queue)
{
	bool		found;

	queue->endpoint = qs_endpoint_get(queue->server, queue->owner);
	if (queue->endpoint->server == NULL)
	{
		qs_begin();
		found = qs_endpoint_resolve(queue->endpoint);
		qs_commit();
		if (!found)
		{
			bury_first(queue, queue->endpoint->error, 0);
			return false;
		}
	}
	return qs_endpoint_ready(queue->endpoint);
}

static void
turn_queue(Queue *queue, TimestampTz now)
{
	if (dlist_is_empty(&queue->waiting) || queue->call != NULL || now < queue->not_before)
		return;
	if (prepare_queue(queue) && qs_endpoint_room(queue->endpoint, now) > 0)
		send_first(queue);
}

/* Smallest number that is known and not acknowledged; 0: none. */
static int64
oldest_waiting(void)
{
	int64		oldest = 0;
	dlist_iter	iter;
	dlist_iter	inner;

	dlist_foreach(iter, &queues)
	{
		dlist_foreach(inner, &dlist_container(Queue, node, iter.cur)->waiting)
		{
			int64		number = dlist_container(Operation, node, inner.cur)->number;

			if (oldest == 0 || number < oldest)
				oldest = number;
		}
	}
	return oldest;
}

/* Moves the durable low-water number; called with no scan under way. */
static void
move_low_water(void)
{
	int64		oldest = oldest_waiting();
	int64		reached;

	qs_begin();
	if (candidate > 0 && candidate_ended)
	{
		reached = oldest > 0 ? Min(candidate, oldest - 1) : candidate;
		if (reached > low_water)
		{
			low_water = reached;
			qs_operations_set_low_water(low_water);
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

static void
housekeep(TimestampTz now)
{
	TimestampTz oldest;
	int			pending = qs_outbox_pending(outbox, &oldest);

	if (slot != NULL)
	{
		pg_atomic_write_u64(&slot->pending, pending);
		pg_atomic_write_u64(&slot->oldest, (uint64) oldest);
	}
	if (now < housekeep_after)
		return;
	housekeep_after = TimestampTzPlusMilliseconds(now, 1000);
	if (qs_outbox_is_used(outbox) && !qs_outbox_more(outbox))
		move_low_water();
	qs_outbox_rotate(outbox);
	/* They cannot be read again from a table: at the limit new ones are refused. */
	if (slot != NULL)
		pg_atomic_write_u32(&slot->skipping,
							qs_outbox_bytes(outbox) > (uint64) qs_outbox_limit * 1024 ? 1 : 0);
}

void
qs_sender_turn(void)
{
	TimestampTz now = GetCurrentTimestamp();
	dlist_iter	iter;

	if (qs_outbox_more(outbox))
	{
		bool		ended;

		qs_begin();
		ended = qs_outbox_read(outbox, INT_MAX);
		qs_commit();
		/* Also where another scan was asked for meanwhile: that is always so under load. */
		if (ended)
			queue_shown();
	}
	first_gone = false;
	dlist_foreach(iter, &queues)
		turn_queue(dlist_container(Queue, node, iter.cur), now);
	forget_empty_queues();
	serve_waiters();
	housekeep(now);
}

TimestampTz
qs_sender_next_wake(TimestampTz now)
{
	TimestampTz next = 0;
	dlist_iter	iter;

	if (qs_outbox_more(outbox) || first_gone)
		return now;
	if (qs_outbox_is_used(outbox))
		next = Max(now, housekeep_after);
	dlist_foreach(iter, &queues)
	{
		Queue	   *queue = dlist_container(Queue, node, iter.cur);

		if (!dlist_is_empty(&queue->waiting) && queue->call == NULL &&
			queue->not_before > now && (next == 0 || queue->not_before < next))
			next = queue->not_before;
	}
	return next;
}
