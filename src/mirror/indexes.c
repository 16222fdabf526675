/*
 * indexes.c
 *		Payload indexes that a mirror asks for, from the user's text to fields and
 *		types of Qdrant's.
 *
 * Runs in sessions and in the sync worker.  A field is an identifier of SQL; dots
 * lead into nested fields, inside or outside of quotes.  Refuses fields that the
 * payload does not have: Qdrant would make an index that stays empty.
 */
#include "qdrant_sync.h"
#include "mirror/indexes.h"
#include "mirror/vectors.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

static const char *const index_types[] = {
	"keyword", "integer", "float", "bool", "geo", "datetime", "text", "uuid"
};

#define INDEX_TYPES "keyword, integer, float, bool, geo, datetime, text and uuid"

/* Of the payload's own writer: what it writes of a type. */
static const struct
{
	Oid			type;
	const char *index;
}			derived_types[] = {
	{INT2OID, "integer"},
	{INT4OID, "integer"},
	{INT8OID, "integer"},
	{OIDOID, "integer"},
	{FLOAT4OID, "float"},
	{FLOAT8OID, "float"},
	{NUMERICOID, "float"},
	{BOOLOID, "bool"},
	{DATEOID, "datetime"},
	{TIMESTAMPOID, "datetime"},
	{TIMESTAMPTZOID, "datetime"},
	{UUIDOID, "uuid"},
	{POINTOID, "geo"},
	{TEXTOID, "keyword"},
	{VARCHAROID, "keyword"},
	{BPCHAROID, "keyword"},
	{NAMEOID, "keyword"},
};

static QS_NORETURN void refuse_syntax(const char *list, const char *at);

static void
refuse_syntax(const char *list, const char *at)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 *at == '\0' ? errmsg("indexes ends where a field is missing: %s", list) :
			 errmsg("indexes is not understood at \"%s\"", at),
			 errhint("Write: field, or field type, separated by commas, such as 'category keyword, price'.")));
	pg_unreachable();
}

/* ---- words ---- */

static const char *
skip_space(const char *c)
{
	while (scanner_isspace(*c))
		c++;
	return c;
}

/* Behind the quoted identifier that begins at c, whose text is appended. */
static const char *
take_quoted(StringInfo out, const char *list, const char *c)
{
	const char *begin = c++;

	for (; *c != '\0'; c++)
	{
		if (*c != '"')
			appendStringInfoChar(out, *c);
		else if (c[1] == '"')
			appendStringInfoChar(out, *c++);
		else
			return c + 1;
	}
	refuse_syntax(list, begin);
}

static bool
is_word_char(char c)
{
	return c != '\0' && !scanner_isspace(c) && strchr(",\".()[]{}';:=", c) == NULL;
}

static const char *
take_word(StringInfo out, const char *list, const char *c)
{
	const char *begin = c;

	while (is_word_char(*c))
		c++;
	if (c == begin)
		refuse_syntax(list, begin);
	appendStringInfoString(out, downcase_identifier(begin, c - begin, false, false));
	return c;
}

/* Identifiers with dots between them; *name is palloc'd. */
static const char *
take_name(const char *list, const char *c, char **name)
{
	StringInfoData out;

	initStringInfo(&out);
	for (;;)
	{
		c = *c == '"' ? take_quoted(&out, list, c) : take_word(&out, list, c);
		if (*c != '.')
			break;
		appendStringInfoChar(&out, *c++);
	}
	*name = out.data;
	return c;
}

/* ---- types ---- */

static const char *
known_type(const char *type)
{
	for (int i = 0; i < lengthof(index_types); i++)
	{
		if (strcmp(type, index_types[i]) == 0)
			return index_types[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown type \"%s\" of a payload index", type),
			 errhint("Types of Qdrant's are " INDEX_TYPES ".")));
	return NULL;
}

/* NULL: the type does not say it. */
static const char *
derived_type(Oid type)
{
	Oid			element;
	Oid			output;
	bool		varlena;

	type = getBaseType(type);
	element = get_element_type(type);
	if (OidIsValid(element))
		return derived_type(element);
	for (int i = 0; i < lengthof(derived_types); i++)
	{
		if (derived_types[i].type == type)
			return derived_types[i].index;
	}
	getTypeOutputInfo(type, &output, &varlena);
	/* citext and its like are text with operators of their own. */
	return type_is_enum(type) || output == F_TEXTOUT ? "keyword" : NULL;
}

/* ---- fields ---- */

static const QsColumn *
find_field(List *payload, const char *field)
{
	ListCell   *lc;

	foreach(lc, payload)
	{
		const QsColumn *column = lfirst(lc);

		if (strcmp(column->name, field) == 0)
			return column;
	}
	return NULL;
}

static bool
is_path(const char *rest)
{
	return *rest == '.' || *rest == '[';
}

/* What is inside of a value that may be an object may be there. */
static bool
leads_into(List *payload, const char *field)
{
	ListCell   *lc;

	foreach(lc, payload)
	{
		const QsColumn *column = lfirst(lc);
		Oid			type = getBaseType(column->type);
		size_t		length = strlen(column->name);

		if (strncmp(column->name, field, length) == 0 && is_path(field + length) &&
			(type == JSONBOID || type == JSONOID || derived_type(type) == NULL))
			return true;
	}
	return false;
}

static char *
field_list(List *payload)
{
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, payload)
		appendStringInfo(&list, "%s%s", list.len == 0 ? "" : ", ",
						 quote_identifier(((const QsColumn *) lfirst(lc))->name));
	return list.data;
}

static void
require_field(List *payload, const char *field)
{
	if (strncmp(field, "_qs_", 4) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("the name \"%s\" is reserved", field),
				 errdetail("Names that begin with \"_qs_\" are used by %s itself.", QS_EXTENSION)));
	if (find_field(payload, field) != NULL || leads_into(payload, field))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the payload has no field \"%s\" to be indexed", field),
			 payload != NIL ? errhint("Its fields are: %s.", field_list(payload)) : 0));
}

static const char *
type_of_field(List *payload, const char *field)
{
	const QsColumn *column = find_field(payload, field);
	const char *type = column == NULL ? NULL : derived_type(column->type);

	if (type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 column == NULL ?
				 errmsg("the type of the index on \"%s\" is not known", field) :
				 errmsg("the type of the index on \"%s\" does not follow from type %s", field,
						format_type_be(column->type)),
				 errhint("Write it behind the field; types are " INDEX_TYPES ".")));
	return type;
}

static void
refuse_duplicate(List *indexes, const char *field)
{
	ListCell   *lc;

	foreach(lc, indexes)
	{
		if (strcmp(((QsIndex *) lfirst(lc))->field, field) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("field \"%s\" is twice in indexes", field)));
	}
}

/* ---- the list ---- */

/* Up to the next dot; quoted where it is not only letters, digits, _ and -. */
static const char *
append_key(StringInfo path, const char *key)
{
	size_t		length = strcspn(key, ".");
	bool		plain = strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") >= length;

	appendStringInfo(path, plain ? "%.*s" : "\"%.*s\"", (int) length, key);
	return key + length;
}

/* Whoever writes brackets or quotes into a field writes a path of Qdrant's. */
static char *
path_of(const char *field)
{
	StringInfoData path;

	if (strpbrk(field, "[]\"") != NULL)
		return pstrdup(field);
	initStringInfo(&path);
	for (;;)
	{
		field = append_key(&path, field);
		if (*field == '\0')
			return path.data;
		appendStringInfoChar(&path, *field++);
	}
}

static const char *
take_index(const char *list, const char *c, List *payload, List **indexes)
{
	QsIndex    *index = palloc(sizeof(QsIndex));
	char	   *field;
	char	   *type;

	c = skip_space(take_name(list, c, &field));
	require_field(payload, field);
	if (*c != ',' && *c != '\0')
	{
		c = skip_space(take_name(list, c, &type));
		index->type = known_type(type);
	}
	else
		index->type = type_of_field(payload, field);
	refuse_duplicate(*indexes, field);
	index->field = field;
	index->path = qs_utf8_text(path_of(field));
	*indexes = lappend(*indexes, index);
	return c;
}

List *
qs_indexes_resolve(const char *list, List *payload)
{
	const char *c = list ? skip_space(list) : "";
	List	   *indexes = NIL;

	while (*c != '\0')
	{
		c = take_index(list, c, payload, &indexes);
		if (*c == '\0')
			break;
		if (*c != ',')
			refuse_syntax(list, c);
		c = skip_space(c + 1);
		if (*c == '\0')
			refuse_syntax(list, c);
	}
	return indexes;
}

char *
qs_indexes_text(List *indexes)
{
	StringInfoData text;
	ListCell   *lc;

	initStringInfo(&text);
	foreach(lc, indexes)
	{
		const QsIndex *index = lfirst(lc);

		appendStringInfo(&text, "%s%s %s", text.len == 0 ? "" : ", ",
						 quote_identifier(index->field), index->type);
	}
	return text.len == 0 ? NULL : text.data;
}

/* The field under the name that its column has now, which is another one; NULL: it is none. */
static char *
renamed_field(Relation rel, const QsColumn *column, const char *field)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), column->attnum - 1);
	size_t		length = strlen(column->name);

	if (attribute->attisdropped || strncmp(column->name, field, length) != 0 ||
		(field[length] != '\0' && !is_path(field + length)))
		return NULL;
	return psprintf("%s%s", NameStr(attribute->attname), field + length);
}

void
qs_indexes_follow(Relation rel, QsDefinition *definition)
{
	ListCell   *lc;
	ListCell   *column;

	if (!definition->payload_all)
		return;
	foreach(lc, definition->index_list)
	{
		QsIndex    *index = lfirst(lc);
		char	   *field = NULL;

		foreach(column, definition->payload)
		{
			field = renamed_field(rel, lfirst(column), index->field);
			if (field != NULL)
				break;
		}
		if (field != NULL)
			index->field = field;
	}
	definition->indexes = qs_indexes_text(definition->index_list);
}
