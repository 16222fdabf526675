/*
 * definition.c
 *		A mirror's definition: from what a user asks for, or a trigger says, to
 *		what the worker reads.
 *
 * Runs in sessions and in the sync worker.  What a trigger says belongs to the
 * table's owner: everything is checked again when it is read, and what runs of the
 * owner's code meanwhile runs under that name (select_list.c).
 */
#include "qdrant_sync.h"
#include "mirror/arguments.h"
#include "mirror/catalog.h"
#include "mirror/indexes.h"
#include "mirror/field_names.h"
#include "mirror/key.h"
#include "mirror/select_list.h"
#include "mirror/table.h"
#include "mirror/triggers.h"
#include "mirror/vectors.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

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

/* What is a vector, in hints. */
#define VECTOR_TYPES "real[], double precision[], pgvector's vector, halfvec or sparsevec, or an array of vector"

static void
check_vector_type(const QsColumn *column)
{
	if (qs_vector_type(column->type) == QS_VECTOR_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("%s is of type %s, which is not a vector", column->expression,
						format_type_be(column->type)),
				 errhint("Vectors are of type " VECTOR_TYPES ". A jsonb of indices and values is a sparse vector.")));
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

/* Columns of the table whose types are those of vectors, or the others. */
static List *
live_columns(Relation rel, bool vectors)
{
	TupleDesc	desc = RelationGetDescr(rel);
	List	   *columns = NIL;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && qs_is_vector_type(attribute->atttypid) == vectors)
			columns = lappend(columns, qs_plain_column(rel, i + 1));
	}
	return columns;
}

/* Every column that is not a vector, neither by its type nor in this mirror. */
static List *
all_columns(Relation rel, List *vectors)
{
	List	   *columns = live_columns(rel, false);
	ListCell   *lc;
	ListCell   *vector;

	foreach(lc, columns)
	{
		foreach(vector, vectors)
		{
			if (((QsColumn *) lfirst(vector))->attnum == ((QsColumn *) lfirst(lc))->attnum)
				break;
		}
		if (vector != NULL)
			columns = foreach_delete_current(columns, lc);
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
				 errhint("Vectors are columns of type " VECTOR_TYPES ". A jsonb column or an expression is given with vector => 'expression AS name'.")));
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
resolve_vectors(Relation rel, const char *vector, bool plan)
{
	List	   *columns;
	ListCell   *lc;

	if (vector == NULL)
		columns = only_vector(rel);
	else
		columns = qs_select_list(rel, "vector", vector, true, plan);
	if (columns == NIL || list_length(columns) > MAX_VECTORS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a mirror has 1 to %d vectors, not %d", MAX_VECTORS, list_length(columns))));
	foreach(lc, columns)
		check_vector_type(lfirst(lc));
	return columns;
}

static List *
resolve_payload(Relation rel, const char *payload, List *vectors, bool plan)
{
	List	   *columns;
	ListCell   *lc;

	if (strcmp(payload, "*") == 0)
		columns = all_columns(rel, vectors);
	else
		columns = qs_select_list(rel, "payload", payload, false, plan);
	foreach(lc, columns)
		check_payload_type(lfirst(lc));
	return qs_payload_fields(columns);
}

static bool
is_lone_star(const char *list)
{
	const char *start = list + strspn(list, " \t\r\n");

	return *start == '*' && start[1 + strspn(start + 1, " \t\r\n")] == '\0';
}

/* ---- the whole ---- */

static Bitmapset *
add_used(Bitmapset *columns, List *list)
{
	ListCell   *lc;

	foreach(lc, list)
		columns = bms_add_members(columns, ((QsColumn *) lfirst(lc))->used);
	return columns;
}

/* A column that is computed when it is read is not in the tuples that a trigger compares. */
static bool
has_virtual(Relation rel, Bitmapset *columns)
{
#ifdef ATTRIBUTE_GENERATED_VIRTUAL
	int			attnum = -1;

	while ((attnum = bms_next_member(columns, attnum)) >= 0)
	{
		if (TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
			return true;
	}
#endif
	return false;
}

/* Where the payload is "*", a column that is added later counts, too. */
static void
set_columns(Relation rel, QsDefinition *definition)
{
	Bitmapset  *columns = NULL;

	for (int i = 0; i < definition->key.n; i++)
		columns = bms_add_member(columns, definition->key.attnums[i]);
	columns = add_used(columns, definition->vectors);
	columns = add_used(columns, definition->payload);
	if (definition->row_filter != NULL)
		columns = bms_add_members(columns, definition->row_filter->used);
	definition->columns = columns;
	definition->all_columns = definition->payload_all || has_virtual(rel, columns);
}

static bool
has_name(List *list, const char *name)
{
	ListCell   *lc;

	foreach(lc, list)
	{
		if (strcmp(((QsColumn *) lfirst(lc))->name, name) == 0)
			return true;
	}
	return false;
}

static bool
has_column(List *list, AttrNumber attnum)
{
	ListCell   *lc;

	foreach(lc, list)
	{
		if (((QsColumn *) lfirst(lc))->attnum == attnum)
			return true;
	}
	return false;
}

/*
 * Where ids say nothing of the key, its columns are fields of the payload, so that
 * they can be filtered by.
 */
static void
add_key_columns(Relation rel, QsDefinition *definition)
{
	if (definition->key.rule != QS_KEY_HASHED)
		return;
	for (int i = 0; i < definition->key.n; i++)
	{
		QsColumn   *column = qs_plain_column(rel, definition->key.attnums[i]);

		if (has_column(definition->payload, column->attnum) || has_name(definition->payload, column->name))
			continue;
		definition->payload = lappend(definition->payload, column);
	}
}

static QsDefinition *
resolve(Relation rel, const QsMirrorArguments *arguments, bool plan)
{
	QsDefinition *definition = palloc0(sizeof(QsDefinition));

	qs_mirror_check_table(rel);
	definition->relid = RelationGetRelid(rel);
	definition->owner = rel->rd_rel->relowner;
	definition->partitioned = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	definition->schema = get_namespace_name(RelationGetNamespace(rel));
	definition->table = pstrdup(RelationGetRelationName(rel));
	definition->server = pstrdup(arguments->server);
	definition->collection = pstrdup(arguments->collection ? arguments->collection :
									 RelationGetRelationName(rel));
	qs_collection_check_name(definition->collection);
	definition->distance = pstrdup(qs_known_distance(arguments->distance));
	qs_key_resolve(rel, arguments->key, &definition->key, &definition->key_text);
	definition->vectors = resolve_vectors(rel, arguments->vector, plan);
	qs_vectors_resolve(rel, arguments, plan, definition);
	definition->payload_all = is_lone_star(arguments->payload);
	definition->payload = resolve_payload(rel, definition->payload_all ? "*" : arguments->payload,
										  definition->vectors, plan);
	add_key_columns(rel, definition);
	definition->omit_nulls = arguments->omit_nulls;
	if (arguments->row_filter != NULL)
		definition->row_filter = qs_condition(rel, "row_filter", arguments->row_filter, plan);
	definition->index_list = qs_indexes_resolve(arguments->indexes, definition->payload);
	definition->indexes = qs_indexes_text(definition->index_list);
	definition->alias = arguments->alias != NULL ? pstrdup(arguments->alias) : NULL;
	definition->rebuild = arguments->rebuild != NULL ? pstrdup(arguments->rebuild) : NULL;
	set_columns(rel, definition);
	return definition;
}

QsDefinition *
qs_definition_make(Relation rel, const QsMirrorArguments *asked)
{
	return resolve(rel, asked, true);
}

QsDefinition *
qs_definition_resolve(Relation rel, const QsMirrorArguments *arguments)
{
	return resolve(rel, arguments, false);
}

static QsDefinition *
read_trigger(Relation rel, const Trigger *trigger, bool rebuild)
{
	QsDefinition *definition = NULL;
	QsMirrorArguments arguments;
	int			level = qs_pin_search_path();
	bool		found = true;

	if (rebuild)
		found = qs_arguments_read_rebuild(trigger, &arguments);
	else
		qs_arguments_read(trigger, &arguments);
	if (found)
		definition = resolve(rel, &arguments, false);
	AtEOXact_GUC(false, level);
	return definition;
}

QsDefinition *
qs_definition_read(Oid relid, bool rebuild)
{
	Relation	rel = table_open(relid, NoLock);
	QsDefinition *definition = NULL;
	QsMirrorTriggers triggers;

	if (qs_mirror_triggers(rel, &triggers))
	{
		if (!qs_triggers_are_whole(rel))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a trigger of %s on table \"%s\" is missing, disabled or altered",
							QS_EXTENSION, RelationGetRelationName(rel)),
					 errhint("qdrant_resume(%s) makes the triggers anew and compares all rows.",
							 qs_table_argument(rel))));
		definition = read_trigger(rel, triggers.row, rebuild);
	}
	table_close(rel, NoLock);
	return definition;
}
