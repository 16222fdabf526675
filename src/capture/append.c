/*
 * append.c
 *		Rows into outbox segments by heap_insert, and the notices of them.
 *
 * Runs in writers' backends, in PRE_COMMIT or PRE_PREPARE or after it: without
 * SPI, without a snapshot, and as whoever the user is.  A segment that is gone
 * belongs to a mirror that is gone; that is no reason for a COMMIT to fail.
 */
#include "capture/append.h"

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
remember_notice(Relation rel, ItemPointer tid)
{
	QsNotice   *notice;

	if (nnotices == NOTICES_MAX)
	{
		notices_lost = true;
		return;
	}
	notice = &notices[nnotices++];
	notice->segment = RelationGetRelid(rel);
	notice->relfilenumber = qs_relfilenumber(rel);
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
	appender->opened = InvalidOid;
}

/*
 * Less than table_open does: no look into pg_class, which RelationIdGetRelation
 * repeats where it must, and no statistics, which nobody reads of a segment.
 * The lock is kept to the end of the transaction, as ever.
 */
static void
open_segment(QsAppender *appender, Oid segment)
{
	Relation	rel;

	close_segment(appender);
	appender->opened = segment;
	LockRelationOid(segment, RowExclusiveLock);
	rel = RelationIdGetRelation(segment);
	if (rel == NULL)
	{
		UnlockRelationOid(segment, RowExclusiveLock);
		return;
	}
	if (rel->rd_rel->relkind != RELKIND_MATVIEW)
	{
		/* Another relation of the same OID as a segment that is gone. */
		RelationClose(rel);
		UnlockRelationOid(segment, RowExclusiveLock);
		return;
	}
	appender->rel = rel;
	appender->cid = GetCurrentCommandId(true);
	if (appender->bulk)
		appender->bulk_state = GetBulkInsertState();
}

/* Assigns a transaction id where nothing else has; logs and marks as any INSERT does. */
static void
append_tuple(QsAppender *appender, HeapTuple tuple)
{
	heap_insert(appender->rel, tuple, appender->cid, APPEND_OPTIONS, appender->bulk_state);
	remember_notice(appender->rel, &tuple->t_self);
}

/*
 * The worker may send writers to the other segment at any time, also between two
 * rows of a transaction.  False: the segment is gone.
 */
static bool
ready(QsAppender *appender, const QsTarget *target, int natts)
{
	Oid			segment = qs_target_segment(target);

	if (appender->opened != segment)
		open_segment(appender, segment);
	return appender->rel != NULL && RelationGetNumberOfAttributes(appender->rel) == natts;
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

	memset(header, 0, SizeofHeapTupleHeader);
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

	if (unlikely(qs_target_skips(target)) || !ready(appender, target, 1))
		return;
	qs_chunk_stamp(row->chunk, GetCurrentTimestamp());
	tuple.t_len = complete_row(row, length);
	tuple.t_data = (HeapTupleHeader) row->header.place;
	tuple.t_tableOid = appender->opened;
	ItemPointerSetInvalid(&tuple.t_self);
	append_tuple(appender, &tuple);
}

void
qs_append_values(QsAppender *appender, const QsTarget *target, Datum *values, int n)
{
	bool		nulls[QS_APPEND_MAX_VALUES] = {false};
	HeapTuple	tuple;

	Assert(n <= QS_APPEND_MAX_VALUES);
	if (!ready(appender, target, n))
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
