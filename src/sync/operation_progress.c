/*
 * operation_progress.c
 *		SQL on qdrant_internal.operation_progress, and on dead letters of explicit
 *		operations.
 *
 * Sync worker only; as the extension's owner or a superuser, on tables that are
 * members of the extension: no user's code runs here.
 */
#include "qdrant_sync.h"
#include "sync/operation_progress.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#define MAX_PARAMETERS 8

/* Rows are in SPI_tuptable until finish(). */
static void
run(const char *sql, int n, Oid *types, Datum *values, const char *nulls, int expected)
{
	int			result;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	result = SPI_execute_with_args(sql, n, types, values, nulls, false, 0);
	if (result != expected)
		elog(ERROR, "qdrant_sync: \"%s\" ended with %s", sql, SPI_result_code_string(result));
}

static void
finish(void)
{
	PopActiveSnapshot();
	SPI_finish();
}

static Datum
column(int number, bool *is_null)
{
	*is_null = true;
	if (SPI_processed == 0)
		return (Datum) 0;
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, is_null);
}

static int64
one_number(const char *sql)
{
	bool		is_null;
	int64		number;

	run(sql, 0, NULL, NULL, NULL, SPI_OK_SELECT);
	number = DatumGetInt64(column(1, &is_null));
	finish();
	return is_null ? 0 : number;
}

int64
qs_operations_last_number(void)
{
	return one_number("SELECT CASE WHEN is_called THEN last_value ELSE 0 END"
					  " FROM qdrant_internal.operation_number");
}

int64
qs_dead_operations_count(void)
{
	return one_number("SELECT pg_catalog.count(*) FROM qdrant_internal.dead_letter WHERE mirror IS NULL");
}

/* Pairs of first and last. */
static void
read_ranges(ArrayType *array, QsNumberSet *set)
{
	int			n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)) / 2;

	if (ARR_HASNULL(array) || n > QS_NUMBER_RANGES_MAX)
		return;
	memcpy(set->ranges, ARR_DATA_PTR(array), n * sizeof(QsNumberRange));
	set->n = n;
}

void
qs_operations_load(QsOperationProgress *progress)
{
	bool		is_null;
	Datum		value;

	memset(progress, 0, sizeof(*progress));
	run("SELECT low_water, done, sending FROM qdrant_internal.operation_progress",
		0, NULL, NULL, NULL, SPI_OK_SELECT);
	progress->low_water = DatumGetInt64(column(1, &is_null));
	value = column(2, &is_null);
	if (!is_null)
		read_ranges(DatumGetArrayTypeP(value), &progress->done);
	value = column(3, &is_null);
	progress->sending = is_null || DatumGetBool(value);
	finish();
}

void
qs_operations_save(const QsOperationProgress *progress)
{
	const QsNumberSet *done = &progress->done;
	Oid			types[] = {INT8OID, INT8ARRAYOID, BOOLOID};
	Datum		values[3];
	Datum	   *elements = palloc(sizeof(Datum) * (2 * done->n + 1));

	for (int i = 0; i < done->n; i++)
	{
		elements[2 * i] = Int64GetDatum(done->ranges[i].first);
		elements[2 * i + 1] = Int64GetDatum(done->ranges[i].last);
	}
	values[0] = Int64GetDatum(progress->low_water);
	values[1] = PointerGetDatum(construct_array(elements, 2 * done->n, INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[2] = BoolGetDatum(progress->sending);
	run("UPDATE qdrant_internal.operation_progress SET low_water = $1, done = $2, sending = $3",
		lengthof(types), types, values, NULL, SPI_OK_UPDATE);
	finish();
}

void
qs_dead_operation_put(const QsDeadOperation *dead)
{
	Oid			types[MAX_PARAMETERS] = {TEXTOID, OIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
	TEXTOID, INT4OID};
	Datum		values[MAX_PARAMETERS] = {0};
	char		nulls[MAX_PARAMETERS];

	memset(nulls, ' ', sizeof(nulls));
	values[0] = CStringGetTextDatum(psprintf(INT64_FORMAT, dead->number));
	values[1] = ObjectIdGetDatum(dead->owner);
	values[2] = CStringGetTextDatum(dead->server);
	values[3] = CStringGetTextDatum(dead->collection);
	if (dead->operation != NULL)
		values[4] = CStringGetTextDatum(dead->operation);
	else
		nulls[4] = 'n';
	if (dead->body != NULL)
		values[5] = CStringGetTextDatum(dead->body);
	else
		nulls[5] = 'n';
	values[6] = CStringGetTextDatum(dead->error);
	values[7] = Int32GetDatum(dead->http_status);
	nulls[7] = dead->http_status == 0 ? 'n' : ' ';
	run("INSERT INTO qdrant_internal.dead_letter"
		" (key, owner, server, collection, operation, body, error, http_status)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		MAX_PARAMETERS, types, values, nulls, SPI_OK_INSERT);
	finish();
}
