/*
 * retry.c
 *		qdrant_retry: dead letters are tried again.
 *
 * Runs in the session that calls it, for the tables that the caller owns.  Their
 * keys go into the transaction's key log, as if the rows had been changed: the
 * worker reads and sends them after the commit, and ROLLBACK undoes it.  The
 * letters themselves stay: the worker removes one when its row is accepted, and
 * counts the tries of one that is refused again.
 */
#include "qdrant_sync.h"
#include "capture/capture.h"
#include "capture/operations.h"
#include "mirror/catalog.h"
#include "mirror/ddl.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(qs_retry);

/*
 * The key of a row from its text in a dead letter, which qs_task_key_text wrote,
 * goes into the transaction.
 */
static void
qs_key_from_letter(const QsMirrorRow *row, const char *text)
{
	switch (row->key.rule)
	{
		case QS_KEY_INTEGER:
			qs_capture_key(row->relid, qs_key_from_datum(DirectFunctionCall1(int8in, CStringGetDatum(text)),
														 INT8OID), QS_CHUNK_INTEGERS);
			break;
		case QS_KEY_UUID:
			qs_capture_key(row->relid, qs_key_from_datum(DirectFunctionCall1(uuid_in, CStringGetDatum(text)),
														 UUIDOID), QS_CHUNK_UUIDS);
			break;
		case QS_KEY_HASHED:
			qs_capture_key_text(row->relid, text);
			break;
	}
}

/* The letters are in SPI_tuptable. */
static void
mark_letters(const QsMirrorRow *row)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *text = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);

		CHECK_FOR_INTERRUPTS();
		qs_key_from_letter(row, text);
		pfree(text);
	}
}

/* keys: a text[], or 0 for all.  How many letters there were. */
static int64
retry_mirror(const QsMirrorRow *row, Datum keys)
{
	Oid			types[] = {INT8OID, TEXTARRAYOID};
	Datum		values[] = {Int64GetDatum(row->id), keys};
	QsIdentity	saved;
	int64		n;
	int			result;

	qs_as_owner(&saved);
	SPI_connect();
	result = SPI_execute_with_args("SELECT key FROM " QS_SCHEMA ".dead_letter WHERE mirror = $1"
								   " AND ($2 IS NULL OR key = ANY ($2)) ORDER BY id",
								   2, types, values, keys == 0 ? " n" : NULL, false, 0);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not read dead letters: %s", SPI_result_code_string(result));
	n = (int64) SPI_processed;
	mark_letters(row);
	SPI_finish();
	qs_as_before(&saved);
	return n;
}

/* Ids of the dead letters of operations with these numbers, in their order. */
static int64 *
letters_of_operations(Datum keys, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[] = {TEXTARRAYOID};
	QsIdentity	saved;
	int64	   *ids;

	qs_as_owner(&saved);
	SPI_connect();
	if (SPI_execute_with_args("SELECT id FROM " QS_SCHEMA ".dead_letter WHERE mirror IS NULL"
							  " AND operation IS NOT NULL AND key = ANY ($1) ORDER BY id",
							  1, types, &keys, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read dead letters");
	*n = (int) SPI_processed;
	ids = MemoryContextAlloc(context, (*n + 1) * sizeof(int64));
	for (int i = 0; i < *n; i++)
	{
		bool		is_null;

		ids[i] = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &is_null));
	}
	SPI_finish();
	qs_as_before(&saved);
	return ids;
}

/*
 * keys are numbers of explicit operations, which only members of the role that
 * asked for them may send again.  With keys NULL they are left alone, since an
 * operation that comes late overwrites what was written after it.
 */
static int64
retry_operations(Datum keys)
{
	int			n;
	int64	   *ids = letters_of_operations(keys, &n);

	return qs_operations_retry(ids, n);
}

static bool
is_callers(const QsMirrorRow *row)
{
	return row->ours && !row->dropped &&
		SearchSysCacheExists1(RELOID, ObjectIdGetDatum(row->relid)) &&
		qs_relation_ownercheck(row->relid, GetUserId());
}

static int64
retry_all(void)
{
	int64		n = 0;
	ListCell   *lc;

	foreach(lc, qs_mirror_rows())
	{
		if (is_callers(lfirst(lc)))
			n += retry_mirror(lfirst(lc), 0);
	}
	return n;
}

Datum
qs_retry(PG_FUNCTION_ARGS)
{
	Datum		keys = PG_ARGISNULL(1) ? 0 : PG_GETARG_DATUM(1);

	PreventCommandDuringRecovery("qdrant_retry");
	PreventCommandIfReadOnly("qdrant_retry");
	qs_require_preload("qdrant_retry");
	if (!PG_ARGISNULL(0))
		PG_RETURN_INT64(retry_mirror(qs_ddl_own_mirror(PG_GETARG_OID(0)), keys));
	PG_RETURN_INT64(keys == 0 ? retry_all() : retry_operations(keys));
}
