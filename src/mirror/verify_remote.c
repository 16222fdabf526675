/*
 * verify_remote.c
 *		Qdrant's side of qdrant_verify: its points, in answers of bounded size.
 *
 * Runs in a session, and asks through the request worker, whose memory for answers is
 * the whole server's: a page that is too large for it is asked for in halves.  What
 * passes (a full queue, a restart, a busy Qdrant) is tried again a few times.
 */
#include "qdrant_sync.h"
#include "client/request.h"
#include "common/key_text.h"
#include "mirror/verify.h"
#include "net/qdrant_json.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

/* A page of ids without payload is some 200 kB. */
#define FIRST_PAGE_IDS 4096
#define LEAST_PAGE_IDS 16

/* Pauses before a request is sent again. */
static const int pauses_ms[] = {100, 500, 2000};

/* ---- asking ---- */

static bool
may_pass(const QsAnswer *answer)
{
	if (answer->status != 0)
		return answer->status == 429 || answer->status >= 500;
	return answer->sqlstate == ERRCODE_CONNECTION_FAILURE ||
		answer->sqlstate == ERRCODE_CANNOT_CONNECT_NOW ||
		answer->sqlstate == ERRCODE_OUT_OF_MEMORY ||
		answer->sqlstate == ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
}

/*
 * NULL: the answer is larger than one may be, or, where less can be asked for, a
 * collection in strict mode refuses so much.
 */
static QsAnswer *
ask_for_some(QsVerifyRemote *remote, const char *method, const char *rest, const char *body, bool less)
{
	QsRequest	request = {.server = remote->server, .method = method, .read = true};

	request.path = qs_collection_path(remote->collection, rest);
	request.body = body;
	request.length = body ? strlen(body) : 0;
	request.missing_hint = "A new mirror's collection is made after the commit: see qdrant_mirrors.";
	for (int i = 0; i < lengthof(pauses_ms); i++)
	{
		QsAnswer   *answer = qs_send_request(&request, false);

		if (answer->status == 0 && answer->sqlstate == ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			return NULL;
		if (answer->status >= 200 && answer->status < 300)
			return answer;
		if (answer->status == 400 && less)
			return NULL;
		if (!may_pass(answer))
			break;
		qs_verify_sleep(pauses_ms[i]);
	}
	return qs_send_request(&request, true);
}

static QsAnswer *
ask(QsVerifyRemote *remote, const char *method, const char *rest, const char *body)
{
	return ask_for_some(remote, method, rest, body, false);
}

QS_NORETURN static void
not_understood(const QsVerifyRemote *remote)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("answer of Qdrant server \"%s\" is not understood", remote->server->name),
			 errhint("Check that the option url of the server is Qdrant's REST address.")));
	pg_unreachable();
}

/* ---- the collection ---- */

void
qs_verify_open_remote(QsVerifyRemote *remote, const QsDefinition *definition)
{
	QsAnswer   *answer;

	remote->server = qs_server_get(definition->server, definition->owner);
	remote->collection = pstrdup(definition->collection);
	remote->page_ids = FIRST_PAGE_IDS;
	answer = ask(remote, "GET", "", NULL);
	for (int escaped = 0; escaped < 2; escaped++)
	{
		Jsonb	   *jsonb = answer != NULL ? qs_compare_parse(answer->body, escaped == 1) : NULL;

		/* Where the encoding cannot hold it, the other form is the one that is used. */
		memset(&remote->stored[escaped], 0, sizeof(QsStoredVectors));
		if (jsonb == NULL && escaped == 0)
			continue;
		if (jsonb == NULL || !JB_ROOT_IS_OBJECT(jsonb) ||
			!qs_stored_vectors(jsonb, &remote->stored[escaped], &remote->points))
			not_understood(remote);
	}
}

void
qs_verify_close_remote(QsVerifyRemote *remote)
{
	qs_server_free(remote->server);
}

/* ---- points ---- */

static char *
id_of(QsVerifyRemote *remote, JsonbContainer *point)
{
	JsonbValue *id = qs_compare_member(point, "id");

	if (id != NULL && id->type == jbvString)
		return pnstrdup(id->val.string.val, id->val.string.len);
	if (id == NULL || id->type != jbvNumeric)
		not_understood(remote);
	return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(id->val.numeric)));
}

/* Points mostly come in the order that was asked for; next is where the search begins. */
static int
place_of(const QsVerifyPoints *points, const char *id, int next)
{
	for (int i = 0; i < points->n; i++)
	{
		int			place = (next + i) % points->n;

		if (strcmp(points->ids[place], id) == 0)
			return place;
	}
	return -1;
}

/* False: the answer holds what cannot be read unescaped. */
static bool
read_points(QsVerifyRemote *remote, QsVerifyPoints *points)
{
	Jsonb	   *jsonb = qs_compare_parse(points->text, points->escaped);
	JsonbValue *result;
	JsonbContainer *array;
	int			next = 0;

	if (jsonb == NULL && !points->escaped)
		return false;
	result = jsonb != NULL && JB_ROOT_IS_OBJECT(jsonb) ? qs_compare_member(&jsonb->root, "result") : NULL;
	if (result == NULL || result->type != jbvBinary || !JsonContainerIsArray(result->val.binary.data))
		not_understood(remote);
	array = result->val.binary.data;
	memset(points->points, 0, points->n * sizeof(JsonbContainer *));
	for (int i = 0; i < JsonContainerSize(array); i++)
	{
		JsonbValue *point = getIthJsonbValueFromContainer(array, i);
		int			place;

		if (point->type != jbvBinary || !JsonContainerIsObject(point->val.binary.data))
			not_understood(remote);
		place = place_of(points, id_of(remote, point->val.binary.data), next);
		if (place < 0)
			continue;
		points->points[place] = point->val.binary.data;
		next = place + 1;
	}
	return true;
}

static void
read_escaped(QsVerifyRemote *remote, QsVerifyPoints *points)
{
	points->escaped = true;
	(void) read_points(remote, points);
}

/* A negative key makes no id: such a row has no point. */
static void
append_ids(StringInfo out, char **ids, int n)
{
	const char *comma = "";

	appendStringInfoChar(out, '[');
	for (int i = 0; i < n; i++)
	{
		bool		digits = strspn(ids[i], "0123456789") == strlen(ids[i]);

		if (ids[i][0] == '-')
			continue;
		appendStringInfo(out, digits ? "%s%s" : "%s\"%s\"", comma, ids[i]);
		comma = ",";
	}
	appendStringInfoChar(out, ']');
}

static char *
body_for_ids(char **ids, int n)
{
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"ids\":");
	append_ids(&body, ids, n);
	appendStringInfoString(&body, ",\"with_payload\":true,\"with_vector\":true}");
	return body.data;
}

QsVerifyPoints *
qs_verify_fetch(QsVerifyRemote *remote, char **ids, int n)
{
	QsVerifyPoints *points = palloc0(sizeof(QsVerifyPoints));
	QsAnswer   *answer = ask(remote, "POST", "/points", body_for_ids(ids, n));

	if (answer == NULL)
		return NULL;
	points->n = n;
	points->ids = ids;
	points->text = answer->body;
	points->points = palloc(n * sizeof(JsonbContainer *));
	points->escaped = GetDatabaseEncoding() != PG_UTF8;
	if (!read_points(remote, points))
		read_escaped(remote, points);
	return points;
}

char *
qs_verify_compare(QsVerifyRemote *remote, QsVerifyPoints *points, int i, const char *json)
{
	Jsonb	   *ours = qs_compare_parse(json, points->escaped);

	if (ours == NULL && !points->escaped)
	{
		read_escaped(remote, points);
		ours = qs_compare_parse(json, true);
	}
	if (ours == NULL)
		return pstrdup("payload that cannot be compared");
	return qs_compare_points(ours, points->points[i], &remote->stored[points->escaped]);
}

/* ---- ids ---- */

/* Only what a point says to be its key can be that large. */
QS_NORETURN static void
refuse_large_ids(const QsVerifyRemote *remote)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("keys in the points of collection \"%s\" are too large for one answer", remote->collection),
			 errhint("Raise qdrant_sync.answer_memory, or have the mirror compare everything with qdrant_resync.")));
	pg_unreachable();
}

static char *
scroll_body(QsVerifyRemote *remote, bool with_keys, const char *offset)
{
	char	   *made = qs_json_scroll(remote->page_ids, with_keys ? QS_KEY_FIELD : NULL, offset);
	char	   *body = made ? MemoryContextAllocExtended(CurrentMemoryContext, strlen(made) + 1,
														  MCXT_ALLOC_NO_OOM) : NULL;

	if (body != NULL)
		strcpy(body, made);
	free(made);
	if (body == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return body;
}

static char *
copy_text(const char *text)
{
	return text == NULL ? NULL : pstrdup(text);
}

static QsVerifyPage *
copy_page(const QsIdPage *from)
{
	QsVerifyPage *page = palloc0(sizeof(QsVerifyPage));

	page->n = from->n;
	page->ids = palloc((from->n + 1) * sizeof(char *));
	page->keys = palloc((from->n + 1) * sizeof(char *));
	for (int i = 0; i < from->n; i++)
	{
		page->ids[i] = pstrdup(from->ids[i]);
		page->keys[i] = copy_text(from->keys[i]);
	}
	page->next = copy_text(from->next);
	return page;
}

/* What jansson made is not of palloc. */
static QsVerifyPage *
read_page(const QsVerifyRemote *remote, const QsAnswer *answer)
{
	QsIdPage	page;
	QsVerifyPage *volatile copy = NULL;

	page.valid = false;
	qs_json_id_page(answer->body, answer->length, &page);
	if (!page.valid)
		not_understood(remote);
	PG_TRY();
	{
		copy = copy_page(&page);
	}
	PG_FINALLY();
	{
		qs_json_free_id_page(&page);
	}
	PG_END_TRY();
	return copy;
}

/* What is still there of some ids, whose number bounds the answer. */
QsVerifyPage *
qs_verify_look_again(QsVerifyRemote *remote, char **ids, int n)
{
	StringInfoData body;
	QsAnswer   *answer;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"filter\":{\"must\":[{\"has_id\":");
	append_ids(&body, ids, n);
	appendStringInfo(&body, "}]},\"limit\":%d,\"with_payload\":[\"" QS_KEY_FIELD "\"],\"with_vector\":false}", n);
	answer = ask(remote, "POST", "/points/scroll", body.data);
	if (answer == NULL)
		refuse_large_ids(remote);
	return read_page(remote, answer);
}

QsVerifyPage *
qs_verify_scroll(QsVerifyRemote *remote, bool with_keys, const char *offset)
{
	for (;;)
	{
		QsAnswer   *answer = ask_for_some(remote, "POST", "/points/scroll",
										  scroll_body(remote, with_keys, offset),
										  remote->page_ids > LEAST_PAGE_IDS);

		if (answer != NULL)
			return read_page(remote, answer);
		if (remote->page_ids <= LEAST_PAGE_IDS)
			refuse_large_ids(remote);
		remote->page_ids /= 4;
	}
}
