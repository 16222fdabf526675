/*
 * live_rows.c
 *		Joins ids to rows by one kept plan for each table.
 *
 * Runs in backends, as the caller: privileges and row security are those of any
 * query.  Reads with the caller's active snapshot, so that a search sees what the
 * statement around it sees.
 */
#include "qdrant_sync.h"

#include "catalog/pg_type.h"
#include "client/live_rows.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

/* A plan is found by its table, and made anew where its text has changed: names did. */
typedef struct KeptPlan
{
	Oid			relid;
	Oid			key_type;
	char	   *text;			/* NULL: no plan */
	SPIPlanPtr	plan;
} KeptPlan;

static HTAB *kept_plans = NULL;

/* ---- ids -------------------------------------------------------------- */

static bool
uuid_of(const char *id, Datum *key)
{
	*key = DirectFunctionCall1(uuid_in, CStringGetDatum(id));
	return true;
}

/* False where no row can have this id as its key. */
static bool
key_of(const QsHit *hit, Oid type, Datum *key)
{
	uint64		number;

	if (hit->is_uuid != (type == UUIDOID))
		return false;
	if (hit->is_uuid)
		return uuid_of(hit->id, key);
	if (strlen(hit->id) > 19)	/* beyond bigint */
		return false;
	number = strtoull(hit->id, NULL, 10);
	if (type == INT8OID && number <= PG_INT64_MAX)
		*key = Int64GetDatum((int64) number);
	else if (type == INT4OID && number <= PG_INT32_MAX)
		*key = Int32GetDatum((int32) number);
	else if (type == INT2OID && number <= PG_INT16_MAX)
		*key = Int16GetDatum((int16) number);
	else
		return false;
	return true;
}

/* Keys of the hits that can have a row; positions[i] is the hit of key i. */
static ArrayType *
keys_of(const QsMirrorRow *mirror, const QsHit *hits, int n, int *positions)
{
	Datum	   *keys = palloc((n + 1) * sizeof(Datum));
	int			count = 0;
	int16		length;
	bool		by_value;
	char		align;

	for (int i = 0; i < n; i++)
	{
		if (key_of(&hits[i], mirror->key.types[0], &keys[count]))
			positions[count++] = i;
	}
	get_typlenbyvalalign(mirror->key.types[0], &length, &by_value, &align);
	return construct_array(keys, count, mirror->key.types[0], length, by_value, align);
}

/* ---- the plan --------------------------------------------------------- */

/* A name for the row in the query that no column of the table has. */
static char *
row_name(Oid relid)
{
	char		name[NAMEDATALEN] = "r";

	while (get_attnum(relid, name) != InvalidAttrNumber && strlen(name) < NAMEDATALEN - 1)
		strcat(name, "r");
	return pstrdup(name);
}

/* The array is cast to the key's type, never the column, which has the index. */
static char *
plan_text(const QsMirrorRow *mirror)
{
	const char *row = row_name(mirror->relid);
	const char *schema = get_namespace_name(get_rel_namespace(mirror->relid));
	const char *table = get_rel_name(mirror->relid);

	if (schema == NULL || table == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table of mirror " INT64_FORMAT " was dropped", mirror->id)));
	return psprintf("SELECT %s, asked.n FROM pg_catalog.unnest($1) WITH ORDINALITY AS asked(key, n)"
					" JOIN %s AS %s ON %s.%s OPERATOR(pg_catalog.=) asked.key ORDER BY asked.n",
					row, quote_qualified_identifier(schema, table), row, row,
					quote_identifier(get_attname(mirror->relid, mirror->key.attnums[0], false)));
}

static KeptPlan *
find_kept(Oid relid)
{
	bool		found;
	KeptPlan   *kept;

	if (kept_plans == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(Oid), .entrysize = sizeof(KeptPlan),
			.hcxt = TopMemoryContext};

		kept_plans = hash_create("qdrant_sync rows of searches", 16, &control,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	kept = hash_search(kept_plans, &relid, HASH_ENTER, &found);
	if (!found)
		kept->text = NULL;
	return kept;
}

static void
make_plan(KeptPlan *kept, const char *text, Oid key_type)
{
	Oid			types[1] = {get_array_type(key_type)};
	SPIPlanPtr	plan = SPI_prepare_cursor(text, 1, types, CURSOR_OPT_GENERIC_PLAN);

	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", text);
	kept->plan = plan;
	kept->key_type = key_type;
	kept->text = MemoryContextStrdup(TopMemoryContext, text);
}

/* With SPI connected. */
static SPIPlanPtr
plan_for(const QsMirrorRow *mirror)
{
	char	   *text = plan_text(mirror);
	KeptPlan   *kept = find_kept(mirror->relid);

	if (kept->text != NULL &&
		(strcmp(kept->text, text) != 0 || kept->key_type != mirror->key.types[0]))
	{
		pfree(kept->text);
		kept->text = NULL;
		SPI_freeplan(kept->plan);
	}
	if (kept->text == NULL)
		make_plan(kept, text, mirror->key.types[0]);
	return kept->plan;
}

/* ---- reading ---------------------------------------------------------- */

/* With SPI connected; rows are in SPI_tuptable. */
static void
read_rows(const QsMirrorRow *mirror, ArrayType *keys)
{
	Datum		values[1] = {PointerGetDatum(keys)};

	if (SPI_execute_plan(plan_for(mirror), values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the rows of a search");
	if (SPI_gettypeid(SPI_tuptable->tupdesc, 1) != get_rel_type_id(mirror->relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("table \"%s\" was renamed during the search", get_rel_name(mirror->relid)),
				 errhint("Try again.")));
}

void
qs_live_rows(const QsMirrorRow *mirror, const QsHit *hits, int n,
			 QsLiveRowTaker take, void *arg)
{
	int		   *positions = palloc((n + 1) * sizeof(int));
	ArrayType  *keys = keys_of(mirror, hits, n, positions);
	bool		more = true;

	SPI_connect();
	read_rows(mirror, keys);
	for (uint64 i = 0; i < SPI_processed && more; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		bool		is_null;
		Datum		row = SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &is_null);
		int64		position = DatumGetInt64(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 2, &is_null));

		more = take(arg, row, &hits[positions[position - 1]]);
	}
	SPI_finish();
}

bool
qs_live_row_visible(const QsMirrorRow *mirror, const char *id)
{
	QsHit		hit = {.is_uuid = id[0] == '"'};
	int			position;
	bool		visible;

	hit.id = hit.is_uuid ? pnstrdup(id + 1, strlen(id) - 2) : pstrdup(id);
	SPI_connect();
	read_rows(mirror, keys_of(mirror, &hit, 1, &position));
	visible = SPI_processed > 0;
	SPI_finish();
	return visible;
}
