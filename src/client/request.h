/*
 * request.h
 *		One request from a backend through the request worker, waited for.
 */
#ifndef QS_REQUEST_H
#define QS_REQUEST_H

#include "qdrant_sync.h"
#include "client/ticket.h"
#include "common/server.h"

typedef struct QsAnswer
{
	int			status;			/* HTTP; 0 only with throw = false: no answer */
	char	   *body;			/* palloc'd, NUL-terminated, valid both in UTF-8 and
								 * in the database's encoding: where that is another
								 * one, JSON's other characters than ASCII are
								 * written \uXXXX */
	Size		length;
	char	   *error;			/* throw = false: why there is no answer; else NULL */
	int			sqlstate;		/* throw = false: code of that error */
} QsAnswer;

typedef struct QsRequest
{
	const QsServer *server;
	const char *method;
	const char *path;			/* "/collections/x/points/query", percent-encoded,
								 * query string included */
	const char *body;			/* UTF-8; NULL: none */
	Size		length;
	int			timeout;		/* ms; 0: as qs_timeout_of says */
	int			shown_timeout;	/* ms, of which timeout is what is left; 0: timeout itself */
	bool		read;			/* changes nothing: may be repeated silently */
	const char *missing_hint;	/* hint of the ERROR for status 404; NULL: none */
	const char *missing_point_hint; /* the same where the collection is there; NULL: missing_hint */
	Oid			table;			/* whose mirror owns the collection; InvalidOid: none */
	bool		may_be_missing;	/* status 404 is an answer, and no ERROR */
} QsRequest;

/* Detail of errors about a change that may have reached Qdrant. */
#define QS_IN_DOUBT "It is not known whether Qdrant carries the request out."

/* What a call may take: what it says itself (0: nothing), else the server, else the setting. */
extern int	qs_timeout_of(const QsServer *server, int given);

/*
 * Sends and waits, interruptibly.  A status of 300 or more, no answer or no
 * worker is an ERROR that says what Qdrant said, unless throw is false.  Any
 * HTTP answer is returned with throw = false.  The errors:
 *
 *		08006	no answer, or none in time
 *		57P03	request worker absent or restarted; Qdrant says 429 or 503
 *		53200, 53400, 54000	no memory or ticket left, answer too large
 *		22023	400, 422		42704	404		42710	409
 *		28000	401				42501	403		58000	any other status
 */
extern QsAnswer *qs_send_request(const QsRequest *call, bool throw);

/*
 * The same in three steps, for who waits later.  Of call's server only the name
 * is used after the first.  qs_begin_request raises an ERROR at a limit.
 */
extern QsTicket qs_begin_request(const QsRequest *call, TimestampTz *deadline);

/* The ERROR for a ticket that cannot be waited for: QS_TIMED_OUT, QS_NO_REQUEST_WORKER. */
extern void qs_throw_outcome(const QsRequest *call, QsTicketOutcome outcome);

/* Copies the answer of a ticket that is done, which stays; errors as qs_send_request. */
extern QsAnswer *qs_copy_answer(const QsRequest *call, QsTicket ticket);

/* The ERROR that qs_send_request raises for an answer of status 300 or more. */
extern void qs_throw_status(const QsRequest *call, const QsAnswer *answer);

/* "/collections/" + percent-encoded name + rest; palloc'd.  ERROR 22023 for names
 * that no collection can have. */
extern char *qs_collection_path(const char *collection, const char *rest);

#endif							/* QS_REQUEST_H */
