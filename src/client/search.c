/*
 * search.c
 *		qdrant_search: rows of a mirrored table, in Qdrant's order.
 *
 * Runs in backends.  Asks Qdrant for ids and scores alone and joins them to the
 * table's rows under the caller's privileges, row security and snapshot.  A point
 * whose row is gone, hidden or none of the mirror's any more is passed over, and
 * further points are asked for.
 */
#include "qdrant_sync.h"

#include "access/table.h"
#include "access/transam.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "client/body.h"
#include "client/call_arguments.h"
#include "client/example_row.h"
#include "client/hits.h"
#include "client/live_rows.h"
#include "client/query_argument.h"
#include "client/query_members.h"
#include "client/query_object.h"
#include "client/request.h"
#include "client/rights.h"
#include "client/row_filter.h"
#include "client/search_rights.h"
#include "common/key_text.h"
#include "common/rows_out.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "mirror/arguments.h"
#include "mirror/catalog.h"
#include "mirror/definition.h"
#include "mirror/key.h"
#include "mirror/select_list.h"
#include "mirror/triggers.h"
#include "parser/parse_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
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
	ARG_TIMEOUT,
	ARG_SKIP,
	ARG_PREFETCH,
	ARG_LOOKUP_FROM,
	ARG_LIKE_KEY
};

typedef struct Search
{
	FunctionCallInfo fcinfo;
	QsMirrorRow *mirror;
	QsServer   *server;
	QsQuery		query;
	char	   *vector_name;	/* NULL: the unnamed vector */
	QsRowFilter *row_filter;	/* NULL: every row is in the mirror */
	bool		ranked_together;	/* points change each other's rank */
	bool		may_repeat;		/* a point comes once for each value of a field */
	int			k;
	int			skip;			/* visible rows that are left out before the first */
	TimestampTz deadline;
	int			timeout;		/* ms, as asked for; for messages and for Qdrant */
	StringInfoData hidden;		/* ids that have no row to show, for must_not */
	List	   *hidden_ids;		/* the same, as the answers have them */
	int			hidden_count;
	QsRowsOut	rows;
	const QsHit *page;			/* the answer that is being joined */
	bool	   *has_row;		/* of each of its hits */
	int			looked_at;		/* hits up to the last one that was wanted */
	int			found;			/* rows of that answer, skipped ones among them */
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

/* Rows of a partition are points of the mirror of the table that it is a part of. */
static void
refuse_partition(Oid relid, const char *name)
{
	ListCell   *lc;

	if (!get_rel_relispartition(relid))
		return;
	foreach(lc, get_partition_ancestors(relid))
	{
		QsMirrorRow *mirror = qs_mirror_row_by_relid(lfirst_oid(lc));
		const char *table = get_rel_name(lfirst_oid(lc));

		if (mirror != NULL && mirror->ours && table != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" is a partition, and the mirror is that of table \"%s\"", name, table),
					 errhint("Search NULL::%s, with a filter on the column by which it is partitioned.",
							 quote_identifier(table))));
	}
}

/* As far as the kind tells, not whose it is and what it holds. */
static bool
can_be_mirrored(Oid relid)
{
	char		relkind = get_rel_relkind(relid);

	return (relkind == RELKIND_RELATION || relkind == RELKIND_PARTITIONED_TABLE) &&
		get_rel_persistence(relid) == RELPERSISTENCE_PERMANENT && relid >= FirstNormalObjectId;
}

QS_NORETURN static void
refuse_relation(Oid relid)
{
	const char *name = get_rel_name(relid);
	char	   *shown = DatumGetCString(DirectFunctionCall1(regclassout, ObjectIdGetDatum(relid)));

	if (get_rel_relkind(relid) == RELKIND_VIEW || get_rel_relkind(relid) == RELKIND_MATVIEW)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is a view, and only tables are mirrored", name),
				 errhint("Search the table, and join the view to its rows.")));
	refuse_partition(relid, name);
	if (!can_be_mirrored(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is no table that can be mirrored to Qdrant", name),
				 errhint("Search a mirrored table: the view qdrant_mirrors lists them.")));
	if (OidIsValid(get_trigger_oid(relid, QS_TRIGGER, true)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mirror of table \"%s\" was restored or copied, and does not run here", name),
				 errhint("SELECT qdrant_resume('%s') starts it.", shown)));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" is not mirrored to Qdrant", name),
			 errhint("SELECT qdrant_mirror('%s') mirrors it.", shown)));
	pg_unreachable();
}

/*
 * Keys come back as texts, which the caller's session reads: what runs then would run
 * with the caller's rights.  An owner runs the same at every INSERT.
 */
static void
check_reading_key(Oid relid, Oid type)
{
	if (qs_key_reading_is_safe(type) || qs_relation_owner(relid) == GetUserId())
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("only the owner of table \"%s\" can search it", get_rel_name(relid)),
			 errdetail("Its key has a column of type %s, and reading that could run functions of the type's owner.",
					   format_type_be(type)),
			 errhint("Mirror it with another key.")));
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
		check_reading_key(mirror->relid, mirror->key.types[i]);
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
 * A mirror with one vector that has a name has no other that could be meant.
 * NULL: the unnamed vector, or there are several.
 */
static char *
only_name(Relation rel, const char *vector)
{
	List	   *items = NIL;

	/* Every name in the list is written with AS. */
	if (strstr(vector, " AS ") != NULL)
		items = qs_select_list_items(rel, "vector", vector);
	return list_length(items) == 1 ? linitial_node(ResTarget, items)->name : NULL;
}

static void
read_definition(Search *search, Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	QsMirrorTriggers triggers;
	QsMirrorArguments arguments;

	search->vector_name = qs_argument_text(search->fcinfo, ARG_VECTOR_NAME);
	if (search->row_filter != NULL)
		qs_row_filter_close(search->row_filter);
	search->row_filter = NULL;
	if (qs_mirror_triggers(rel, &triggers))
	{
		qs_arguments_read(triggers.row, &arguments);
		if (search->vector_name == NULL)
			search->vector_name = only_name(rel, arguments.vector);
		if (arguments.row_filter != NULL)
			search->row_filter = qs_row_filter_open(rel, arguments.row_filter);
	}
	table_close(rel, AccessShareLock);
}

/*
 * The mirror, the vector's name and the row filter have to be those of the same
 * time: a rebuild that ends in between may change them.  In a transaction that
 * has locked the table before, opening it again would not tell us of a change.
 */
static void
find_mirror(Search *search, Oid relid)
{
	int64		before;

	search->mirror = mirror_of(relid);
	do
	{
		before = search->mirror->id;
		AcceptInvalidationMessages();
		read_definition(search, relid);
		search->mirror = mirror_of(relid);
	} while (search->mirror->id != before);
}

/* like_key in the place of a query. */
static void
use_like_key(Search *search)
{
	FunctionCallInfo fcinfo = search->fcinfo;

	if (PG_ARGISNULL(ARG_LIKE_KEY))
		return;
	if (search->query.kind != QS_QUERY_NULL || !PG_ARGISNULL(ARG_LOOKUP_FROM))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"like_key\" stands in the place of \"query\" and \"lookup_from\""),
				 errhint("Leave out one or the other.")));
	search->query.kind = QS_QUERY_ID;
	search->query.json = qs_example_by_key(search->mirror,
										   text_to_cstring(PG_GETARG_TEXT_PP(ARG_LIKE_KEY)));
}

/*
 * Queries that name points would tell how near hidden rows are (hazard R9).  An
 * id is looked at under the caller's rights; what cannot be judged so is refused
 * where rows may be hidden.  Other collections are looked up under their own rights.
 */
static void
check_query(Search *search)
{
	FunctionCallInfo fcinfo = search->fcinfo;
	Jsonb	   *prefetch = qs_argument_jsonb(fcinfo, ARG_PREFETCH);
	Jsonb	   *lookup_from = qs_argument_jsonb(fcinfo, ARG_LOOKUP_FROM);
	Jsonb	   *object = search->query.kind == QS_QUERY_OBJECT ?
		qs_query_argument_object(fcinfo, ARG_QUERY) : NULL;

	if (lookup_from != NULL)
		qs_check_query_members("lookup_from", lookup_from);
	if (qs_row_security_applies(search->mirror->relid))
		qs_check_tells_nothing(search->mirror, object, qs_argument_jsonb(fcinfo, ARG_PARAMS),
							   prefetch != NULL, lookup_from != NULL);
	search->ranked_together = prefetch != NULL || (object != NULL && qs_query_object_has(object, "mmr"));
	search->may_repeat = object != NULL && qs_query_object_has(object, "order_by");
	if (prefetch != NULL)
		qs_check_lookups(search->server, prefetch);
	if (lookup_from != NULL)
		qs_check_lookups(search->server, lookup_from);
	else if (search->query.kind == QS_QUERY_ID)
		search->query.json = qs_example_by_id(search->mirror, search->query.json);
}

/* ---- asking ----------------------------------------------------------- */

static void
add_filter(StringInfo body, const Search *search)
{
	FunctionCallInfo fcinfo = search->fcinfo;
	Jsonb	   *filter = qs_argument_jsonb(fcinfo, ARG_FILTER);

	if (search->hidden_count == 0)
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
	appendStringInfo(body, "\"must_not\":[{\"has_id\":[%s]}]}", search->hidden.data);
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
		qs_body_float(body, "score_threshold", PG_GETARG_FLOAT8(ARG_SCORE_THRESHOLD));
	if (search->vector_name != NULL)
		qs_body_text(body, "using", search->vector_name);
	if (!PG_ARGISNULL(ARG_PARAMS))
		qs_body_jsonb(body, "params", PG_GETARG_JSONB_P(ARG_PARAMS));
	if (!PG_ARGISNULL(ARG_PREFETCH))
		qs_body_jsonb(body, "prefetch", PG_GETARG_JSONB_P(ARG_PREFETCH));
	if (!PG_ARGISNULL(ARG_LOOKUP_FROM))
		qs_body_jsonb(body, "lookup_from", PG_GETARG_JSONB_P(ARG_LOOKUP_FROM));
	qs_body_end(body);
}

/*
 * Nothing was ever sent for this mirror: its collection is made after the commit
 * and, where only a row tells how long its vectors are, after a first row.  One
 * that has failed to make it says so to who searches.
 */
static bool
was_never_filled(const QsMirrorRow *mirror)
{
	return qs_execute_as_owner("SELECT FROM " QS_SCHEMA ".progress WHERE mirror = $1"
							   " AND (epoch > 0 OR phase = 'failed')", 1, &mirror->id) == 0;
}

/* NULL: there is no collection yet, and so no point. */
static QsAnswer *
send(const Search *search, const QsRequest *request)
{
	QsAnswer   *answer = qs_send_request(request, true);

	if (answer->status != 404)
		return answer;
	if (search->query.kind != QS_QUERY_ID)
	{
		if (was_never_filled(search->mirror))
			return NULL;
		/* It may have been made between the answer and this look. */
		answer = qs_send_request(request, true);
	}
	if (answer->status == 404)
		qs_throw_status(request, answer);
	return answer;
}

static QsHit *
ask(Search *search, int limit, int *n)
{
	QsAnswer   *answer;
	QsRequest	request = {.server = search->server, .method = "POST", .read = true};
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), search->deadline);
	StringInfoData body;

	request.missing_hint = "The view qdrant_mirrors says what became of the mirror's collection.";
	request.missing_point_hint =
		"A row without a vector has no point, nor has one that was not sent yet: see qdrant_wait and qdrant_dead_letters.";
	request.table = search->mirror->relid;
	request.may_be_missing = true;
	build_body(&body, search, limit);
	request.body = body.data;
	request.length = body.len;
	request.timeout = Max(1, left);
	request.shown_timeout = search->timeout;
	request.path = psprintf("%s?timeout=%d",
							qs_collection_path(search->mirror->collection, "/points/query"),
							qs_timeout_seconds(request.timeout));
	answer = send(search, &request);
	*n = 0;
	return answer ? qs_hits_decode(search->server, answer, n) : NULL;
}

static void
remember_hidden(Search *search)
{
	for (int i = 0; i < search->looked_at; i++)
	{
		const QsHit *hit = &search->page[i];

		if (search->has_row[i])
			continue;
		if (search->hidden_count++ > 0)
			appendStringInfoChar(&search->hidden, ',');
		appendStringInfo(&search->hidden, hit->is_uuid ? "\"%s\"" : "%s", hit->id);
		search->hidden_ids = lappend(search->hidden_ids, hit->id);
	}
}

/* ---- what cannot be an answer ----------------------------------------- */

static int
compare_ids(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/*
 * Who answers with points that were to be left out would be asked without end, and a
 * point that comes twice would be two rows.
 */
static void
check_answer(const Search *search, int n)
{
	char	  **ids = palloc((n + 1) * sizeof(char *));
	ListCell   *lc;

	for (int i = 0; i < n; i++)
		ids[i] = search->page[i].id;
	qsort(ids, n, sizeof(char *), compare_ids);
	for (int i = 1; i < n && !search->may_repeat; i++)
	{
		if (strcmp(ids[i - 1], ids[i]) == 0)
			qs_answer_not_understood(search->server);
	}
	foreach(lc, search->hidden_ids)
	{
		if (bsearch(&lfirst(lc), ids, n, sizeof(char *), compare_ids) != NULL)
			qs_answer_not_understood(search->server);
	}
	pfree(ids);
}

/* ---- rows ------------------------------------------------------------- */

static bool
take_row(void *arg, Datum row, const QsHit *hit)
{
	Search	   *search = arg;
	Datum		values[3];
	bool		nulls[3] = {false};

	if (search->row_filter != NULL && !qs_row_filter_takes(search->row_filter, row))
		return true;
	search->has_row[hit - search->page] = true;
	if (++search->found <= search->skip)
		return true;
	values[0] = row;
	values[1] = Float4GetDatum(hit->score);
	nulls[1] = !hit->has_score;
	values[2] = Int32GetDatum(search->found);
	qs_rows_out_put(&search->rows, values, nulls);
	if (search->found < search->skip + search->k)
		return true;
	search->looked_at = hit - search->page + 1;
	return false;
}

/* The rows of one answer; those of the answer before are forgotten. */
static void
join_answer(Search *search, int limit)
{
	int			n;

	search->page = ask(search, limit, &n);
	check_answer(search, n);
	search->has_row = palloc0(n * sizeof(bool) + 1);
	search->looked_at = n;
	search->found = 0;
	tuplestore_clear(search->rows.store);
	qs_live_rows(search->mirror, search->page, n, take_row, search);
	remember_hidden(search);
}

/*
 * Asks again until there are rows enough or no point without a row is among the
 * answer's, each time for twice as many and without the points that have no row.
 * The whole is asked for anew, since an offset would shift under writes.
 *
 * Where points are ranked by one another (prefetch, mmr), those without a row have
 * pushed others away, and mmr gives others at the top where more are asked for: the
 * last answer is then one for just as many as are wanted, all of which have rows.
 */
static void
run(Search *search)
{
	int64		wanted = (int64) search->skip + search->k;
	int64		most = wanted + MOST_PASSED_OVER;
	int64		limit = wanted;

	while (search->hidden_count < MOST_PASSED_OVER)
	{
		int			before = search->hidden_count;

		join_answer(search, Min(limit, Min(most - before, PG_INT32_MAX)));
		if (search->found >= wanted && (!search->ranked_together || limit == wanted))
			return;
		if (search->found < wanted && search->hidden_count == before)
			return;
		limit = search->found >= wanted ? wanted : Max(limit, Min(limit, MOST_PASSED_OVER) * 2);
	}
	ereport(NOTICE,
			(errmsg("search stopped at %d points, of which %d have rows that you can see",
					search->hidden_count + search->found, search->found),
			 errhint("A filter that leaves out what you cannot see finds more.")));
}

Datum
qs_search(PG_FUNCTION_ARGS)
{
	Search		search = {.fcinfo = fcinfo};
	Oid			relid = source_relation(fcinfo);

	search.rows = qs_rows_out_begin(fcinfo);
	find_mirror(&search, relid);
	qs_check_select(relid);
	search.server = qs_server_get(search.mirror->server, GetUserId());
	search.query = qs_query_argument(fcinfo, ARG_QUERY);
	search.k = qs_argument_int(fcinfo, ARG_K, "k", 1, DEFAULT_K);
	search.skip = qs_argument_int(fcinfo, ARG_SKIP, "skip", 0, 0);
	search.timeout = qs_timeout_of(search.server, qs_argument_timeout(fcinfo, ARG_TIMEOUT));
	search.deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), search.timeout);
	initStringInfo(&search.hidden);
	check_query(&search);
	use_like_key(&search);
	if (search.query.kind == QS_QUERY_NULL)
		return (Datum) 0;
	run(&search);
	qs_server_free(search.server);
	return (Datum) 0;
}
