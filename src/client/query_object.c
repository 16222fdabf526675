/*
 * query_object.c
 *		Looks into a query object of the caller's, which is else sent as it is.
 *
 * Runs in backends.  Refuses nothing: what is malformed, Qdrant judges.
 */
#include "qdrant_sync.h"

#include "client/query_object.h"

typedef struct Examples
{
	QsExampleTaker take;
	void	   *arg;
} Examples;

/* False: there is none, or null. */
static bool
member(JsonbContainer *object, const char *key, JsonbValue *value)
{
	return getKeyJsonValueFromContainer(object, key, strlen(key), value) != NULL && value->type != jbvNull;
}

static bool
is_array(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data);
}

static bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

bool
qs_query_object_has(Jsonb *query, const char *key)
{
	JsonbValue	value;

	return member(&query->root, key, &value);
}

/* ---- examples --------------------------------------------------------- */

/* Else a vector, dense, sparse or multi, or an inference object. */
static void
see_example(const Examples *examples, const JsonbValue *example)
{
	if (example->type == jbvNumeric || example->type == jbvString)
		examples->take(examples->arg, example);
}

static void
see_member(const Examples *examples, JsonbContainer *object, const char *key)
{
	JsonbValue	example;

	if (member(object, key, &example))
		see_example(examples, &example);
}

static void
see_pair(const Examples *examples, JsonbContainer *pair)
{
	see_member(examples, pair, "positive");
	see_member(examples, pair, "negative");
}

static void
see_feedback(const Examples *examples, JsonbContainer *item)
{
	see_member(examples, item, "example");
}

/* An array of objects, or one of them. */
static void
see_objects(const Examples *examples, const JsonbValue *value,
			void (*see) (const Examples *examples, JsonbContainer *object))
{
	if (is_object(value))
		see(examples, value->val.binary.data);
	else if (is_array(value))
	{
		for (int i = 0; i < JsonContainerSize(value->val.binary.data); i++)
		{
			JsonbValue *element = getIthJsonbValueFromContainer(value->val.binary.data, i);

			if (is_object(element))
				see(examples, element->val.binary.data);
		}
	}
}

static void
see_list(const Examples *examples, JsonbContainer *object, const char *key)
{
	JsonbValue	list;

	if (!member(object, key, &list))
		return;
	if (!is_array(&list))
		see_example(examples, &list);
	else
	{
		for (int i = 0; i < JsonContainerSize(list.val.binary.data); i++)
			see_example(examples, getIthJsonbValueFromContainer(list.val.binary.data, i));
	}
}

/* ---- kinds of queries ------------------------------------------------- */

static void
see_nothing(const Examples *examples, const JsonbValue *value)
{
}

static void
see_recommend(const Examples *examples, const JsonbValue *value)
{
	if (!is_object(value))
		return;
	see_list(examples, value->val.binary.data, "positive");
	see_list(examples, value->val.binary.data, "negative");
}

static void
see_context(const Examples *examples, const JsonbValue *value)
{
	see_objects(examples, value, see_pair);
}

static void
see_target_and(const Examples *examples, const JsonbValue *value, const char *key,
			   void (*see) (const Examples *examples, JsonbContainer *object))
{
	JsonbValue	objects;

	if (!is_object(value))
		return;
	see_member(examples, value->val.binary.data, "target");
	if (member(value->val.binary.data, key, &objects))
		see_objects(examples, &objects, see);
}

static void
see_discover(const Examples *examples, const JsonbValue *value)
{
	see_target_and(examples, value, "context", see_pair);
}

static void
see_relevance_feedback(const Examples *examples, const JsonbValue *value)
{
	see_target_and(examples, value, "feedback", see_feedback);
}

static const struct Kind
{
	const char *name;
	void		(*see) (const Examples *examples, const JsonbValue *value);
}			kinds[] = {
	{"nearest", see_example},
	{"recommend", see_recommend},
	{"discover", see_discover},
	{"context", see_context},
	{"relevance_feedback", see_relevance_feedback},
	{"order_by", see_nothing},
	{"sample", see_nothing},
};

/* Text or another object that Qdrant makes a vector of. */
static bool
is_inference(JsonbContainer *query)
{
	JsonbValue	value;
	int			known = member(query, "model", &value) + member(query, "options", &value);

	return member(query, "model", &value) && known + 1 == JsonContainerSize(query) &&
		(member(query, "text", &value) || member(query, "image", &value) || member(query, "object", &value));
}

/* Of one kind and with no other member: one more might make another query of it. */
bool
qs_query_object_ranks_alone(Jsonb *query, QsExampleTaker take, void *arg)
{
	Examples	examples = {take, arg};
	JsonbValue	value;

	if (is_inference(&query->root))
		return true;
	if (JB_ROOT_COUNT(query) != 1)
		return false;
	for (int i = 0; i < lengthof(kinds); i++)
	{
		if (!member(&query->root, kinds[i].name, &value))
			continue;
		kinds[i].see(&examples, &value);
		return true;
	}
	return false;
}
