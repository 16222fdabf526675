/*
 * fair_queue.c
 *		Round robin over servers, databases and sessions.
 *
 * Runs in the request worker; touches no shared memory.  A tree of rings: the
 * root's children are servers, a server's are databases, a database's are
 * sessions, a session's are tickets.  What is taken comes from the first child
 * at each level, which then goes to the end of its ring.
 */
#include "qdrant_sync.h"

#include "client/fair_queue.h"
#include "lib/ilist.h"
#include "utils/memutils.h"

typedef enum Level
{
	LEVEL_ROOT,
	LEVEL_SERVER,
	LEVEL_DATABASE,
	LEVEL_SESSION,
	LEVEL_TICKET
} Level;

typedef struct Ring
{
	dlist_node	link;			/* among its parent's children */
	struct Ring *parent;
	Level		level;
	uint64		key;			/* distinct among siblings */
	dlist_head	children;
	int			running;		/* LEVEL_SERVER: tickets taken and not ended */
} Ring;

struct QsFairQueue
{
	MemoryContext context;
	Ring		root;
	int			waiting;
	Ring	  **queued;			/* by slot: its LEVEL_TICKET node; NULL: not queued */
	Ring	  **running;		/* by slot: the server it was taken from; NULL: none */
};

QsFairQueue *
qs_fair_queue_create(int slots)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "qdrant_sync fair queue",
												  ALLOCSET_DEFAULT_SIZES);
	QsFairQueue *queue = MemoryContextAllocZero(context, sizeof(QsFairQueue));

	queue->context = context;
	queue->root.level = LEVEL_ROOT;
	dlist_init(&queue->root.children);
	queue->queued = MemoryContextAllocZero(context, slots * sizeof(Ring *));
	queue->running = MemoryContextAllocZero(context, slots * sizeof(Ring *));
	return queue;
}

static Ring *
add_child(QsFairQueue *queue, Ring *parent, uint64 key)
{
	Ring	   *node = MemoryContextAllocZero(queue->context, sizeof(Ring));

	node->parent = parent;
	node->level = parent->level + 1;
	node->key = key;
	dlist_init(&node->children);
	dlist_push_tail(&parent->children, &node->link);
	return node;
}

static Ring *
find_or_add_child(QsFairQueue *queue, Ring *parent, uint64 key)
{
	dlist_iter	iter;

	dlist_foreach(iter, &parent->children)
	{
		Ring	   *node = dlist_container(Ring, link, iter.cur);

		if (node->key == key)
			return node;
	}
	return add_child(queue, parent, key);
}

/* Removes nodes that nobody needs, upwards. */
static void
prune(Ring *node)
{
	while (node->level != LEVEL_ROOT && dlist_is_empty(&node->children) && node->running == 0)
	{
		Ring	   *parent = node->parent;

		dlist_delete(&node->link);
		pfree(node);
		node = parent;
	}
}

static void
remove_ticket(QsFairQueue *queue, Ring *node)
{
	queue->queued[QS_TICKET_SLOT((QsTicket) node->key)] = NULL;
	queue->waiting--;
	prune(node);
}

void
qs_fair_queue_add(QsFairQueue *queue, const QsTicketJob *job)
{
	Ring	   *node = queue->queued[QS_TICKET_SLOT(job->ticket)];

	if (node != NULL)
		remove_ticket(queue, node);
	node = find_or_add_child(queue, &queue->root, job->server);
	node = find_or_add_child(queue, node, job->database);
	node = find_or_add_child(queue, node, job->session);
	queue->queued[QS_TICKET_SLOT(job->ticket)] = add_child(queue, node, job->ticket);
	queue->waiting++;
}

static void
move_to_end(Ring *node)
{
	dlist_delete(&node->link);
	dlist_push_tail(&node->parent->children, &node->link);
}

/* First ticket below node, which has one; each node on the way goes to the end. */
static Ring *
descend(Ring *node)
{
	while (node->level != LEVEL_TICKET)
	{
		if (node->level != LEVEL_ROOT)
			move_to_end(node);
		node = dlist_head_element(Ring, link, &node->children);
	}
	return node;
}

QsTicket
qs_fair_queue_next(QsFairQueue *queue, int max_running)
{
	dlist_iter	iter;

	dlist_foreach(iter, &queue->root.children)
	{
		Ring	   *server = dlist_container(Ring, link, iter.cur);

		if (server->running < max_running && !dlist_is_empty(&server->children))
		{
			Ring	   *node = descend(server);
			QsTicket	ticket = (QsTicket) node->key;

			server->running++;
			queue->running[QS_TICKET_SLOT(ticket)] = server;
			remove_ticket(queue, node);
			return ticket;
		}
	}
	return 0;
}

void
qs_fair_queue_ended(QsFairQueue *queue, QsTicket ticket)
{
	Ring	   *server = queue->running[QS_TICKET_SLOT(ticket)];

	Assert(server != NULL && server->running > 0);
	queue->running[QS_TICKET_SLOT(ticket)] = NULL;
	server->running--;
	prune(server);
}

bool
qs_fair_queue_waiting(const QsFairQueue *queue)
{
	return queue->waiting > 0;
}
