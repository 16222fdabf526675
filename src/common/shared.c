/*
 * shared.c
 *		Shared memory of writers, launcher and sync workers, and the ring of
 *		notices.
 *
 * Runs in every process of a server that preloads the library.  Sizes are fixed
 * at server start.  The request path's memory is client/ticket.c's; it is
 * reserved from the same hooks.
 */
#include "qdrant_sync.h"
#include "capture/upload.h"
#include "client/ticket.h"
#include "common/settings.h"
#include "common/shared.h"
#include "storage/proc.h"
#include "storage/shmem.h"

QsShared   *qs_shared = NULL;
QsDatabaseSlot *qs_database_slots = NULL;
QsMirrorSlot *qs_mirror_slots = NULL;

#ifdef QS_HAVE_SHMEM_REQUEST_HOOK
static shmem_request_hook_type prev_shmem_request_hook = NULL;
#endif
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static Size
shared_size(void)
{
	Size		size = MAXALIGN(sizeof(QsShared));

	size = add_size(size, MAXALIGN(mul_size(qs_max_databases, sizeof(QsDatabaseSlot))));
	return add_size(size, MAXALIGN(mul_size(qs_max_mirrors, sizeof(QsMirrorSlot))));
}

static void
request_shared_memory(void)
{
#ifdef QS_HAVE_SHMEM_REQUEST_HOOK
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
#endif
	RequestAddinShmemSpace(add_size(shared_size(), qs_ticket_shmem_size()));
	RequestAddinShmemSpace(qs_upload_shmem_size());
}

static void
init_mirror_slot(QsMirrorSlot *slot)
{
	pg_atomic_init_u32(&slot->active_segment, 0);
	pg_atomic_init_u32(&slot->skipping, 0);
	pg_atomic_init_u64(&slot->wait_requested, 0);
	pg_atomic_init_u64(&slot->wait_done, 0);
	pg_atomic_init_u32(&slot->stopped, 0);
	ConditionVariableInit(&slot->wait_done_cv);
	pg_atomic_init_u64(&slot->pending, 0);
	pg_atomic_init_u32(&slot->pending_is_bound, 0);
	pg_atomic_init_u64(&slot->oldest, 0);
	pg_atomic_init_u64(&slot->points_sent, 0);
	pg_atomic_init_u64(&slot->requests, 0);
	pg_atomic_init_u64(&slot->retries, 0);
	pg_atomic_init_u32(&slot->verify_pid, 0);
	pg_atomic_init_u32(&slot->verify_phase, 0);
	pg_atomic_init_u64(&slot->verify_done, 0);
	pg_atomic_init_u64(&slot->verify_total, 0);
	pg_atomic_init_u64(&slot->verify_started, 0);
}

static void
init_shared_memory(void)
{
	int			tranche = LWLockNewTrancheId();

	memset(qs_shared, 0, shared_size());
	LWLockInitialize(&qs_shared->database_lock, tranche);
	LWLockInitialize(&qs_shared->mirror_lock, tranche);
	qs_shared->launcher_proc_number = -1;
	for (int i = 0; i < qs_max_databases; i++)
	{
		LWLockInitialize(&qs_database_slots[i].lock, tranche);
		qs_database_slots[i].proc_number = -1;
	}
	for (int i = 0; i < qs_max_mirrors; i++)
		init_mirror_slot(&qs_mirror_slots[i]);
}

static void
start_shared_memory(void)
{
	bool		found;
	char	   *place;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	place = ShmemInitStruct("qdrant_sync", shared_size(), &found);
	qs_shared = (QsShared *) place;
	place += MAXALIGN(sizeof(QsShared));
	qs_database_slots = (QsDatabaseSlot *) place;
	place += MAXALIGN(qs_max_databases * sizeof(QsDatabaseSlot));
	qs_mirror_slots = (QsMirrorSlot *) place;
	if (!found)
		init_shared_memory();
	LWLockRegisterTranche(qs_shared->database_lock.tranche, "qdrant_sync");
	qs_ticket_shmem_init();
	qs_upload_shmem_init();
	LWLockRelease(AddinShmemInitLock);
}

void
qs_shared_install_hooks(void)
{
#ifdef QS_HAVE_SHMEM_REQUEST_HOOK
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
#else
	request_shared_memory();
#endif
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_shared_memory;
}

/*
 * The last slot that this process found is looked at first.  Only the launcher
 * changes a slot's database, and an old one is harmless: it belongs to nobody,
 * and whoever starts for the new database scans.
 */
QsDatabaseSlot *
qs_database_slot_find(Oid database)
{
	static QsDatabaseSlot *last = NULL;

	if (qs_shared == NULL)
		return NULL;
	if (last != NULL && last->database == database)
		return last;
	for (int i = 0; i < qs_shared->databases_used; i++)
	{
		if (qs_database_slots[i].database == database)
			return last = &qs_database_slots[i];
	}
	return NULL;
}

QsDatabaseSlot *
qs_database_slot_make(Oid database)
{
	QsDatabaseSlot *slot;

	LWLockAcquire(&qs_shared->database_lock, LW_EXCLUSIVE);
	slot = qs_database_slot_find(database);
	for (int i = 0; slot == NULL && i < qs_max_databases; i++)
	{
		if (qs_database_slots[i].database == InvalidOid)
		{
			slot = &qs_database_slots[i];
			LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
			slot->state = QS_WORKER_ABSENT;
			slot->pid = 0;
			slot->proc_number = -1;
			slot->failures = 0;
			slot->restart_at = 0;
			slot->blockers = 0;
			slot->head = slot->count = 0;
			slot->scan = slot->reload = false;
			slot->database = database;
			qs_shared->databases_used = Max(qs_shared->databases_used, i + 1);
			LWLockRelease(&slot->lock);
		}
	}
	LWLockRelease(&qs_shared->database_lock);
	return slot;
}

bool
qs_database_slot_free(QsDatabaseSlot *slot)
{
	Oid			database = slot->database;
	bool		unused;

	LWLockAcquire(&qs_shared->database_lock, LW_EXCLUSIVE);
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	unused = slot->pid == 0 && slot->blockers == 0;
	if (unused)
		slot->database = InvalidOid;
	LWLockRelease(&slot->lock);
	LWLockRelease(&qs_shared->database_lock);
	if (unused)
		qs_mirror_slots_free(database);
	return unused;
}

QsMirrorSlot *
qs_mirror_slot_find(Oid database, int64 mirror)
{
	QsMirrorSlot *slot = NULL;

	if (qs_shared == NULL)
		return NULL;
	LWLockAcquire(&qs_shared->mirror_lock, LW_SHARED);
	for (int i = 0; slot == NULL && i < qs_max_mirrors; i++)
	{
		if (qs_mirror_slots[i].mirror == mirror && qs_mirror_slots[i].database == database)
			slot = &qs_mirror_slots[i];
	}
	LWLockRelease(&qs_shared->mirror_lock);
	return slot;
}

/*
 * Counters start from zero and waiters of an earlier use are let go; active
 * segment 0 is what a writer without a slot uses, too.
 */
static void
claim_mirror_slot(QsMirrorSlot *slot, Oid database, int64 mirror, Oid relid)
{
	pg_atomic_write_u32(&slot->active_segment, 0);
	pg_atomic_write_u32(&slot->skipping, 0);
	pg_atomic_write_u64(&slot->wait_requested, 0);
	pg_atomic_write_u64(&slot->wait_done, 0);
	pg_atomic_write_u32(&slot->stopped, 0);
	pg_atomic_write_u64(&slot->pending, 0);
	pg_atomic_write_u32(&slot->pending_is_bound, 0);
	pg_atomic_write_u64(&slot->oldest, 0);
	pg_atomic_write_u64(&slot->points_sent, 0);
	pg_atomic_write_u64(&slot->requests, 0);
	pg_atomic_write_u64(&slot->retries, 0);
	pg_atomic_write_u32(&slot->verify_pid, 0);
	slot->relid = relid;
	slot->mirror = mirror;
	slot->database = database;
}

QsMirrorSlot *
qs_mirror_slot_make(Oid database, int64 mirror, Oid relid)
{
	QsMirrorSlot *slot = qs_mirror_slot_find(database, mirror);

	if (slot != NULL)
		return slot;
	LWLockAcquire(&qs_shared->mirror_lock, LW_EXCLUSIVE);
	for (int i = 0; slot == NULL && i < qs_max_mirrors; i++)
	{
		if (qs_mirror_slots[i].database == InvalidOid)
		{
			slot = &qs_mirror_slots[i];
			claim_mirror_slot(slot, database, mirror, relid);
		}
	}
	LWLockRelease(&qs_shared->mirror_lock);
	return slot;
}

void
qs_mirror_slot_free(QsMirrorSlot *slot)
{
	LWLockAcquire(&qs_shared->mirror_lock, LW_EXCLUSIVE);
	slot->database = InvalidOid;
	slot->mirror = 0;
	pg_atomic_write_u32(&slot->stopped, 1);
	LWLockRelease(&qs_shared->mirror_lock);
	ConditionVariableBroadcast(&slot->wait_done_cv);
}

void
qs_mirror_slots_free(Oid database)
{
	for (int i = 0; OidIsValid(database) && i < qs_max_mirrors; i++)
	{
		if (qs_mirror_slots[i].database == database)
			qs_mirror_slot_free(&qs_mirror_slots[i]);
	}
}

static void
wake_proc(int proc_number)
{
	if (proc_number >= 0)
		SetLatch(&ProcGlobal->allProcs[proc_number].procLatch);
}

static void
put_notices(QsDatabaseSlot *slot, const QsNotice *notices, int n)
{
	if (slot->scan)
		return;
	if (slot->count + n > QS_RING_SIZE)
	{
		slot->scan = true;
		return;
	}
	for (int i = 0; i < n; i++)
		slot->ring[(slot->head + slot->count++) % QS_RING_SIZE] = notices[i];
}

void
qs_notices_post(const QsNotice *notices, int n, bool scan)
{
	QsDatabaseSlot *slot = qs_database_slot_find(MyDatabaseId);
	int			proc_number;

	if (slot == NULL)
		return;
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (scan)
		slot->scan = true;
	else
		put_notices(slot, notices, n);
	proc_number = slot->proc_number;
	LWLockRelease(&slot->lock);
	wake_proc(proc_number);
}

void
qs_post_reload(void)
{
	QsDatabaseSlot *slot = qs_database_slot_find(MyDatabaseId);
	int			proc_number;

	if (slot == NULL)
		return;
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	slot->reload = true;
	proc_number = slot->proc_number;
	LWLockRelease(&slot->lock);
	wake_proc(proc_number);
}

void
qs_post_launcher_look(void)
{
	int			proc_number;

	if (qs_shared == NULL)
		return;
	LWLockAcquire(&qs_shared->database_lock, LW_EXCLUSIVE);
	qs_shared->launcher_look = true;
	if (qs_shared->look_count < QS_LOOK_MAX)
		qs_shared->look_at[qs_shared->look_count] = MyDatabaseId;
	if (qs_shared->look_count <= QS_LOOK_MAX)
		qs_shared->look_count++;
	proc_number = qs_shared->launcher_proc_number;
	LWLockRelease(&qs_shared->database_lock);
	wake_proc(proc_number);
}

int
qs_notices_take(QsDatabaseSlot *slot, QsNotice *notices, int max,
				bool *scan, bool *reload)
{
	int			n = 0;

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	*scan = slot->scan;
	*reload = slot->reload;
	slot->scan = slot->reload = false;
	while (n < max && slot->count > 0)
	{
		notices[n++] = slot->ring[slot->head];
		slot->head = (slot->head + 1) % QS_RING_SIZE;
		slot->count--;
	}
	if (*scan)
		slot->count = 0;
	LWLockRelease(&slot->lock);
	return n;
}
