/*
 * savepoints.c
 *		A stack of the places at which open subtransactions began to log.
 *
 * Runs in writers' backends.  A subtransaction that logs nothing costs nothing.
 */
#include "capture/savepoints.h"

#include "utils/memutils.h"

#define SAVEPOINTS_FIRST 16

/*
 * 16,384 entries are 384 kB.  What a subtransaction logs that is nested deeper
 * counts as its ancestor's: if it alone is undone, rows are looked at, and sent
 * as they are, for nothing.  (A subtransaction that is open costs PostgreSQL
 * itself some ten kilobytes.)
 */
#define SAVEPOINTS_MAX 16384

static void
grow(QsSavepoints *savepoints)
{
	savepoints->size = Max(savepoints->size * 2, SAVEPOINTS_FIRST);
	if (savepoints->stack == NULL)
		savepoints->stack = MemoryContextAlloc(savepoints->context,
											   savepoints->size * sizeof(QsSavepoint));
	else
		savepoints->stack = repalloc(savepoints->stack,
									 savepoints->size * sizeof(QsSavepoint));
}

void
qs_savepoints_push(QsSavepoints *savepoints, int level, QsPlace now)
{
	QsSavepoint *top;

	if (savepoints->n == SAVEPOINTS_MAX)
		return;
	if (savepoints->n == savepoints->size)
		grow(savepoints);
	top = &savepoints->stack[savepoints->n++];
	top->level = level;
	top->start = now;
}

void
qs_savepoints_commit(QsSavepoints *savepoints, int level)
{
	QsSavepoint *top;

	if (savepoints->n == 0)
		return;
	top = &savepoints->stack[savepoints->n - 1];
	if (top->level < level)
		return;
	Assert(top->level == level);
	/* Level 1 is the transaction itself, whose part begins at zero. */
	if (level == 2 || (savepoints->n > 1 && top[-1].level == level - 1))
		savepoints->n--;
	else
		top->level = level - 1;
}

bool
qs_savepoints_abort(QsSavepoints *savepoints, int level, QsPlace *start)
{
	if (savepoints->n == 0 || savepoints->stack[savepoints->n - 1].level < level)
		return false;
	*start = savepoints->stack[--savepoints->n].start;
	return true;
}
