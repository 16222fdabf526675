/*
 * operation_batch.c
 *		Checks and splits the operations of qdrant_batch_update_points.
 *
 * Runs in users' backends.  An operation stays whole and in its place; requests
 * end between two of them.
 */
#include "qdrant_sync.h"
#include "capture/field_path.h"
#include "capture/operation_batch.h"
#include "capture/points.h"
#include "capture/selector.h"

#include "utils/builtins.h"

/* What an operation has to have. */
#define NEEDS_POINTS 0x01		/* points with vectors, in full */
#define NEEDS_SELECTOR 0x02		/* "points" that are ids, or a "filter" */
#define NEEDS_PAYLOAD 0x04
#define NEEDS_KEYS 0x08
#define NEEDS_VECTOR 0x10		/* names of vectors */

typedef struct Kind
{
	const char *name;
	int			needs;
	const char *members[6];		/* all that it may have; NULL at the end */
} Kind;

static const Kind kinds[] = {
	{"upsert", NEEDS_POINTS, {"points", "shard_key", "update_filter", "update_mode"}},
	{"delete", NEEDS_SELECTOR, {"points", "filter", "shard_key"}},
	{"set_payload", NEEDS_SELECTOR | NEEDS_PAYLOAD, {"payload", "points", "filter", "key", "shard_key"}},
	{"overwrite_payload", NEEDS_SELECTOR | NEEDS_PAYLOAD, {"payload", "points", "filter", "key", "shard_key"}},
	{"delete_payload", NEEDS_SELECTOR | NEEDS_KEYS, {"keys", "points", "filter", "shard_key"}},
	{"clear_payload", NEEDS_SELECTOR, {"points", "filter", "shard_key"}},
	{"update_vectors", NEEDS_POINTS, {"points", "shard_key", "update_filter"}},
	{"delete_vectors", NEEDS_SELECTOR | NEEDS_VECTOR, {"vector", "points", "filter", "shard_key"}},
};

static QS_NORETURN void
refuse(const char *where, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s: %s", where, what),
			 errdetail("Positions count from 1.")));
	pg_unreachable();
}

static const Kind *
find_kind(const char *where, const char *name)
{
	for (int i = 0; i < lengthof(kinds); i++)
	{
		if (strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s: there is no operation \"%s\"", where, name),
			 errhint("Operations are upsert, delete, set_payload, overwrite_payload, delete_payload, "
					 "clear_payload, update_vectors and delete_vectors.")));
	return NULL;
}

static bool
is_member(const Kind *kind, const char *name)
{
	for (int i = 0; i < lengthof(kind->members) && kind->members[i] != NULL; i++)
	{
		if (strcmp(kind->members[i], name) == 0)
			return true;
	}
	return false;
}

static void
check_members(const char *where, const Kind *kind, JsonbContainer *body)
{
	JsonbIterator *iterator = JsonbIteratorInit(body);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		char	   *name;

		if (token != WJB_KEY)
			continue;
		name = pnstrdup(value.val.string.val, value.val.string.len);
		if (!is_member(kind, name))
			refuse(where, psprintf("\"%s\" is no part of it", name));
	}
}

/* NULL: it is not there, or null. */
static JsonbValue *
member(JsonbContainer *body, const char *name)
{
	JsonbValue *value = getKeyJsonValueFromContainer(body, name, strlen(name), NULL);

	return value != NULL && value->type == jbvNull ? NULL : value;
}

static JsonbContainer *
array_member(const char *where, JsonbContainer *body, const char *name)
{
	JsonbValue *value = member(body, name);

	if (value == NULL)
		refuse(where, psprintf("there is no \"%s\"", name));
	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		refuse(where, psprintf("\"%s\" is not an array", name));
	return value->val.binary.data;
}

static JsonbContainer *
object_member(const char *where, JsonbContainer *body, const char *name)
{
	JsonbValue *value = member(body, name);

	if (value == NULL)
		refuse(where, psprintf("there is no \"%s\"", name));
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		refuse(where, psprintf("\"%s\" is not an object", name));
	return value->val.binary.data;
}

static char *
text_of(const JsonbValue *string)
{
	return pnstrdup(string->val.string.val, string->val.string.len);
}

/* Of vectors, or paths of fields. */
static void
check_names(const char *where, JsonbContainer *body, const char *name, bool paths)
{
	JsonbContainer *names = array_member(where, body, name);

	for (int i = 0; i < JsonContainerSize(names); i++)
	{
		JsonbValue *value = getIthJsonbValueFromContainer(names, i);

		if (value->type != jbvString)
			refuse(where, psprintf("element %d of \"%s\" is not a string", i + 1, name));
		if (paths)
			qs_check_field_path(psprintf("%s: element %d of \"%s\"", where, i + 1, name), text_of(value));
	}
}

static void
check_payload(const char *where, JsonbContainer *body)
{
	JsonbValue *key = member(body, "key");

	qs_json_check(where, object_member(where, body, "payload"));
	if (key == NULL)
		return;
	if (key->type != jbvString)
		refuse(where, "\"key\" is not a string");
	qs_check_field_path(psprintf("%s: \"key\"", where), text_of(key));
}

static void
check_selector(const char *where, JsonbContainer *body)
{
	bool		has_points = member(body, "points") != NULL;

	if (has_points == (member(body, "filter") != NULL))
		refuse(where, "there is either \"points\" or \"filter\"");
	if (has_points)
		qs_check_id_list(where, array_member(where, body, "points"));
	else
		qs_check_filter(where, object_member(where, body, "filter"));
}

static void
check_body(const char *where, const Kind *kind, JsonbContainer *body, QsPointsCheck *points)
{
	check_members(where, kind, body);
	if (kind->needs & NEEDS_POINTS)
	{
		points->where = psprintf("%s, ", where);
		points->only_vectors = strcmp(kind->name, "update_vectors") == 0;
		qs_points_check(points, array_member(where, body, "points"));
	}
	if (kind->needs & NEEDS_SELECTOR)
		check_selector(where, body);
	if (kind->needs & NEEDS_PAYLOAD)
		check_payload(where, body);
	if (kind->needs & NEEDS_KEYS)
		check_names(where, body, "keys", true);
	if (kind->needs & NEEDS_VECTOR)
		check_names(where, body, "vector", false);
	if (member(body, "shard_key") != NULL)
		qs_check_shard_key(psprintf("%s: \"shard_key\"", where), member(body, "shard_key"));
	if (member(body, "update_filter") != NULL)
		qs_check_filter(where, object_member(where, body, "update_filter"));
}

/* {"upsert": {…}}: one name, one object. */
static void
check_operation(int position, JsonbValue *operation, QsPointsCheck *points)
{
	char	   *where = psprintf("operation %d", position);
	JsonbIterator *iterator;
	JsonbValue	name;
	JsonbValue	body;
	const Kind *kind;

	if (operation->type != jbvBinary || !JsonContainerIsObject(operation->val.binary.data) ||
		JsonContainerSize(operation->val.binary.data) != 1)
		refuse(where, "it is not an object with the name of one operation");
	iterator = JsonbIteratorInit(operation->val.binary.data);
	(void) JsonbIteratorNext(&iterator, &name, true);
	(void) JsonbIteratorNext(&iterator, &name, true);
	(void) JsonbIteratorNext(&iterator, &body, true);
	kind = find_kind(where, pnstrdup(name.val.string.val, name.val.string.len));
	where = psprintf("operation %d (%s)", position, kind->name);
	if (body.type != jbvBinary || !JsonContainerIsObject(body.val.binary.data))
		refuse(where, "it is not an object");
	check_body(where, kind, body.val.binary.data, points);
}

/* The iterator keeps its place, so this is linear; false: there are no more. */
static bool
next_operation(JsonbIterator **iterator, JsonbValue *operation, bool first)
{
	JsonbIteratorToken token = JsonbIteratorNext(iterator, operation, !first);

	while (token != WJB_DONE && token != WJB_ELEM)
		token = JsonbIteratorNext(iterator, operation, true);
	return token == WJB_ELEM;
}

void
qs_operation_batch_check(const Jsonb *operations)
{
	JsonbIterator *iterator;
	JsonbValue	operation;
	QsPointsCheck points = {0};

	if (!JB_ROOT_IS_ARRAY(operations) || JB_ROOT_IS_SCALAR(operations))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("update_operations must be a JSON array of operations"),
				 errhint("An operation is an object such as {\"delete\": {\"points\": [1, 2]}}.")));
	iterator = JsonbIteratorInit(unconstify(JsonbContainer *, &operations->root));
	for (int n = 1; next_operation(&iterator, &operation, n == 1); n++)
	{
		CHECK_FOR_INTERRUPTS();
		check_operation(n, &operation, &points);
	}
}

void
qs_operation_batch_write(const Jsonb *operations, QsBodySink sink, void *arg)
{
	JsonbIterator *iterator = JsonbIteratorInit(unconstify(JsonbContainer *, &operations->root));
	JsonbValue	operation;
	QsBodies	bodies = {.before = "{\"operations\":[", .after = "]}",
		.element = "operation", .sink = sink, .arg = arg};
	StringInfoData text;

	initStringInfo(&text);
	qs_bodies_begin(&bodies);
	for (int n = 1; next_operation(&iterator, &operation, n == 1); n++)
	{
		CHECK_FOR_INTERRUPTS();
		resetStringInfo(&text);
		JsonbToCString(&text, operation.val.binary.data, operation.val.binary.len);
		qs_bodies_add(&bodies, n, text.data, text.len);
	}
	qs_bodies_end(&bodies);
	pfree(text.data);
}
