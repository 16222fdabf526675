/*
 * live_rows.c
 *		Joins ids to rows by one kept plan for each table.
 *
 * Runs in backends, as the caller: privileges and row security are those of any
 * query.  Reads with the caller's active snapshot, so that a search sees what the
 * statement around it sees.
 */
#include "qdrant_sync.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "client/live_rows.h"
#include "common/key_text.h"
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

/* What the plan is given: an array for each column of the key. */
typedef struct AskedKeys
{
	int			n;
	int		   *positions;		/* of the hit of each key */
	Datum	   *arrays;
} AskedKeys;

/* Keys that are ids. */
static void
ask_ids(const QsMirrorRow *mirror, const QsHit *hits, int n, AskedKeys *asked)
{
	Oid			type = mirror->key.types[0];
	Datum	   *keys = palloc((n + 1) * sizeof(Datum));
	int16		length;
	bool		by_value;
	char		align;

	for (int i = 0; i < n; i++)
	{
		if (key_of(&hits[i], type, &keys[asked->n]))
			asked->positions[asked->n++] = i;
	}
	get_typlenbyvalalign(type, &length, &by_value, &align);
	asked->arrays[0] = PointerGetDatum(construct_array(keys, asked->n, type, length, by_value, align));
}

/* The strings of the key that a point of a hashed mirror carries; false: it has none. */
static bool
key_texts(const QsHit *hit, int n, Datum *texts)
{
	JsonbValue	field;
	JsonbContainer *array;

	if (hit->payload == NULL || !JB_ROOT_IS_OBJECT(hit->payload) ||
		getKeyJsonValueFromContainer(&hit->payload->root, QS_KEY_FIELD, strlen(QS_KEY_FIELD), &field) == NULL ||
		field.type != jbvBinary || !JsonContainerIsArray(field.val.binary.data))
		return false;
	array = field.val.binary.data;
	if (JsonContainerSize(array) != n)
		return false;
	for (int i = 0; i < n; i++)
	{
		JsonbValue *text = getIthJsonbValueFromContainer(array, i);

		if (text == NULL || text->type != jbvString)
			return false;
		texts[i] = PointerGetDatum(cstring_to_text_with_len(text->val.string.val, text->val.string.len));
	}
	return true;
}

static void
ask_texts(const QsMirrorRow *mirror, const QsHit *hits, int n, AskedKeys *asked)
{
	int			columns = mirror->key.n;
	Datum	   *texts = palloc((n + 1) * columns * sizeof(Datum));
	Datum		row[INDEX_MAX_KEYS];

	for (int i = 0; i < n; i++)
	{
		if (!key_texts(&hits[i], columns, row))
			continue;
		for (int column = 0; column < columns; column++)
			texts[column * n + asked->n] = row[column];
		asked->positions[asked->n++] = i;
	}
	for (int column = 0; column < columns; column++)
		asked->arrays[column] = PointerGetDatum(construct_array(texts + column * n, asked->n, TEXTOID,
																-1, false, TYPALIGN_INT));
}

static AskedKeys
keys_of(const QsMirrorRow *mirror, const QsHit *hits, int n)
{
	AskedKeys	asked = {
		.positions = palloc((n + 1) * sizeof(int)),
		.arrays = palloc(mirror->key.n * sizeof(Datum))
	};

	if (mirror->key.rule == QS_KEY_HASHED)
		ask_texts(mirror, hits, n, &asked);
	else
		ask_ids(mirror, hits, n, &asked);
	return asked;
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

static void
append_condition(StringInfo sql, const QsMirrorRow *mirror, int i, const char *row)
{
	char	   *column = psprintf("%s.%s", row,
								  quote_identifier(get_attname(mirror->relid, mirror->key.attnums[i], false)));

	if (mirror->key.rule == QS_KEY_HASHED)
		qs_append_key_condition(sql, column, mirror->key.types[i], psprintf("asked.key%d", i + 1));
	else
		appendStringInfo(sql, "%s OPERATOR(pg_catalog.=) asked.key1", column);
}

/*
 * What is asked for is cast to the key's type, never the column, which has the index.
 * Rows of tables that inherit from this one are not its own; those of partitions are.
 */
static char *
plan_text(const QsMirrorRow *mirror)
{
	const char *row = row_name(mirror->relid);
	const char *schema = get_namespace_name(get_rel_namespace(mirror->relid));
	const char *table = get_rel_name(mirror->relid);
	StringInfoData sql;

	if (schema == NULL || table == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table of mirror " INT64_FORMAT " was dropped", mirror->id)));
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s, asked.n FROM ROWS FROM (pg_catalog.unnest($1)", row);
	for (int i = 1; i < mirror->key.n; i++)
		appendStringInfo(&sql, ", pg_catalog.unnest($%d)", i + 1);
	appendStringInfoString(&sql, ") WITH ORDINALITY AS asked(key1");
	for (int i = 1; i < mirror->key.n; i++)
		appendStringInfo(&sql, ", key%d", i + 1);
	appendStringInfo(&sql, ", n) JOIN %s%s AS %s ON ",
					 get_rel_relkind(mirror->relid) == RELKIND_RELATION ? "ONLY " : "",
					 quote_qualified_identifier(schema, table), row);
	for (int i = 0; i < mirror->key.n; i++)
	{
		if (i > 0)
			appendStringInfoString(&sql, " AND ");
		append_condition(&sql, mirror, i, row);
	}
	appendStringInfoString(&sql, " ORDER BY asked.n");
	return sql.data;
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
make_plan(KeptPlan *kept, const char *text, const QsKeySpec *key)
{
	Oid			types[INDEX_MAX_KEYS];
	SPIPlanPtr	plan;

	for (int i = 0; i < key->n; i++)
		types[i] = key->rule == QS_KEY_HASHED ? TEXTARRAYOID : get_array_type(key->types[i]);
	plan = SPI_prepare_cursor(text, key->n, types, CURSOR_OPT_GENERIC_PLAN);

	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", text);
	kept->plan = plan;
	kept->key_type = key->types[0];
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
		make_plan(kept, text, &mirror->key);
	return kept->plan;
}

/* ---- reading ---------------------------------------------------------- */

/* With SPI connected; rows are in SPI_tuptable. */
static void
read_rows(const QsMirrorRow *mirror, const AskedKeys *asked)
{
	if (SPI_execute_plan(plan_for(mirror), asked->arrays, NULL, true, 0) != SPI_OK_SELECT)
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
	AskedKeys	asked = keys_of(mirror, hits, n);
	bool		more = true;

	SPI_connect();
	read_rows(mirror, &asked);
	for (uint64 i = 0; i < SPI_processed && more; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		bool		is_null;
		Datum		row = SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &is_null);
		int64		position = DatumGetInt64(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 2, &is_null));

		more = take(arg, row, &hits[asked.positions[position - 1]]);
	}
	SPI_finish();
}

void
qs_live_row_by_texts(const QsMirrorRow *mirror, char *const *texts, QsLiveRowTaker take, void *arg)
{
	AskedKeys	asked = {.n = 1, .arrays = palloc(mirror->key.n * sizeof(Datum))};
	MemoryContext caller = CurrentMemoryContext;

	for (int i = 0; i < mirror->key.n; i++)
	{
		Datum		text = CStringGetTextDatum(texts[i]);

		asked.arrays[i] = PointerGetDatum(construct_array(&text, 1, TEXTOID, -1, false, TYPALIGN_INT));
	}
	SPI_connect();
	read_rows(mirror, &asked);
	if (SPI_processed > 0)
	{
		bool		is_null;
		Datum		row = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);

		MemoryContextSwitchTo(caller);
		take(arg, row, NULL);
	}
	SPI_finish();
}

bool
qs_live_row_visible(const QsMirrorRow *mirror, const char *id)
{
	QsHit		hit = {.is_uuid = id[0] == '"'};
	AskedKeys	asked;
	bool		visible;

	hit.id = hit.is_uuid ? pnstrdup(id + 1, strlen(id) - 2) : pstrdup(id);
	asked = keys_of(mirror, &hit, 1);
	SPI_connect();
	read_rows(mirror, &asked);
	visible = SPI_processed > 0;
	SPI_finish();
	return visible;
}
