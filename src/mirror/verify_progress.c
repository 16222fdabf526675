/*
 * verify_progress.c
 *		What the view qdrant_verifications shows: sessions that compare a table with
 *		its collection.
 *
 * Runs in those sessions, and in those that look.  A session has the place in its
 * mirror's slot as long as its pid is there, and leaves it however it ends.  A second
 * one that compares the same table meanwhile is not shown.
 */
#include "qdrant_sync.h"
#include "common/rows_out.h"
#include "common/settings.h"
#include "mirror/verify.h"

#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(qs_verifications);

#define COLUMNS 6

/* Of this session; NULL: it is not shown. */
static QsMirrorSlot *shown = NULL;

/* The slot may serve another mirror by now, whose session may have taken the place. */
void
qs_verify_hide(void)
{
	uint32		me = MyProcPid;

	if (shown != NULL)
		(void) pg_atomic_compare_exchange_u32(&shown->verify_pid, &me, 0);
	shown = NULL;
}

static void
hide_at_exit(int code, Datum arg)
{
	qs_verify_hide();
}

void
qs_verify_show(QsMirrorSlot *slot)
{
	static bool registered = false;
	uint32		nobody = 0;

	if (!registered)
		before_shmem_exit(hide_at_exit, (Datum) 0);
	registered = true;
	if (slot == NULL || !pg_atomic_compare_exchange_u32(&slot->verify_pid, &nobody, MyProcPid))
		return;
	shown = slot;
	pg_atomic_write_u64(&slot->verify_started, GetCurrentTimestamp());
	qs_verify_show_phase(QS_VERIFY_STARTING, 0);
}

static bool
is_shown(void)
{
	return shown != NULL && pg_atomic_read_u32(&shown->verify_pid) == MyProcPid;
}

void
qs_verify_show_phase(QsVerifyPhase phase, int64 total)
{
	if (!is_shown())
		return;
	pg_atomic_write_u64(&shown->verify_done, 0);
	pg_atomic_write_u64(&shown->verify_total, total);
	pg_atomic_write_u32(&shown->verify_phase, phase);
}

void
qs_verify_show_done(int64 more)
{
	if (is_shown())
		pg_atomic_fetch_add_u64(&shown->verify_done, more);
}

/* ---- the view ---- */

static const char *
phase_name(uint32 phase)
{
	switch ((QsVerifyPhase) phase)
	{
		case QS_VERIFY_STARTING:
			return "waiting for the mirror";
		case QS_VERIFY_POINTS:
			return "looking for points without a row";
		case QS_VERIFY_ROWS_PHASE:
			return "comparing rows with their points";
		case QS_VERIFY_ENDING:
			return "looking again at points without a key";
	}
	return "unknown";
}

static bool
may_see(Oid relid)
{
	bool		missing = false;

	return pg_class_aclcheck_ext(relid, GetUserId(), ACL_SELECT, &missing) == ACLCHECK_OK;
}

static void
put_verification(QsRowsOut *result, QsMirrorSlot *slot, uint32 pid)
{
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS] = {false};

	values[0] = ObjectIdGetDatum(slot->relid);
	values[1] = Int32GetDatum((int32) pid);
	values[2] = CStringGetTextDatum(phase_name(pg_atomic_read_u32(&slot->verify_phase)));
	values[3] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->verify_done));
	values[4] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->verify_total));
	nulls[4] = pg_atomic_read_u64(&slot->verify_total) == 0;
	values[5] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&slot->verify_started));
	qs_rows_out_put(result, values, nulls);
}

Datum
qs_verifications(PG_FUNCTION_ARGS)
{
	QsRowsOut	result = qs_rows_out_begin(fcinfo);

	for (int i = 0; qs_shared != NULL && i < qs_max_mirrors; i++)
	{
		QsMirrorSlot *slot = &qs_mirror_slots[i];
		uint32		pid = pg_atomic_read_u32(&slot->verify_pid);

		if (pid != 0 && slot->database == MyDatabaseId && may_see(slot->relid))
			put_verification(&result, slot, pid);
	}
	return (Datum) 0;
}
