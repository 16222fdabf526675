/*
 * savepoints.h
 *		Where in a log of the current transaction its open subtransactions begin.
 */
#ifndef QS_SAVEPOINTS_H
#define QS_SAVEPOINTS_H

#include "qdrant_sync.h"

/* A place in a log: bytes in its spool, then entries still in its window. */
typedef struct QsPlace
{
	uint64		spooled;
	int			kept;
} QsPlace;

typedef struct QsSavepoint
{
	int			level;			/* nesting level of the subtransaction */
	QsPlace		start;			/* of what it logged */
} QsSavepoint;

/* Only subtransactions that logged something are here, innermost last. */
typedef struct QsSavepoints
{
	MemoryContext context;
	QsSavepoint *stack;
	int			n;
	int			size;
} QsSavepoints;

/*
 * Called before something is logged at place now, in the subtransaction of that
 * nesting level (2 is the first; 1, the transaction itself, needs no call).
 */
extern void qs_savepoints_push(QsSavepoints *savepoints, int level, QsPlace now);

static inline void
qs_savepoints_note(QsSavepoints *savepoints, int level, QsPlace now)
{
	if (savepoints->n == 0 || savepoints->stack[savepoints->n - 1].level < level)
		qs_savepoints_push(savepoints, level, now);
}

/* The subtransaction of that level ends: its part becomes its parent's. */
extern void qs_savepoints_commit(QsSavepoints *savepoints, int level);

/* It is undone: true where the log has to be cut back to *start. */
extern bool qs_savepoints_abort(QsSavepoints *savepoints, int level, QsPlace *start);

#endif							/* QS_SAVEPOINTS_H */
