/*
 * method.c
 *		Builds the request of a method from the arguments of its SQL function.
 *
 * Runs in backends.  Everything that is refused is refused here, before anything
 * is sent; sending is the caller's, at once or by a ticket.
 */
#include "qdrant_sync.h"

#include "capture/selector.h"
#include "client/body.h"
#include "client/call_arguments.h"
#include "client/hits.h"
#include "client/method.h"
#include "client/query_argument.h"
#include "client/rights.h"
#include "mb/pg_wchar.h"
#include "net/http.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

typedef struct Building
{
	FunctionCallInfo fcinfo;
	QsRequest  *request;
	StringInfoData body;
	bool		has_body;
	StringInfoData path;
	bool		has_parameter;
	bool		null_query;
} Building;

/* ---- the path --------------------------------------------------------- */

/* A name that a path cannot have would name something else there. */
static void
add_segment(Building *b, const QsMethodArgument *argument)
{
	char	   *name = qs_argument_name(b->fcinfo, argument->argno, argument->key);

	if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be \"%s\"", argument->key, name)));
	appendStringInfoChar(&b->path, '/');
	qs_append_percent_encoded(&b->path, pg_server_to_any(name, strlen(name), PG_UTF8));
}

static void
add_parameter(Building *b, const char *key, const char *value)
{
	appendStringInfo(&b->path, "%c%s=%s", b->has_parameter ? '&' : '?', key, value);
	b->has_parameter = true;
}

static void
add_ordering(Building *b, int argno)
{
	char	   *ordering = qs_argument_text(b->fcinfo, argno);

	if (ordering == NULL)
		return;
	if (strcmp(ordering, "weak") != 0 && strcmp(ordering, "medium") != 0 &&
		strcmp(ordering, "strong") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid ordering: \"%s\"", ordering),
				 errhint("It is weak, medium or strong.")));
	add_parameter(b, "ordering", ordering);
}

static void
add_to_path(Building *b, const QsMethodArgument *argument)
{
	FunctionCallInfo fcinfo = b->fcinfo;
	int			argno = argument->argno;

	switch (argument->kind)
	{
		case QS_ARG_WAIT:
			add_parameter(b, "wait", PG_ARGISNULL(argno) || PG_GETARG_BOOL(argno) ? "true" : "false");
			break;
		case QS_ARG_ORDERING:
			add_ordering(b, argno);
			break;
		case QS_ARG_CONSISTENCY:
			if (!PG_ARGISNULL(argno))
				add_parameter(b, "consistency",
							  qs_check_consistency(text_to_cstring(PG_GETARG_TEXT_PP(argno))));
			break;
		case QS_ARG_TIMEOUT:
			b->request->timeout = qs_timeout_of(b->request->server, qs_argument_timeout(fcinfo, argno));
			add_parameter(b, "timeout", psprintf("%d", qs_timeout_seconds(b->request->timeout)));
			break;
		case QS_ARG_OWN_TIMEOUT:
			b->request->timeout = qs_argument_timeout(fcinfo, argno);
			break;
		default:
			add_segment(b, argument);
			break;
	}
}

/* ---- the body --------------------------------------------------------- */

static bool
is_object(const char *text)
{
	return text[strspn(text, " \t\r\n")] == '{';
}

static void
add_word(Building *b, const QsMethodArgument *argument)
{
	char	   *word = text_to_cstring(DatumGetTextPP(b->fcinfo->args[argument->argno].value));
	bool		lookup = argument->kind == QS_ARG_LOOKUP_WORD;
	Jsonb	   *object;

	if (!is_object(word))
	{
		if (lookup)
			(void) qs_check_collection_read(b->request->server, word);
		qs_body_text(&b->body, argument->key, word);
		return;
	}
	object = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(word)));
	if (lookup)
		qs_check_lookups(b->request->server, object);
	qs_body_key(&b->body, argument->key);
	qs_append_jsonb(&b->body, object);
}

static void
add_query(Building *b, const QsMethodArgument *argument)
{
	QsQuery		query = qs_query_argument(b->fcinfo, argument->argno);

	if (query.kind == QS_QUERY_NULL)
		b->null_query = true;
	else
	{
		qs_body_key(&b->body, argument->key);
		appendStringInfoString(&b->body, query.json);
	}
}

static void
add_ids(Building *b, const QsMethodArgument *argument)
{
	bool		one = argument->kind == QS_ARG_ID;
	QsSelector	ids;

	qs_selector_read_ids(b->fcinfo, argument->argno, argument->key, &ids);
	if (one && (ids.ids.len == 0 || strchr(ids.ids.data, ',') != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" is not the id of one point", argument->key)));
	qs_body_key(&b->body, argument->key);
	appendStringInfo(&b->body, one ? "%s" : "[%s]", ids.ids.data);
}

static void
add_selection(Building *b, const QsMethodArgument *argument)
{
	FunctionCallInfo fcinfo = b->fcinfo;
	bool		if_null = argument->kind == QS_ARG_ALL_OR;

	if (!PG_ARGISNULL(argument->other))
		qs_body_text_array(&b->body, argument->key, PG_GETARG_DATUM(argument->other));
	else
		qs_body_bool(&b->body, argument->key,
					 PG_ARGISNULL(argument->argno) ? if_null : PG_GETARG_BOOL(argument->argno));
}

/* An argument that is given. */
static void
add_member(Building *b, const QsMethodArgument *argument)
{
	FunctionCallInfo fcinfo = b->fcinfo;
	int			argno = argument->argno;

	switch (argument->kind)
	{
		case QS_ARG_LOOKUP:
			qs_check_lookups(b->request->server, PG_GETARG_JSONB_P(argno));
			/* FALLTHROUGH */
		case QS_ARG_QUERY_PART:
			qs_body_jsonb(&b->body, argument->key, PG_GETARG_JSONB_P(argno));
			break;
		case QS_ARG_JSONB:
			qs_body_key(&b->body, argument->key);
			qs_append_jsonb(&b->body, PG_GETARG_JSONB_P(argno));
			break;
		case QS_ARG_NAME:
		case QS_ARG_TEXT:
			qs_body_text(&b->body, argument->key, text_to_cstring(PG_GETARG_TEXT_PP(argno)));
			break;
		case QS_ARG_COUNT:
			qs_body_int(&b->body, argument->key,
						qs_argument_int(fcinfo, argno, argument->key, 1, 0));
			break;
		case QS_ARG_BOOL:
			qs_body_bool(&b->body, argument->key, PG_GETARG_BOOL(argno));
			break;
		case QS_ARG_FLOAT:
			qs_body_float(&b->body, argument->key, PG_GETARG_FLOAT8(argno));
			break;
		case QS_ARG_ID:
		case QS_ARG_IDS:
			add_ids(b, argument);
			break;
		default:
			add_word(b, argument);
			break;
	}
}

static void
add_whole_body(Building *b, const QsMethodArgument *argument)
{
	Jsonb	   *document = qs_argument_jsonb(b->fcinfo, argument->argno);

	if (document == NULL)
		qs_refuse_null(argument->key);
	if (!JB_ROOT_IS_OBJECT(document))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be a JSON object", argument->key)));
	resetStringInfo(&b->body);
	qs_append_jsonb(&b->body, document);
}

static void
add_to_body(Building *b, const QsMethodArgument *argument)
{
	b->has_body = true;
	if (argument->kind == QS_ARG_QUERY)
		add_query(b, argument);
	else if (argument->kind == QS_ARG_ALL_OR || argument->kind == QS_ARG_NONE_OR)
		add_selection(b, argument);
	else if (!b->fcinfo->args[argument->argno].isnull)
		add_member(b, argument);
	else if (argument->kind == QS_ARG_NAME || argument->kind == QS_ARG_IDS)
		qs_refuse_null(argument->key);
}

/* ---- all of it -------------------------------------------------------- */

static void
begin_path(Building *b, const QsMethod *method)
{
	const QsServer *server = b->request->server;
	char	   *collection;

	initStringInfo(&b->path);
	if (!method->of_collection)
	{
		appendStringInfoString(&b->path, method->path);
		return;
	}
	collection = qs_argument_name(b->fcinfo, 0, "collection_name");
	appendStringInfoString(&b->path, qs_collection_path(collection, method->path));
	if (method->right == QS_RIGHT_READ)
		b->request->table = qs_check_collection_read(server, collection);
	else if (method->right == QS_RIGHT_OWN)
		qs_check_not_mirrored(server, collection);
}

bool
qs_method_request(FunctionCallInfo fcinfo, const QsMethod *method, QsRequest *request)
{
	Building	b = {.fcinfo = fcinfo, .request = request};
	bool		whole = false;

	if (method->right == QS_RIGHT_OWN)
		qs_check_read_write(fcinfo);
	memset(request, 0, sizeof(*request));
	request->server = qs_server_get(qs_argument_text(fcinfo, method->server), GetUserId());
	request->method = method->verb;
	request->read = method->right != QS_RIGHT_OWN;
	begin_path(&b, method);
	qs_body_begin(&b.body);
	for (int i = 0; i < method->narguments; i++)
	{
		const QsMethodArgument *argument = &method->arguments[i];

		if (argument->kind > QS_ARG_BODY)
			add_to_path(&b, argument);
		else if (argument->kind == QS_ARG_BODY)
		{
			add_whole_body(&b, argument);
			whole = true;
		}
		else
			add_to_body(&b, argument);
	}
	if (!whole)
		qs_body_end(&b.body);
	if (whole || b.has_body)
	{
		request->body = b.body.data;
		request->length = b.body.len;
	}
	request->path = b.path.data;
	return !b.null_query;
}

/* Of the server only the name is kept, for errors about the answer: its key is overwritten. */
QsAnswer *
qs_method_send(QsRequest *request)
{
	QsAnswer   *answer = qs_send_request(request, true);
	QsServer   *named = palloc0(sizeof(QsServer));

	named->name = pstrdup(request->server->name);
	qs_server_free(unconstify(QsServer *, request->server));
	request->server = named;
	return answer;
}

Jsonb *
qs_method_result(QsRequest *request)
{
	QsAnswer   *answer = qs_method_send(request);

	return qs_answer_result(request->server, answer);
}

Jsonb *
qs_method_object(QsRequest *request)
{
	Jsonb	   *result = qs_method_result(request);

	if (!JB_ROOT_IS_OBJECT(result))
		qs_answer_not_understood(request->server);
	return result;
}
