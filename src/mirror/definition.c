/*
 * definition.c
 *		A mirror's definition: from what a user asks for to the arguments of a
 *		trigger, and from those to what the worker reads.
 *
 * Runs in sessions and in the sync worker.  The trigger's arguments are all
 * there is of a definition, so that pg_dump carries it with the table in all
 * its modes; they hold names, since attribute numbers do not survive a dump.
 * They belong to the table's owner, who can make such a trigger by hand:
 * reading them checks everything again and runs no user's code.
 */
#include "qdrant_sync.h"
#include "common/encode.h"
#include "mirror/arguments.h"
#include "mirror/catalog.h"
#include "mirror/select_list.h"
#include "mirror/table.h"

#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#define ARGUMENTS_VERSION "1"

/* As many as the document of a collection is read for. */
#define MAX_VECTORS 16

/* ---- names and types ---- */

void
qs_collection_check_name(const char *collection)
{
	const char *problem = NULL;

	if (collection[0] == '\0')
		problem = "it is empty";
	else if (strlen(collection) > QS_COLLECTION_MAX_LENGTH)
		problem = "it is too long";
	else if (strcmp(collection, ".") == 0 || strcmp(collection, "..") == 0)
		problem = "it is a path";
	else if (strstr(collection, "__qs_") != NULL)
		problem = "\"__qs_\" is reserved for aliases of mirrors";
	for (const char *p = collection; problem == NULL && *p != '\0'; p++)
	{
		if ((unsigned char) *p < ' ' || *p == 0x7f || strchr("<>:\"/\\|?*", *p) != NULL)
			problem = "Qdrant allows no control characters and none of < > : \" / \\ | ? *";
	}
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" cannot be the name of a collection: %s", collection, problem),
				 errhint("Give another name with collection => '...', of at most %d bytes.",
						 QS_COLLECTION_MAX_LENGTH)));
}

static const char *
known_distance(const char *distance)
{
	static const char *const distances[] = {"Cosine", "Dot", "Euclid", "Manhattan"};

	for (int i = 0; i < lengthof(distances); i++)
	{
		if (pg_strcasecmp(distance, distances[i]) == 0)
			return distances[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown distance \"%s\"", distance),
			 errhint("Distances are Cosine, Dot, Euclid and Manhattan.")));
	return NULL;
}

/* A vector of pgvector that no float array holds: halfvec, sparsevec. */
static bool
is_other_vector(Oid type)
{
	Oid			pgvector = get_extension_oid("vector", true);

	return OidIsValid(pgvector) && getExtensionOfObject(TypeRelationId, type) == pgvector &&
		qs_vector_type(type) == QS_VECTOR_NONE;
}

static bool
is_vector_attribute(Form_pg_attribute attribute)
{
	Oid			type = getBaseType(attribute->atttypid);

	return qs_vector_type(type) != QS_VECTOR_NONE || is_other_vector(type);
}

static void
check_vector_type(Relation rel, const QsColumn *column)
{
	if (qs_vector_type(column->type) != QS_VECTOR_NONE)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("%s is of type %s, which is not a vector", column->expression,
					format_type_be(column->type)),
			 is_other_vector(column->type) ?
			 errhint("This type is not supported yet. A cast to vector is: '%s::vector AS name'.",
					 column->expression) :
			 errhint("Vectors are columns of type real[], double precision[], or vector of the extension pgvector.")));
}

/* A value that has no type of its own cannot be written. */
static void
check_payload_type(const QsColumn *column)
{
	if (get_typtype(column->type) == TYPTYPE_PSEUDO)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("%s is of type %s, which cannot be part of a payload",
						column->expression, format_type_be(column->type))));
}

/* ---- lists ---- */

static List *
live_columns(Relation rel, bool vectors)
{
	TupleDesc	desc = RelationGetDescr(rel);
	List	   *columns = NIL;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && is_vector_attribute(attribute) == vectors)
			columns = lappend(columns, qs_plain_column(rel, i + 1));
	}
	return columns;
}

static char *
name_list(List *columns)
{
	StringInfoData names;
	ListCell   *lc;

	initStringInfo(&names);
	foreach(lc, columns)
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
						 ((QsColumn *) lfirst(lc))->expression);
	return names.data;
}

static List *
only_vector(Relation rel)
{
	List	   *columns = live_columns(rel, true);
	QsColumn   *column;

	if (columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("table \"%s\" has no column that is a vector", RelationGetRelationName(rel)),
				 errhint("Vectors are columns of type real[], double precision[], or vector of the extension pgvector. An expression is given with vector => 'expression'.")));
	if (list_length(columns) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_COLUMN),
				 errmsg("table \"%s\" has several columns that could be the vector: %s",
						RelationGetRelationName(rel), name_list(columns)),
				 errhint("Name one with vector => 'column', or several as named vectors.")));
	column = linitial(columns);
	column->name = NULL;
	return columns;
}

static List *
resolve_vectors(Relation rel, const char *vector, Oid plan_as)
{
	List	   *columns;
	ListCell   *lc;

	if (vector == NULL)
		columns = only_vector(rel);
	else
		columns = qs_select_list(rel, "vector", vector, true, plan_as);
	if (columns == NIL || list_length(columns) > MAX_VECTORS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a mirror has 1 to %d vectors, not %d", MAX_VECTORS, list_length(columns))));
	foreach(lc, columns)
		check_vector_type(rel, lfirst(lc));
	return columns;
}

static List *
resolve_payload(Relation rel, const char *payload, Oid plan_as)
{
	List	   *columns;
	ListCell   *lc;

	if (strcmp(payload, "*") == 0)
		return live_columns(rel, false);
	columns = qs_select_list(rel, "payload", payload, false, plan_as);
	foreach(lc, columns)
		check_payload_type(lfirst(lc));
	return columns;
}

static bool
is_lone_star(const char *list)
{
	const char *start = list + strspn(list, " \t\r\n");

	return *start == '*' && start[1 + strspn(start + 1, " \t\r\n")] == '\0';
}

/* ---- the whole ---- */

static void
set_key(QsDefinition *definition, Relation rel)
{
	AttrNumber	attnum = qs_mirror_key_column(rel);
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), attnum - 1);

	definition->key_attnum = attnum;
	definition->key_name = pstrdup(NameStr(attribute->attname));
	definition->key_type = getBaseType(attribute->atttypid);
}

static int
dimension_by_type(const QsDefinition *definition)
{
	const QsColumn *first = linitial(definition->vectors);

	return qs_vector_typmod_dimension(qs_vector_type(first->type), first->typmod);
}

static QsDefinition *
resolve(Relation rel, const QsMirrorArguments *arguments, Oid plan_as)
{
	QsDefinition *definition = palloc0(sizeof(QsDefinition));

	qs_mirror_check_table(rel);
	definition->relid = RelationGetRelid(rel);
	definition->owner = rel->rd_rel->relowner;
	definition->schema = get_namespace_name(RelationGetNamespace(rel));
	definition->table = pstrdup(RelationGetRelationName(rel));
	definition->server = pstrdup(arguments->server);
	definition->collection = pstrdup(arguments->collection ? arguments->collection :
									 RelationGetRelationName(rel));
	qs_collection_check_name(definition->collection);
	definition->distance = pstrdup(known_distance(arguments->distance));
	set_key(definition, rel);
	definition->vectors = resolve_vectors(rel, arguments->vector, plan_as);
	definition->dimension = dimension_by_type(definition);
	definition->payload_all = is_lone_star(arguments->payload);
	definition->payload = resolve_payload(rel, definition->payload_all ? "*" : arguments->payload,
										  plan_as);
	return definition;
}

QsDefinition *
qs_definition_make(Relation rel, const QsMirrorArguments *asked)
{
	return resolve(rel, asked, rel->rd_rel->relowner);
}

QsDefinition *
qs_definition_read(Oid relid)
{
	Relation	rel = table_open(relid, NoLock);
	QsDefinition *definition = NULL;
	QsMirrorTriggers triggers;
	QsMirrorArguments arguments;

	if (qs_mirror_triggers(rel, &triggers))
	{
		int			level;

		if (!qs_mirror_triggers_whole(&triggers))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a trigger of %s on table \"%s\" is missing, disabled or altered",
							QS_EXTENSION, RelationGetRelationName(rel)),
					 errhint("qdrant_resume('%s') makes the triggers anew and compares all rows.",
							 RelationGetRelationName(rel))));
		qs_arguments_read(triggers.row, &arguments);
		level = qs_pin_search_path();
		definition = resolve(rel, &arguments, InvalidOid);
		AtEOXact_GUC(false, level);
		if (strcmp(definition->key_name, arguments.key) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the primary key of table \"%s\" is not \"%s\" any more",
							RelationGetRelationName(rel), arguments.key),
					 errhint("Mirror the table anew: qdrant_unmirror, then qdrant_mirror.")));
	}
	table_close(rel, NoLock);
	return definition;
}

/* ---- the trigger ---- */

bool
qs_mirror_triggers(Relation rel, QsMirrorTriggers *triggers)
{
	Oid			row_function = qs_trigger_function("capture");
	Oid			truncate_function = qs_trigger_function("capture_truncate");
	TriggerDesc *desc = rel->trigdesc;

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

static bool
is_whole(const Trigger *trigger, int16 type)
{
	return trigger->tgtype == type && trigger->tgenabled == TRIGGER_FIRES_ALWAYS &&
		trigger->tgqual == NULL && trigger->tgnattr == 0;
}

bool
qs_mirror_triggers_whole(const QsMirrorTriggers *triggers)
{
	return triggers->row != NULL && triggers->truncate != NULL &&
		is_whole(triggers->row, TRIGGER_TYPE_ROW | TRIGGER_TYPE_INSERT |
				 TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE) &&
		is_whole(triggers->truncate, TRIGGER_TYPE_TRUNCATE);
}

static const char **
argument_place(QsMirrorArguments *arguments, const char *name)
{
	if (strcmp(name, "server") == 0)
		return &arguments->server;
	if (strcmp(name, "collection") == 0)
		return &arguments->collection;
	if (strcmp(name, "key") == 0)
		return &arguments->key;
	if (strcmp(name, "vector") == 0)
		return &arguments->vector;
	if (strcmp(name, "payload") == 0)
		return &arguments->payload;
	if (strcmp(name, "distance") == 0)
		return &arguments->distance;
	return NULL;
}

/*
 * Version 1 has these six, after the version itself; more means a later version.
 * Copies: the trigger is the relation cache's, which forgets it when the table
 * changes, as by an index being made beside us.
 */
void
qs_arguments_read(const Trigger *trigger, QsMirrorArguments *arguments)
{
	bool		known = trigger->tgnargs >= 2 &&
		strcmp(trigger->tgargs[0], "version") == 0 &&
		strcmp(trigger->tgargs[1], ARGUMENTS_VERSION) == 0;

	memset(arguments, 0, sizeof(QsMirrorArguments));
	for (int i = 2; known && i + 1 < trigger->tgnargs; i += 2)
	{
		const char **place = argument_place(arguments, trigger->tgargs[i]);

		if (place == NULL)
			known = false;
		else
			*place = pstrdup(trigger->tgargs[i + 1]);
	}
	if (!known || !arguments->server || !arguments->collection || !arguments->key ||
		!arguments->vector || !arguments->payload || !arguments->distance)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("the arguments of trigger \"%s\" are not a mirror's definition of version %s",
						trigger->tgname, ARGUMENTS_VERSION),
				 errhint("Drop the trigger, and mirror the table with qdrant_mirror.")));
}

static void
append_argument(StringInfo statement, const char *name, const char *value)
{
	appendStringInfo(statement, ", %s, %s", quote_literal_cstr(name), quote_literal_cstr(value));
}

char *
qs_arguments_trigger_statement(const QsDefinition *definition)
{
	StringInfoData statement;

	initStringInfo(&statement);
	appendStringInfo(&statement,
					 "CREATE TRIGGER %s AFTER INSERT OR UPDATE OR DELETE ON %s "
					 "FOR EACH ROW EXECUTE FUNCTION " QS_SCHEMA ".capture('version', '" ARGUMENTS_VERSION "'",
					 QS_TRIGGER, quote_qualified_identifier(definition->schema, definition->table));
	append_argument(&statement, "server", definition->server);
	append_argument(&statement, "collection", definition->collection);
	append_argument(&statement, "key", definition->key_name);
	append_argument(&statement, "vector", qs_select_list_text(definition->vectors, true));
	append_argument(&statement, "payload", definition->payload_all ? "*" :
					qs_select_list_text(definition->payload, false));
	append_argument(&statement, "distance", definition->distance);
	appendStringInfoChar(&statement, ')');
	return statement.data;
}
