/*
 * upload_progress.c
 *		What the view qdrant_uploads shows: sessions that read the query of an upload.
 *
 * Runs in those sessions, and in those that look.  A session has its place as long
 * as its pid is there, and leaves it however it ends.  No text is shared: what a
 * session runs is in pg_stat_activity, for those who may see it.
 */
#include "qdrant_sync.h"
#include "capture/upload.h"
#include "common/rows_out.h"

#include "catalog/pg_authid.h"
#include "storage/shmem.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(qs_uploads);

#define COLUMNS 3

static QsUploadPlace *places = NULL;	/* QS_UPLOADS_SHOWN; NULL: not preloaded */
static QsUploadPlace *mine = NULL;
static int	depth = 0;			/* uploads that this session is in */

/* ---- shared memory ---- */

Size
qs_upload_shmem_size(void)
{
	return MAXALIGN(QS_UPLOADS_SHOWN * sizeof(QsUploadPlace));
}

void
qs_upload_shmem_init(void)
{
	bool		found;

	places = ShmemInitStruct("qdrant_sync uploads", qs_upload_shmem_size(), &found);
	for (int i = 0; !found && i < QS_UPLOADS_SHOWN; i++)
	{
		pg_atomic_init_u32(&places[i].pid, 0);
		pg_atomic_init_u64(&places[i].points, 0);
	}
}

/* ---- this session ---- */

static void
leave(void)
{
	if (mine != NULL)
		pg_atomic_write_u32(&mine->pid, 0);
	mine = NULL;
}

static void
leave_at_exit(int code, Datum arg)
{
	leave();
}

static void
take_place(QsUploadPlace *place)
{
	mine = place;
	pg_atomic_write_u64(&place->points, 0);
	place->database = MyDatabaseId;
	place->role = GetUserId();
	place->started = GetCurrentTimestamp();
}

void
qs_upload_show(void)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(leave_at_exit, (Datum) 0);
	registered = true;
	if (depth++ > 0)
		return;
	for (int i = 0; mine == NULL && places != NULL && i < QS_UPLOADS_SHOWN; i++)
	{
		uint32		nobody = 0;

		if (pg_atomic_compare_exchange_u32(&places[i].pid, &nobody, MyProcPid))
			take_place(&places[i]);
	}
}

void
qs_upload_show_points(int64 points)
{
	if (mine != NULL && depth == 1)
		pg_atomic_write_u64(&mine->points, points);
}

void
qs_upload_hide(void)
{
	if (--depth == 0)
		leave();
}

/* ---- the view ---- */

static bool
may_see(Oid role)
{
	return has_privs_of_role(GetUserId(), role) || has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
}

/* A place that was just taken may show what its last user left, for a moment. */
Datum
qs_uploads(PG_FUNCTION_ARGS)
{
	QsRowsOut	result = qs_rows_out_begin(fcinfo);

	for (int i = 0; places != NULL && i < QS_UPLOADS_SHOWN; i++)
	{
		uint32		pid = pg_atomic_read_u32(&places[i].pid);
		Datum		values[COLUMNS];
		bool		nulls[COLUMNS] = {false};

		if (pid == 0 || places[i].database != MyDatabaseId || !may_see(places[i].role))
			continue;
		values[0] = Int32GetDatum((int32) pid);
		values[1] = Int64GetDatum((int64) pg_atomic_read_u64(&places[i].points));
		values[2] = TimestampTzGetDatum(places[i].started);
		qs_rows_out_put(&result, values, nulls);
	}
	return (Datum) 0;
}
