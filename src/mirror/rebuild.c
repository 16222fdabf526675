/*
 * rebuild.c
 *		qdrant_rebuild and qdrant_abandon: a second mirror of a table, filled
 *		beside the one that serves, to take its place.
 *
 * Runs in the session that calls them; transactional DDL, as all of ddl.c.  The
 * new mirror has a row, segments and a task in the sync worker like any other;
 * its definition is a member of the definition that serves, so that a dump has
 * both and the table has one pair of triggers, which capture for both.  The
 * sync worker lets it take the other's place (sync/switch.c).
 */
#include "qdrant_sync.h"
#include "common/server.h"
#include "mirror/catalog.h"
#include "mirror/ddl.h"
#include "mirror/look.h"
#include "mirror/table.h"
#include "mirror/triggers.h"

#include "access/relation.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(qs_rebuild);
PG_FUNCTION_INFO_V1(qs_abandon);

/* Digits of the number in a name that we gave. */
#define MAX_DIGITS 9

/* ---- what is asked for ---- */

static const char *
first_said(const char *asked, const char *present)
{
	return asked != NULL ? asked : present;
}

/* "" is what qdrant_mirror does where nothing is said. */
static const char *
said_or_default(const char *asked, const char *present)
{
	const char *said = first_said(asked, present);

	return said != NULL && said[0] == '\0' ? NULL : said;
}

static void
complete(QsMirrorArguments *asked, const QsMirrorArguments *present, bool omit_nulls_said)
{
	asked->vector = said_or_default(asked->vector, present->vector);
	asked->payload = first_said(asked->payload, present->payload);
	asked->row_filter = said_or_default(asked->row_filter, present->row_filter);
	asked->key = said_or_default(asked->key, present->key);
	asked->distance = first_said(asked->distance, present->distance);
	asked->indexes = said_or_default(asked->indexes, present->indexes);
	asked->vectors_config = first_said(asked->vectors_config, present->vectors_config);
	asked->sparse_vectors_config = first_said(asked->sparse_vectors_config, present->sparse_vectors_config);
	asked->collection_config = first_said(asked->collection_config, present->collection_config);
	asked->server = first_said(asked->server, present->server);
	asked->alias = said_or_default(asked->alias, present->alias);
	if (!omit_nulls_said)
		asked->omit_nulls = present->omit_nulls;
}

static bool
is_taken(const char *server, const char *collection)
{
	ListCell   *lc;

	foreach(lc, qs_mirror_rows())
	{
		const QsMirrorRow *row = lfirst(lc);

		if (!row->dropped && strcmp(row->server, server) == 0 && strcmp(row->collection, collection) == 0)
			return true;
	}
	return false;
}

/* products, products_r1, products_r2 ... */
static char *
next_name(const char *server, const char *present)
{
	size_t		length = strlen(present);
	size_t		digits = 0;
	int			number = 0;
	char	   *name;

	while (digits < length && digits < MAX_DIGITS && isdigit((unsigned char) present[length - digits - 1]))
		digits++;
	if (digits > 0 && digits < MAX_DIGITS && length > digits + 2 &&
		strncmp(present + length - digits - 2, "_r", 2) == 0)
	{
		number = atoi(present + length - digits);
		length -= digits + 2;
	}
	do
	{
		name = psprintf("%.*s_r%d", (int) length, present, ++number);
	} while (is_taken(server, name));
	return name;
}

/* ---- what is refused ---- */

static void
check_rebuildable(Relation rel, const QsMirrorRow *present)
{
	const char *table = RelationGetRelationName(rel);

	if (present->rebuild != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("a rebuild of table \"%s\" is going on, into collection \"%s\"",
						table, present->rebuild->collection),
				 errhint("qdrant_abandon(%s) ends it.", qs_table_argument(rel))));
	if (!qs_triggers_are_whole(rel))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a trigger of %s on table \"%s\" is missing, disabled or altered", QS_EXTENSION, table),
				 errhint("qdrant_resume(%s) makes the triggers anew.", qs_table_argument(rel))));
}

static void
check_collection(const QsDefinition *definition, const QsMirrorRow *present)
{
	qs_ddl_refuse_shared(definition, false);
	if (strcmp(definition->server, present->server) == 0 &&
		strcmp(definition->collection, present->collection) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("collection \"%s\" is the one that table \"%s\" is mirrored into now",
						present->collection, definition->table),
				 errhint("Leave collection out, or give another name. Clients that need one name use an alias.")));
}

static bool
is_in_use(const char *alias, const QsMirrorRow *row, const QsDefinition *definition)
{
	if (row->dropped || !row->ours || strcmp(row->server, definition->server) != 0)
		return false;
	return strcmp(row->collection, alias) == 0 ||
		(row->relid != definition->relid && row->alias != NULL && strcmp(row->alias, alias) == 0);
}

/* Hazard 30: nothing can be both an alias and a collection. */
static void
check_alias(const QsDefinition *definition)
{
	const char *alias = definition->alias;
	ListCell   *lc;

	if (alias == NULL)
		return;
	qs_collection_check_name(alias);
	foreach(lc, qs_mirror_rows())
	{
		if (is_in_use(alias, lfirst(lc), definition) || strcmp(alias, definition->collection) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("\"%s\" cannot be the alias: it is the name of a mirror's collection, or another mirror's alias",
							alias),
					 errhint("Choose a name that nothing has. Clients that use the collection's own name have to change to the alias once.")));
	}
}

/* ---- qdrant_rebuild ---- */

typedef struct Plan
{
	const QsMirrorRow *present;
	QsDefinition *definition;
	QsServer   *server;
} Plan;

static void
read_present(Relation rel, QsMirrorArguments *present)
{
	QsMirrorTriggers triggers;

	if (!qs_mirror_triggers(rel, &triggers))
		elog(ERROR, "table \"%s\" has lost its trigger", RelationGetRelationName(rel));
	qs_arguments_read(triggers.row, present);
}

/* Everything that the catalogs can say about what was asked. */
static void
make_plan(Oid relid, FunctionCallInfo fcinfo, Plan *plan)
{
	QsMirrorArguments asked;
	QsMirrorArguments present;
	Relation	rel;

	plan->present = qs_ddl_own_mirror(relid);
	rel = qs_ddl_open_own(relid);
	check_rebuildable(rel, plan->present);
	read_present(rel, &present);
	qs_ddl_arguments(fcinfo, &asked);
	asked.alias = PG_ARGISNULL(ARG_ALIAS) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(ARG_ALIAS));
	complete(&asked, &present, !PG_ARGISNULL(ARG_OMIT_NULLS));
	plan->server = qs_server_get(asked.server, rel->rd_rel->relowner);
	asked.server = plan->server->name;
	if (asked.collection == NULL)
		asked.collection = next_name(asked.server, plan->present->collection);
	plan->definition = qs_definition_make(rel, &asked);
	check_collection(plan->definition, plan->present);
	check_alias(plan->definition);
	relation_close(rel, AccessShareLock);
}

/* As JSON is written everywhere else. */
static char *
rebuild_text(const QsDefinition *definition)
{
	Jsonb	   *object = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
															CStringGetDatum(qs_arguments_text(definition))));

	return JsonbToCString(NULL, &object->root, VARSIZE(object));
}

static void
arm_rebuild(const Plan *plan, bool take_over, bool keep_old)
{
	QsMirrorRow row = {.relid = plan->definition->relid};

	row.id = qs_ddl_arm(plan->definition, take_over);
	qs_ddl_update(&row, keep_old ? "rebuilds = $2, keep_old = true" : "rebuilds = $2", plan->present->id);
}

Datum
qs_rebuild(PG_FUNCTION_ARGS)
{
	Oid			relid = qs_ddl_source(fcinfo, "qdrant_rebuild");
	bool		take_over = !PG_ARGISNULL(ARG_TAKE_OVER) && PG_GETARG_BOOL(ARG_TAKE_OVER);
	bool		keep_old = !PG_ARGISNULL(ARG_KEEP_OLD) && PG_GETARG_BOOL(ARG_KEEP_OLD);
	Plan		plan;

	make_plan(relid, fcinfo, &plan);
	qs_look_at_collection(plan.server, plan.definition, take_over, false);
	if (plan.definition->alias != NULL)
		qs_look_at_alias(plan.server, plan.definition, plan.present->collection);
	qs_server_free(plan.server);

	qs_ddl_lock(relid, ShareRowExclusiveLock);
	make_plan(relid, fcinfo, &plan);
	qs_server_free(plan.server);
	arm_rebuild(&plan, take_over, keep_old);
	qs_triggers_set_rebuild(relid, rebuild_text(plan.definition));
	PG_RETURN_VOID();
}

/* ---- qdrant_abandon ---- */

/*
 * Writers are not waited for: who still captures for the rebuild finds no segment,
 * and goes on.  The row is locked before the trigger is written, as by the worker.
 */
Datum
qs_abandon(PG_FUNCTION_ARGS)
{
	Oid			relid = qs_ddl_source(fcinfo, "qdrant_abandon");
	QsMirrorRow *present;
	QsMirrorRow *rebuild;
	bool		defined;

	relation_close(qs_ddl_open_own(relid), AccessShareLock);
	qs_ddl_lock(relid, ShareUpdateExclusiveLock);
	present = qs_mirror_row_by_relid(relid);
	rebuild = present != NULL ? present->rebuild : NULL;
	defined = qs_triggers_have_rebuild(relid);
	if (rebuild == NULL && !defined)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no rebuild of table \"%s\" is going on", get_rel_name(relid))));
	if (rebuild != NULL)
		qs_ddl_end_rebuild(rebuild);
	if (defined)
		qs_triggers_set_rebuild(relid, NULL);
	PG_RETURN_VOID();
}
