/*
 * reader.c
 *		From a mirror's definition to the plans that read its rows.
 *
 * Sync worker.  What is copied from the definition holds for the reader's life;
 * names, the columns of "*" and the plans are made under the table's lock and made
 * anew when the table was renamed.  Making a plan runs the owner's code, so that
 * it is done where rows.c reads.
 */
#include "qdrant_sync.h"
#include "sync/reader.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* Names of the keys that are asked for, which no column should have. */
#define ASKED "_qs_asked"

static char *
copy_string(const char *string)
{
	return string == NULL ? NULL : pstrdup(string);
}

/*
 * One vector without a name is Qdrant's unnamed one and stands for itself; all
 * others are fields of an object, where an unnamed one would be the field "".
 */
static void
copy_vectors(QsReader *reader, const QsDefinition *definition)
{
	ListCell   *cell;

	reader->nvectors = list_length(definition->vectors);
	reader->vectors = palloc0(reader->nvectors * sizeof(QsReadVector));
	foreach(cell, definition->vectors)
	{
		QsColumn   *column = lfirst(cell);
		QsReadVector *vector = &reader->vectors[foreach_current_index(cell)];

		vector->name = copy_string(column->name);
		vector->expression = copy_string(column->expression);
		vector->attnum = column->attnum;
		vector->form.kind = definition->specs[foreach_current_index(cell)].kind;
		vector->form.dimension = definition->specs[foreach_current_index(cell)].size;
		reader->named |= column->name != NULL;
	}
	reader->named |= reader->nvectors > 1;
}

static List *
copy_path(List *path)
{
	List	   *copy = NIL;
	ListCell   *cell;

	foreach(cell, path)
		copy = lappend(copy, pstrdup(lfirst(cell)));
	return copy;
}

/* "*" is expanded when the plans are made: the table's columns are sure only under its lock. */
static void
copy_payload(QsReader *reader, const QsDefinition *definition)
{
	ListCell   *cell;

	reader->payload_all = definition->payload_all;
	reader->omit_nulls = definition->omit_nulls;
	if (reader->payload_all)
		return;
	reader->ndefined = list_length(definition->payload);
	reader->defined = palloc0(reader->ndefined * sizeof(QsReadField));
	foreach(cell, definition->payload)
	{
		QsColumn   *column = lfirst(cell);
		QsReadField *payload = &reader->defined[foreach_current_index(cell)];

		payload->name = copy_string(column->name);
		payload->path = copy_path(column->path);
		payload->expression = copy_string(column->expression);
		payload->attnum = column->attnum;
	}
}

QsReader *
qs_reader_create(const QsDefinition *definition, MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(parent, "qdrant_sync reader",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	QsReader   *reader = palloc0(sizeof(QsReader));

	reader->context = context;
	reader->relid = definition->relid;
	reader->partitioned = definition->partitioned;
	reader->key = definition->key;
	reader->key_order = definition->key.rule == QS_KEY_INTEGER ? QS_CHUNK_INTEGERS : QS_CHUNK_UUIDS;
	if (definition->key.rule == QS_KEY_HASHED)
		reader->key_writer = qs_key_writer(&definition->key, context);
	if (definition->row_filter != NULL)
		reader->row_filter = pstrdup(definition->row_filter->expression);
	copy_vectors(reader, definition);
	copy_payload(reader, definition);
	reader->compiled = AllocSetContextCreate(context, "qdrant_sync reader, compiled",
											 ALLOCSET_SMALL_SIZES);
	reader->row_context = AllocSetContextCreate(context, "qdrant_sync reader, row",
												ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&reader->json);
	initStringInfo(&reader->key_text);
	MemoryContextSwitchTo(caller);
	return reader;
}

/* Also after an ERROR in the middle of compiling. */
static void
forget_compiled(QsReader *reader)
{
	for (int i = 0; i < QS_PLAN_KINDS; i++)
	{
		if (reader->plans[i] != NULL)
			SPI_freeplan(reader->plans[i]);
		reader->plans[i] = NULL;
	}
	reader->relation = NULL;
	reader->leaf = InvalidOid;
	reader->npayload = 0;
	MemoryContextReset(reader->compiled);
}

void
qs_reader_free(QsReader *reader)
{
	forget_compiled(reader);
	MemoryContextDelete(reader->context);
}

void
qs_reader_want_versions(QsReader *reader)
{
	Assert(reader->relation == NULL);
	reader->versions = true;
}

uint64
qs_reader_version(const QsReader *reader)
{
	return reader->version;
}

void
qs_reader_set_collection(QsReader *reader, int vector, int dimension, bool half)
{
	Assert(vector >= 0 && vector < reader->nvectors);
	reader->vectors[vector].form.dimension = dimension;
	reader->vectors[vector].form.half = half;
}

/* --- compiling, under the table's lock --- */

/*
 * A plain column is named afresh from its number, so that a rename before the
 * plans are made does no harm; an expression is canonical text.
 */
const char *
qs_reader_column(QsReader *reader, AttrNumber attnum, const char *expression)
{
	char	   *name;

	if (attnum == InvalidAttrNumber)
		return psprintf("(%s)", expression);
	name = get_attname(reader->relid, attnum, true);
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("a mirrored column of table \"%s\" does not exist any more",
						get_rel_name(reader->relid))));
	return quote_identifier(name);
}

/* The name as a JSON string, then a colon. */
static char *
name_prefix(const char *name)
{
	StringInfoData prefix;

	initStringInfo(&prefix);
	qs_append_key(&prefix, name);
	return prefix.data;
}

/* The label is what the user calls it: the column, or the name after AS. */
static void
compile_vectors(QsReader *reader)
{
	for (int i = 0; i < reader->nvectors; i++)
	{
		QsReadVector *vector = &reader->vectors[i];

		vector->prefix = name_prefix(vector->name != NULL ? vector->name : "");
		vector->label = vector->attnum != InvalidAttrNumber ?
			get_attname(reader->relid, vector->attnum, true) : vector->name;
		if (vector->label == NULL)
			vector->label = "vector";
		vector->type = InvalidOid;
	}
}

static bool
is_vector_attribute(QsReader *reader, AttrNumber attnum)
{
	for (int i = 0; i < reader->nvectors; i++)
		if (reader->vectors[i].attnum == attnum)
			return true;
	return false;
}

/* The key's column is part of the payload as well: it can then be filtered by. */
static void
expand_all_columns(QsReader *reader)
{
	Relation	relation = relation_open(reader->relid, NoLock);
	TupleDesc	desc = RelationGetDescr(relation);

	reader->payload = palloc0(desc->natts * sizeof(QsReadField));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		QsReadField *field = &reader->payload[reader->npayload];

		if (attribute->attisdropped || is_vector_attribute(reader, attribute->attnum) ||
			qs_is_vector_type(attribute->atttypid))
			continue;
		field->name = pstrdup(NameStr(attribute->attname));
		field->path = list_make1(field->name);
		field->attnum = attribute->attnum;
		reader->npayload++;
	}
	relation_close(relation, NoLock);
}

static void
compile_payload(QsReader *reader)
{
	if (reader->payload_all)
		expand_all_columns(reader);
	else
	{
		reader->npayload = reader->ndefined;
		reader->payload = palloc(reader->ndefined * sizeof(QsReadField));
		memcpy(reader->payload, reader->defined, reader->ndefined * sizeof(QsReadField));
	}
	for (int i = 0; i < reader->npayload; i++)
		reader->payload[i].keys = qs_field_keys(reader->payload[i].path,
												i > 0 ? reader->payload[i - 1].path : NIL);
}

static char *
relation_name(Form_pg_class class)
{
	return quote_qualified_identifier(get_namespace_name(class->relnamespace),
									  NameStr(class->relname));
}

/*
 * Plans are revalidated from their text: a table that took over the name of this
 * one must not be read in its place.
 */
void
qs_reader_compile(QsReader *reader, Form_pg_class class)
{
	char	   *name = relation_name(class);
	MemoryContext caller;

	if (reader->relation != NULL && strcmp(reader->relation, name) == 0)
		return;
	forget_compiled(reader);
	caller = MemoryContextSwitchTo(reader->compiled);
	compile_vectors(reader);
	compile_payload(reader);
	reader->key_names = palloc(reader->key.n * sizeof(char *));
	for (int i = 0; i < reader->key.n; i++)
		reader->key_names[i] = pstrdup(qs_reader_column(reader, reader->key.attnums[i], NULL));
	reader->relation = pstrdup(name);
	MemoryContextSwitchTo(caller);
}

static void
append_point_columns(StringInfo sql, QsReader *reader)
{
	for (int i = 0; i < reader->nvectors; i++)
		appendStringInfo(sql, ", %s", qs_reader_column(reader, reader->vectors[i].attnum,
												 reader->vectors[i].expression));
	for (int i = 0; i < reader->npayload; i++)
		appendStringInfo(sql, ", %s", qs_reader_column(reader, reader->payload[i].attnum,
												 reader->payload[i].expression));
}

/* As encode_point decides it: a row is a point if one of its vectors is there. */
static void
append_has_vector(StringInfo sql, QsReader *reader)
{
	for (int i = 0; i < reader->nvectors; i++)
		appendStringInfo(sql, "%s%s IS NOT NULL", i == 0 ? " AND (" : " OR ",
						 qs_reader_column(reader, reader->vectors[i].attnum,
									reader->vectors[i].expression));
	appendStringInfoChar(sql, ')');
}

/* A hashed key is looked for as the texts of its columns, cast to their types. */
static void
append_asked_columns(StringInfo sql, QsReader *reader)
{
	for (int i = 0; i < reader->key.n; i++)
	{
		if (i > 0)
			appendStringInfoString(sql, " AND ");
		qs_append_key_condition(sql, reader->key_names[i], reader->key.types[i],
								psprintf(ASKED "%d", i + 1));
	}
}

static bool
is_by_keys(QsPlanKind kind)
{
	return kind == QS_PLAN_BY_KEYS || kind == QS_PLAN_EXISTING_KEYS;
}

static char *
leaf_name(QsReader *reader)
{
	Oid			leaf = reader->leaf;
	char	   *name = get_rel_name(leaf);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a partition of table %s does not exist any more", reader->relation)));
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(leaf)), name);
}

/*
 * An integer or a uuid is asked for as what it is, so that = is the operator of
 * the key's index.  Blocks are a range of tids, which needs no index.
 */
static void
append_from(StringInfo sql, QsReader *reader, QsPlanKind kind)
{
	if (!is_by_keys(kind))
		appendStringInfo(sql, "ONLY %s WHERE ctid >= $1 AND ctid < $2", leaf_name(reader));
	else if (reader->key.rule == QS_KEY_HASHED)
	{
		appendStringInfo(sql, "%s WHERE ", reader->relation);
		append_asked_columns(sql, reader);
	}
	else
		appendStringInfo(sql, "%s WHERE %s = ANY ($1)", reader->relation, reader->key_names[0]);
}

static void
append_select(StringInfo sql, QsReader *reader, QsPlanKind kind)
{
	appendStringInfoString(sql, "SELECT ");
	for (int i = 0; i < reader->key.n; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "", reader->key_names[i]);
	if (kind == QS_PLAN_BY_KEYS || kind == QS_PLAN_BY_BLOCKS)
		append_point_columns(sql, reader);
	if (kind == QS_PLAN_BY_KEYS && reader->versions)
		appendStringInfoString(sql, ", tableoid, ctid, xmin");
	appendStringInfoString(sql, " FROM ");
	append_from(sql, reader, kind);
	if (kind == QS_PLAN_EXISTING_KEYS)
		append_has_vector(sql, reader);
	/* Rows that cannot be read by blocks are read by their keys, where it is asked. */
	if (reader->row_filter != NULL && kind != QS_PLAN_KEYS_BY_BLOCKS)
		appendStringInfo(sql, " AND (%s)", reader->row_filter);
}

static void
append_list(StringInfo sql, const char *name, int n)
{
	for (int i = 0; i < n; i++)
		appendStringInfo(sql, "%s%s%d", i > 0 ? ", " : "", name, i + 1);
}

/*
 * Hashed keys come as arrays of texts, one for each column.  unnest takes several
 * only where no schema stands before it; the pinned search_path has no other.  OFFSET keeps the
 * planner, which knows nothing of the table's size to come, from any plan but
 * one look at the index for each key.
 */
static void
build_sql(StringInfo sql, QsReader *reader, QsPlanKind kind)
{
	initStringInfo(sql);
	if (!is_by_keys(kind) || reader->key.rule != QS_KEY_HASHED)
	{
		append_select(sql, reader, kind);
		return;
	}
	/* With several arguments, only unnest without its schema is understood. */
	appendStringInfoString(sql, "SELECT r.* FROM ROWS FROM (");
	for (int i = 1; i <= reader->key.n; i++)
		appendStringInfo(sql, "%spg_catalog.unnest($%d)", i > 1 ? ", " : "", i);
	appendStringInfoString(sql, ") AS " ASKED " (");
	append_list(sql, ASKED, reader->key.n);
	appendStringInfoString(sql, "), LATERAL (");
	append_select(sql, reader, kind);
	appendStringInfoString(sql, " OFFSET 0) AS r");
}

static int
plan_types(QsReader *reader, QsPlanKind kind, Oid *types)
{
	if (!is_by_keys(kind))
	{
		types[0] = types[1] = TIDOID;
		return 2;
	}
	for (int i = 0; i < reader->key.n; i++)
		types[i] = reader->key.rule == QS_KEY_HASHED ? TEXTARRAYOID
			: get_array_type(reader->key.types[i]);
	return reader->key.n;
}

static void
free_plan(QsReader *reader, QsPlanKind kind)
{
	if (reader->plans[kind] != NULL)
		SPI_freeplan(reader->plans[kind]);
	reader->plans[kind] = NULL;
}

void
qs_reader_set_leaf(QsReader *reader, Oid leaf)
{
	if (reader->leaf == leaf)
		return;
	free_plan(reader, QS_PLAN_BY_BLOCKS);
	free_plan(reader, QS_PLAN_KEYS_BY_BLOCKS);
	reader->leaf = leaf;
}

/*
 * Names are looked up under the pinned search_path, here and whenever the plan is
 * revalidated.  A plan is kept only once it is whole.
 */
SPIPlanPtr
qs_reader_plan(QsReader *reader, QsPlanKind kind)
{
	Oid			types[INDEX_MAX_KEYS];
	int			n = plan_types(reader, kind, types);
	StringInfoData sql;
	SPIPlanPtr	plan;

	if (reader->plans[kind] != NULL)
		return reader->plans[kind];
	build_sql(&sql, reader, kind);
	plan = SPI_prepare(sql.data, n, types);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	reader->plans[kind] = plan;
	return plan;
}
