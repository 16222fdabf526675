/*
 * request_worker.c
 *		The request worker: takes tickets of all databases to Qdrant and their
 *		answers back.
 *
 * One process for the whole server, connected to no database, so that it serves
 * every database and a hot standby; it never opens a transaction.  It always
 * ends with an exit code that lets the postmaster start it again.
 */
#include "qdrant_sync.h"

#include <limits.h>

#include "client/fair_queue.h"
#include "client/ticket.h"
#include "common/settings.h"
#include "net/http.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "sync/launcher.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* How often tickets whose time is over while they queue are looked for. */
#define EXPIRE_MS 1000

/*
 * A waiter gives up by itself at its deadline, with a better message than
 * libcurl's; libcurl's time-out is for those that nobody waits for.
 */
#define LATER_THAN_WAITER_MS 100

/* A request under way; by ticket slot. */
typedef struct Running
{
	QsTicket	ticket;
	QsExchange *exchange;		/* NULL: none */
	Size		received;
	QsTicketOutcome refused;	/* why take_answer did; QS_ANSWERED: it did not */
	TimestampTz deadline;
} Running;

static QsHttp *http;
static QsFairQueue *queue;
static Running *running;
static int	running_count = 0;

/* Inside libcurl: records and returns. */
static bool
take_answer(void *arg, const char *data, Size length)
{
	Running    *run = arg;

	run->received += length;
	run->refused = run->received > qs_ticket_max_answer() ? QS_ANSWER_TOO_LARGE :
		qs_ticket_append(run->ticket, data, length);
	if (run->refused == QS_ANSWERED)
		return true;
	/* At once: its owner may not look for long, and others wait for the room. */
	qs_ticket_drop_answer(run->ticket);
	return false;
}

static void
submit(QsTicket ticket, const QsTicketWork *work)
{
	Running    *run = &running[QS_TICKET_SLOT(ticket)];
	QsHttpRequest request = {0};

	run->ticket = ticket;
	run->received = 0;
	run->refused = QS_ANSWERED;
	run->deadline = work->deadline;
	request.method = work->method;
	request.url = work->url;
	request.body = work->body;
	request.body_length = work->body_length;
	request.api_key = work->api_key;
	request.connect = &work->connect;
	request.connect_timeout = work->connect_timeout;
	request.timeout = Min(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), work->deadline),
						  INT_MAX - LATER_THAN_WAITER_MS) + LATER_THAN_WAITER_MS;
	request.max_answer = 2 * qs_ticket_max_answer();	/* take_answer is stricter */
	request.read = work->read;
	request.sink = take_answer;
	request.sink_arg = run;
	request.owner = run;
	run->exchange = qs_http_submit(http, &request);
	running_count++;
	qs_ticket_forget_key(ticket);
}

static void
start_requests(void)
{
	QsTicket	ticket;

	while ((ticket = qs_fair_queue_next(queue, qs_request_connections)) != 0)
	{
		QsTicketWork work;

		if (qs_ticket_start(ticket, &work))
			submit(ticket, &work);
		else
			qs_fair_queue_ended(queue, ticket);
	}
}

/* After this the handle has left the multi, and the ticket may be ended. */
static QsTicket
forget(Running *run)
{
	QsTicket	ticket = run->ticket;

	run->exchange = NULL;
	running_count--;
	qs_fair_queue_ended(queue, ticket);
	return ticket;
}

static QsTicketOutcome
outcome_of(const Running *run, const QsHttpOutcome *outcome)
{
	if (run->refused != QS_ANSWERED)
		return run->refused;
	if (outcome->status > 0)
		return QS_ANSWERED;
	if (GetCurrentTimestamp() >= run->deadline)
		return QS_TIMED_OUT;
	return outcome->sent ? QS_ANSWER_LOST : QS_NO_ANSWER;
}

static void
take_outcomes(void)
{
	QsExchange *exchange;
	QsHttpOutcome *outcome;

	while ((exchange = qs_http_next(http, &outcome)) != NULL)
	{
		Running    *run = outcome->owner;
		QsTicketOutcome result = outcome_of(run, outcome);
		int			status = outcome->status;
		char		error[sizeof(outcome->error)];

		strlcpy(error, outcome->error, sizeof(error));
		qs_http_release(http, exchange);
		qs_ticket_end(forget(run), result, status, error);
	}
}

static void
cancel_abandoned(void)
{
	QsTicket	ticket;

	while (qs_ticket_next_abandoned(&ticket))
	{
		Running    *run = &running[QS_TICKET_SLOT(ticket)];

		if (run->exchange != NULL && run->ticket == ticket)
		{
			qs_http_cancel(http, run->exchange);
			forget(run);
		}
		qs_ticket_end(ticket, QS_NO_ANSWER, 0, NULL);
	}
}

static void
take_arrivals(void)
{
	QsTicketJob job;

	while (qs_ticket_next_arrival(&job))
		qs_fair_queue_add(queue, &job);
}

static void
report_activity(void)
{
	static int	reported = -1;
	char		activity[64];

	if (running_count == reported)
		return;
	reported = running_count;
	if (reported == 0)
		pgstat_report_activity(STATE_IDLE, NULL);
	else
	{
		snprintf(activity, sizeof(activity), "requests under way: %d", reported);
		pgstat_report_activity(STATE_RUNNING, activity);
	}
}

static void
handle_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();		/* barriers, too: DROP DATABASE waits for them */
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		qs_http_set_connections(http, qs_request_connections);
	}
}

/* Only while tickets queue is there something that no wake-up announces. */
static long
expire_tickets(void)
{
	static TimestampTz expired_at = 0;
	TimestampTz now;

	if (!qs_fair_queue_waiting(queue))
		return -1;
	now = GetCurrentTimestamp();
	if (TimestampDifferenceExceeds(expired_at, now, EXPIRE_MS))
	{
		qs_ticket_expire(now);
		expired_at = now;
	}
	return EXPIRE_MS;
}

void
qs_request_worker_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	/* There is no statement of ours to cancel. */
	pqsignal(SIGINT, SIG_IGN);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname("qdrant_sync request worker");

	http = qs_http_create(qs_request_connections);
	queue = qs_fair_queue_create(qs_max_tickets);
	running = MemoryContextAllocZero(TopMemoryContext, qs_max_tickets * sizeof(Running));
	qs_ticket_worker_start();

	for (;;)
	{
		handle_interrupts();
		take_outcomes();
		cancel_abandoned();
		take_arrivals();
		start_requests();
		report_activity();
		qs_http_wait(http, expire_tickets());
	}
}
