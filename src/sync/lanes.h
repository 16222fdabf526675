/*
 * lanes.h
 *		The keys of one mirror that are not settled, and what each is owed to.
 *
 * A lane exists from the moment its key is known to be dirty until Qdrant's
 * final answer for a state that was read after that (hazard 8).  A debt is why:
 * an outbox chunk, a range of blocks of the first filling, a page of a sweep.
 * It is paid when all its lanes are settled.
 */
#ifndef QS_LANES_H
#define QS_LANES_H

#include "common/chunk.h"
#include "lib/ilist.h"

typedef enum QsDebtKind
{
	QS_DEBT_CHUNK,
	QS_DEBT_BLOCKS,
	QS_DEBT_PAGE,
	QS_DEBT_ECHO				/* keys that were in doubt, sent once more */
} QsDebtKind;

typedef struct QsDebt
{
	QsDebtKind	kind;
	int			lanes;			/* that are not settled, plus 1 while it is being made */
	TimestampTz since;			/* when its chunk was written; else 0 */
	uint8		segment;		/* QS_DEBT_CHUNK: where the chunk lies */
	uint16		offset;
	Oid			file;			/* … in this storage of the segment */
	uint32		block;			/* … or QS_DEBT_BLOCKS: first of the range */
	uint32		end;			/* QS_DEBT_BLOCKS: end of the range */
	int			rows;			/* QS_DEBT_BLOCKS: read in it */
	dlist_node	node;			/* in the list of its owner (outbox, sweep) */
} QsDebt;

typedef enum QsLaneState
{
	QS_LANE_DIRTY,				/* in the dirty queue: will be read */
	QS_LANE_GROUPED,			/* in a group that is read and sent by itself */
	QS_LANE_CLOSED,				/* read; its request is being made, is under way or is
								 * in doubt */
} QsLaneState;

typedef struct QsLink QsLink;

typedef struct QsLane
{
	QsLaneState state;
	QsKey		key;
	char	   *text;			/* of a hashed key; NULL: the key is it */
	QsLink	   *now;			/* debts that the coming or running read pays */
	QsLink	   *next;			/* debts that came after the read: read again */
	slist_node	node;			/* dirty queue */
} QsLane;

typedef struct QsLanes QsLanes;

/* Called for a debt when its last lane is settled; the debt is the owner's to free. */
typedef void (*QsDebtPaid) (void *arg, QsDebt *debt);

extern QsLanes *qs_lanes_create(MemoryContext parent, QsDebtPaid paid, void *arg);
extern void qs_lanes_free(QsLanes *lanes);

extern int	qs_lanes_count(const QsLanes *lanes);	/* of all states */
extern int	qs_lanes_dirty(const QsLanes *lanes);	/* in the dirty queue */

/* Their memory, in lanes without a text; of this mirror, and of all of this process. */
extern int64 qs_lanes_weight(const QsLanes *lanes);
extern int64 qs_lanes_total(void);

/* Marks a key dirty for that debt.  text is copied. */
extern void qs_lanes_mark(QsLanes *lanes, QsKey key, const char *text, QsDebt *debt);

/* Marks all keys that were read and are not settled, so that they are read again. */
extern void qs_lanes_mark_closed(QsLanes *lanes, QsDebt *debt);

/*
 * A row that was read without being dirty (filling): a closed lane for the
 * debt, or NULL where the key already has a lane, whose own read serves as well.
 */
extern QsLane *qs_lanes_close_new(QsLanes *lanes, QsKey key, const char *text, QsDebt *debt);

/* The maker of a debt has marked all its keys: pays it if none is left. */
extern void qs_lanes_debt_made(QsLanes *lanes, QsDebt *debt);

/* Takes up to max dirty lanes out of the queue and closes them. */
extern int	qs_lanes_take(QsLanes *lanes, QsLane **taken, int max);

/* Final outcome: pays; a lane that became dirty meanwhile goes on, others end. */
extern void qs_lanes_settle(QsLanes *lanes, QsLane *lane);

/* No final outcome, or not read: dirty again, at the head of the queue. */
extern void qs_lanes_reopen(QsLanes *lanes, QsLane *lane);

/* Put a closed lane into a group, and take it out to be read. */
extern void qs_lane_group(QsLane *lane);
extern void qs_lane_close(QsLane *lane);

/* A lane by key; NULL: none. */
extern QsLane *qs_lanes_find(QsLanes *lanes, QsKey key);

#endif							/* QS_LANES_H */
