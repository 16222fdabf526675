/*
 * append.c
 *		Rows into outbox segments by heap_insert, and the notices of them.
 *
 * Runs in writers' backends, in PRE_COMMIT or PRE_PREPARE or after it: without
 * SPI, without a snapshot, and as whoever the user is.  A segment that is gone
 * belongs to a mirror that is gone; that is no reason for a COMMIT to fail.
 */
#include "capture/append.h"
#include "capture/page.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "storage/lmgr.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"

/*
 * Writers append to a page of their own, so the free space map has nothing to
 * tell; and no subscriber is to decode the outbox.
 */
#define APPEND_OPTIONS (HEAP_INSERT_SKIP_FSM | HEAP_INSERT_NO_LOGICAL)

/*
 * Notices of a transaction, kept in static memory since posting them must not
 * fail.  More rows than this, some half a million keys, are found by a scan.
 */
#define NOTICES_MAX 64

static QsNotice notices[NOTICES_MAX];
static int	nnotices = 0;
static bool notices_lost = false;

static void
remember_notice(Oid segment, RelFileNumber relfilenumber, ItemPointer tid)
{
	QsNotice   *notice;

	if (nnotices == NOTICES_MAX)
	{
		notices_lost = true;
		return;
	}
	notice = &notices[nnotices++];
	notice->segment = segment;
	notice->relfilenumber = relfilenumber;
	notice->tid = *tid;
}

void
qs_append_forget_notices(void)
{
	nnotices = 0;
	notices_lost = false;
}

void
qs_append_post_notices(void)
{
	if (nnotices > 0)
		qs_notices_post(notices, nnotices, notices_lost);
	qs_append_forget_notices();
}

bool
qs_append_has_notices(void)
{
	return nnotices > 0;
}

/* ---- segments ---- */

static void
close_segment(QsAppender *appender)
{
	if (appender->bulk_state != NULL)
		FreeBulkInsertState(appender->bulk_state);
	appender->bulk_state = NULL;
	if (appender->rel != NULL)
		RelationClose(appender->rel);
	appender->rel = NULL;
}

/* The lock is kept to the end of the transaction, as ever. */
static void
lock_segment(QsAppender *appender, Oid segment)
{
	close_segment(appender);
	LockRelationOid(segment, RowExclusiveLock);
	appender->locked = segment;
	appender->gone = false;
	appender->cid = GetCurrentCommandId(true);
}

/*
 * Less than table_open does: no look into pg_class, which RelationIdGetRelation
 * repeats where it must, and no statistics, which nobody reads of a segment.
 * Another relation may have the OID of a segment that is gone.
 */
static void
open_segment(QsAppender *appender)
{
	Relation	rel = RelationIdGetRelation(appender->locked);

	if (rel != NULL && rel->rd_rel->relkind != RELKIND_MATVIEW)
	{
		RelationClose(rel);
		rel = NULL;
	}
	if (rel == NULL)
	{
		UnlockRelationOid(appender->locked, RowExclusiveLock);
		appender->gone = true;
		return;
	}
	appender->rel = rel;
	if (appender->bulk)
		appender->bulk_state = GetBulkInsertState();
}

/*
 * The worker may send writers to the other segment at any time, also between two
 * rows of a transaction.
 */
static void
choose_segment(QsAppender *appender, const QsTarget *target)
{
	Oid			segment = qs_target_segment(target);

	if (appender->locked != segment)
		lock_segment(appender, segment);
}

/* False: the segment is gone. */
static bool
ready(QsAppender *appender, int natts)
{
	if (appender->rel == NULL && !appender->gone)
		open_segment(appender);
	return appender->rel != NULL && RelationGetNumberOfAttributes(appender->rel) == natts;
}

/* Assigns a transaction id where nothing else has; logs and marks as any INSERT does. */
static void
append_tuple(QsAppender *appender, HeapTuple tuple)
{
	Relation	rel = appender->rel;

	heap_insert(rel, tuple, appender->cid, APPEND_OPTIONS, appender->bulk_state);
	remember_notice(appender->locked, qs_relfilenumber(rel), &tuple->t_self);
}

/* Beside the last one of this backend, where that is possible. */
static void
append_chunk(QsAppender *appender, HeapTuple tuple)
{
	RelFileNumber storage;

	if (appender->gone)
		return;
	if (!appender->bulk && qs_page_append(appender->locked, tuple, appender->cid, &storage))
	{
		remember_notice(appender->locked, storage, &tuple->t_self);
		return;
	}
	if (!ready(appender, 1))
		return;
	append_tuple(appender, tuple);
	if (!appender->bulk)
		qs_page_remember(appender->rel, &tuple->t_self);
}

/*
 * Puts the headers before the chunk.  Short values get the header of one byte,
 * which every reader of a varlena understands, whatever the column's storage.
 */
static int
complete_row(QsRow *row, int length)
{
	HeapTupleHeader header = (HeapTupleHeader) row->header.place;
	char	   *value = (char *) row + offsetof(QsRow, length);

	memset(header, 0, sizeof(row->header));
	HeapTupleHeaderSetNatts(header, 1);
	header->t_infomask = HEAP_HASVARWIDTH;
	header->t_hoff = offsetof(QsRow, length);
	if (length + VARHDRSZ_SHORT <= VARATT_SHORT_MAX)
	{
		SET_VARSIZE_SHORT(value, length + VARHDRSZ_SHORT);
		memmove(VARDATA_SHORT(value), row->chunk, length);
		return header->t_hoff + VARHDRSZ_SHORT + length;
	}
	SET_VARSIZE(value, length + VARHDRSZ);
	return header->t_hoff + VARHDRSZ + length;
}

void
qs_append_chunk(QsAppender *appender, const QsTarget *target, QsRow *row, int length)
{
	HeapTupleData tuple;

	if (unlikely(qs_target_skips(target)))
		return;
	choose_segment(appender, target);
	qs_chunk_stamp(row->chunk, GetCurrentTimestamp());
	tuple.t_len = complete_row(row, length);
	tuple.t_data = (HeapTupleHeader) row->header.place;
	tuple.t_tableOid = appender->locked;
	ItemPointerSetInvalid(&tuple.t_self);
	append_chunk(appender, &tuple);
}

void
qs_append_values(QsAppender *appender, const QsTarget *target, Datum *values, int n)
{
	bool		nulls[QS_APPEND_MAX_VALUES] = {false};
	HeapTuple	tuple;

	Assert(n <= QS_APPEND_MAX_VALUES);
	choose_segment(appender, target);
	if (!ready(appender, n))
		return;
	tuple = heap_form_tuple(RelationGetDescr(appender->rel), values, nulls);
	append_tuple(appender, tuple);
	heap_freetuple(tuple);
}

void
qs_append_end(QsAppender *appender)
{
	close_segment(appender);
}
