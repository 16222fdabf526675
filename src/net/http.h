/*
 * http.h
 *		HTTP for both workers: requests in, outcomes out, over one libcurl multi
 *		handle that is waited for together with the process's latch.
 *
 * Knows nothing of tables, mirrors or tickets.  No function here raises an
 * ERROR from inside libcurl; none is called with a transaction open except
 * qs_http_submit, qs_http_cancel, qs_http_next and qs_http_release.
 */
#ifndef QS_HTTP_H
#define QS_HTTP_H

#include "qdrant_sync.h"
#include "common/connect_options.h"
#include "lib/stringinfo.h"

typedef struct QsHttp QsHttp;	/* opaque: multi handle, descriptors, wait set */
typedef struct QsExchange QsExchange;	/* opaque: one request under way */

/* Takes a piece of the answer; false refuses it and ends the transfer. */
typedef bool (*QsHttpSink) (void *arg, const char *data, Size length);

typedef struct QsHttpRequest
{
	const char *method;			/* GET, POST, PUT, PATCH, DELETE */
	const char *url;			/* whole; its path is sent as it is (hazard R7) */
	const char *body;			/* borrowed until the outcome is taken; NULL: none */
	Size		body_length;
	const char *api_key;		/* copied; NULL: none */
	const QsConnectOptions *connect;	/* copied; NULL: none is set */
	int			connect_timeout;	/* ms, name look-up included, from when a connection
								 * is wanted; 0: none */
	int			timeout;		/* ms for the whole exchange, the wait for one of the
								 * host's connections included; 0: none, only keepalive */
	Size		max_answer;		/* bytes; more is an error "answer too large" */
	bool		read;			/* safe to repeat: sent again where a kept connection
								 * turns out to be closed (hazard R11); a write's body
								 * never leaves twice (hazard 1) */
	QsHttpSink	sink;			/* NULL: the answer is collected into the outcome; it
								 * raises nothing, and calls nothing of http.h */
	void	   *sink_arg;
	void	   *owner;			/* the caller's own */
} QsHttpRequest;

typedef struct QsHttpOutcome
{
	void	   *owner;
	int			status;			/* HTTP status; 0: no whole answer */
	bool		sent;			/* a byte of the body (of the head, where there is no
								 * body) may have left: with status 0 in doubt */
	bool		resent;			/* a read was repeated; always false for writes */
	int			retry_after;	/* seconds; -1: no such header */
	bool		json;			/* content-type is JSON */
	char	   *answer;			/* NUL-terminated, the exchange's: valid until
								 * qs_http_release; NULL with a sink */
	Size		answer_length;
	char		error[256];		/* status 0: why, without secrets */
} QsHttpOutcome;

/*
 * Made in a worker after fork; connections per host bounded.  More requests than
 * that wait inside libcurl, unfairly and at 70 kB each: callers keep queues of
 * their own (hazard R6).  TopMemoryContext.
 */
extern QsHttp *qs_http_create(int connections_per_host);
extern void qs_http_set_connections(QsHttp *http, int connections_per_host);
extern void qs_http_destroy(QsHttp *http);

/* Starts a request.  ERROR only for lack of memory, and then nothing is under way. */
extern QsExchange *qs_http_submit(QsHttp *http, const QsHttpRequest *request);

/*
 * Drops a request whatever its state; its outcome is in doubt to the caller.  Its
 * connection is closed, its body is the caller's again, its exchange is gone.
 */
extern void qs_http_cancel(QsHttp *http, QsExchange *exchange);

/* Number of requests under way. */
extern int	qs_http_running(const QsHttp *http);

/*
 * Drives transfers and sleeps until the latch is set, a transfer ended, or
 * timeout ms passed (-1: for ever).  Resets the latch.  The caller handles
 * interrupts.  Must not be called inside a transaction.
 */
extern void qs_http_wait(QsHttp *http, long timeout);

/* Next ended exchange, or NULL; its outcome stays valid until released. */
extern QsExchange *qs_http_next(QsHttp *http, QsHttpOutcome **outcome);
extern void qs_http_release(QsHttp *http, QsExchange *exchange);

/* Percent-encodes everything but unreserved characters into out. */
extern void qs_append_percent_encoded(StringInfo out, const char *segment);

#endif							/* QS_HTTP_H */
