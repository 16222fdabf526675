/*
 * progress.c
 *		SQL on the sync worker's own tables.
 *
 * Sync worker only; as the extension's owner or a superuser, on tables that are
 * members of the extension: no user's code runs here.
 */
#include "qdrant_sync.h"
#include "mirror/identity.h"
#include "sync/progress.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define MAX_PARAMETERS 31

/* Parameters of one statement, filled in order. */
typedef struct Parameters
{
	int			n;
	Oid			types[MAX_PARAMETERS];
	Datum		values[MAX_PARAMETERS];
	char		nulls[MAX_PARAMETERS];
} Parameters;

static void
add(Parameters *p, Oid type, Datum value, bool isnull)
{
	Assert(p->n < MAX_PARAMETERS);
	p->types[p->n] = type;
	p->values[p->n] = value;
	p->nulls[p->n++] = isnull ? 'n' : ' ';
}

static void
add_int8(Parameters *p, int64 value)
{
	add(p, INT8OID, Int64GetDatum(value), false);
}

static void
add_text(Parameters *p, const char *value)
{
	add(p, TEXTOID, value ? CStringGetTextDatum(value) : (Datum) 0, value == NULL);
}

static void
add_time(Parameters *p, TimestampTz value)
{
	add(p, TIMESTAMPTZOID, TimestampTzGetDatum(value), value == 0);
}

/* Runs one statement; rows are in SPI_tuptable until finish(). */
static void
run(const char *sql, Parameters *p, int expected)
{
	int			result;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	result = SPI_execute_with_args(sql, p->n, p->types, p->values, p->nulls, false, 0);
	if (result != expected)
		elog(ERROR, "qdrant_sync: \"%s\" ended with %s", sql, SPI_result_code_string(result));
}

static void
finish(void)
{
	PopActiveSnapshot();
	SPI_finish();
}

static void
execute(const char *sql, Parameters *p, int expected)
{
	run(sql, p, expected);
	finish();
}

static Datum
column(int row, int number, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, isnull);
}

static int64
int8_column(int number)
{
	bool		isnull;
	Datum		value = column(0, number, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

static bool
bool_column(int number)
{
	bool		isnull;
	Datum		value = column(0, number, &isnull);

	return !isnull && DatumGetBool(value);
}

/* NULL, or the text in the context that was current outside SPI. */
static char *
text_column(int row, int number, MemoryContext context)
{
	bool		isnull;
	Datum		value = column(row, number, &isnull);

	return isnull ? NULL : MemoryContextStrdup(context, TextDatumGetCString(value));
}

static void
copy_nonce(char *to, int number)
{
	char	   *text = text_column(0, number, CurrentMemoryContext);

	strlcpy(to, text ? text : "", QS_NONCE_LENGTH + 1);
}

static void
copy_dimensions(int dimensions[QS_PROGRESS_VECTORS], int number)
{
	bool		isnull;
	Datum		value = column(0, number, &isnull);
	ArrayType  *array = isnull ? NULL : DatumGetArrayTypeP(value);
	int			n = isnull ? 0 : ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));

	for (int i = 0; i < Min(n, QS_PROGRESS_VECTORS); i++)
		dimensions[i] = ((int32 *) ARR_DATA_PTR(array))[i];
}

static void
load_columns(QsProgress *progress, MemoryContext context)
{
	progress->phase = "creating";
	progress->error = text_column(0, 1, context);
	progress->error_at = int8_column(2);
	progress->resumed = int8_column(3);
	progress->taken_over = int8_column(4);
	progress->epoch = int8_column(5);
	copy_nonce(progress->nonce, 6);
	copy_nonce(progress->next_nonce, 7);
	progress->fence_by_time = bool_column(8);
	progress->collection_made = bool_column(9);
	progress->timeline = (int32) int8_column(10);
	progress->segment_files[0] = (Oid) int8_column(11);
	progress->segment_files[1] = (Oid) int8_column(12);
	progress->sweep_wanted = int8_column(13);
	progress->sweep_done = int8_column(14);
	progress->scroll_offset = text_column(0, 15, context);
	progress->scroll_done = bool_column(16);
	progress->backfill_file = (Oid) int8_column(17);
	progress->backfill_next = int8_column(18);
	progress->backfill_end = int8_column(19);
	progress->backfill_rows = int8_column(20);
	progress->backfill_started = int8_column(21);
	progress->backfill_finished = int8_column(22);
	progress->owner = (Oid) int8_column(23);
	progress->skipping = bool_column(24);
	copy_nonce(progress->last_nonce, 25);
	progress->backfill_leaf = (Oid) int8_column(26);
	progress->backfill_after = (Oid) int8_column(27);
	progress->backfill_base = int8_column(28);
	progress->backfill_total = int8_column(29);
	copy_dimensions(progress->dimensions, 30);
}

void
qs_progress_load(int64 mirror, QsProgress *progress)
{
	MemoryContext context = CurrentMemoryContext;
	Parameters	p = {0};

	memset(progress, 0, sizeof(*progress));
	progress->mirror = mirror;
	add_int8(&p, mirror);
	execute("INSERT INTO qdrant_internal.progress (mirror) VALUES ($1)"
			" ON CONFLICT DO NOTHING", &p, SPI_OK_INSERT);
	/* A timestamptz is read as its binary value, an oid widened to bigint. */
	run("SELECT error, error_at, resumed, taken_over, epoch, nonce, next_nonce,"
		" fence = 'time', collection_made, timeline::bigint,"
		" segment_files[1]::bigint, segment_files[2]::bigint,"
		" sweep_wanted, sweep_done, scroll_offset, scroll_done,"
		" backfill_relfilenode::bigint, backfill_next, backfill_end, backfill_rows,"
		" backfill_started, backfill_finished, owner::bigint, skipping,"
		" last_nonce, backfill_leaf::bigint, backfill_after::bigint, backfill_base, backfill_total,"
		" dimensions"
		" FROM qdrant_internal.progress WHERE mirror = $1", &p, SPI_OK_SELECT);
	load_columns(progress, context);
	finish();
}

static Datum
oid_pair(const Oid oids[2])
{
	Datum		elements[2] = {ObjectIdGetDatum(oids[0]), ObjectIdGetDatum(oids[1])};

	return PointerGetDatum(construct_array(elements, 2, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

static Datum
dimension_array(const int dimensions[QS_PROGRESS_VECTORS])
{
	Datum		elements[QS_PROGRESS_VECTORS];

	for (int i = 0; i < QS_PROGRESS_VECTORS; i++)
		elements[i] = Int32GetDatum(dimensions[i]);
	return PointerGetDatum(construct_array(elements, QS_PROGRESS_VECTORS, INT4OID,
										   sizeof(int32), true, TYPALIGN_INT));
}

void
qs_progress_save(const QsProgress *progress)
{
	Parameters	p = {0};
	bool		begun = OidIsValid(progress->backfill_file);

	add_int8(&p, progress->mirror);
	add_text(&p, progress->phase);
	add_text(&p, progress->error);
	add_time(&p, progress->error_at);
	add_int8(&p, progress->resumed);
	add_int8(&p, progress->taken_over);
	add_int8(&p, progress->epoch);
	add_text(&p, progress->nonce[0] ? progress->nonce : NULL);
	add_text(&p, progress->next_nonce[0] ? progress->next_nonce : NULL);
	add_text(&p, progress->fence_by_time ? "time" : "alias");
	add(&p, BOOLOID, BoolGetDatum(progress->collection_made), false);
	add(&p, INT4OID, Int32GetDatum(progress->timeline), false);
	add(&p, OIDARRAYOID, oid_pair(progress->segment_files), false);
	add_int8(&p, progress->sweep_wanted);
	add_int8(&p, progress->sweep_done);
	add_text(&p, progress->scroll_offset);
	add(&p, BOOLOID, BoolGetDatum(progress->scroll_done), false);
	add(&p, OIDOID, ObjectIdGetDatum(progress->backfill_file), !begun);
	add_int8(&p, progress->backfill_next);
	add_int8(&p, progress->backfill_end);
	add_int8(&p, progress->backfill_rows);
	add_time(&p, progress->backfill_started);
	add_time(&p, progress->backfill_finished);
	add(&p, OIDOID, ObjectIdGetDatum(progress->owner), !OidIsValid(progress->owner));
	add(&p, BOOLOID, BoolGetDatum(progress->skipping), false);
	add_text(&p, progress->last_nonce[0] ? progress->last_nonce : NULL);
	add(&p, OIDOID, ObjectIdGetDatum(progress->backfill_leaf), !begun);
	add(&p, OIDOID, ObjectIdGetDatum(progress->backfill_after), !OidIsValid(progress->backfill_after));
	add_int8(&p, progress->backfill_base);
	add_int8(&p, progress->backfill_total);
	add(&p, INT4ARRAYOID, dimension_array(progress->dimensions), false);
	execute("UPDATE qdrant_internal.progress SET phase = $2, error = $3, error_at = $4,"
			" resumed = $5, taken_over = $6, epoch = $7, nonce = $8, next_nonce = $9,"
			" fence = $10, collection_made = $11, timeline = $12, segment_files = $13,"
			" sweep_wanted = $14, sweep_done = $15, scroll_offset = $16, scroll_done = $17,"
			" backfill_relfilenode = $18, backfill_next = $19, backfill_end = $20,"
			" backfill_rows = $21, backfill_started = $22, backfill_finished = $23, owner = $24,"
			" skipping = $25, last_nonce = $26, backfill_leaf = $27, backfill_after = $28,"
			" backfill_base = $29, backfill_total = $30, dimensions = $31"
			" WHERE mirror = $1", &p, SPI_OK_UPDATE);
}

void
qs_progress_forget(int64 mirror)
{
	Parameters	p = {0};

	add_int8(&p, mirror);
	execute("DELETE FROM qdrant_internal.dead_letter WHERE mirror = $1", &p, SPI_OK_DELETE);
	execute("DELETE FROM qdrant_internal.progress WHERE mirror = $1", &p, SPI_OK_DELETE);
	execute("DELETE FROM qdrant_internal.mirror WHERE id = $1", &p, SPI_OK_DELETE);
}

QsMirrorsLock
qs_mirrors_lock(int64 old, int64 rebuild)
{
	Parameters	p = {0};
	QsMirrorsLock result = QS_MIRRORS_LOCKED;

	add_int8(&p, old);
	add_int8(&p, rebuild);
	run("SELECT id, paused FROM qdrant_internal.mirror WHERE id IN ($1, $2) AND NOT dropped"
		" ORDER BY id FOR UPDATE SKIP LOCKED", &p, SPI_OK_SELECT);
	if (SPI_processed != 2)
		result = QS_MIRRORS_BUSY;
	else if (bool_column(2))
		result = QS_MIRRORS_PAUSED;
	finish();
	return result;
}

void
qs_mirrors_switch(int64 old, int64 rebuild)
{
	Parameters	p = {0};

	add_int8(&p, old);
	add_int8(&p, rebuild);
	execute("UPDATE qdrant_internal.mirror m SET dropped = true, drop_collection = NOT r.keep_old,"
			" replaced = pg_catalog.clock_timestamp()"
			" FROM qdrant_internal.mirror r WHERE m.id = $1 AND r.id = $2", &p, SPI_OK_UPDATE);
	memset(&p, 0, sizeof(p));
	add_int8(&p, rebuild);
	execute("UPDATE qdrant_internal.mirror SET rebuilds = NULL, keep_old = false WHERE id = $1",
			&p, SPI_OK_UPDATE);
}

/*
 * pg_upgrade begins the count of timelines anew, which is no promotion.  A row that
 * a session has locked is adopted by a later call.
 */
void
qs_mirrors_adopt(void)
{
	Parameters	p = {0};

	add_int8(&p, (int64) GetSystemIdentifier());
	add(&p, OIDOID, ObjectIdGetDatum(MyDatabaseId), false);
	add(&p, INT4OID, Int32GetDatum((int32) qs_timeline()), false);
	execute("WITH foreign_rows AS (SELECT id FROM qdrant_internal.mirror"
			" WHERE system_identifier <> $1 AND database = $2"
			" AND qdrant_internal.armed_here(system_identifier, database) FOR UPDATE SKIP LOCKED),"
			" adopted AS (UPDATE qdrant_internal.mirror SET system_identifier = $1"
			" WHERE id IN (SELECT id FROM foreign_rows) RETURNING id)"
			" UPDATE qdrant_internal.progress SET timeline = $3"
			" WHERE mirror IN (SELECT id FROM adopted) AND timeline <> 0", &p, SPI_OK_UPDATE);
}

bool
qs_dead_letter_put(int64 mirror, const char *server, const char *collection,
				   const char *key, const char *error, int http_status,
				   const char *body)
{
	Parameters	p = {0};
	bool		again;

	add(&p, INT8OID, Int64GetDatum(mirror), mirror == 0);
	add_text(&p, server);
	add_text(&p, collection);
	add_text(&p, key);
	add_text(&p, error);
	add(&p, INT4OID, Int32GetDatum(http_status), http_status == 0);
	add_text(&p, body);
	run("INSERT INTO qdrant_internal.dead_letter AS d"
		" (mirror, server, collection, key, error, http_status, body)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7)"
		" ON CONFLICT (mirror, key) DO UPDATE SET error = excluded.error,"
		" http_status = excluded.http_status, tries = d.tries + 1,"
		" last_at = pg_catalog.now()"
		" RETURNING tries > 1", &p, SPI_OK_INSERT_RETURNING);
	again = bool_column(1);
	finish();
	return again;
}

void
qs_dead_letters_remove(int64 mirror, List *keys)
{
	Parameters	p = {0};
	Datum	   *elements = palloc(sizeof(Datum) * list_length(keys));
	ListCell   *cell;
	int			n = 0;

	foreach(cell, keys)
		elements[n++] = CStringGetTextDatum((char *) lfirst(cell));
	add_int8(&p, mirror);
	add(&p, TEXTARRAYOID,
		PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT)), false);
	execute("DELETE FROM qdrant_internal.dead_letter WHERE mirror = $1 AND key = ANY ($2)",
			&p, SPI_OK_DELETE);
}

int
qs_dead_letters_count(int64 mirror)
{
	Parameters	p = {0};
	int			count;

	add_int8(&p, mirror);
	run("SELECT pg_catalog.count(*) FROM qdrant_internal.dead_letter WHERE mirror = $1",
		&p, SPI_OK_SELECT);
	count = (int) int8_column(1);
	finish();
	return count;
}
