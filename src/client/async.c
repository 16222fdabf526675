/*
 * async.c
 *		qdrant_await and its like: tickets that outlive the call which made them.
 *
 * Runs in backends.  A ticket is known to the session that made it, whatever
 * becomes of the transaction; its slot in shared memory is freed when it is
 * awaited or cancelled, by DISCARD ALL, and else at the session's end (ticket.c).  Who has the
 * session but not the role that made a ticket gets nothing of it.
 *
 * An answer is copied and decoded before its ticket is freed, so that the error
 * of one leaves the others as they were.
 */
#include "qdrant_sync.h"

#include "catalog/pg_type.h"
#include "client/async.h"
#include "client/call_arguments.h"
#include "client/hits.h"
#include "common/rows_out.h"
#include "common/settings.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(qs_await);
PG_FUNCTION_INFO_V1(qs_await_points);
PG_FUNCTION_INFO_V1(qs_await_any);
PG_FUNCTION_INFO_V1(qs_is_done);
PG_FUNCTION_INFO_V1(qs_cancel);

/* In a memory context of its own.  No body and no key: what messages need. */
typedef struct Pending
{
	MemoryContext context;
	QsTicket	ticket;
	Oid			role;
	QsAnswerKind kind;
	TimestampTz deadline;
	QsServer	server;			/* the name alone */
	QsRequest	request;
} Pending;

/* Of this session, by slot; made at the first use. */
static Pending **pending = NULL;
static int	pending_count = 0;

/* ---- the session's tickets -------------------------------------------- */

static Pending *
copy_request(const QsRequest *request, QsAnswerKind kind)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "qdrant_sync ticket",
												  ALLOCSET_SMALL_SIZES);
	Pending    *copy = MemoryContextAllocZero(context, sizeof(Pending));

	copy->context = context;
	copy->role = GetUserId();
	copy->kind = kind;
	copy->request = *request;
	copy->request.server = &copy->server;
	copy->server.name = MemoryContextStrdup(context, request->server->name);
	copy->request.method = MemoryContextStrdup(context, request->method);
	copy->request.path = MemoryContextStrdup(context, request->path);
	copy->request.body = NULL;
	copy->request.timeout = qs_timeout_of(request->server, request->timeout);
	return copy;
}

/* Not waited for: only the session itself could make room. */
static void
check_limit(void)
{
	if (pending_count >= qs_max_session_tickets)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("session has %d tickets that were not awaited", pending_count),
				 errhint("Await or cancel some (qdrant_requests shows them), or raise qdrant_sync.max_session_tickets.")));
}

int64
qs_async_submit(const QsRequest *request, QsAnswerKind kind)
{
	Pending    *copy;

	qs_require_preload("a request to Qdrant");
	if (pending == NULL)
		pending = MemoryContextAllocZero(TopMemoryContext, qs_max_tickets * sizeof(Pending *));
	check_limit();
	copy = copy_request(request, kind);
	copy->ticket = qs_begin_request(request, &copy->deadline);
	/* Nothing below raises an error: who has no number could not free it. */
	MemoryContextSetParent(copy->context, TopMemoryContext);
	pending[QS_TICKET_SLOT(copy->ticket)] = copy;
	pending_count++;
	return copy->ticket;
}

/* Where it is gone already, too. */
static void
forget(QsTicket ticket)
{
	Pending    *entry = pending[QS_TICKET_SLOT(ticket)];

	if (entry == NULL || entry->ticket != ticket)
		return;
	pending[QS_TICKET_SLOT(ticket)] = NULL;
	pending_count--;
	qs_ticket_release(ticket);
	MemoryContextDelete(entry->context);
}

void
qs_async_forget_all(void)
{
	for (int i = 0; pending != NULL && i < qs_max_tickets; i++)
	{
		if (pending[i] != NULL)
			forget(pending[i]->ticket);
	}
}

/* NULL where this session has none of that number. */
static Pending *
look_up(QsTicket ticket)
{
	int			slot = QS_TICKET_SLOT(ticket);
	Pending    *entry;

	if (pending == NULL || ticket <= 0 || slot >= qs_max_tickets)
		return NULL;
	entry = pending[slot];
	if (entry == NULL || entry->ticket != ticket)
		return NULL;
	if (!has_privs_of_role(GetUserId(), entry->role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for ticket " INT64_FORMAT, ticket),
				 errhint("It belongs to the role that made it.")));
	return entry;
}

static Pending *
find(QsTicket ticket)
{
	Pending    *entry = look_up(ticket);

	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("ticket " INT64_FORMAT " does not exist in this session", ticket),
				 errhint("A ticket can be awaited by the session that made it, and is gone when it was awaited or cancelled.")));
	return entry;
}

/* ---- waiting ---------------------------------------------------------- */

static TimestampTz
until_of(FunctionCallInfo fcinfo, int argno)
{
	int			timeout = qs_argument_timeout(fcinfo, argno);

	return timeout == 0 ? DT_NOEND :
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);
}

/* The ticket stays, except where its own time is over. */
static void
wait_for(const Pending *entry, TimestampTz until)
{
	QsTicketOutcome outcome = qs_ticket_wait(entry->ticket, until);

	if (outcome == QS_ANSWERED)
		return;
	if (outcome == QS_TIMED_OUT && GetCurrentTimestamp() < entry->deadline)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("ticket " INT64_FORMAT " was not done in time", entry->ticket),
				 errhint("It stays: await it again, or give it up with qdrant_cancel.")));
	PG_TRY();
	{
		qs_throw_outcome(&entry->request, outcome);
	}
	PG_CATCH();
	{
		if (outcome == QS_TIMED_OUT)
			forget(entry->ticket);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
name_ticket(void *arg)
{
	errcontext("ticket " INT64_FORMAT, *(QsTicket *) arg);
}

static void
require_points(const Pending *entry)
{
	if (entry->kind != QS_ANSWER_POINTS && entry->kind != QS_ANSWER_POINT_ARRAY)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("answer of ticket " INT64_FORMAT " is no list of points", entry->ticket),
				 errhint("Use qdrant_await.")));
}

/* rows == NULL: returns what qdrant_await does. */
static Jsonb *
decode(const Pending *entry, QsRowsOut *rows, int place)
{
	QsAnswer   *answer = qs_copy_answer(&entry->request, entry->ticket);
	QsHit	   *hits;
	int			n;

	if (entry->kind == QS_ANSWER_BARE)
		return qs_answer_document(entry->request.server, answer);
	if (rows == NULL)
		return qs_answer_result(entry->request.server, answer);
	hits = entry->kind == QS_ANSWER_POINTS ? qs_hits_decode(entry->request.server, answer, &n) :
		qs_hits_of_result(entry->request.server, qs_answer_result(entry->request.server, answer), &n);
	for (int i = 0; i < n; i++)
	{
		Datum		values[2 + QS_HIT_COLUMNS] = {Int32GetDatum(place), Int64GetDatum(entry->ticket)};
		bool		nulls[2 + QS_HIT_COLUMNS] = {false};

		qs_hit_columns(&hits[i], values + 2, nulls + 2);
		qs_rows_out_put(rows, values, nulls);
	}
	return NULL;
}

/* A ticket whose answer is an error is gone; one that was not to be read now stays. */
static Jsonb *
collect(const Pending *entry, TimestampTz until, QsRowsOut *rows, int place)
{
	QsTicket	ticket = entry->ticket;
	Jsonb	   *volatile result = NULL;
	ErrorContextCallback context = {error_context_stack, name_ticket, &ticket};

	error_context_stack = &context;
	wait_for(entry, until);
	PG_TRY();
	{
		result = decode(entry, rows, place);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_QUERY_CANCELED)
			forget(ticket);
		PG_RE_THROW();
	}
	PG_END_TRY();
	error_context_stack = context.previous;
	return result;
}

/* ---- functions of SQL ------------------------------------------------- */

Datum
qs_await(PG_FUNCTION_ARGS)
{
	TimestampTz until = until_of(fcinfo, 1);
	QsTicket	ticket;
	Jsonb	   *result;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	ticket = PG_GETARG_INT64(0);
	result = collect(find(ticket), until, NULL, 0);
	forget(ticket);
	PG_RETURN_JSONB_P(result);
}

/* Elements that are NULL become 0, which is no ticket.  Others must be there. */
static QsTicket *
ticket_array(FunctionCallInfo fcinfo, int *n)
{
	Datum	   *elements;
	bool	   *nulls;
	QsTicket   *tickets;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &elements, &nulls, n);
	tickets = palloc((*n + 1) * sizeof(QsTicket));
	for (int i = 0; i < *n; i++)
		tickets[i] = nulls[i] ? 0 : find(DatumGetInt64(elements[i]))->ticket;
	return tickets;
}

Datum
qs_await_points(PG_FUNCTION_ARGS)
{
	QsRowsOut	rows = qs_rows_out_begin(fcinfo);
	TimestampTz until = until_of(fcinfo, 1);
	QsTicket   *tickets;
	int			n;

	if (PG_ARGISNULL(0))
		return (Datum) 0;
	tickets = ticket_array(fcinfo, &n);
	for (int i = 0; i < n; i++)
	{
		if (tickets[i] != 0)
			require_points(find(tickets[i]));
	}
	for (int i = 0; i < n; i++)
	{
		if (tickets[i] != 0)
			(void) collect(find(tickets[i]), until, &rows, i + 1);
	}
	for (int i = 0; i < n; i++)
	{
		if (tickets[i] != 0)
			forget(tickets[i]);
	}
	return (Datum) 0;
}

Datum
qs_await_any(PG_FUNCTION_ARGS)
{
	TimestampTz until = until_of(fcinfo, 1);
	QsTicketOutcome outcome;
	QsTicket   *tickets;
	int			n;
	int			given = 0;
	int			which;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	tickets = ticket_array(fcinfo, &n);
	for (int i = 0; i < n; i++)
	{
		if (tickets[i] != 0)
			tickets[given++] = tickets[i];
	}
	if (given == 0)
		PG_RETURN_NULL();
	outcome = qs_ticket_wait_any(tickets, given, until, &which);
	if (outcome == QS_TIMED_OUT)
		PG_RETURN_NULL();
	if (outcome != QS_ANSWERED)
		qs_throw_outcome(&find(tickets[0])->request, outcome);
	PG_RETURN_INT64(tickets[which]);
}

Datum
qs_is_done(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(qs_ticket_ended(find(PG_GETARG_INT64(0))->ticket));
}

Datum
qs_cancel(PG_FUNCTION_ARGS)
{
	Pending    *entry = look_up(PG_GETARG_INT64(0));

	if (entry == NULL)
		PG_RETURN_BOOL(false);
	forget(entry->ticket);
	PG_RETURN_BOOL(true);
}
