/*
 * key.c
 *		Which columns identify a mirrored row, and by which rule its point's id is
 *		made of them.
 *
 * Runs in sessions and in the sync worker.  The rule follows from the columns
 * alone and not from the rows, so that a table has one rule whatever it holds:
 * one column of an integer type or uuid is the id itself, everything else a UUID
 * of version 5 over a text of the key (common/key_text.h).
 */
#include "qdrant_sync.h"
#include "common/key_text.h"
#include "mirror/key.h"
#include "mirror/select_list.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/transam.h"
#include "catalog/index.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static QS_NORETURN void refuse(Relation rel, int code, const char *why, const char *hint);

static void
refuse(Relation rel, int code, const char *why, const char *hint)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("\"%s\" cannot be mirrored: %s", RelationGetRelationName(rel), why),
			 errhint("%s", hint)));
	pg_unreachable();
}

/* ---- which columns ---- */

/* Their texts are names, which follow search_path and renames. */
static bool
is_object_name(Oid type)
{
	switch (type)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case REGCOLLATIONOID:
			return true;
		default:
			return false;
	}
}

static void
add_column(Relation rel, QsKeySpec *key, AttrNumber attnum)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), attnum - 1);

	if (is_object_name(getBaseType(attribute->atttypid)))
		refuse(rel, ERRCODE_FEATURE_NOT_SUPPORTED,
			   psprintf("column \"%s\" of its key is of type %s, whose text is not always the same",
						NameStr(attribute->attname), format_type_be(attribute->atttypid)),
			   "Name other columns that are unique and not null with key => 'column, ...'.");

	if (key->n == INDEX_MAX_KEYS)
		refuse(rel, ERRCODE_TOO_MANY_COLUMNS, "its key has too many columns",
			   "No unique index has as many.");
	for (int i = 0; i < key->n; i++)
	{
		if (key->attnums[i] == attnum)
			refuse(rel, ERRCODE_DUPLICATE_COLUMN,
				   psprintf("column \"%s\" is twice in its key", NameStr(attribute->attname)),
				   "Name each column once.");
	}
	key->attnums[key->n] = attnum;
	key->types[key->n++] = getBaseType(attribute->atttypid);
}

/* In the order of the index, also where its constraint is deferrable. */
static void
take_primary_key(Relation rel, QsKeySpec *key)
{
	Oid			constraint = InvalidOid;
	HeapTuple	tuple;
	Form_pg_index index;

	(void) get_primary_key_attnos(RelationGetRelid(rel), true, &constraint);
	if (!OidIsValid(constraint))
		refuse(rel, ERRCODE_INVALID_TABLE_DEFINITION, "it has no primary key",
			   "Name columns that are unique and not null with key => 'column, ...'.");
	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(get_constraint_index(constraint)));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for the index of constraint %u", constraint);
	index = (Form_pg_index) GETSTRUCT(tuple);
	for (int i = 0; i < index->indnkeyatts; i++)
		add_column(rel, key, index->indkey.values[i]);
	ReleaseSysCache(tuple);
}

static bool
is_cast_to_text(Node *node)
{
	TypeName   *type;

	if (!IsA(node, TypeCast))
		return false;
	type = ((TypeCast *) node)->typeName;
	return strcmp(strVal(llast(type->names)), "text") == 0 && type->arrayBounds == NIL;
}

/* One item: a column, or column::text, which sets *hashed. */
static AttrNumber
item_column(Relation rel, ResTarget *target, bool *hashed)
{
	Node	   *node = target->val;
	AttrNumber	attnum;
	ColumnRef  *column;

	if (is_cast_to_text(node))
	{
		*hashed = true;
		node = ((TypeCast *) node)->arg;
	}
	column = (ColumnRef *) node;
	if (!IsA(node, ColumnRef) || list_length(column->fields) != 1 ||
		!IsA(linitial(column->fields), String) || target->name != NULL)
		refuse(rel, ERRCODE_SYNTAX_ERROR, "its key must be a list of columns",
			   "Write key => 'column', 'column, column', or 'column::text' for ids that are UUIDs made of an integer.");
	attnum = get_attnum(RelationGetRelid(rel), strVal(linitial(column->fields)));
	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist",
						strVal(linitial(column->fields)), RelationGetRelationName(rel))));
	if (attnum < 0)
		refuse(rel, ERRCODE_INVALID_COLUMN_REFERENCE, "a system column cannot be its key",
			   "Name columns of the table.");
	return attnum;
}

static bool
take_list(Relation rel, const char *list, QsKeySpec *key)
{
	bool		hashed = false;
	ListCell   *lc;

	foreach(lc, qs_select_list_items(rel, "key", list))
		add_column(rel, key, item_column(rel, lfirst_node(ResTarget, lc), &hashed));
	return hashed;
}

/* ---- are they a key ---- */

static bool
is_over(const FormData_pg_index *index, const QsKeySpec *key)
{
	int			found = 0;

	if (index->indnkeyatts != key->n)
		return false;
	for (int i = 0; i < key->n; i++)
	{
		for (int j = 0; j < index->indnkeyatts; j++)
			found += index->indkey.values[j] == key->attnums[i];
	}
	return found == key->n;
}

/* What is unique only in part of the table, or by an expression, does not identify a row. */
static bool
identifies(Oid indexrelid, const QsKeySpec *key)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexrelid));
	Form_pg_index index;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	index = (Form_pg_index) GETSTRUCT(tuple);
	result = index->indisunique && index->indisvalid && index->indislive &&
		heap_attisnull(tuple, Anum_pg_index_indpred, NULL) &&
		heap_attisnull(tuple, Anum_pg_index_indexprs, NULL) && is_over(index, key);
	ReleaseSysCache(tuple);
	return result;
}

static void
check_unique(Relation rel, const QsKeySpec *key, const char *list)
{
	ListCell   *lc;

	for (int i = 0; i < key->n; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), key->attnums[i] - 1);

		if (!attribute->attnotnull)
			refuse(rel, ERRCODE_INVALID_TABLE_DEFINITION,
				   psprintf("column \"%s\" of its key may be null", NameStr(attribute->attname)),
				   "ALTER TABLE ... ALTER COLUMN ... SET NOT NULL.");
	}
	foreach(lc, RelationGetIndexList(rel))
	{
		if (identifies(lfirst_oid(lc), key))
			return;
	}
	refuse(rel, ERRCODE_INVALID_TABLE_DEFINITION,
		   psprintf("no unique index is over its key (%s)", list),
		   "CREATE UNIQUE INDEX over these columns, without WHERE and expressions.");
}

/* ---- the rule ---- */

static QsKeyRule
rule_of(const QsKeySpec *key)
{
	Oid			type = key->types[0];

	if (key->n > 1)
		return QS_KEY_HASHED;
	if (type == INT2OID || type == INT4OID || type == INT8OID)
		return QS_KEY_INTEGER;
	return type == UUIDOID ? QS_KEY_UUID : QS_KEY_HASHED;
}

/* The cast is written only where it says something. */
char *
qs_key_list(Relation rel, const QsKeySpec *key)
{
	bool		cast = key->rule != rule_of(key);
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < key->n; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), key->attnums[i] - 1);

		appendStringInfo(&text, "%s%s%s", i > 0 ? ", " : "",
						 quote_identifier(NameStr(attribute->attname)), cast ? "::text" : "");
	}
	return text.data;
}

void
qs_key_resolve(Relation rel, const char *list, QsKeySpec *key, char **text)
{
	bool		hashed = false;

	memset(key, 0, sizeof(QsKeySpec));
	if (list == NULL)
		take_primary_key(rel, key);
	else
	{
		hashed = take_list(rel, list, key);
		check_unique(rel, key, list);
	}
	key->rule = hashed ? QS_KEY_HASHED : rule_of(key);
	*text = qs_key_list(rel, key);
}

bool
qs_key_same_ids(const QsKeySpec *a, const QsKeySpec *b)
{
	if (a->rule != b->rule || a->n != b->n)
		return false;
	if (a->rule != QS_KEY_HASHED)
		return true;
	for (int i = 0; i < a->n; i++)
	{
		if (qs_key_text_family(a->types[i]) != qs_key_text_family(b->types[i]))
			return false;
	}
	return true;
}

bool
qs_key_reading_is_safe(Oid type)
{
	Oid			element = get_element_type(type);

	if (OidIsValid(element))
		return qs_key_reading_is_safe(element);
	switch (get_typtype(type))
	{
		case TYPTYPE_BASE:
		case TYPTYPE_ENUM:
			return true;
		case TYPTYPE_RANGE:
		case TYPTYPE_MULTIRANGE:
			return type < FirstNormalObjectId;
		default:
			return false;
	}
}
