/*
 * reads.c
 *		The client's reads, but for the single query (query.c): each a table of its
 *		arguments, a decoder of its answer, and a twin that returns a ticket for it.
 *
 * Runs in backends.
 */
#include "qdrant_sync.h"

#include "client/async.h"
#include "client/call_arguments.h"
#include "client/hits.h"
#include "client/method.h"
#include "common/rows_out.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

PG_FUNCTION_INFO_V1(qs_info);
PG_FUNCTION_INFO_V1(qs_get_collections);
PG_FUNCTION_INFO_V1(qs_get_collection);
PG_FUNCTION_INFO_V1(qs_collection_exists);
PG_FUNCTION_INFO_V1(qs_get_aliases);
PG_FUNCTION_INFO_V1(qs_get_collection_aliases);
PG_FUNCTION_INFO_V1(qs_retrieve);
PG_FUNCTION_INFO_V1(qs_scroll);
PG_FUNCTION_INFO_V1(qs_count);
PG_FUNCTION_INFO_V1(qs_facet);
PG_FUNCTION_INFO_V1(qs_query_batch_points);
PG_FUNCTION_INFO_V1(qs_query_batch_points_async);
PG_FUNCTION_INFO_V1(qs_query_points_groups);
PG_FUNCTION_INFO_V1(qs_search_matrix_pairs);
PG_FUNCTION_INFO_V1(qs_search_matrix_offsets);

/* ---- the tables ------------------------------------------------------- */

static const QsMethod info = {"GET", "/", false, QS_RIGHT_NONE, 0, 1, {{1, NULL, QS_ARG_OWN_TIMEOUT}}};

static const QsMethod get_collections = {"GET", "/collections", false, QS_RIGHT_NONE, 0, 1,
{{1, NULL, QS_ARG_OWN_TIMEOUT}}};

static const QsMethod get_aliases = {"GET", "/aliases", false, QS_RIGHT_NONE, 0, 1,
{{1, NULL, QS_ARG_OWN_TIMEOUT}}};

static const QsMethod get_collection = {"GET", "", true, QS_RIGHT_READ, 1, 1,
{{2, NULL, QS_ARG_OWN_TIMEOUT}}};

static const QsMethod collection_exists = {"GET", "/exists", true, QS_RIGHT_NONE, 1, 1,
{{2, NULL, QS_ARG_OWN_TIMEOUT}}};

static const QsMethod get_collection_aliases = {"GET", "/aliases", true, QS_RIGHT_NONE, 1, 1,
{{2, NULL, QS_ARG_OWN_TIMEOUT}}};

static const QsMethod retrieve = {"POST", "/points", true, QS_RIGHT_READ, 7, 6, {
		{1, "ids", QS_ARG_IDS},
		{2, "with_payload", QS_ARG_ALL_OR, 8},
		{3, "with_vector", QS_ARG_NONE_OR, 9},
		{5, "shard_key", QS_ARG_JSONB},
		{6, NULL, QS_ARG_TIMEOUT},
		{4, NULL, QS_ARG_CONSISTENCY}
}};

static const QsMethod scroll = {"POST", "/points/scroll", true, QS_RIGHT_READ, 10, 9, {
		{1, "filter", QS_ARG_JSONB},
		{2, "limit", QS_ARG_COUNT},
		{3, "order_by", QS_ARG_WORD},
		{4, "offset", QS_ARG_ID},
		{5, "with_payload", QS_ARG_ALL_OR, 11},
		{6, "with_vector", QS_ARG_NONE_OR, 12},
		{8, "shard_key", QS_ARG_JSONB},
		{9, NULL, QS_ARG_TIMEOUT},
		{7, NULL, QS_ARG_CONSISTENCY}
}};

static const QsMethod count = {"POST", "/points/count", true, QS_RIGHT_READ, 5, 4, {
		{1, "filter", QS_ARG_JSONB},
		{2, "exact", QS_ARG_BOOL},
		{3, "shard_key", QS_ARG_JSONB},
		{4, NULL, QS_ARG_TIMEOUT}
}};

static const QsMethod facet = {"POST", "/facet", true, QS_RIGHT_READ, 8, 7, {
		{1, "key", QS_ARG_NAME},
		{2, "filter", QS_ARG_JSONB},
		{3, "limit", QS_ARG_COUNT},
		{4, "exact", QS_ARG_BOOL},
		{7, "shard_key", QS_ARG_JSONB},
		{6, NULL, QS_ARG_TIMEOUT},
		{5, NULL, QS_ARG_CONSISTENCY}
}};

static const QsMethod query_batch_points = {"POST", "/points/query/batch", true, QS_RIGHT_READ, 4, 3, {
		{1, "searches", QS_ARG_LOOKUP},
		{3, NULL, QS_ARG_TIMEOUT},
		{2, NULL, QS_ARG_CONSISTENCY}
}};

static const QsMethod query_points_groups = {"POST", "/points/query/groups", true, QS_RIGHT_READ, 17, 16, {
		{1, "group_by", QS_ARG_NAME},
		{2, "query", QS_ARG_QUERY},
		{3, "using", QS_ARG_TEXT},
		{4, "prefetch", QS_ARG_LOOKUP},
		{5, "filter", QS_ARG_JSONB},
		{6, "params", QS_ARG_QUERY_PART},
		{7, "limit", QS_ARG_COUNT},
		{8, "group_size", QS_ARG_COUNT},
		{9, "with_payload", QS_ARG_ALL_OR, 18},
		{10, "with_vector", QS_ARG_NONE_OR, 19},
		{11, "score_threshold", QS_ARG_FLOAT},
		{12, "with_lookup", QS_ARG_LOOKUP_WORD},
		{13, "lookup_from", QS_ARG_LOOKUP},
		{15, "shard_key", QS_ARG_JSONB},
		{16, NULL, QS_ARG_TIMEOUT},
		{14, NULL, QS_ARG_CONSISTENCY}
}};

#define MATRIX(path) {"POST", path, true, QS_RIGHT_READ, 8, 7, { \
		{1, "filter", QS_ARG_JSONB}, \
		{2, "limit", QS_ARG_COUNT}, \
		{3, "sample", QS_ARG_COUNT}, \
		{4, "using", QS_ARG_TEXT}, \
		{7, "shard_key", QS_ARG_JSONB}, \
		{6, NULL, QS_ARG_TIMEOUT}, \
		{5, NULL, QS_ARG_CONSISTENCY} \
}}

static const QsMethod matrix_pairs = MATRIX("/points/search/matrix/pairs");
static const QsMethod matrix_offsets = MATRIX("/points/search/matrix/offsets");

/* ---- parts of answers ------------------------------------------------- */

static JsonbValue
member(const QsServer *server, JsonbContainer *object, const char *key)
{
	JsonbValue	value;

	if (!JsonContainerIsObject(object) ||
		getKeyJsonValueFromContainer(object, key, strlen(key), &value) == NULL)
		qs_answer_not_understood(server);
	return value;
}

static JsonbContainer *
array_of(const QsServer *server, JsonbValue value)
{
	if (value.type != jbvBinary || !JsonContainerIsArray(value.val.binary.data))
		qs_answer_not_understood(server);
	return value.val.binary.data;
}

static JsonbContainer *
member_array(const QsServer *server, JsonbContainer *object, const char *key)
{
	return array_of(server, member(server, object, key));
}

static Datum
name_member(const QsServer *server, JsonbContainer *object, const char *key)
{
	JsonbValue	value = member(server, object, key);

	if (value.type != jbvString)
		qs_answer_not_understood(server);
	return PointerGetDatum(cstring_to_text_with_len(value.val.string.val, value.val.string.len));
}

static Datum
id_member(const QsServer *server, JsonbContainer *object, const char *key)
{
	JsonbValue	value = member(server, object, key);

	return CStringGetTextDatum(qs_answer_id(server, &value));
}

/* How many there are: an integer that is not negative and fits into bigint. */
static int64
count_member(const QsServer *server, JsonbContainer *object)
{
	JsonbValue	value = member(server, object, "count");
	uint64		n;

	if (value.type != jbvNumeric)
		qs_answer_not_understood(server);
	/* An id has the digits of an integer below 2^64. */
	n = strtoull(qs_answer_id(server, &value), NULL, 10);
	if (n > PG_INT64_MAX)
		qs_answer_not_understood(server);
	return (int64) n;
}

static QsHit
hit_at(const QsServer *server, JsonbContainer *array, uint32 i)
{
	QsHit		hit = {0};

	qs_hit_decode(server, qs_answer_object(server, array, i), &hit);
	return hit;
}

/* ---- rows of names ---------------------------------------------------- */

static Datum
rows_of_texts(FunctionCallInfo fcinfo, const QsMethod *method, const char *list,
			  const char *first, const char *second)
{
	QsRowsOut	rows = qs_rows_out_begin(fcinfo);
	QsRequest	request;
	JsonbContainer *result;
	JsonbContainer *array;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	qs_method_request(fcinfo, method, &request);
	result = &qs_method_result(&request)->root;
	array = member_array(request.server, result, list);
	for (uint32 i = 0; i < JsonContainerSize(array); i++)
	{
		JsonbContainer *object = qs_answer_object(request.server, array, i);

		values[0] = name_member(request.server, object, first);
		if (second != NULL)
			values[1] = name_member(request.server, object, second);
		qs_rows_out_put(&rows, values, nulls);
	}
	return (Datum) 0;
}

Datum
qs_get_collections(PG_FUNCTION_ARGS)
{
	return rows_of_texts(fcinfo, &get_collections, "collections", "name", NULL);
}

Datum
qs_get_aliases(PG_FUNCTION_ARGS)
{
	return rows_of_texts(fcinfo, &get_aliases, "aliases", "alias_name", "collection_name");
}

Datum
qs_get_collection_aliases(PG_FUNCTION_ARGS)
{
	return rows_of_texts(fcinfo, &get_collection_aliases, "aliases", "alias_name", "collection_name");
}

/* ---- one value -------------------------------------------------------- */

/* The one answer without an envelope. */
Datum
qs_info(PG_FUNCTION_ARGS)
{
	QsRequest	request;
	QsAnswer   *answer;

	qs_method_request(fcinfo, &info, &request);
	answer = qs_method_send(&request);
	return JsonbPGetDatum(qs_answer_document(request.server, answer));
}

static Datum
document(FunctionCallInfo fcinfo, const QsMethod *method)
{
	QsRequest	request;

	qs_method_request(fcinfo, method, &request);
	return JsonbPGetDatum(qs_method_object(&request));
}

Datum
qs_get_collection(PG_FUNCTION_ARGS)
{
	return document(fcinfo, &get_collection);
}

Datum
qs_search_matrix_offsets(PG_FUNCTION_ARGS)
{
	return document(fcinfo, &matrix_offsets);
}

Datum
qs_collection_exists(PG_FUNCTION_ARGS)
{
	QsRequest	request;
	JsonbContainer *result;
	JsonbValue	exists;

	qs_method_request(fcinfo, &collection_exists, &request);
	result = &qs_method_result(&request)->root;
	exists = member(request.server, result, "exists");
	if (exists.type != jbvBool)
		qs_answer_not_understood(request.server);
	PG_RETURN_BOOL(exists.val.boolean);
}

Datum
qs_count(PG_FUNCTION_ARGS)
{
	QsRequest	request;
	JsonbContainer *result;

	qs_method_request(fcinfo, &count, &request);
	result = &qs_method_result(&request)->root;
	PG_RETURN_INT64(count_member(request.server, result));
}

/* ---- points ----------------------------------------------------------- */

Datum
qs_retrieve(PG_FUNCTION_ARGS)
{
	QsRowsOut	rows = qs_rows_out_begin(fcinfo);
	QsRequest	request;
	QsHit	   *hits;
	int			n;

	qs_method_request(fcinfo, &retrieve, &request);
	hits = qs_hits_of_result(request.server, qs_method_result(&request), &n);
	for (int i = 0; i < n; i++)
	{
		Datum		values[QS_HIT_COLUMNS];
		bool		nulls[QS_HIT_COLUMNS];

		qs_hit_columns(&hits[i], values, nulls);
		qs_rows_out_put(&rows, values, nulls);
	}
	return (Datum) 0;
}

/* No points: Qdrant has no further page either, so that nothing is lost. */
Datum
qs_scroll(PG_FUNCTION_ARGS)
{
	QsRowsOut	rows = qs_rows_out_begin(fcinfo);
	Datum		values[QS_HIT_COLUMNS + 1];
	bool		nulls[QS_HIT_COLUMNS + 1];
	QsRequest	request;
	JsonbContainer *result;
	JsonbContainer *points;

	qs_method_request(fcinfo, &scroll, &request);
	result = &qs_method_result(&request)->root;
	points = member_array(request.server, result, "points");
	nulls[QS_HIT_COLUMNS] = member(request.server, result, "next_page_offset").type == jbvNull;
	if (!nulls[QS_HIT_COLUMNS])
		values[QS_HIT_COLUMNS] = id_member(request.server, result, "next_page_offset");
	for (uint32 i = 0; i < JsonContainerSize(points); i++)
	{
		QsHit		hit = hit_at(request.server, points, i);

		qs_hit_columns(&hit, values, nulls);
		qs_rows_out_put(&rows, values, nulls);
	}
	return (Datum) 0;
}

/* n counts from 1, as arrays of SQL do. */
static void
put_batch(QsRowsOut *rows, const QsServer *server, JsonbContainer *points, int n)
{
	Datum		values[QS_HIT_COLUMNS + 1] = {Int32GetDatum(n)};
	bool		nulls[QS_HIT_COLUMNS + 1] = {false};

	for (uint32 i = 0; i < JsonContainerSize(points); i++)
	{
		QsHit		hit = hit_at(server, points, i);

		qs_hit_columns(&hit, values + 1, nulls + 1);
		qs_rows_out_put(rows, values, nulls);
	}
}

static void
check_requests(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(1))
		qs_refuse_null("requests");
	if (!JB_ROOT_IS_ARRAY(PG_GETARG_JSONB_P(1)) || JB_ROOT_IS_SCALAR(PG_GETARG_JSONB_P(1)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"requests\" must be a JSON array of query requests")));
}

Datum
qs_query_batch_points(PG_FUNCTION_ARGS)
{
	QsRowsOut	rows = qs_rows_out_begin(fcinfo);
	QsRequest	request;
	Jsonb	   *batch;

	check_requests(fcinfo);
	qs_method_request(fcinfo, &query_batch_points, &request);
	batch = qs_method_result(&request);
	if (!JB_ROOT_IS_ARRAY(batch) || JB_ROOT_IS_SCALAR(batch))
		qs_answer_not_understood(request.server);
	for (uint32 i = 0; i < JB_ROOT_COUNT(batch); i++)
		put_batch(&rows, request.server,
				  member_array(request.server, qs_answer_object(request.server, &batch->root, i), "points"),
				  i + 1);
	return (Datum) 0;
}

/* ---- groups, facets, pairs -------------------------------------------- */

static Datum
jsonb_member(JsonbContainer *object, const char *key, bool *is_null)
{
	JsonbValue	value;

	*is_null = getKeyJsonValueFromContainer(object, key, strlen(key), &value) == NULL ||
		value.type == jbvNull;
	return *is_null ? (Datum) 0 : JsonbPGetDatum(JsonbValueToJsonb(&value));
}

/* group_id, the hit, lookup */
static void
put_group(QsRowsOut *rows, const QsServer *server, JsonbContainer *group)
{
	JsonbContainer *hits = member_array(server, group, "hits");
	Datum		values[QS_HIT_COLUMNS + 2];
	bool		nulls[QS_HIT_COLUMNS + 2];

	values[0] = jsonb_member(group, "id", &nulls[0]);
	values[QS_HIT_COLUMNS + 1] = jsonb_member(group, "lookup", &nulls[QS_HIT_COLUMNS + 1]);
	for (uint32 i = 0; i < JsonContainerSize(hits); i++)
	{
		QsHit		hit = hit_at(server, hits, i);

		qs_hit_columns(&hit, values + 1, nulls + 1);
		qs_rows_out_put(rows, values, nulls);
	}
}

Datum
qs_query_points_groups(PG_FUNCTION_ARGS)
{
	QsRowsOut	rows = qs_rows_out_begin(fcinfo);
	QsRequest	request;
	JsonbContainer *result;
	JsonbContainer *groups;

	if (!qs_method_request(fcinfo, &query_points_groups, &request))
		return (Datum) 0;
	result = &qs_method_result(&request)->root;
	groups = member_array(request.server, result, "groups");
	for (uint32 i = 0; i < JsonContainerSize(groups); i++)
		put_group(&rows, request.server, qs_answer_object(request.server, groups, i));
	return (Datum) 0;
}

Datum
qs_facet(PG_FUNCTION_ARGS)
{
	QsRowsOut	rows = qs_rows_out_begin(fcinfo);
	QsRequest	request;
	JsonbContainer *result;
	JsonbContainer *hits;

	qs_method_request(fcinfo, &facet, &request);
	result = &qs_method_result(&request)->root;
	hits = member_array(request.server, result, "hits");
	for (uint32 i = 0; i < JsonContainerSize(hits); i++)
	{
		JsonbContainer *hit = qs_answer_object(request.server, hits, i);
		bool		nulls[2] = {false, false};
		Datum		values[2];

		values[0] = jsonb_member(hit, "value", &nulls[0]);
		values[1] = Int64GetDatum(count_member(request.server, hit));
		qs_rows_out_put(&rows, values, nulls);
	}
	return (Datum) 0;
}

Datum
qs_search_matrix_pairs(PG_FUNCTION_ARGS)
{
	QsRowsOut	rows = qs_rows_out_begin(fcinfo);
	QsRequest	request;
	JsonbContainer *result;
	JsonbContainer *pairs;

	qs_method_request(fcinfo, &matrix_pairs, &request);
	result = &qs_method_result(&request)->root;
	pairs = member_array(request.server, result, "pairs");
	for (uint32 i = 0; i < JsonContainerSize(pairs); i++)
	{
		JsonbContainer *pair = qs_answer_object(request.server, pairs, i);
		bool		nulls[3] = {false, false, false};
		float		score = 0;
		Datum		values[3];

		values[0] = id_member(request.server, pair, "a");
		values[1] = id_member(request.server, pair, "b");
		nulls[2] = !qs_answer_score(request.server, pair, &score);
		values[2] = Float4GetDatum(score);
		qs_rows_out_put(&rows, values, nulls);
	}
	return (Datum) 0;
}

/* ---- tickets ---------------------------------------------------------- */

static Datum
begin_read(FunctionCallInfo fcinfo, const QsMethod *method, QsAnswerKind kind)
{
	QsRequest	request;
	int64		ticket;

	if (!qs_method_request(fcinfo, method, &request))
		PG_RETURN_NULL();
	ticket = qs_async_submit(&request, kind);
	qs_server_free(unconstify(QsServer *, request.server));
	PG_RETURN_INT64(ticket);
}

#define TWIN(function, method, kind) \
	PG_FUNCTION_INFO_V1(function); \
	Datum function(PG_FUNCTION_ARGS) \
	{ \
		return begin_read(fcinfo, &(method), kind); \
	} \
	extern Datum function(PG_FUNCTION_ARGS)

TWIN(qs_info_async, info, QS_ANSWER_BARE);
TWIN(qs_get_collections_async, get_collections, QS_ANSWER_DOCUMENT);
TWIN(qs_get_collection_async, get_collection, QS_ANSWER_DOCUMENT);
TWIN(qs_collection_exists_async, collection_exists, QS_ANSWER_DOCUMENT);
TWIN(qs_get_aliases_async, get_aliases, QS_ANSWER_DOCUMENT);
TWIN(qs_get_collection_aliases_async, get_collection_aliases, QS_ANSWER_DOCUMENT);
TWIN(qs_retrieve_async, retrieve, QS_ANSWER_POINT_ARRAY);
TWIN(qs_scroll_async, scroll, QS_ANSWER_POINTS);
TWIN(qs_count_async, count, QS_ANSWER_DOCUMENT);
TWIN(qs_facet_async, facet, QS_ANSWER_DOCUMENT);
TWIN(qs_query_points_groups_async, query_points_groups, QS_ANSWER_DOCUMENT);
TWIN(qs_search_matrix_pairs_async, matrix_pairs, QS_ANSWER_DOCUMENT);
TWIN(qs_search_matrix_offsets_async, matrix_offsets, QS_ANSWER_DOCUMENT);

Datum
qs_query_batch_points_async(PG_FUNCTION_ARGS)
{
	check_requests(fcinfo);
	return begin_read(fcinfo, &query_batch_points, QS_ANSWER_DOCUMENT);
}
