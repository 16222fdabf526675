/*
 * arguments.c
 *		A mirror's definition as the one argument of its trigger: a JSON object,
 *		written and read.
 *
 * Runs in sessions and in the sync worker.  The argument is all there is of a
 * definition, so that pg_dump carries it with the table in all its modes; it
 * holds names, since attribute numbers do not survive a dump.  One argument and
 * not a pair for each member, because PostgreSQL copies every argument at each
 * start of an executor.  It belongs to the table's owner, who can make such a
 * trigger by hand: what is read here is checked by definition.c.
 */
#include "qdrant_sync.h"
#include "common/parse_json.h"
#include "mirror/arguments.h"
#include "mirror/select_list.h"

#include "access/detoast.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#define ARGUMENTS_VERSION 1

typedef enum MemberKind
{
	MEMBER_TEXT,
	MEMBER_JSON,
	MEMBER_BOOL
} MemberKind;

/* Members of the object, beside "version". */
static const struct Member
{
	const char *name;
	MemberKind	kind;
	bool		required;
	size_t		offset;			/* in QsMirrorArguments */
}			members[] = {
	{"server", MEMBER_TEXT, true, offsetof(QsMirrorArguments, server)},
	{"collection", MEMBER_TEXT, true, offsetof(QsMirrorArguments, collection)},
	{"key", MEMBER_TEXT, true, offsetof(QsMirrorArguments, key)},
	{"vector", MEMBER_TEXT, true, offsetof(QsMirrorArguments, vector)},
	{"payload", MEMBER_TEXT, true, offsetof(QsMirrorArguments, payload)},
	{"row_filter", MEMBER_TEXT, false, offsetof(QsMirrorArguments, row_filter)},
	{"distance", MEMBER_TEXT, true, offsetof(QsMirrorArguments, distance)},
	{"indexes", MEMBER_TEXT, false, offsetof(QsMirrorArguments, indexes)},
	{"vectors_config", MEMBER_JSON, false, offsetof(QsMirrorArguments, vectors_config)},
	{"sparse_vectors_config", MEMBER_JSON, false, offsetof(QsMirrorArguments, sparse_vectors_config)},
	{"collection_config", MEMBER_JSON, false, offsetof(QsMirrorArguments, collection_config)},
	{"alias", MEMBER_TEXT, false, offsetof(QsMirrorArguments, alias)},
	{"rebuild", MEMBER_JSON, false, offsetof(QsMirrorArguments, rebuild)},
	{"omit_nulls", MEMBER_BOOL, false, offsetof(QsMirrorArguments, omit_nulls)},
};

/* ---- reading ---- */

static QS_NORETURN void refuse_argument(const Trigger *trigger);

static void
refuse_argument(const Trigger *trigger)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("the argument of trigger \"%s\" is not a mirror's definition of version %d",
					trigger->tgname, ARGUMENTS_VERSION),
			 errhint("Drop the trigger, and mirror the table with qdrant_mirror.")));
	pg_unreachable();
}

static const struct Member *
find_member(const JsonbValue *name)
{
	for (int i = 0; i < lengthof(members); i++)
	{
		if (strlen(members[i].name) == name->val.string.len &&
			memcmp(members[i].name, name->val.string.val, name->val.string.len) == 0)
			return &members[i];
	}
	return NULL;
}

/* False where the value is not of the member's kind. */
static bool
take_member(const struct Member *member, JsonbValue *value, QsMirrorArguments *arguments)
{
	void	   *place = (char *) arguments + member->offset;

	switch (member->kind)
	{
		case MEMBER_TEXT:
			if (value->type != jbvString)
				return false;
			*(char **) place = pnstrdup(value->val.string.val, value->val.string.len);
			return true;
		case MEMBER_JSON:
			if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
				return false;
			*(char **) place = JsonbToCString(NULL, value->val.binary.data, value->val.binary.len);
			return true;
		case MEMBER_BOOL:
			if (value->type != jbvBool)
				return false;
			*(bool *) place = value->val.boolean;
			return true;
	}
	return false;
}

static bool
is_our_version(const JsonbValue *value)
{
	return value->type == jbvNumeric &&
		DatumGetInt32(DirectFunctionCall1(numeric_int4, NumericGetDatum(value->val.numeric))) == ARGUMENTS_VERSION;
}

/* A member that we do not know is of a later version. */
static bool
take_members(Jsonb *object, QsMirrorArguments *arguments)
{
	JsonbIterator *iterator = JsonbIteratorInit(&object->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	JsonbValue	name = {0};
	bool		versioned = false;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		const struct Member *member;

		if (token == WJB_KEY)
			name = value;
		if (token != WJB_VALUE)
			continue;
		member = find_member(&name);
		if (member == NULL && name.val.string.len == 7 && strncmp(name.val.string.val, "version", 7) == 0)
			versioned = is_our_version(&value);
		else if (member == NULL || !take_member(member, &value, arguments))
			return false;
	}
	for (int i = 0; i < lengthof(members); i++)
	{
		if (members[i].required && *(char **) ((char *) arguments + members[i].offset) == NULL)
			return false;
	}
	return versioned;
}

static void
read_object(const Trigger *trigger, const char *text, QsMirrorArguments *arguments)
{
	Jsonb	   *object = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));

	memset(arguments, 0, sizeof(QsMirrorArguments));
	if (!JB_ROOT_IS_OBJECT(object) || !take_members(object, arguments))
		refuse_argument(trigger);
}

void
qs_arguments_read(const Trigger *trigger, QsMirrorArguments *arguments)
{
	if (trigger->tgnargs != 1)
		refuse_argument(trigger);
	read_object(trigger, trigger->tgargs[0], arguments);
}

bool
qs_arguments_read_rebuild(const Trigger *trigger, QsMirrorArguments *arguments)
{
	QsMirrorArguments whole;

	qs_arguments_read(trigger, &whole);
	if (whole.rebuild == NULL)
		return false;
	read_object(trigger, whole.rebuild, arguments);
	return true;
}

/* ---- writing ---- */

static void
append_name(StringInfo text, const char *name)
{
	if (text->data[text->len - 1] != '{')
		appendStringInfoString(text, ", ");
	escape_json(text, name);
	appendStringInfoString(text, ": ");
}

static void
append_text(StringInfo text, const char *name, const char *value)
{
	if (value == NULL)
		return;
	append_name(text, name);
	escape_json(text, value);
}

static void
append_json(StringInfo text, const char *name, const char *value)
{
	if (value == NULL)
		return;
	append_name(text, name);
	appendStringInfoString(text, value);
}

char *
qs_arguments_text(const QsDefinition *definition)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "{\"version\": %d", ARGUMENTS_VERSION);
	append_text(&text, "server", definition->server);
	append_text(&text, "collection", definition->collection);
	append_text(&text, "key", definition->key_text);
	append_text(&text, "vector", qs_select_list_text(definition->vectors, true));
	append_text(&text, "payload", definition->payload_all ? "*" :
				qs_select_list_text(definition->payload, false));
	append_text(&text, "row_filter", definition->row_filter ? definition->row_filter->expression : NULL);
	append_text(&text, "distance", definition->distance);
	append_text(&text, "indexes", definition->indexes);
	append_json(&text, "vectors_config", definition->vectors_config);
	append_json(&text, "sparse_vectors_config", definition->sparse_vectors_config);
	append_json(&text, "collection_config", definition->collection_config);
	if (definition->omit_nulls)
		append_json(&text, "omit_nulls", "true");
	append_text(&text, "alias", definition->alias);
	append_json(&text, "rebuild", definition->rebuild);
	appendStringInfoChar(&text, '}');
	return text.data;
}

/* ---- for the views ---- */

PG_FUNCTION_INFO_V1(qs_trigger_argument);

/* No definition has as much, and parsing more could take all memory. */
#define LONGEST_SHOWN (1024 * 1024)

static Jsonb *
shown_definition(Datum arguments)
{
	bytea	   *bytes;

	if (toast_raw_datum_size(arguments) > LONGEST_SHOWN)
		return NULL;
	bytes = DatumGetByteaPP(arguments);
	return qs_parse_json(pnstrdup(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)));
}

/*
 * Member of the definition in pg_trigger.tgargs, where each argument ends with a
 * zero byte, or with a third argument of the object that is its member; NULL where
 * that is no text.  Whatever the trigger has is no error: any owner could hide all
 * mirrors with it.
 */
Datum
qs_trigger_argument(PG_FUNCTION_ARGS)
{
	Jsonb	   *definition = shown_definition(PG_GETARG_DATUM(0));
	JsonbContainer *object = definition != NULL ? &definition->root : NULL;
	JsonbValue	value;

	for (int i = 1; i < PG_NARGS(); i++)
	{
		text	   *name = PG_GETARG_TEXT_PP(i);

		if (object == NULL || !JsonContainerIsObject(object) ||
			getKeyJsonValueFromContainer(object, VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name), &value) == NULL)
			PG_RETURN_NULL();
		object = value.type == jbvBinary ? value.val.binary.data : NULL;
	}
	if (value.type != jbvString)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text_with_len(value.val.string.val, value.val.string.len));
}
