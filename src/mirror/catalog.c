/*
 * catalog.c
 *		Our own tables: where they are, with whose rights they are used, and the
 *		rows of qdrant_internal.mirror.
 *
 * Runs in sessions and in the sync worker.  Reads with catalog snapshots, so
 * that a session sees what was committed last whatever its isolation level.
 * Trusts the schema qdrant_internal only where the extension is installed.
 */
#include "qdrant_sync.h"
#include "mirror/catalog.h"
#include "mirror/identity.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* Columns of qdrant_internal.mirror, as qdrant_sync--1.0.sql orders them. */
enum
{
	MIRROR_ID = 1,
	MIRROR_RELID,
	MIRROR_SYSTEM_IDENTIFIER,
	MIRROR_DATABASE,
	MIRROR_SERVER,
	MIRROR_COLLECTION,
	MIRROR_KEY_RULE,
	MIRROR_KEY_ATTNUMS,
	MIRROR_KEY_TYPES,
	MIRROR_COLUMNS_THAT_COUNT,
	MIRROR_SEGMENT_A,
	MIRROR_SEGMENT_B,
	MIRROR_PAUSED,
	MIRROR_RESUMED,
	MIRROR_TAKE_OVER,
	MIRROR_SWEEP,
	MIRROR_DROPPED,
	MIRROR_DROP_COLLECTION,
	MIRROR_REBUILDS,
	MIRROR_KEEP_OLD,
	MIRROR_ALIAS,
	MIRROR_REPLACED,
	MIRROR_MADE_AT,
	MIRROR_COLUMNS = MIRROR_MADE_AT
};

/*
 * OIDs found so far.  Whatever brings or takes the extension makes or drops its
 * schema, and that forgets them; so does a rollback of either.
 */
#define CACHED_NAMES 16
static struct
{
	char		name[NAMEDATALEN];
	Oid			oid;
}			cached[CACHED_NAMES];
static int	cached_count = 0;
static Oid	cached_extension = InvalidOid;
static bool cache_watched = false;

static void
forget_oids(Datum arg, int cacheid, uint32 hashvalue)
{
	cached_count = 0;
	cached_extension = InvalidOid;
}

static void
watch_cache(void)
{
	if (cache_watched)
		return;
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_oids, (Datum) 0);
	cache_watched = true;
}

Oid
qs_extension_oid(void)
{
	watch_cache();
	if (!OidIsValid(cached_extension))
		cached_extension = get_extension_oid(QS_EXTENSION, true);
	return cached_extension;
}

Oid
qs_internal_relation(const char *name)
{
	Oid			namespace;
	Oid			oid;

	watch_cache();
	for (int i = 0; i < cached_count; i++)
	{
		if (strcmp(cached[i].name, name) == 0)
			return cached[i].oid;
	}
	if (!OidIsValid(qs_extension_oid()))
		return InvalidOid;
	namespace = get_namespace_oid(QS_SCHEMA, true);
	oid = OidIsValid(namespace) ? get_relname_relid(name, namespace) : InvalidOid;
	if (OidIsValid(oid) && cached_count < CACHED_NAMES)
	{
		strlcpy(cached[cached_count].name, name, NAMEDATALEN);
		cached[cached_count++].oid = oid;
	}
	return oid;
}

Oid
qs_trigger_function(const char *name)
{
	Oid			namespace;
	oidvector  *no_arguments = buildoidvector(NULL, 0);

	if (!OidIsValid(qs_extension_oid()))
		return InvalidOid;
	namespace = get_namespace_oid(QS_SCHEMA, true);
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name),
						   PointerGetDatum(no_arguments), ObjectIdGetDatum(namespace));
}

int
qs_pin_search_path(void)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

static void
become(Oid role, bool restricted, QsIdentity *saved)
{
	GetUserIdAndSecContext(&saved->userid, &saved->sec_context);
	SetUserIdAndSecContext(role, saved->sec_context | SECURITY_LOCAL_USERID_CHANGE |
						   (restricted ? SECURITY_RESTRICTED_OPERATION : 0));
}

void
qs_as_role(Oid role, bool restricted, QsIdentity *saved)
{
	become(role, restricted, saved);
	saved->guc_level = qs_pin_search_path();
}

void
qs_as_role_with_path(Oid role, QsIdentity *saved)
{
	become(role, true, saved);
	saved->guc_level = NewGUCNestLevel();
}

Oid
qs_relation_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* The owner of our tables, which is the extension's unless somebody gave them away. */
void
qs_as_owner(QsIdentity *saved)
{
	Oid			table = qs_internal_relation("mirror");

	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(table)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database", QS_EXTENSION)));
	qs_as_role(qs_relation_owner(table), false, saved);
}

void
qs_as_before(const QsIdentity *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->userid, saved->sec_context);
}

uint64
qs_execute_as_owner(const char *statement, int n, const int64 *parameters)
{
	Oid			types[4];
	Datum		values[4];
	QsIdentity	saved;
	uint64		rows;
	int			result;

	Assert(n <= lengthof(types));
	for (int i = 0; i < n; i++)
	{
		types[i] = INT8OID;
		values[i] = Int64GetDatum(parameters[i]);
	}
	qs_as_owner(&saved);
	SPI_connect();
	result = SPI_execute_with_args(statement, n, types, values, NULL, false, 0);
	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", statement, SPI_result_code_string(result));
	rows = SPI_processed;
	SPI_finish();
	qs_as_before(&saved);
	return rows;
}

/* Of an array of smallint that has no null; palloc'd. */
static AttrNumber *
read_attnums(Datum value, int *n)
{
	ArrayType  *array = DatumGetArrayTypeP(value);

	*n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	return (AttrNumber *) ARR_DATA_PTR(array);
}

static void
read_key(QsKeySpec *key, const Datum *values)
{
	ArrayType  *types = DatumGetArrayTypeP(values[MIRROR_KEY_TYPES - 1]);
	int			n;
	AttrNumber *attnums = read_attnums(values[MIRROR_KEY_ATTNUMS - 1], &n);

	if (n < 1 || n > INDEX_MAX_KEYS || ArrayGetNItems(ARR_NDIM(types), ARR_DIMS(types)) != n)
		elog(ERROR, "unexpected key in table %s.mirror", QS_SCHEMA);
	key->rule = (QsKeyRule) DatumGetChar(values[MIRROR_KEY_RULE - 1]);
	key->n = n;
	memcpy(key->attnums, attnums, n * sizeof(AttrNumber));
	memcpy(key->types, ARR_DATA_PTR(types), n * sizeof(Oid));
}

static QsMirrorRow *
read_row(HeapTuple tuple, TupleDesc desc)
{
	QsMirrorRow *row = palloc0(sizeof(QsMirrorRow));
	Datum		values[MIRROR_COLUMNS + 16];
	bool		nulls[MIRROR_COLUMNS + 16];
	uint64		armed_by;

	/* A later version of the extension may have added columns. */
	if (desc->natts < MIRROR_COLUMNS || desc->natts > lengthof(values))
		elog(ERROR, "unexpected shape of table %s.mirror", QS_SCHEMA);
	heap_deform_tuple(tuple, desc, values, nulls);

	row->id = DatumGetInt64(values[MIRROR_ID - 1]);
	row->relid = DatumGetObjectId(values[MIRROR_RELID - 1]);
	armed_by = (uint64) DatumGetInt64(values[MIRROR_SYSTEM_IDENTIFIER - 1]);
	row->ours = qs_is_ours(armed_by, DatumGetObjectId(values[MIRROR_DATABASE - 1]));
	row->upgraded = row->ours && armed_by != GetSystemIdentifier();
	row->server = TextDatumGetCString(values[MIRROR_SERVER - 1]);
	row->collection = TextDatumGetCString(values[MIRROR_COLLECTION - 1]);
	read_key(&row->key, values);
	row->ncolumns = -1;
	if (!nulls[MIRROR_COLUMNS_THAT_COUNT - 1])
		row->columns = read_attnums(values[MIRROR_COLUMNS_THAT_COUNT - 1], &row->ncolumns);
	row->segments[0] = DatumGetObjectId(values[MIRROR_SEGMENT_A - 1]);
	row->segments[1] = DatumGetObjectId(values[MIRROR_SEGMENT_B - 1]);
	row->paused = DatumGetBool(values[MIRROR_PAUSED - 1]);
	row->resumed = DatumGetInt64(values[MIRROR_RESUMED - 1]);
	row->take_over = DatumGetInt64(values[MIRROR_TAKE_OVER - 1]);
	row->sweep = DatumGetInt64(values[MIRROR_SWEEP - 1]);
	row->dropped = DatumGetBool(values[MIRROR_DROPPED - 1]);
	row->drop_collection = DatumGetBool(values[MIRROR_DROP_COLLECTION - 1]);
	if (!nulls[MIRROR_REBUILDS - 1])
		row->rebuilds = DatumGetInt64(values[MIRROR_REBUILDS - 1]);
	if (!nulls[MIRROR_ALIAS - 1])
		row->alias = TextDatumGetCString(values[MIRROR_ALIAS - 1]);
	if (!nulls[MIRROR_REPLACED - 1])
		row->replaced = DatumGetTimestampTz(values[MIRROR_REPLACED - 1]);
	return row;
}

/* Rows of one relation, or of all (InvalidOid). */
static List *
read_rows(Oid relid)
{
	Oid			table = qs_internal_relation("mirror");
	List	   *rows = NIL;
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	if (!OidIsValid(table))
		return NIL;
	/* The extension may have been dropped since its OID was looked up. */
	rel = try_relation_open(table, AccessShareLock);
	if (rel == NULL)
		return NIL;
	ScanKeyInit(&key, MIRROR_RELID, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, OidIsValid(relid) ? qs_internal_relation("mirror_relid") : InvalidOid,
							  OidIsValid(relid), NULL, OidIsValid(relid) ? 1 : 0, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		rows = lappend(rows, read_row(tuple, RelationGetDescr(rel)));
	systable_endscan(scan);
	relation_close(rel, AccessShareLock);
	return rows;
}

/*
 * A database that is a copy has a row that is not ours, and may have got one of
 * its own beside it: ours goes first.
 */
static bool
goes_first(const QsMirrorRow *row, const QsMirrorRow *found)
{
	return found == NULL || row->ours;
}

QsMirrorRow *
qs_mirror_row_by_relid(Oid relid)
{
	QsMirrorRow *found = NULL;
	QsMirrorRow *rebuild = NULL;
	ListCell   *lc;

	foreach(lc, read_rows(relid))
	{
		QsMirrorRow *row = lfirst(lc);

		if (row->dropped)
			continue;
		if (row->rebuilds == 0 && goes_first(row, found))
			found = row;
		else if (row->rebuilds != 0 && goes_first(row, rebuild))
			rebuild = row;
	}
	if (found != NULL && rebuild != NULL && rebuild->ours == found->ours)
		found->rebuild = rebuild;
	return found;
}

List *
qs_mirror_rows(void)
{
	return read_rows(InvalidOid);
}
