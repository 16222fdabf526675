/*
 * limit.c
 *		The outbox at its limit: writers stop recording keys, and the mirror
 *		catches up by a sweep.
 *
 * Sync worker only.  The wish for the sweep is durable before the first key is
 * skipped.  The sweep begins only when keys are recorded again and every
 * transaction that may have skipped one has ended (hazard 5): whatever it wrote
 * is then in the sweep's first snapshot.
 */
#include "qdrant_sync.h"
#include "common/settings.h"
#include "sync/task.h"

#include "catalog/pg_inherits.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

void
qs_limit_check(QsTask *task)
{
	if (task->slot == NULL || pg_atomic_read_u32(&task->slot->skipping) != 0 ||
		qs_outbox_bytes(task->outbox) <= (uint64) qs_outbox_limit * 1024)
		return;
	task->progress.skipping = true;
	/* Who is waited out for the last time may not be all who skip from now on. */
	if (task->skippers != NULL)
		pfree(task->skippers);
	task->skippers = NULL;
	qs_task_want_sweep(task);
	qs_task_save(task);
	pg_atomic_write_u32(&task->slot->skipping, 1);
	ereport(LOG,
			(errmsg("qdrant_sync: the outbox of collection \"%s\" has reached its limit of %d kB (qdrant_sync.outbox_limit)",
					task->row.collection, qs_outbox_limit),
			 errdetail("Changes are not recorded until it is sent; then the whole table is compared.")));
}

static void
add_skippers(QsTask *task, Oid relid)
{
	LOCKTAG		tag;
	VirtualTransactionId *holders;
	int			n;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	holders = GetLockConflicts(&tag, ShareLock, &n);
	task->skippers = repalloc(task->skippers, (task->nskippers + n + 1) * sizeof(VirtualTransactionId));
	memcpy(task->skippers + task->nskippers, holders, n * sizeof(VirtualTransactionId));
	task->nskippers += n;
}

/*
 * Transactions that hold a lock with which they can have written, prepared ones
 * too.  Who writes straight to a leaf holds none on the table.
 */
static void
find_skippers(QsTask *task)
{
	ListCell   *cell;

	qs_begin();
	task->skippers = MemoryContextAlloc(task->context, sizeof(VirtualTransactionId));
	task->nskippers = 0;
	foreach(cell, find_all_inheritors(task->row.relid, NoLock, NULL))
		add_skippers(task, lfirst_oid(cell));
	qs_commit();
}

static void
forget_ended(QsTask *task)
{
	int			left = 0;

	qs_begin();
	for (int i = 0; i < task->nskippers; i++)
	{
		if (!VirtualXactLock(task->skippers[i], false))
			task->skippers[left++] = task->skippers[i];
	}
	qs_commit();
	task->nskippers = left;
}

bool
qs_limit_lift(QsTask *task)
{
	TimestampTz oldest;

	if (!task->progress.skipping)
		return true;
	/* What was recorded goes first, or the outbox would be at its limit at once. */
	if (qs_outbox_more(task->outbox) || qs_outbox_pending(task->outbox, &oldest) > 0 ||
		qs_outbox_bytes(task->outbox) > (uint64) qs_outbox_limit * 1024 / 2)
		return false;
	if (task->slot != NULL)
		pg_atomic_write_u32(&task->slot->skipping, 0);
	if (task->skippers == NULL)
		find_skippers(task);
	else
		forget_ended(task);
	if (task->nskippers > 0)
		return false;
	pfree(task->skippers);
	task->skippers = NULL;
	task->progress.skipping = false;
	task->progress_dirty = true;
	return true;
}
