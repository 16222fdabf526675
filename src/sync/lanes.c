/*
 * lanes.c
 *		Lanes and debts: a hash of keys with two lists of debts each.
 *
 * Sync worker only; knows neither tables nor requests.
 */
#include "qdrant_sync.h"
#include "sync/lanes.h"
#include "utils/memutils.h"

struct QsLink
{
	QsLink	   *next;
	QsDebt	   *debt;
};

typedef struct LaneEntry
{
	QsKey		key;
	QsLane	   *lane;
	char		status;			/* simplehash's own */
} LaneEntry;

#define SH_PREFIX lanehash
#define SH_ELEMENT_TYPE LaneEntry
#define SH_KEY_TYPE QsKey
#define SH_KEY key
/* Multiplied by odd constants; the upper half is well mixed for neighbours, too. */
#define SH_HASH_KEY(tb, k) \
	((uint32) ((((k).lo * UINT64CONST(0x9E3779B97F4A7C15)) ^ \
				((k).hi * UINT64CONST(0xC2B2AE3D27D4EB4F))) >> 32))
#define SH_EQUAL(tb, a, b) ((a).lo == (b).lo && (a).hi == (b).hi)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct QsLanes
{
	MemoryContext context;
	MemoryContext lane_slab;
	MemoryContext link_slab;
	lanehash_hash *hash;
	slist_head	dirty;
	slist_node *last_dirty;		/* NULL: the queue is empty */
	int			ndirty;
	int64		weight;
	QsDebtPaid	paid;
	void	   *arg;
};

static int64 total = 0;

int64
qs_lanes_total(void)
{
	return total;
}

QsLanes *
qs_lanes_create(MemoryContext parent, QsDebtPaid paid, void *arg)
{
	MemoryContext context = AllocSetContextCreate(parent, "qdrant_sync lanes",
												  ALLOCSET_DEFAULT_SIZES);
	QsLanes    *lanes = MemoryContextAllocZero(context, sizeof(QsLanes));

	lanes->context = context;
	lanes->lane_slab = SlabContextCreate(context, "qdrant_sync lane",
										 SLAB_DEFAULT_BLOCK_SIZE * 4, sizeof(QsLane));
	lanes->link_slab = SlabContextCreate(context, "qdrant_sync link",
										 SLAB_DEFAULT_BLOCK_SIZE * 4, sizeof(QsLink));
	lanes->hash = lanehash_create(context, 256, NULL);
	slist_init(&lanes->dirty);
	lanes->paid = paid;
	lanes->arg = arg;
	return lanes;
}

void
qs_lanes_free(QsLanes *lanes)
{
	total -= lanes->weight;
	MemoryContextDelete(lanes->context);
}

/* A lane with its links is about 150 bytes; a text adds as many for each 128 of its own. */
static int
weight_of(const QsLane *lane)
{
	return lane->text == NULL ? 1 : 2 + (int) (strlen(lane->text) / 128);
}

static void
add_weight(QsLanes *lanes, int weight)
{
	lanes->weight += weight;
	total += weight;
}

int64
qs_lanes_weight(const QsLanes *lanes)
{
	return lanes->weight;
}

int
qs_lanes_count(const QsLanes *lanes)
{
	return (int) lanes->hash->members;
}

int
qs_lanes_dirty(const QsLanes *lanes)
{
	return lanes->ndirty;
}

static void
push_dirty_tail(QsLanes *lanes, QsLane *lane)
{
	lane->state = QS_LANE_DIRTY;
	if (lanes->last_dirty == NULL)
		slist_push_head(&lanes->dirty, &lane->node);
	else
		slist_insert_after(lanes->last_dirty, &lane->node);
	lanes->last_dirty = &lane->node;
	lanes->ndirty++;
}

static void
push_dirty_head(QsLanes *lanes, QsLane *lane)
{
	lane->state = QS_LANE_DIRTY;
	slist_push_head(&lanes->dirty, &lane->node);
	if (lanes->last_dirty == NULL)
		lanes->last_dirty = &lane->node;
	lanes->ndirty++;
}

static void
owe(QsLanes *lanes, QsLink **list, QsDebt *debt)
{
	QsLink	   *link;

	/* A chunk names a key once; a page or range might not. */
	if (*list != NULL && (*list)->debt == debt)
		return;
	link = MemoryContextAlloc(lanes->link_slab, sizeof(QsLink));
	link->debt = debt;
	link->next = *list;
	*list = link;
	debt->lanes++;
}

static QsLane *
find_or_make(QsLanes *lanes, QsKey key, const char *text, bool *found)
{
	LaneEntry  *entry = lanehash_insert(lanes->hash, key, found);

	if (!*found)
	{
		entry->lane = MemoryContextAllocZero(lanes->lane_slab, sizeof(QsLane));
		entry->lane->key = key;
		if (text != NULL)
			entry->lane->text = MemoryContextStrdup(lanes->context, text);
		add_weight(lanes, weight_of(entry->lane));
	}
	return entry->lane;
}

void
qs_lanes_mark(QsLanes *lanes, QsKey key, const char *text, QsDebt *debt)
{
	bool		found;
	QsLane	   *lane = find_or_make(lanes, key, text, &found);

	if (!found)
		push_dirty_tail(lanes, lane);
	/* What is not read yet will be read later than this moment. */
	owe(lanes, lane->state == QS_LANE_CLOSED ? &lane->next : &lane->now, debt);
}

void
qs_lanes_mark_closed(QsLanes *lanes, QsDebt *debt)
{
	lanehash_iterator all;
	LaneEntry  *entry;

	lanehash_start_iterate(lanes->hash, &all);
	while ((entry = lanehash_iterate(lanes->hash, &all)) != NULL)
	{
		if (entry->lane->state == QS_LANE_CLOSED)
			owe(lanes, &entry->lane->next, debt);
	}
}

QsLane *
qs_lanes_close_new(QsLanes *lanes, QsKey key, const char *text, QsDebt *debt)
{
	bool		found;
	QsLane	   *lane = find_or_make(lanes, key, text, &found);

	if (found)
		return NULL;
	lane->state = QS_LANE_CLOSED;
	owe(lanes, &lane->now, debt);
	return lane;
}

static void
pay(QsLanes *lanes, QsDebt *debt)
{
	Assert(debt->lanes > 0);
	if (--debt->lanes == 0)
		lanes->paid(lanes->arg, debt);
}

void
qs_lanes_debt_made(QsLanes *lanes, QsDebt *debt)
{
	pay(lanes, debt);
}

int
qs_lanes_take(QsLanes *lanes, QsLane **taken, int max)
{
	int			n = 0;

	while (n < max && lanes->ndirty > 0)
	{
		QsLane	   *lane = slist_container(QsLane, node, slist_pop_head_node(&lanes->dirty));

		lane->state = QS_LANE_CLOSED;
		taken[n++] = lane;
		if (--lanes->ndirty == 0)
			lanes->last_dirty = NULL;
	}
	return n;
}

void
qs_lanes_settle(QsLanes *lanes, QsLane *lane)
{
	QsLink	   *link = lane->now;

	Assert(lane->state == QS_LANE_CLOSED);
	lane->now = lane->next;
	lane->next = NULL;
	if (lane->now != NULL)
		push_dirty_tail(lanes, lane);
	else
	{
		lanehash_delete(lanes->hash, lane->key);
		add_weight(lanes, -weight_of(lane));
		if (lane->text != NULL)
			pfree(lane->text);
		pfree(lane);
	}
	while (link != NULL)
	{
		QsLink	   *after = link->next;

		pay(lanes, link->debt);
		pfree(link);
		link = after;
	}
}

/* Debts that came after the read are served by the read to come as well. */
static void
merge_debts(QsLane *lane)
{
	QsLink	  **end = &lane->now;

	while (*end != NULL)
		end = &(*end)->next;
	*end = lane->next;
	lane->next = NULL;
}

void
qs_lanes_reopen(QsLanes *lanes, QsLane *lane)
{
	Assert(lane->state != QS_LANE_DIRTY);
	merge_debts(lane);
	push_dirty_head(lanes, lane);
}

void
qs_lane_group(QsLane *lane)
{
	Assert(lane->state == QS_LANE_CLOSED);
	merge_debts(lane);
	lane->state = QS_LANE_GROUPED;
}

void
qs_lane_close(QsLane *lane)
{
	Assert(lane->state == QS_LANE_GROUPED);
	lane->state = QS_LANE_CLOSED;
}

QsLane *
qs_lanes_find(QsLanes *lanes, QsKey key)
{
	LaneEntry  *entry = lanehash_lookup(lanes->hash, key);

	return entry == NULL ? NULL : entry->lane;
}
