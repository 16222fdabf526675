/*
 * query_members.c
 *		Refuses members of a query's parts that Qdrant does not know: it ignores
 *		them, and a filter whose name is misspelt would be no filter.
 *
 * Runs in backends.  The tables have what any of Qdrant up to 1.18 and its Python
 * client up to 1.20 know.  What a member holds is for Qdrant to judge.
 */
#include "qdrant_sync.h"

#include "client/query_members.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"

typedef struct Model Model;

typedef struct Member
{
	const char *name;			/* NULL ends the list */
	const Model *model;			/* of its value, or of the elements of it; NULL: anything */
} Member;

struct Model
{
	const char *name;			/* as messages call it */
	Member		members[14];
};

static const Model quantization = {"quantization", {{"ignore"}, {"rescore"}, {"oversampling"}}};

static const Model acorn = {"acorn", {{"enable"}, {"max_selectivity"}}};

static const Model params = {"search params", {
		{"hnsw_ef"}, {"exact"}, {"quantization", &quantization}, {"indexed_only"},
		{"acorn", &acorn}, {"idf"}
}};

static const Model lookup_from = {"lookup_from", {{"collection"}, {"vector"}, {"shard_key"}}};

static const Model prefetch = {"prefetch", {
		{"prefetch", &prefetch}, {"query"}, {"using"}, {"filter"}, {"params", &params},
		{"score_threshold"}, {"limit"}, {"lookup_from", &lookup_from}
}};

static const Model query_request = {"query request", {
		{"prefetch", &prefetch}, {"query"}, {"using"}, {"filter"}, {"params", &params},
		{"score_threshold"}, {"limit"}, {"offset"}, {"with_vector"}, {"with_vectors"},
		{"with_payload"}, {"lookup_from", &lookup_from}, {"shard_key"}
}};

static const Member documents[] = {
	{"prefetch", &prefetch}, {"params", &params}, {"lookup_from", &lookup_from},
	{"searches", &query_request}, {NULL}
};

/* Arguments of the client's methods that REST calls otherwise. */
static const struct Renamed
{
	const char *argument;
	const char *member;
}			renamed[] = {
	{"query_filter", "filter"},
	{"search_params", "params"},
	{"shard_key_selector", "shard_key"},
};

static const Member *
find_member(const Member *members, const char *name)
{
	for (; members->name != NULL; members++)
	{
		if (strcmp(members->name, name) == 0)
			return members;
	}
	return NULL;
}

static char *
hint_for(const Model *model, const char *name)
{
	StringInfoData hint;

	for (int i = 0; i < lengthof(renamed); i++)
	{
		if (strcmp(renamed[i].argument, name) == 0 && find_member(model->members, renamed[i].member))
			return psprintf("Here it is called \"%s\".", renamed[i].member);
	}
	initStringInfo(&hint);
	for (const Member *member = model->members; member->name != NULL; member++)
		appendStringInfo(&hint, "%s%s", member == model->members ? "Its members are: " : ", ", member->name);
	appendStringInfoChar(&hint, '.');
	return hint.data;
}

static const Member *
known_member(const Model *model, const JsonbValue *key)
{
	char	   *name = pnstrdup(key->val.string.val, key->val.string.len);
	const Member *member = find_member(model->members, name);

	if (member == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s has no member \"%s\"", model->name, name),
				 errhint("%s", hint_for(model, name))));
	pfree(name);
	return member;
}

/* An object, or an array of them. */
static void
check(const Model *model, JsonbContainer *value)
{
	JsonbIterator *iterator = JsonbIteratorInit(value);
	JsonbIteratorToken token;
	JsonbValue	item;
	bool		inside = false;

	check_stack_depth();
	while ((token = JsonbIteratorNext(&iterator, &item, inside)) != WJB_DONE)
	{
		const Model *next = model;

		inside = true;
		if (token == WJB_KEY)
		{
			next = known_member(model, &item)->model;
			token = JsonbIteratorNext(&iterator, &item, true);
		}
		else if (token != WJB_ELEM)
			continue;
		if (next != NULL && item.type == jbvBinary)
			check(next, item.val.binary.data);
	}
}

void
qs_check_query_members(const char *key, Jsonb *value)
{
	const Member *document = find_member(documents, key);

	if (document == NULL)
		return;
	/* JSON null would be no lookup, and an id then one of the collection's own. */
	if (document->model == &lookup_from && !JB_ROOT_IS_OBJECT(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"lookup_from\" is not a JSON object"),
				 errhint("It is {\"collection\": \"...\", \"vector\": \"...\"}.")));
	check(document->model, &value->root);
}
