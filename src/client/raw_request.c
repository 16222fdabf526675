/*
 * raw_request.c
 *		qdrant_request: any request to a registered server.
 *
 * Runs in backends.  EXECUTE is revoked from PUBLIC: besides collections it
 * reaches snapshots, cluster operations and telemetry.  Refused is what would
 * change a collection that a mirror of this database owns, or read one past its
 * table's privileges, also by a snapshot, as far as path and body name it; an alias that somebody
 * else has made is not known here.
 */
#include "qdrant_sync.h"

#include "client/body.h"
#include "client/call_arguments.h"
#include "client/raw_path.h"
#include "client/request.h"
#include "client/rights.h"
#include "utils/builtins.h"
#include "utils/json.h"

PG_FUNCTION_INFO_V1(qs_raw_request);

/* Below a collection, POST requests that only read. */
static const char *const reads[] = {
	"/points", "/points/scroll", "/points/count", "/facet",
	"/points/query", "/points/query/batch", "/points/query/groups",
	"/points/search", "/points/search/batch", "/points/search/groups",
	"/points/search/matrix/pairs", "/points/search/matrix/offsets",
	"/points/recommend", "/points/recommend/batch", "/points/recommend/groups",
	"/points/discover", "/points/discover/batch"
};

static char *
checked_method(char *method)
{
	static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};

	for (int i = 0; i < (int) lengthof(methods); i++)
	{
		if (strcmp(method, methods[i]) == 0)
			return method;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument \"method\" is none of GET, POST, PUT, PATCH, DELETE")));
	return NULL;
}

static bool
only_reads(const char *method, const char *rest)
{
	if (strcmp(method, "GET") == 0)
		return true;
	for (int i = 0; i < (int) lengthof(reads); i++)
	{
		if (strcmp(method, "POST") == 0 && strcmp(rest, reads[i]) == 0)
			return true;
	}
	return false;
}

/*
 * What follows "/snapshots" of a collection or of one of its shards: "" where one is
 * made, else "/NAME", "/recover", "/upload"; NULL for any other path.
 */
static const char *
after_snapshots(const char *rest)
{
	static const char shards[] = "/shards/";
	static const char snapshots[] = "/snapshots";

	if (strncmp(rest, shards, strlen(shards)) == 0)
	{
		rest += strlen(shards);
		rest += strcspn(rest, "/");
	}
	if (strncmp(rest, snapshots, strlen(snapshots)) != 0)
		return NULL;
	rest += strlen(snapshots);
	return *rest == '\0' || *rest == '/' ? rest : NULL;
}

/*
 * A snapshot has all rows and changes none, so whoever may read the table may make
 * one.  It can be the only copy that somebody relies on: its end is the owner's.
 */
static void
check_collection(const QsServer *server, const char *method, const QsRawPath *path)
{
	const char *snapshot = after_snapshots(path->rest);

	if (only_reads(method, path->rest) ||
		(snapshot != NULL && *snapshot == '\0' && strcmp(method, "POST") == 0))
		(void) qs_check_collection_read(server, path->collection);
	else if (snapshot != NULL && *snapshot != '\0' && strcmp(method, "DELETE") == 0)
		qs_check_collection_owner(server, path->collection);
	else
		qs_check_not_mirrored(server, path->collection);
}

static void
check_rights(const QsServer *server, const char *method, const QsRawPath *path, Jsonb *body)
{
	if (path->collection != NULL)
		check_collection(server, method, path);
	if (body == NULL)
		return;
	qs_check_lookups(server, body);
	if (path->collection != NULL && after_snapshots(path->rest) != NULL)
		qs_check_location(server, body);
	/* POST /collections/aliases names them in its body alone. */
	if (path->collection != NULL && strcmp(path->collection, "aliases") == 0)
		qs_check_alias_actions(server, body);
}

static void
add_body(QsRequest *request, Jsonb *body)
{
	StringInfoData text;

	if (body == NULL)
		return;
	if (strcmp(request->method, "GET") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a GET request has no body"),
				 errhint("Give parameters by the argument query.")));
	initStringInfo(&text);
	qs_append_jsonb(&text, body);
	request->body = text.data;
	request->length = text.len;
}

/* /metrics and /healthz answer with text, as a proxy might. */
static Jsonb *
document_of(const QsAnswer *answer)
{
	char		first = answer->body[strspn(answer->body, " \t\r\n")];
	StringInfoData text;

	if (first == '{' || first == '[')
		return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(answer->body)));
	initStringInfo(&text);
	escape_json(&text, answer->body);
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text.data)));
}

static void
name_the_answer(void *arg)
{
	errcontext("answer of Qdrant server \"%s\"", (const char *) arg);
}

static Jsonb *
send(QsRequest *request)
{
	ErrorContextCallback context = {.callback = name_the_answer, .arg = request->server->name};
	QsAnswer   *answer = qs_send_request(request, true);
	Jsonb	   *document;

	context.previous = error_context_stack;
	error_context_stack = &context;
	document = document_of(answer);
	error_context_stack = context.previous;
	return document;
}

Datum
qs_raw_request(PG_FUNCTION_ARGS)
{
	char	   *method = checked_method(qs_argument_name(fcinfo, 0, "method"));
	char	   *path = qs_argument_name(fcinfo, 1, "path");
	Jsonb	   *query = qs_argument_jsonb(fcinfo, 2);
	Jsonb	   *body = qs_argument_jsonb(fcinfo, 3);
	QsServer   *server = qs_server_get(qs_argument_text(fcinfo, 4), GetUserId());
	QsRequest	request = {.server = server, .method = method};
	QsRawPath	parsed;
	StringInfoData whole;
	Jsonb	   *document;

	qs_parse_raw_path(path, &parsed);
	if (!only_reads(method, parsed.rest))
		qs_check_read_write(fcinfo);
	check_rights(server, method, &parsed, body);
	initStringInfo(&whole);
	appendStringInfoString(&whole, parsed.path);
	if (query != NULL)
		qs_append_query_string(&whole, query);
	request.path = whole.data;
	request.read = strcmp(method, "GET") == 0;
	request.timeout = qs_argument_timeout(fcinfo, 5);
	add_body(&request, body);
	document = send(&request);
	qs_server_free(server);
	PG_RETURN_JSONB_P(document);
}
