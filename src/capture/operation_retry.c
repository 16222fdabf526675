/*
 * operation_retry.c
 *		Dead letters of explicit operations back into the outbox.
 *
 * Runs in users' backends, with SPI, as the owner of our tables.  Who may send
 * with a role's key is a member of that role.  It is a call like any other: it is
 * undone with its transaction, dead letters included.
 */
#include "qdrant_sync.h"
#include "capture/operations.h"
#include "mirror/catalog.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(qs_retry_operations);

/* A role that is gone has no key; then the caller's is taken, if that is a superuser. */
static Oid
owner_for_retry(Oid caller, Oid owner)
{
	if (SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(owner)))
	{
		if (has_privs_of_role(caller, owner))
			return owner;
	}
	else if (superuser_arg(caller))
		return caller;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to send an operation of another role again"),
			 errdetail("Operations are sent with the key of the role that asked for them; only its members may repeat them.")));
	return InvalidOid;
}

static char *
text_column(int number)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number);

	return value ? value : "";
}

/* The row that DELETE returned. */
static void
enqueue_row(Oid caller)
{
	bool		is_null;
	Datum		owner = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);
	QsOperation operation;
	char	   *body = text_column(5);

	operation.owner = owner_for_retry(caller, is_null ? InvalidOid : DatumGetObjectId(owner));
	operation.server = text_column(2);
	operation.collection = text_column(3);
	operation.name = text_column(4);
	qs_operations_check_collection(operation.server, operation.collection);
	qs_operation_log(&operation, body, (int) strlen(body));
}

static bool
retry_one(int64 id, Oid caller)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(id)};
	bool		found;

	SPI_connect();
	if (SPI_execute_with_args("DELETE FROM qdrant_internal.dead_letter"
							  " WHERE id = $1 AND mirror IS NULL AND operation IS NOT NULL"
							  " RETURNING owner, server, collection, operation, body",
							  1, types, values, NULL, false, 0) != SPI_OK_DELETE_RETURNING)
		elog(ERROR, "could not delete from qdrant_internal.dead_letter");
	found = SPI_processed > 0;
	if (found)
		enqueue_row(caller);
	SPI_finish();
	return found;
}

/* One at a time, since each may have many megabytes. */
int64
qs_operations_retry(const int64 *ids, int n)
{
	Oid			caller = GetUserId();
	int64		found = 0;
	QsIdentity	saved;

	qs_operations_check_room();
	qs_as_owner(&saved);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		found += retry_one(ids[i], caller) ? 1 : 0;
	}
	qs_as_before(&saved);
	qs_operation_log_end_call();
	return found;
}

static int
by_value(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

/* ids bigint[]: in the order in which they were refused, however they are given. */
Datum
qs_retry_operations(PG_FUNCTION_ARGS)
{
	Datum	   *elements;
	bool	   *nulls;
	int64	   *ids;
	int			n;
	int			nids = 0;

	qs_require_preload("qdrant_retry");
	PreventCommandDuringRecovery("qdrant_retry()");
	PreventCommandIfReadOnly("qdrant_retry()");
	PreventCommandIfParallelMode("qdrant_retry()");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &elements, &nulls, &n);
	ids = palloc(sizeof(int64) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
			ids[nids++] = DatumGetInt64(elements[i]);
	}
	qsort(ids, nids, sizeof(int64), by_value);
	PG_RETURN_INT64(qs_operations_retry(ids, nids));
}
