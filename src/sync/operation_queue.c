/*
 * operation_queue.c
 *		Orders what scans of the outbox of explicit operations show.
 *
 * Sync worker only.  The order is that of transactions by their first numbers:
 * if one committed before another drew its first, every snapshot that shows the
 * second shows the first, with smaller numbers (hazard 7).  It holds within what
 * each scan newly shows, never across scans: of two that commit at the same moment
 * the one that is seen first goes first, for all points.
 *
 * A queue keeps a window in memory.  What a scan finds beyond it is left as if it
 * had not been seen, and found again by a later scan, with whatever has come
 * meanwhile.  That keeps the order, since what is left are whole transactions,
 * but for the rest of one that is begun, which comes before all others.
 */
#include "qdrant_sync.h"
#include "common/settings.h"
#include "sync/operation_queue.h"

#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

/*
 * What each queue may have, however many there are.  All together have about
 * qdrant_sync.operation_window; each has some 110 bytes, with its debt.
 */
#define WINDOW_LEAST 16

/* Queues in memory: operations on other collections wait until one is empty. */
#define MAX_QUEUES 10000

/* A server's name is an identifier, a collection's has at most 255 characters. */
#define QUEUE_KEY_BYTES (NAMEDATALEN + 1 + 1024)

typedef struct QueueEntry
{
	char		key[QUEUE_KEY_BYTES];	/* server, "/", collection */
	QsQueue		queue;
} QueueEntry;

static MemoryContext context = NULL;
static QsOutbox *outbox = NULL;
static QsQueuedDone is_done = NULL;
static HTAB *entries = NULL;
static dlist_head queues = DLIST_STATIC_INIT(queues);
static int	nqueues = 0;
static TimestampTz first_not_before = 0;	/* of queues made by the first scan; then 0 */
static bool no_queue_left = false;	/* the last scan found one queue too many */
static int64 oldest_left = 0;	/* smallest number that the last scan has left; 0: none */
static int64 oldest_left_now = 0;	/* the same of the scan under way */

/* For qsort: the transaction that goes before all others. */
static int64 sort_begun = 0;

void
qs_queues_init(MemoryContext parent, QsOutbox *of, QsQueuedDone done, TimestampTz settled)
{
	HASHCTL		ctl = {0};

	context = AllocSetContextCreate(parent, "qdrant_sync operation queues", ALLOCSET_DEFAULT_SIZES);
	outbox = of;
	is_done = done;
	first_not_before = settled;
	ctl.keysize = QUEUE_KEY_BYTES;
	ctl.entrysize = sizeof(QueueEntry);
	ctl.hcxt = context;
	entries = hash_create("qdrant_sync operation queues", 64, &ctl,
						  HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

dlist_head *
qs_queues(void)
{
	return &queues;
}

/* ---- queues ---- */

static void
make_key(char *key, const char *server, const char *collection)
{
	snprintf(key, QUEUE_KEY_BYTES, "%s/%s", server, collection);
}

/* NULL: there are too many. */
static QsQueue *
queue_get(const char *server, const char *collection)
{
	char		key[QUEUE_KEY_BYTES];
	QueueEntry *entry;
	QsQueue    *queue;

	make_key(key, server, collection);
	entry = hash_search(entries, key, HASH_FIND, NULL);
	if (entry != NULL)
		return &entry->queue;
	if (nqueues == MAX_QUEUES)
		return NULL;
	entry = hash_search(entries, key, HASH_ENTER, NULL);
	queue = &entry->queue;
	memset(queue, 0, sizeof(*queue));
	queue->server = MemoryContextStrdup(context, server);
	queue->collection = MemoryContextStrdup(context, collection);
	queue->not_before = first_not_before;
	dlist_push_tail(&queues, &queue->node);
	nqueues++;
	return queue;
}

static void
forget_queue(QsQueue *queue)
{
	char		key[QUEUE_KEY_BYTES];
	char	   *server = queue->server;
	char	   *collection = queue->collection;

	dlist_delete(&queue->node);
	nqueues--;
	if (queue->waiting != NULL)
		pfree(queue->waiting);
	make_key(key, server, collection);
	hash_search(entries, key, HASH_REMOVE, NULL);
	pfree(server);
	pfree(collection);
}

static int
window(void)
{
	return Max(WINDOW_LEAST, qs_operation_window / Max(1, nqueues));
}

void
qs_queue_pop(QsQueue *queue)
{
	queue->first++;
	queue->nwaiting--;
	if (queue->nwaiting == 0 && queue->nshown == 0)
		queue->first = 0;
}

bool
qs_queue_has_others(const QsQueue *queue)
{
	const QsQueued *first = &queue->waiting[queue->first];

	for (int i = 1; i < queue->nwaiting; i++)
	{
		if (first[i].owner != first->owner)
			return true;
	}
	return queue->left;
}

/* ---- what a scan shows ---- */

static int
by_transaction(const void *a, const void *b)
{
	const QsQueued *left = a;
	const QsQueued *right = b;

	if (left->transaction != right->transaction)
	{
		if (left->transaction == sort_begun)
			return -1;
		if (right->transaction == sort_begun)
			return 1;
		return left->transaction < right->transaction ? -1 : 1;
	}
	return left->number < right->number ? -1 : left->number > right->number;
}

static void
leave(QsQueue *queue, const QsQueued *queued)
{
	if (queue != NULL)
	{
		sort_begun = queue->begun;
		if (!queue->left || by_transaction(queued, &queue->next_left) < 0)
			queue->next_left = *queued;
		queue->left = true;
	}
	if (oldest_left_now == 0 || queued->number < oldest_left_now)
		oldest_left_now = queued->number;
	qs_outbox_unshow(outbox, queued->debt);
}

/* Sorts what was shown, and leaves what there is no room for. */
static void
cut_shown(QsQueue *queue)
{
	QsQueued   *shown = &queue->waiting[queue->first + queue->nwaiting];
	int			room = Max(0, window() - queue->nwaiting);

	sort_begun = queue->begun;
	qsort(shown, queue->nshown, sizeof(QsQueued), by_transaction);
	while (queue->nshown > room)
		leave(queue, &shown[--queue->nshown]);
}

static void
make_room(QsQueue *queue)
{
	int			used = queue->nwaiting + queue->nshown;

	if (queue->first + used < queue->capacity)
		return;
	if (queue->first > used)
	{
		memmove(queue->waiting, &queue->waiting[queue->first], used * sizeof(QsQueued));
		queue->first = 0;
		return;
	}
	queue->capacity = Max(8, queue->capacity * 2);
	if (queue->waiting == NULL)
		queue->waiting = MemoryContextAlloc(context, queue->capacity * sizeof(QsQueued));
	else
		queue->waiting = repalloc_huge(queue->waiting, queue->capacity * sizeof(QsQueued));
}

static void
add_shown(QsQueue *queue, const QsQueued *queued)
{
	/* Some more than there is room for, so that sorting is rare. */
	if (queue->nwaiting + queue->nshown >= 2 * window() ||
		(queue->nwaiting >= window() && queue->nshown >= WINDOW_LEAST))
		cut_shown(queue);
	make_room(queue);
	queue->waiting[queue->first + queue->nwaiting + queue->nshown] = *queued;
	queue->nshown++;
}

static char *
text_attribute(TupleTableSlot *tuple, int attribute)
{
	bool		is_null;
	Datum		value = slot_getattr(tuple, attribute, &is_null);

	return is_null ? pstrdup("") : TextDatumGetCString(value);
}

/* In a database made by CREATE DATABASE ... TEMPLATE the original's are the original's to send. */
static bool
is_ours(TupleTableSlot *tuple)
{
	bool		is_null;
	Oid			database = DatumGetObjectId(slot_getattr(tuple, QS_OPERATION_DATABASE, &is_null));

	return is_null || database == MyDatabaseId;
}

/* A tuple that was not seen before, or was left. */
int
qs_queues_show(void *arg, QsDebt *debt, TupleTableSlot *tuple)
{
	bool		is_null;
	QsQueued	queued = {.debt = debt};
	QsQueue    *queue;
	char	   *server;
	char	   *collection;

	queued.number = DatumGetInt64(slot_getattr(tuple, QS_OPERATION_NUMBER, &is_null));
	debt->since = GetCurrentTimestamp();
	if (is_null || is_done(queued.number) || !is_ours(tuple))
	{
		qs_outbox_acknowledge(outbox, debt);
		return 1;
	}
	queued.transaction = DatumGetInt64(slot_getattr(tuple, QS_OPERATION_TRANSACTION, &is_null));
	queued.owner = DatumGetObjectId(slot_getattr(tuple, QS_OPERATION_OWNER, &is_null));
	server = text_attribute(tuple, QS_OPERATION_SERVER);
	collection = text_attribute(tuple, QS_OPERATION_COLLECTION);
	queue = queue_get(server, collection);
	if (queue != NULL)
		add_shown(queue, &queued);
	else
	{
		no_queue_left = true;
		leave(NULL, &queued);
	}
	pfree(server);
	pfree(collection);
	return 1;
}

/* What a scan newly showed goes behind what was there. */
static void
take_shown(QsQueue *queue)
{
	cut_shown(queue);
	if (queue->nshown > 0)
	{
		queue->nwaiting += queue->nshown;
		queue->nshown = 0;
		queue->last_transaction = queue->waiting[queue->first + queue->nwaiting - 1].transaction;
	}
	queue->begun = queue->left && queue->next_left.transaction == queue->last_transaction
		? queue->last_transaction : 0;
}

static void
end_scan(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &queues)
		take_shown(dlist_container(QsQueue, node, iter.cur));
	oldest_left = oldest_left_now;
	first_not_before = 0;
}

/* Before a scan begins; all that was left is found again. */
static void
begin_scan(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &queues)
		dlist_container(QsQueue, node, iter.cur)->left = false;
	no_queue_left = false;
	oldest_left_now = 0;
}

void
qs_queues_read(void)
{
	begin_scan();
	while (!qs_outbox_read(outbox, INT_MAX))
		CHECK_FOR_INTERRUPTS();
	end_scan();
}

void
qs_queues_tidy(void)
{
	dlist_mutable_iter iter;
	bool		room = false;
	int			before = nqueues;

	dlist_foreach_modify(iter, &queues)
	{
		QsQueue    *queue = dlist_container(QsQueue, node, iter.cur);

		if (queue->left)
			room = room || queue->nwaiting <= window() / 2;
		else if (queue->nwaiting == 0 && queue->call == NULL)
			forget_queue(queue);
	}
	if (room || (no_queue_left && nqueues < before))
		qs_outbox_scan(outbox);
}

int64
qs_queues_oldest(void)
{
	int64		oldest = oldest_left;
	dlist_iter	iter;

	dlist_foreach(iter, &queues)
	{
		QsQueue    *queue = dlist_container(QsQueue, node, iter.cur);

		for (int i = queue->first; i < queue->first + queue->nwaiting; i++)
		{
			if (oldest == 0 || queue->waiting[i].number < oldest)
				oldest = queue->waiting[i].number;
		}
	}
	return oldest;
}
