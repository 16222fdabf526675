/*
 * query.c
 *		qdrant_query and qdrant_query_points: points of a collection; with
 *		_async, a ticket for them.
 *
 * Runs in backends.  Both ask Qdrant's query API; they differ in the names of
 * their arguments.
 */
#include "qdrant_sync.h"

#include "client/async.h"
#include "client/body.h"
#include "client/call_arguments.h"
#include "client/hits.h"
#include "client/query_argument.h"
#include "client/request.h"
#include "client/rights.h"
#include "common/rows_out.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(qs_query);
PG_FUNCTION_INFO_V1(qs_query_points);
PG_FUNCTION_INFO_V1(qs_query_async);
PG_FUNCTION_INFO_V1(qs_query_points_async);

#define DEFAULT_LIMIT 10

/* Positions of the arguments; -1: the function has no such argument. */
typedef struct Positions
{
	int			collection;
	const char *collection_name;	/* of the argument, for messages */
	int			query;
	int			using;
	int			prefetch;
	int			filter;
	int			params;
	int			limit;
	const char *limit_name;
	int			offset;
	int			with_payload;
	int			with_vectors;
	int			score_threshold;
	int			lookup_from;
	int			consistency;
	int			shard_key;
	int			timeout;
	int			server;
	int			payload_fields;
	int			vector_names;
} Positions;

static const Positions query_positions = {
	.collection = 0, .collection_name = "collection", .query = 1, .limit = 2,
	.limit_name = "k", .filter = 3, .score_threshold = 4, .using = 5,
	.with_payload = 6, .with_vectors = 7, .params = 8, .server = 9, .timeout = 10,
	.prefetch = -1, .offset = -1, .lookup_from = -1, .consistency = -1,
	.shard_key = -1, .payload_fields = -1, .vector_names = -1
};

static const Positions query_points_positions = {
	.collection = 0, .collection_name = "collection_name", .query = 1, .using = 2,
	.prefetch = 3, .filter = 4, .params = 5, .limit = 6, .limit_name = "limit",
	.offset = 7, .with_payload = 8, .with_vectors = 9, .score_threshold = 10,
	.lookup_from = 11, .consistency = 12, .shard_key = 13, .timeout = 14,
	.server = 15, .payload_fields = 16, .vector_names = 17
};

static bool
given(FunctionCallInfo fcinfo, int argno)
{
	return argno >= 0 && !PG_ARGISNULL(argno);
}

static void
add_jsonb(StringInfo body, const char *key, FunctionCallInfo fcinfo, int argno)
{
	if (given(fcinfo, argno))
		qs_body_jsonb(body, key, PG_GETARG_JSONB_P(argno));
}

/* Names alone say which are wanted; else the boolean says all or none. */
static void
add_selection(StringInfo body, const char *key, FunctionCallInfo fcinfo,
			  int flag, int names, bool if_null)
{
	if (given(fcinfo, names))
		qs_body_text_array(body, key, PG_GETARG_DATUM(names));
	else
		qs_body_bool(body, key, given(fcinfo, flag) ? PG_GETARG_BOOL(flag) : if_null);
}

static void
build_body(StringInfo body, FunctionCallInfo fcinfo, const Positions *at, const QsQuery *query)
{
	qs_body_begin(body);
	qs_body_key(body, "query");
	appendStringInfoString(body, query->json);
	if (given(fcinfo, at->using))
		qs_body_text(body, "using", text_to_cstring(PG_GETARG_TEXT_PP(at->using)));
	add_jsonb(body, "prefetch", fcinfo, at->prefetch);
	add_jsonb(body, "filter", fcinfo, at->filter);
	add_jsonb(body, "params", fcinfo, at->params);
	qs_body_int(body, "limit", qs_argument_int(fcinfo, at->limit, at->limit_name, 1, DEFAULT_LIMIT));
	if (given(fcinfo, at->offset))
		qs_body_int(body, "offset", qs_argument_int(fcinfo, at->offset, "offset", 0, 0));
	add_selection(body, "with_payload", fcinfo, at->with_payload, at->payload_fields, true);
	add_selection(body, "with_vector", fcinfo, at->with_vectors, at->vector_names, false);
	if (given(fcinfo, at->score_threshold))
		qs_body_float(body, "score_threshold", PG_GETARG_FLOAT8(at->score_threshold));
	add_jsonb(body, "lookup_from", fcinfo, at->lookup_from);
	add_jsonb(body, "shard_key", fcinfo, at->shard_key);
	qs_body_end(body);
}

static char *
build_path(FunctionCallInfo fcinfo, const Positions *at, const char *collection, int timeout)
{
	char	   *path = qs_collection_path(collection, "/points/query");

	path = psprintf("%s?timeout=%d", path, qs_timeout_seconds(timeout));
	if (given(fcinfo, at->consistency))
		path = psprintf("%s&consistency=%s", path,
						qs_check_consistency(text_to_cstring(PG_GETARG_TEXT_PP(at->consistency))));
	return path;
}

/* Returns the table whose mirror owns the collection. */
static Oid
check_rights(FunctionCallInfo fcinfo, const Positions *at, const QsServer *server,
			 const char *collection)
{
	Oid			table = qs_check_collection_read(server, collection);

	if (given(fcinfo, at->prefetch))
		qs_check_lookups(server, PG_GETARG_JSONB_P(at->prefetch));
	if (given(fcinfo, at->lookup_from))
		qs_check_lookups(server, PG_GETARG_JSONB_P(at->lookup_from));
	return table;
}

/* False for a NULL query, which needs no request. */
static bool
prepare(FunctionCallInfo fcinfo, const Positions *at, QsServer **server, QsRequest *request)
{
	char	   *collection = qs_argument_name(fcinfo, at->collection, at->collection_name);
	QsQuery		query;
	StringInfoData body;

	*server = qs_server_get(qs_argument_text(fcinfo, at->server), GetUserId());
	query = qs_query_argument(fcinfo, at->query);
	request->table = check_rights(fcinfo, at, *server, collection);
	if (query.kind == QS_QUERY_NULL)
		return false;
	build_body(&body, fcinfo, at, &query);
	request->server = *server;
	request->method = "POST";
	request->read = true;
	request->body = body.data;
	request->length = body.len;
	request->timeout = qs_timeout_of(*server, qs_argument_timeout(fcinfo, at->timeout));
	request->path = build_path(fcinfo, at, collection, request->timeout);
	return true;
}

static Datum
query(FunctionCallInfo fcinfo, const Positions *at)
{
	QsRowsOut	rows = qs_rows_out_begin(fcinfo);
	QsRequest	request = {0};
	QsServer   *server;
	QsHit	   *hits;
	int			n;

	if (!prepare(fcinfo, at, &server, &request))
		return (Datum) 0;
	hits = qs_hits_decode(server, qs_send_request(&request, true), &n);
	qs_server_free(server);
	for (int i = 0; i < n; i++)
	{
		Datum		values[QS_HIT_COLUMNS];
		bool		nulls[QS_HIT_COLUMNS];

		qs_hit_columns(&hits[i], values, nulls);
		qs_rows_out_put(&rows, values, nulls);
	}
	return (Datum) 0;
}

static Datum
query_async(FunctionCallInfo fcinfo, const Positions *at)
{
	QsRequest	request = {0};
	QsServer   *server;
	int64		ticket;

	if (!prepare(fcinfo, at, &server, &request))
		PG_RETURN_NULL();
	ticket = qs_async_submit(&request, QS_ANSWER_POINTS);
	qs_server_free(server);
	PG_RETURN_INT64(ticket);
}

Datum
qs_query(PG_FUNCTION_ARGS)
{
	return query(fcinfo, &query_positions);
}

Datum
qs_query_points(PG_FUNCTION_ARGS)
{
	return query(fcinfo, &query_points_positions);
}

Datum
qs_query_async(PG_FUNCTION_ARGS)
{
	return query_async(fcinfo, &query_positions);
}

Datum
qs_query_points_async(PG_FUNCTION_ARGS)
{
	return query_async(fcinfo, &query_points_positions);
}
