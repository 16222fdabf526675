/*
 * reader.c
 *		From a mirror's definition to the plans that read its rows.
 *
 * Sync worker.  What is copied from the definition holds for the reader's life;
 * names, the columns of "*" and the plans are made under the table's lock and made
 * anew when the table was renamed.  No user's code runs here: statements are
 * analysed, not planned.
 */
#include "qdrant_sync.h"
#include "sync/reader.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

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
		reader->named |= column->name != NULL;
	}
	reader->named |= reader->nvectors > 1;
	if (reader->nvectors > 0)
		reader->vectors[0].dimension = definition->dimension;
}

/* "*" is expanded when the plans are made: the table's columns are sure only under its lock. */
static void
copy_payload(QsReader *reader, const QsDefinition *definition)
{
	ListCell   *cell;

	reader->payload_all = definition->payload_all;
	if (reader->payload_all)
		return;
	reader->ndefined = list_length(definition->payload);
	reader->defined = palloc0(reader->ndefined * sizeof(QsReadField));
	foreach(cell, definition->payload)
	{
		QsColumn   *column = lfirst(cell);
		QsReadField *payload = &reader->defined[foreach_current_index(cell)];

		payload->name = copy_string(column->name);
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
	reader->key_attnum = definition->key.attnums[0];
	reader->key_type = definition->key.types[0];
	reader->key_kind = qs_chunk_kind_of(definition->key.types[0]);
	copy_vectors(reader, definition);
	copy_payload(reader, definition);
	reader->compiled = AllocSetContextCreate(context, "qdrant_sync reader, compiled",
											 ALLOCSET_SMALL_SIZES);
	reader->row_context = AllocSetContextCreate(context, "qdrant_sync reader, row",
												ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&reader->json);
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
qs_reader_set_dimension(QsReader *reader, int vector, int dimension)
{
	Assert(vector >= 0 && vector < reader->nvectors);
	reader->vectors[vector].dimension = dimension;
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

/* before, then the name as a JSON string, then a colon. */
static char *
name_prefix(const char *before, const char *name)
{
	StringInfoData prefix;
	char	   *message;

	initStringInfo(&prefix);
	appendStringInfoString(&prefix, before);
	message = qs_append_json_string(&prefix, name, strlen(name));
	if (message != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("column name \"%s\" cannot be sent: %s", name, message)));
	appendStringInfoChar(&prefix, ':');
	return prefix.data;
}

/* The label is what the user calls it: the column, or the name after AS. */
static void
compile_vectors(QsReader *reader)
{
	for (int i = 0; i < reader->nvectors; i++)
	{
		QsReadVector *vector = &reader->vectors[i];

		vector->prefix = name_prefix("", vector->name != NULL ? vector->name : "");
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

		if (attribute->attisdropped || is_vector_attribute(reader, attribute->attnum))
			continue;
		reader->payload[reader->npayload].name = pstrdup(NameStr(attribute->attname));
		reader->payload[reader->npayload].attnum = attribute->attnum;
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
	{
		QsReadField *column = &reader->payload[i];

		column->prefix = name_prefix(i > 0 ? "," : "", column->name);
		column->prefix_length = strlen(column->prefix);
	}
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
	reader->key = pstrdup(qs_reader_column(reader, reader->key_attnum, NULL));
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

/*
 * The key and its type are the table's own, so that = is the operator of its
 * primary key's index.  Blocks are a range of tids, which needs no index.
 */
static void
build_sql(StringInfo sql, QsReader *reader, QsPlanKind kind)
{
	bool		by_keys = kind == QS_PLAN_BY_KEYS || kind == QS_PLAN_EXISTING_KEYS;

	initStringInfo(sql);
	appendStringInfo(sql, "SELECT %s", reader->key);
	if (kind == QS_PLAN_BY_KEYS || kind == QS_PLAN_BY_BLOCKS)
		append_point_columns(sql, reader);
	appendStringInfo(sql, " FROM %s WHERE ", reader->relation);
	if (by_keys)
		appendStringInfo(sql, "%s = ANY ($1)", reader->key);
	else
		appendStringInfoString(sql, "ctid >= $1 AND ctid < $2");
	if (kind == QS_PLAN_EXISTING_KEYS)
		append_has_vector(sql, reader);
}

/*
 * Names are looked up under the pinned search_path, here and whenever the plan is
 * revalidated.  A plan is kept only once it is whole.
 */
SPIPlanPtr
qs_reader_plan(QsReader *reader, QsPlanKind kind)
{
	Oid			keys[] = {get_array_type(reader->key_type)};
	Oid			blocks[] = {TIDOID, TIDOID};
	bool		by_keys = kind == QS_PLAN_BY_KEYS || kind == QS_PLAN_EXISTING_KEYS;
	StringInfoData sql;
	SPIPlanPtr	plan;

	if (reader->plans[kind] != NULL)
		return reader->plans[kind];
	build_sql(&sql, reader, kind);
	plan = SPI_prepare(sql.data, by_keys ? 1 : 2, by_keys ? keys : blocks);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	reader->plans[kind] = plan;
	return plan;
}
