/*
 * call.h
 *		Servers as the sync worker sees them, and requests to them.
 *
 * An endpoint is a server with the key of one role: the owner of a mirrored
 * table.  It paces its requests: a number in flight, a wait after failures with
 * one probe (the breaker), and what the server said of itself.
 */
#ifndef QS_CALL_H
#define QS_CALL_H

#include "common/server.h"
#include "lib/ilist.h"
#include "net/http.h"
#include "datatype/timestamp.h"

typedef enum QsEndpointState
{
	QS_ENDPOINT_UNKNOWN,		/* not asked yet, or again after a failure */
	QS_ENDPOINT_ASKING,
	QS_ENDPOINT_READY,
	QS_ENDPOINT_UNUSABLE		/* error says why */
} QsEndpointState;

typedef struct QsEndpoint
{
	QsEndpointState state;
	dlist_node	node;
	char	   *server_name;
	Oid			owner;
	QsServer   *server;			/* NULL: not looked up yet, or it may have changed */
	MemoryContext context;		/* of server, and of what looking it up left behind */
	struct QsCall *asking;		/* QS_ENDPOINT_ASKING: who the server is */
	bool		in_cluster;		/* more than one peer */
	char		version[32];
	char		error[600];
	bool		error_passes;	/* of the look-up: a file that cannot be read now may be later */
	bool		no_such_server; /* of the look-up */
	int			running;		/* writes in flight */
	int			probes;			/* in flight, begun while it failed */
	int			failures;		/* in a row */
	bool		writes_fail;	/* the last write did: that reads are answered says little */
	TimestampTz not_before;		/* no request starts earlier */
} QsEndpoint;

typedef enum QsCallKind
{
	QS_CALL_READ,				/* may be repeated without asking */
	QS_CALL_CHANGE,				/* of collections or aliases */
	QS_CALL_WRITE				/* of points: counted in endpoint->running */
} QsCallKind;

typedef struct QsCall QsCall;

/* arg is the caller's; the outcome is valid during the call only. */
typedef void (*QsCallFinished) (void *arg, const QsHttpOutcome *outcome);

struct QsCall
{
	QsCallFinished finished;
	void	   *arg;
	QsEndpoint *endpoint;
	QsExchange *exchange;
	char	   *body;			/* palloc'd; freed with the call */
	QsCallKind	kind;
	bool		probe;			/* counted in endpoint->probes */
};

extern void qs_calls_init(void);
extern void qs_calls_apply_settings(void);	/* after a reload */

/*
 * Endpoint for server and role; the same for every mirror that names them.  It
 * is looked up when it is first used; needs a transaction only then.
 */
extern QsEndpoint *qs_endpoint_get(const char *server_name, Oid owner);

/* Looks the server up where that is due; false with endpoint->error. Needs a transaction. */
extern bool qs_endpoint_resolve(QsEndpoint *endpoint);

/* Asks who the server is, where that is due.  True where it is ready for use. */
extern bool qs_endpoint_ready(QsEndpoint *endpoint);

/* Servers or mappings changed: look all of them up again. */
extern void qs_endpoints_invalidate(void);

/* A key that is kept in a file has changed, which no catalog tells. */
extern bool qs_endpoints_changed(void);

/*
 * May a read or a change start now?  While the server fails, only after its wait and
 * one at a time for all mirrors (the breaker).  What was begun before it failed may
 * hang, and is not waited for.
 */
extern bool qs_endpoint_open(const QsEndpoint *endpoint, TimestampTz now);

/* When it opens: with the end of a wait, or (0) with the answer to a probe. */
extern TimestampTz qs_endpoint_opens_at(const QsEndpoint *endpoint);

/* How many writes may start now. */
extern int	qs_endpoint_room(const QsEndpoint *endpoint, TimestampTz now);

/* It failed: wait, longer each time.  It answered: no wait. */
extern void qs_endpoint_failed(QsEndpoint *endpoint);
extern void qs_endpoint_answered(QsEndpoint *endpoint);
extern void qs_endpoint_wait(QsEndpoint *endpoint, int milliseconds);

/* Earliest moment at which an endpoint's wait ends; 0: none waits. */
extern TimestampTz qs_endpoints_next_wake(TimestampTz now);

/* "/collections/", the name percent-encoded, and rest; palloc'd. */
extern char *qs_call_path(const char *name, const char *rest);

/*
 * rest for a write of points: "points" and what every write is told, which is to
 * wait, for how long, and in a cluster of Qdrant who orders it.  palloc'd.
 */
extern char *qs_call_points(const QsEndpoint *endpoint, const char *points);

/* A body of net/qdrant_json.h, malloc'd and taken, for a call.  ERROR 53200 for NULL. */
extern char *qs_call_body(char *json);

/*
 * Starts a request.  path begins with "/"; body is palloc'd and handed over
 * (NULL: none).  Not inside a transaction.
 */
extern QsCall *qs_call_write(QsEndpoint *endpoint, const char *method, const char *path,
							 char *body, Size length, QsCallFinished finished, void *arg);
/* A change of collections or aliases: neither counted as a write nor repeated by itself. */
extern QsCall *qs_call_change(QsEndpoint *endpoint, const char *method, const char *path,
							  char *body, QsCallFinished finished, void *arg);
extern QsCall *qs_call_read(QsEndpoint *endpoint, const char *method, const char *path,
							char *body, QsCallFinished finished, void *arg);

/* Gives a request up: to its server it is in doubt.  finished is not called. */
extern void qs_call_cancel(QsCall *call);

/* Ends what has ended: calls finished for each, then frees it. */
extern void qs_calls_dispatch(void);

/* Sleeps until there is something to do. */
extern void qs_calls_wait(long timeout);

#endif							/* QS_CALL_H */
