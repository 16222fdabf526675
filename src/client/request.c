/*
 * request.c
 *		Sends a request by a ticket, waits for it, and turns what went wrong into
 *		errors.
 *
 * Runs in backends.  No memory of the request path is held when qs_send_request returns
 * or raises.
 */
#include "qdrant_sync.h"

#include "client/request.h"
#include "client/ticket.h"
#include "client/vector_names.h"
#include "common/settings.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "net/http.h"
#include "net/qdrant_json.h"
#include "utils/timestamp.h"

/* A name that Qdrant takes is at most 255 bytes, as a file name. */
#define MAX_COLLECTION_NAME 255

/* As much of an answer that is not Qdrant's (a proxy's) is shown. */
#define MAX_PLAIN_ERROR 200

/* Of the 3xx the one that names no other address. */
#define HTTP_NOT_MODIFIED 304

/* What an ERROR says; detail and hint may be NULL. */
typedef struct Failure
{
	int			sqlstate;
	char	   *message;
	char	   *detail;
	char	   *hint;
} Failure;

static void
throw_failure(const Failure *failure)
{
	ereport(ERROR,
			(errcode(failure->sqlstate),
			 errmsg_internal("%s", failure->message),
			 failure->detail ? errdetail_internal("%s", failure->detail) : 0,
			 failure->hint ? errhint("%s", failure->hint) : 0));
}

/* ---- no answer -------------------------------------------------------- */

/* Where a request that changes something may have reached Qdrant. */
static char *
in_doubt(const QsRequest *call, bool sent)
{
	return call->read || !sent ? NULL :
		pstrdup(QS_IN_DOUBT);
}

static Failure
timed_out(const QsRequest *call, int timeout)
{
	return (Failure)
	{
		ERRCODE_CONNECTION_FAILURE,
			psprintf("Qdrant server \"%s\" did not answer within %d ms", call->server->name,
					 call->shown_timeout > 0 ? call->shown_timeout : timeout),
			in_doubt(call, true),
			pstrdup("Give a longer timeout, or raise the server's option request_timeout or the setting qdrant_sync.request_timeout.")
	};
}

static Failure
no_answer(const QsRequest *call, QsTicketOutcome outcome, const char *error)
{
	return (Failure)
	{
		ERRCODE_CONNECTION_FAILURE,
			psprintf("Qdrant server \"%s\" did not answer: %s", call->server->name, error),
			in_doubt(call, outcome == QS_ANSWER_LOST),
			pstrdup("Check that Qdrant runs, and the options of the server.")
	};
}

static Failure
worker_trouble(const QsRequest *call, QsTicketOutcome outcome)
{
	if (outcome == QS_WORKER_RESTARTED)
		return (Failure)
	{
		ERRCODE_CANNOT_CONNECT_NOW,
			pstrdup("request worker of qdrant_sync was restarted while the request was under way"),
			in_doubt(call, true), pstrdup("Try again.")
	};
	return (Failure)
	{
		ERRCODE_CANNOT_CONNECT_NOW,
			pstrdup("no request worker of qdrant_sync is running"),
			NULL,
			pstrdup("It starts again by itself. Where it does not, the server's log says why; "
					"max_worker_processes may be too low.")
	};
}

static Failure
answer_trouble(const QsRequest *call, QsTicketOutcome outcome)
{
	if (outcome == QS_ANSWER_TOO_LARGE)
		return (Failure)
	{
		ERRCODE_PROGRAM_LIMIT_EXCEEDED,
			psprintf("answer of Qdrant server \"%s\" is larger than %zu kB",
					 call->server->name, qs_ticket_max_answer() / 1024),
			in_doubt(call, true),
			pstrdup("Ask for fewer points, or without payload or vectors, or raise qdrant_sync.answer_memory.")
	};
	if (outcome == QS_ANSWER_SHARE_FULL)
		return (Failure)
	{
		ERRCODE_OUT_OF_MEMORY,
			pstrdup("answers that were not awaited have their share of the shared memory for answers of Qdrant"),
			in_doubt(call, true),
			pstrdup("Await or cancel some (qdrant_requests shows them), or raise qdrant_sync.answer_memory.")
	};
	return (Failure)
	{
		ERRCODE_OUT_OF_MEMORY,
			pstrdup("shared memory for answers of Qdrant is full"),
			in_doubt(call, true), pstrdup("Raise qdrant_sync.answer_memory, or try again.")
	};
}

static Failure
limit_reached(const QsRequest *call, QsTicketOutcome outcome)
{
	Failure		failure = {ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, NULL, NULL,
	pstrdup("Try again, set qdrant_sync.limit_wait, or raise qdrant_sync.max_tickets.")};

	if (outcome == QS_REQUEST_MEMORY_FULL || outcome == QS_REQUEST_TOO_LARGE)
	{
		failure.sqlstate = ERRCODE_OUT_OF_MEMORY;
		failure.message = psprintf("shared memory for requests to Qdrant has no room for %zu bytes",
								   call->length);
		failure.hint = pstrdup(outcome == QS_REQUEST_TOO_LARGE ? "Raise qdrant_sync.answer_memory." :
							   "Raise qdrant_sync.answer_memory, or try again.");
	}
	else if (outcome == QS_TICKETS_FULL)
		failure.message = psprintf("all %d tickets for requests to Qdrant are in use", qs_max_tickets);
	else
		failure.message = psprintf("requests to Qdrant server \"%s\" use all tickets that one server may have",
								   call->server->name);
	return failure;
}

static Failure
failure_of(const QsRequest *call, QsTicketOutcome outcome, int timeout, const char *error)
{
	switch (outcome)
	{
		case QS_NO_ANSWER:
		case QS_ANSWER_LOST:
			return no_answer(call, outcome, error);
		case QS_TIMED_OUT:
			return timed_out(call, timeout);
		case QS_ANSWER_TOO_LARGE:
		case QS_ANSWER_MEMORY_FULL:
		case QS_ANSWER_SHARE_FULL:
			return answer_trouble(call, outcome);
		case QS_WORKER_RESTARTED:
		case QS_NO_REQUEST_WORKER:
			return worker_trouble(call, outcome);
		default:
			return limit_reached(call, outcome);
	}
}

/* ---- answers that are errors ------------------------------------------ */

static int
sqlstate_of(int status)
{
	switch (status)
	{
		case 400:
		case 422:
			return ERRCODE_INVALID_PARAMETER_VALUE;
		case 401:
			return ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
		case 403:
			return ERRCODE_INSUFFICIENT_PRIVILEGE;
		case 404:
			return ERRCODE_UNDEFINED_OBJECT;
		case 409:
			return ERRCODE_DUPLICATE_OBJECT;
		case 429:
		case 503:
			return ERRCODE_CANNOT_CONNECT_NOW;
		default:
			return ERRCODE_SYSTEM_ERROR;
	}
}

/* Of a mirror's collection that is not there; a point may be missing, too. */
static char *
missing_hint(const QsRequest *call, const char *error)
{
	bool		is_point = strstr(error, "ollection") == NULL;

	if (is_point && call->missing_point_hint != NULL)
		return pstrdup(call->missing_point_hint);
	if (call->missing_hint != NULL)
		return pstrdup(call->missing_hint);
	if (!OidIsValid(call->table) || is_point)
		return NULL;
	return pstrdup("A mirror's collection is made after the commit, and after a first row where only that tells how long its vectors are: see qdrant_mirrors.");
}

/* Of a condition in the place of a filter Qdrant says that its first member is unknown. */
static char *
bare_condition_hint(const char *error)
{
	static const char *const members[] = {"key", "has_id", "is_null", "is_empty", "nested", "has_vector"};

	for (int i = 0; i < lengthof(members); i++)
	{
		if (strstr(error, psprintf("unknown field `%s`", members[i])) != NULL)
			return pstrdup("A condition alone is no filter: qdrant_filter(must => ...) makes one of it.");
	}
	return NULL;
}

static char *
hint_of(const QsRequest *call, int status, const char *error)
{
	char	   *hint;

	switch (status)
	{
		case 400:
			hint = bare_condition_hint(error);
			return hint ? hint : qs_vector_names_hint(call->table, call->path, error);
		case 404:
			return missing_hint(call, error);
		case 401:
			return pstrdup("Set the option api_key in a user mapping for the server.");
		case 403:
			return pstrdup("The api_key of the user mapping does not allow this.");
		case 429:
		case 503:
			return pstrdup("Try again later.");
		default:
			if (status >= 300 && status < 400 && status != HTTP_NOT_MODIFIED)
				return pstrdup("Redirects are not followed: give the final address as option url of the server.");
			return NULL;
	}
}

/* What cannot be shown in the database's encoding becomes a question mark. */
static char *
printable(const char *text, Size length)
{
	bool		utf8 = GetDatabaseEncoding() == PG_UTF8;
	int			whole = pg_encoding_mbcliplen(PG_UTF8, text, length, length);
	char	   *copy = pnstrdup(text, whole);

	for (char *c = copy; *c; c++)
	{
		if ((unsigned char) *c < ' ' || (!utf8 && IS_HIGHBIT_SET(*c)))
			*c = (unsigned char) *c < ' ' ? ' ' : '?';
	}
	return copy;
}

static char *
error_text(const QsAnswer *answer)
{
	QsEnvelope	envelope;

	qs_json_envelope(answer->body, answer->length, &envelope);
	if (envelope.valid && envelope.error[0] != '\0')
		return printable(envelope.error, strlen(envelope.error));
	if (answer->length > 0 && answer->body[0] != '<')
		return printable(answer->body, Min(answer->length, MAX_PLAIN_ERROR));
	return psprintf("HTTP status %d", answer->status);
}

/* A time that ran out, in Qdrant or before it, or a fault on the way. */
static bool
leaves_doubt(int status)
{
	return status == 408 || status >= 500;
}

void
qs_throw_status(const QsRequest *call, const QsAnswer *answer)
{
	char	   *error = error_text(answer);
	char	   *doubt = in_doubt(call, leaves_doubt(answer->status));
	Failure		failure;

	failure.sqlstate = sqlstate_of(answer->status);
	failure.message = psprintf("Qdrant server \"%s\": %s", call->server->name, error);
	failure.detail = psprintf("%s %.*s was answered with HTTP status %d.%s%s", call->method,
							  (int) strcspn(call->path, "?"), call->path, answer->status,
							  doubt ? " " : "", doubt ? doubt : "");
	failure.hint = hint_of(call, answer->status, error);
	throw_failure(&failure);
}

/* ---- encoding --------------------------------------------------------- */

/* Characters beyond ASCII stand only inside of JSON's strings: escaped, they
 * are left to PostgreSQL's JSON parser, which knows which it can convert. */
static char *
escape_characters(const char *body, Size length, Size *new_length)
{
	StringInfoData out;
	const unsigned char *c = (const unsigned char *) body;
	const unsigned char *end = c + length;

	initStringInfo(&out);
	while (c < end)
	{
		pg_wchar	code;

		if (!IS_HIGHBIT_SET(*c))
		{
			appendStringInfoChar(&out, *c++);
			continue;
		}
		code = utf8_to_unicode(c);
		if (code >= 0x10000)
			appendStringInfo(&out, "\\u%04x\\u%04x", 0xD800 + ((code - 0x10000) >> 10),
							 0xDC00 + ((code - 0x10000) & 0x3FF));
		else
			appendStringInfo(&out, "\\u%04x", code);
		c += pg_utf_mblen(c);
	}
	*new_length = out.len;
	return out.data;
}

/* Bytes from the network are never believed to be UTF-8 (hazard R13). */
static void
verify_encoding(const QsRequest *call, QsAnswer *answer)
{
	Size		plain = 0;

	while (plain < answer->length && !IS_HIGHBIT_SET(answer->body[plain]) &&
		   answer->body[plain] != '\0')
		plain++;
	if (plain == answer->length)
		return;
	if (pg_encoding_verifymbstr(PG_UTF8, answer->body, answer->length) != (int) answer->length)
	{
		if (answer->status < 300)
			ereport(ERROR,
					(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
					 errmsg("answer of Qdrant server \"%s\" is not valid UTF-8", call->server->name),
					 call->read ? 0 : errdetail_internal(QS_IN_DOUBT)));
		/* A proxy's page in whatever encoding: what counts is the status. */
		answer->body = pstrdup("");
		answer->length = 0;
	}
	if (GetDatabaseEncoding() != PG_UTF8 && GetDatabaseEncoding() != PG_SQL_ASCII)
		answer->body = escape_characters(answer->body, answer->length, &answer->length);
}

/* ---- the call --------------------------------------------------------- */

/* At a limit, what the setting says: an error at once, or some patience. */
static QsTicket
submit(const QsTicketRequest *request, QsTicketOutcome *refused)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), qs_limit_wait);

	return qs_ticket_submit_until(request, Min(until, request->deadline), refused);
}

static QsTicketOutcome
exchange(const QsTicketRequest *request, QsTicketAnswer *answer)
{
	QsTicketOutcome outcome;
	QsTicket	ticket = submit(request, &outcome);

	if (ticket == 0)
		return outcome;
	PG_TRY();
	{
		outcome = qs_ticket_wait(ticket, request->deadline);
		if (outcome == QS_ANSWERED)
			qs_ticket_take(ticket, answer);
		else
			qs_ticket_release(ticket);
	}
	PG_CATCH();
	{
		qs_ticket_release(ticket);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return outcome == QS_ANSWERED ? answer->outcome : outcome;
}

static QsTicketRequest
ticket_request(const QsRequest *call, int timeout, bool waited)
{
	QsTicketRequest request;

	request.method = call->method;
	request.server_name = call->server->name;
	request.server_url = call->server->url;
	request.path = call->path;
	request.api_key = call->server->api_key;
	request.connect = &call->server->connect;
	request.body = call->body;
	request.body_length = call->length;
	request.connect_timeout = Min(call->server->connect_timeout, timeout);
	request.read = call->read;
	request.waited = waited;
	request.deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);
	return request;
}

int
qs_timeout_of(const QsServer *server, int given)
{
	if (given > 0)
		return given;
	return server->request_timeout > 0 ? server->request_timeout : qs_request_timeout;
}

static int
timeout_of(const QsRequest *call)
{
	return qs_timeout_of(call->server, call->timeout);
}

/* An answer of Qdrant's, whatever its status. */
static QsAnswer *
answer_of(const QsRequest *call, const QsTicketAnswer *got, bool throw)
{
	QsAnswer   *answer = palloc0(sizeof(QsAnswer));

	answer->status = got->status;
	answer->body = got->body;
	answer->length = got->length;
	verify_encoding(call, answer);
	if (throw && answer->status >= 300 && !(answer->status == 404 && call->may_be_missing))
		qs_throw_status(call, answer);
	return answer;
}

QsAnswer *
qs_send_request(const QsRequest *call, bool throw)
{
	int			timeout = timeout_of(call);
	QsTicketAnswer got = {0};
	QsTicketRequest request;
	QsTicketOutcome outcome;

	qs_require_preload("a request to Qdrant");
	request = ticket_request(call, timeout, true);
	outcome = exchange(&request, &got);
	if (outcome != QS_ANSWERED)
	{
		Failure		failure = failure_of(call, outcome, timeout, got.error);
		QsAnswer   *answer;

		if (throw)
			throw_failure(&failure);
		answer = palloc0(sizeof(QsAnswer));
		answer->error = failure.message;
		answer->sqlstate = failure.sqlstate;
		return answer;
	}
	return answer_of(call, &got, throw);
}

/* ---- the call in steps ------------------------------------------------ */

QsTicket
qs_begin_request(const QsRequest *call, TimestampTz *deadline)
{
	QsTicketRequest request;
	QsTicketOutcome refused;
	QsTicket	ticket;

	qs_require_preload("a request to Qdrant");
	request = ticket_request(call, timeout_of(call), false);
	*deadline = request.deadline;
	ticket = submit(&request, &refused);
	if (ticket == 0)
		qs_throw_outcome(call, refused);
	return ticket;
}

void
qs_throw_outcome(const QsRequest *call, QsTicketOutcome outcome)
{
	Failure		failure = failure_of(call, outcome, timeout_of(call), "");

	throw_failure(&failure);
}

QsAnswer *
qs_copy_answer(const QsRequest *call, QsTicket ticket)
{
	QsTicketAnswer got = {0};

	qs_ticket_copy(ticket, &got);
	if (got.outcome != QS_ANSWERED)
	{
		Failure		failure = failure_of(call, got.outcome, timeout_of(call), got.error);

		throw_failure(&failure);
	}
	return answer_of(call, &got, true);
}

/* ---- names ------------------------------------------------------------ */

static bool
collection_name_ok(const char *name, Size length)
{
	if (length == 0 || length > MAX_COLLECTION_NAME)
		return false;
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return false;
	for (const char *c = name; *c; c++)
	{
		if ((unsigned char) *c < ' ' || *c == 0x7F || strchr("<>:\"/\\|?*", *c) != NULL)
			return false;
	}
	return true;
}

char *
qs_collection_path(const char *collection, const char *rest)
{
	StringInfoData path;
	char	   *name = pg_server_to_any(collection, strlen(collection), PG_UTF8);

	if (!collection_name_ok(name, strlen(name)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid collection name: \"%s\"", collection),
				 errdetail("A collection's name has 1 to %d bytes and none of < > : \" / \\ | ? * or control characters.",
						   MAX_COLLECTION_NAME)));
	initStringInfo(&path);
	appendStringInfoString(&path, "/collections/");
	qs_append_percent_encoded(&path, name);
	appendStringInfoString(&path, rest);
	return path.data;
}
