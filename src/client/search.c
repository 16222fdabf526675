/*
 * search.c
 *		qdrant_search: rows of a mirrored table, in Qdrant's order.
 *
 * Runs in backends.  Asks Qdrant for ids and scores alone and joins them to the
 * table's rows under the caller's privileges, row security and snapshot.  A point
 * whose row is gone or hidden is passed over, and further points are asked for.
 */
#include "qdrant_sync.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "client/body.h"
#include "client/call_arguments.h"
#include "client/hits.h"
#include "client/live_rows.h"
#include "client/query_argument.h"
#include "client/request.h"
#include "client/rights.h"
#include "common/key_text.h"
#include "common/rows_out.h"
#include "commands/trigger.h"
#include "common/settings.h"
#include "executor/spi.h"
#include "mirror/definition.h"
#include "parser/parse_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(qs_search);

/* As many points beyond k are looked at before the search gives up. */
#define MOST_PASSED_OVER 10000

#define DEFAULT_K 10

enum
{
	ARG_SOURCE,
	ARG_QUERY,
	ARG_K,
	ARG_FILTER,
	ARG_SCORE_THRESHOLD,
	ARG_VECTOR_NAME,
	ARG_PARAMS,
	ARG_TIMEOUT
};

typedef struct Search
{
	FunctionCallInfo fcinfo;
	QsMirrorRow *mirror;
	QsServer   *server;
	QsQuery		query;
	int			k;
	TimestampTz deadline;
	int			timeout;		/* ms, as asked for; for messages and for Qdrant */
	StringInfoData seen;		/* ids that were answered, for must_not */
	int			seen_count;
	QsRowsOut	rows;
	int			found;
} Search;

/* ---- what is searched ------------------------------------------------- */

static Oid
source_relation(FunctionCallInfo fcinfo)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, ARG_SOURCE);
	Oid			relid = OidIsValid(type) && type != RECORDOID ? typeOrDomainTypeRelid(type) : InvalidOid;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("argument \"source\" is not of the row type of a table"),
				 errhint("Write NULL::name_of_the_table.")));
	return relid;
}

QS_NORETURN static void
refuse_relation(Oid relid)
{
	const char *name = get_rel_name(relid);

	if (get_rel_relkind(relid) == RELKIND_VIEW || get_rel_relkind(relid) == RELKIND_MATVIEW)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is a view, and only tables are mirrored", name),
				 errhint("Search the table, and join the view to its rows.")));
	if (OidIsValid(get_trigger_oid(relid, QS_TRIGGER, true)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mirror of table \"%s\" was restored or copied, and does not run here", name),
				 errhint("SELECT qdrant_resume('%s') starts it.", quote_identifier(name))));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" is not mirrored to Qdrant", name),
			 errhint("SELECT qdrant_mirror('%s') mirrors it.", quote_identifier(name))));
	pg_unreachable();
}

/* An integer may have become a bigint since the table was mirrored. */
static void
use_types_of_today(QsMirrorRow *mirror)
{
	for (int i = 0; i < mirror->key.n; i++)
	{
		Oid			type = get_atttype(mirror->relid, mirror->key.attnums[i]);

		if (!OidIsValid(type))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a column of the key of mirrored table \"%s\" was dropped",
							get_rel_name(mirror->relid)),
					 errhint("Mirror the table anew with qdrant_unmirror and qdrant_mirror.")));
		mirror->key.types[i] = getBaseType(type);
	}
}

static QsMirrorRow *
mirror_of(Oid relid)
{
	QsMirrorRow *mirror = qs_mirror_row_by_relid(relid);

	if (mirror == NULL || !mirror->ours)
		refuse_relation(relid);
	use_types_of_today(mirror);
	return mirror;
}

/*
 * Queries that name points would tell how near hidden rows are (hazard R9).  An
 * id alone is looked at under the caller's rights; the others are refused where
 * rows may be hidden.
 */
static void
check_query(Search *search)
{
	Oid			relid = search->mirror->relid;

	if (search->query.kind == QS_QUERY_OBJECT && qs_row_security_applies(relid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row security of table \"%s\" applies to you, and a query object may name rows that it hides",
						get_rel_name(relid)),
				 errhint("Search by a vector or by the key of a row.")));
	if (search->query.kind == QS_QUERY_ID && search->mirror->key.rule == QS_KEY_HASHED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("rows of table \"%s\" cannot be named by the id of a point", get_rel_name(relid)),
				 errdetail("Ids of its points are made of the text of its key."),
				 errhint("Search by the vector of the row.")));
	if (search->query.kind == QS_QUERY_ID && !qs_live_row_visible(search->mirror, search->query.json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("table \"%s\" has no row with key %s that you can see",
						get_rel_name(relid), search->query.json)));
}

/* ---- asking ----------------------------------------------------------- */

static void
add_filter(StringInfo body, const Search *search)
{
	FunctionCallInfo fcinfo = search->fcinfo;
	Jsonb	   *filter = qs_argument_jsonb(fcinfo, ARG_FILTER);

	if (search->seen_count == 0)
	{
		if (filter != NULL)
			qs_body_jsonb(body, "filter", filter);
		return;
	}
	qs_body_key(body, "filter");
	appendStringInfoChar(body, '{');
	if (filter != NULL)
	{
		appendStringInfoString(body, "\"must\":[");
		qs_append_jsonb(body, filter);
		appendStringInfoString(body, "],");
	}
	appendStringInfo(body, "\"must_not\":[{\"has_id\":[%s]}]}", search->seen.data);
}

static void
build_body(StringInfo body, const Search *search, int limit)
{
	FunctionCallInfo fcinfo = search->fcinfo;

	qs_body_begin(body);
	qs_body_key(body, "query");
	appendStringInfoString(body, search->query.json);
	add_filter(body, search);
	qs_body_int(body, "limit", limit);
	if (search->mirror->key.rule == QS_KEY_HASHED)
	{
		qs_body_key(body, "with_payload");
		appendStringInfoString(body, "[\"" QS_KEY_FIELD "\"]");
	}
	else
		qs_body_bool(body, "with_payload", false);
	qs_body_bool(body, "with_vector", false);
	if (!PG_ARGISNULL(ARG_SCORE_THRESHOLD))
		qs_body_float(body, "score_threshold", PG_GETARG_FLOAT4(ARG_SCORE_THRESHOLD));
	if (!PG_ARGISNULL(ARG_VECTOR_NAME))
		qs_body_text(body, "using", text_to_cstring(PG_GETARG_TEXT_PP(ARG_VECTOR_NAME)));
	if (!PG_ARGISNULL(ARG_PARAMS))
		qs_body_jsonb(body, "params", PG_GETARG_JSONB_P(ARG_PARAMS));
	qs_body_end(body);
}

static QsHit *
ask(Search *search, int limit, int *n)
{
	QsRequest	request = {.server = search->server, .method = "POST", .read = true};
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), search->deadline);
	StringInfoData body;

	request.missing_hint = "A new mirror's collection is made after the commit: see qdrant_mirrors.";
	build_body(&body, search, limit);
	request.body = body.data;
	request.length = body.len;
	request.timeout = Max(1, left);
	request.path = psprintf("%s?timeout=%d",
							qs_collection_path(search->mirror->collection, "/points/query"),
							qs_timeout_seconds(request.timeout));
	return qs_hits_decode(search->server, qs_send_request(&request, true), n);
}

static void
remember(Search *search, const QsHit *hits, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (search->seen_count++ > 0)
			appendStringInfoChar(&search->seen, ',');
		appendStringInfo(&search->seen, hits[i].is_uuid ? "\"%s\"" : "%s", hits[i].id);
	}
}

/* ---- rows ------------------------------------------------------------- */

static bool
take_row(void *arg, Datum row, const QsHit *hit)
{
	Search	   *search = arg;
	Datum		values[3];
	bool		nulls[3] = {false};

	values[0] = row;
	values[1] = Float4GetDatum(hit->score);
	nulls[1] = !hit->has_score;
	values[2] = Int32GetDatum(++search->found);
	qs_rows_out_put(&search->rows, values, nulls);
	return search->found < search->k;
}

/*
 * Asks in pages, the next twice as large, leaving out by id what was answered:
 * an offset would shift under writes.
 */
static void
run(Search *search)
{
	int64		most = (int64) search->k + MOST_PASSED_OVER;
	int			page = search->k;
	int			n;

	do
	{
		QsHit	   *hits;

		page = Min(page, most - search->seen_count);
		hits = ask(search, page, &n);
		qs_live_rows(search->mirror, hits, n, take_row, search);
		remember(search, hits, n);
		if (search->found >= search->k || n < page)
			return;
		page = Max(page, Min(page, MOST_PASSED_OVER) * 2);
	} while (search->seen_count < most);
	ereport(NOTICE,
			(errmsg("search stopped at %d points, of which %d have rows that you can see",
					search->seen_count, search->found),
			 errhint("A filter that leaves out what you cannot see finds more.")));
}

Datum
qs_search(PG_FUNCTION_ARGS)
{
	Search		search = {.fcinfo = fcinfo};
	Oid			relid = source_relation(fcinfo);

	search.rows = qs_rows_out_begin(fcinfo);
	search.mirror = mirror_of(relid);
	qs_check_select(relid);
	search.server = qs_server_get(search.mirror->server, GetUserId());
	search.query = qs_query_argument(fcinfo, ARG_QUERY);
	search.k = qs_argument_int(fcinfo, ARG_K, "k", 1, DEFAULT_K);
	search.timeout = qs_argument_timeout(fcinfo, ARG_TIMEOUT);
	if (search.timeout == 0)
		search.timeout = qs_request_timeout;
	search.deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), search.timeout);
	if (search.query.kind == QS_QUERY_NULL)
		return (Datum) 0;
	initStringInfo(&search.seen);
	check_query(&search);
	run(&search);
	qs_server_free(search.server);
	return (Datum) 0;
}
