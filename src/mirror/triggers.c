/*
 * triggers.c
 *		Makes, finds, completes and drops the triggers of a mirrored table, and
 *		keeps the definition in them.
 *
 * Runs in sessions; what is found is also asked for by the sync worker.
 */
#include "qdrant_sync.h"
#include "common/parse_json.h"
#include "mirror/arguments.h"
#include "mirror/catalog.h"
#include "mirror/servers_used.h"
#include "mirror/table.h"
#include "mirror/triggers.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* ---- finding ---- */

bool
qs_mirror_triggers(Relation rel, QsMirrorTriggers *triggers)
{
	Oid			row_function = qs_trigger_function("capture");
	Oid			truncate_function = qs_trigger_function("capture_truncate");
	TriggerDesc *desc = CopyTriggerDesc(rel->trigdesc);

	triggers->row = triggers->truncate = NULL;
	for (int i = 0; desc != NULL && i < desc->numtriggers; i++)
	{
		const Trigger *trigger = &desc->triggers[i];

		if (trigger->tgisinternal || !OidIsValid(trigger->tgfoid))
			continue;
		if (trigger->tgfoid == row_function && triggers->row == NULL)
			triggers->row = trigger;
		else if (trigger->tgfoid == truncate_function && triggers->truncate == NULL)
			triggers->truncate = trigger;
	}
	return triggers->row != NULL;
}

List *
qs_triggers_tables(void)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	List	   *relids = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_tgfoid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(qs_trigger_function("capture")));
	scan = systable_beginscan(catalog, InvalidOid, false, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);

		if (!OidIsValid(trigger->tgparentid))
			relids = list_append_unique_oid(relids, trigger->tgrelid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return relids;
}

static bool
is_whole(const Trigger *trigger, int16 type)
{
	return trigger != NULL && trigger->tgtype == type &&
		trigger->tgenabled == TRIGGER_FIRES_ALWAYS &&
		trigger->tgqual == NULL && trigger->tgnattr == 0;
}

static bool
relation_is_whole(Relation rel)
{
	QsMirrorTriggers triggers;

	(void) qs_mirror_triggers(rel, &triggers);
	return is_whole(triggers.row, TRIGGER_TYPE_ROW | TRIGGER_TYPE_INSERT |
					TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE) &&
		is_whole(triggers.truncate, TRIGGER_TYPE_TRUNCATE);
}

bool
qs_triggers_are_whole(Relation rel)
{
	ListCell   *lc;

	if (!relation_is_whole(rel))
		return false;
	foreach(lc, qs_leaves(RelationGetRelid(rel)))
	{
		Relation	leaf = try_relation_open(lfirst_oid(lc), AccessShareLock);
		bool		whole = leaf == NULL || relation_is_whole(leaf);

		if (leaf != NULL)
			relation_close(leaf, AccessShareLock);
		if (!whole)
			return false;
	}
	return true;
}

/* ---- making and dropping ---- */

static void
run_ddl(const char *statement)
{
	int			result = SPI_execute(statement, false, 0);

	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", statement, SPI_result_code_string(result));
}

static char *
relation_text(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}

/* With SPI connected. */
static void
make_truncate_trigger(Oid relid)
{
	const char *table = relation_text(relid);

	run_ddl(psprintf("CREATE TRIGGER %s AFTER TRUNCATE ON %s FOR EACH STATEMENT "
					 "EXECUTE FUNCTION " QS_SCHEMA ".capture_truncate()",
					 QS_TRUNCATE_TRIGGER, table));
	run_ddl(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s", table, QS_TRUNCATE_TRIGGER));
}

/* PostgreSQL clones row triggers to the partitions, and no others. */
void
qs_triggers_make(const QsDefinition *definition)
{
	const char *table = relation_text(definition->relid);
	ListCell   *lc;

	SPI_connect();
	run_ddl(psprintf("CREATE TRIGGER %s AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW "
					 "EXECUTE FUNCTION " QS_SCHEMA ".capture(%s)",
					 QS_TRIGGER, table, quote_literal_cstr(qs_arguments_text(definition))));
	run_ddl(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s", table, QS_TRIGGER));
	make_truncate_trigger(definition->relid);
	foreach(lc, qs_leaves(definition->relid))
		make_truncate_trigger(lfirst_oid(lc));
	SPI_finish();
	qs_note_servers_used(definition->relid);
}

/* The trigger that this one is a clone of; InvalidOid: none. */
static Oid
get_trigger_parent(Oid trigger)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			parent = InvalidOid;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(trigger));
	scan = systable_beginscan(catalog, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		parent = ((Form_pg_trigger) GETSTRUCT(tuple))->tgparentid;
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return parent;
}

/* Triggers of ours on a relation; a clone goes with the trigger that it is of. */
static void
find_triggers(Oid relid, char **row, char **truncate)
{
	Relation	rel = relation_open(relid, NoLock);
	QsMirrorTriggers triggers;

	(void) qs_mirror_triggers(rel, &triggers);
	*row = triggers.row != NULL && !OidIsValid(get_trigger_parent(triggers.row->tgoid))
		? pstrdup(triggers.row->tgname) : NULL;
	*truncate = triggers.truncate != NULL ? pstrdup(triggers.truncate->tgname) : NULL;
	relation_close(rel, NoLock);
}

static bool
drop_trigger(Oid relid, const char *name)
{
	if (name == NULL)
		return false;
	SPI_connect();
	run_ddl(psprintf("DROP TRIGGER %s ON %s", quote_identifier(name), relation_text(relid)));
	SPI_finish();
	return true;
}

/* The caller has locked the table.  True where there was one of ours. */
bool
qs_triggers_drop(Oid relid)
{
	List	   *relations = lcons_oid(relid, qs_leaves(relid));
	bool		found = false;
	ListCell   *lc;

	foreach(lc, relations)
	{
		char	   *row;
		char	   *truncate;

		find_triggers(lfirst_oid(lc), &row, &truncate);
		found |= drop_trigger(lfirst_oid(lc), row);
		found |= drop_trigger(lfirst_oid(lc), truncate);
	}
	return found;
}

/* ---- leaves that come and go ---- */

/* A leaf that is gone has none. */
static bool
has_truncate_trigger(Oid relid, bool *has_row)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	QsMirrorTriggers triggers;
	bool		result;

	*has_row = false;
	if (rel == NULL)
		return false;
	*has_row = qs_mirror_triggers(rel, &triggers);
	result = triggers.truncate != NULL;
	relation_close(rel, AccessShareLock);
	return result;
}

/* A partition may belong to somebody else than the table. */
static void
make_truncate_trigger_as_owner(Oid relid)
{
	QsIdentity	saved;

	qs_as_role(qs_relation_owner(relid), false, &saved);
	SPI_connect();
	make_truncate_trigger(relid);
	SPI_finish();
	qs_as_before(&saved);
}

void
qs_triggers_complete(Oid relid)
{
	ListCell   *lc;

	foreach(lc, qs_leaves(relid))
	{
		bool		has_row;

		if (!has_truncate_trigger(lfirst_oid(lc), &has_row) && has_row)
			make_truncate_trigger_as_owner(lfirst_oid(lc));
	}
}

void
qs_triggers_drop_detached(Oid relid)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		Oid			leaf = lfirst_oid(lc);
		bool		has_row;
		QsIdentity	saved;

		if (!has_truncate_trigger(leaf, &has_row) || has_row)
			continue;
		qs_as_role(qs_relation_owner(leaf), false, &saved);
		(void) drop_trigger(leaf, QS_TRUNCATE_TRIGGER);
		qs_as_before(&saved);
	}
}

/* ---- the argument ---- */

static void
write_argument(Relation catalog, HeapTuple tuple, const char *argument)
{
	int			length = strlen(argument) + 1;
	bytea	   *bytes = palloc(VARHDRSZ + length);
	Datum		values[Natts_pg_trigger] = {0};
	bool		nulls[Natts_pg_trigger] = {0};
	bool		replace[Natts_pg_trigger] = {0};
	HeapTuple	changed;

	SET_VARSIZE(bytes, VARHDRSZ + length);
	memcpy(VARDATA(bytes), argument, length);
	values[Anum_pg_trigger_tgargs - 1] = PointerGetDatum(bytes);
	replace[Anum_pg_trigger_tgargs - 1] = true;
	changed = heap_modify_tuple(tuple, RelationGetDescr(catalog), values, nulls, replace);
	CatalogTupleUpdate(catalog, &changed->t_self, changed);
	heap_freetuple(changed);
}

/* Triggers of that function on one relation. */
static void
set_argument(Relation catalog, Oid relid, Oid function, const char *argument)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(catalog, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (((Form_pg_trigger) GETSTRUCT(tuple))->tgfoid == function)
			write_argument(catalog, tuple, argument);
	}
	systable_endscan(scan);
	CacheInvalidateRelcacheByRelid(relid);
}

void
qs_triggers_set_argument(Oid relid, const char *argument)
{
	Relation	catalog = table_open(TriggerRelationId, RowExclusiveLock);
	Oid			function = qs_trigger_function("capture");
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
		set_argument(catalog, lfirst_oid(lc), function, argument);
	table_close(catalog, RowExclusiveLock);
	CommandCounterIncrement();
	qs_note_servers_used(relid);
}

/* ---- the definition of a rebuild ---- */

#define REBUILD "rebuild"

/* The argument as it is; NULL: it is no object. */
static Jsonb *
argument_of(const Trigger *trigger)
{
	Jsonb	   *argument = trigger->tgnargs == 1 ? qs_parse_json(trigger->tgargs[0]) : NULL;

	return argument != NULL && JB_ROOT_IS_OBJECT(argument) ? argument : NULL;
}

/* Of one table and not its leaves. */
static Jsonb *
get_argument(Oid relid)
{
	Relation	rel = relation_open(relid, NoLock);
	QsMirrorTriggers triggers;
	Jsonb	   *argument = NULL;

	if (qs_mirror_triggers(rel, &triggers))
		argument = argument_of(triggers.row);
	relation_close(rel, NoLock);
	return argument;
}

static JsonbValue *
get_rebuild(Jsonb *argument, JsonbValue *value)
{
	return argument == NULL ? NULL :
		getKeyJsonValueFromContainer(&argument->root, REBUILD, strlen(REBUILD), value);
}

static List *
add_server(List *names, JsonbContainer *definition)
{
	JsonbValue	value;

	if (getKeyJsonValueFromContainer(definition, "server", 6, &value) == NULL || value.type != jbvString)
		return names;
	return lappend(names, pnstrdup(value.val.string.val, value.val.string.len));
}

List *
qs_triggers_servers(const Trigger *trigger)
{
	Jsonb	   *argument = argument_of(trigger);
	JsonbValue	rebuild;
	List	   *names = NIL;

	if (argument != NULL)
		names = add_server(names, &argument->root);
	if (get_rebuild(argument, &rebuild) != NULL && rebuild.type == jbvBinary &&
		JsonContainerIsObject(rebuild.val.binary.data))
		names = add_server(names, rebuild.val.binary.data);
	return names;
}

bool
qs_triggers_have_rebuild(Oid relid)
{
	JsonbValue	value;

	return get_rebuild(get_argument(relid), &value) != NULL;
}

void
qs_triggers_set_rebuild(Oid relid, const char *rebuild)
{
	Jsonb	   *argument = get_argument(relid);
	Datum		changed;

	if (argument == NULL)
		elog(ERROR, "trigger of relation %u has no definition", relid);
	changed = DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(argument), CStringGetTextDatum(REBUILD));
	if (rebuild != NULL)
	{
		char	   *member = psprintf("{\"" REBUILD "\": %s}", rebuild);

		changed = DirectFunctionCall2(jsonb_concat, changed,
									  DirectFunctionCall1(jsonb_in, CStringGetDatum(member)));
	}
	argument = DatumGetJsonbP(changed);
	qs_triggers_set_argument(relid, JsonbToCString(NULL, &argument->root, VARSIZE(argument)));
}

bool
qs_triggers_serve_rebuild(Oid relid)
{
	JsonbValue	value;

	if (get_rebuild(get_argument(relid), &value) == NULL || value.type != jbvBinary)
		return false;
	qs_triggers_set_argument(relid, JsonbToCString(NULL, value.val.binary.data, value.val.binary.len));
	return true;
}
