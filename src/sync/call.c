/*
 * call.c
 *		Endpoints and calls of the sync worker, over net/http.h.
 */
#include "qdrant_sync.h"
#include "common/settings.h"
#include "net/outcome.h"
#include "sync/call.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

/* How long a look-up that failed for what passes is not tried again. */
#define LOOK_UP_AGAIN_MS 1000

/* Of reads and changes: a server that answers later would hold a claim up. */
#define READ_TIMEOUT_MS (30 * 1000)

/*
 * The client must not give up before the server does (hazard 1): the server is
 * told its own time-out, and only one that hangs meets this bound.
 */
#define WRITE_HARD_TIMEOUT_MS (10 * 60 * 1000)

static QsHttp *http = NULL;
static dlist_head endpoints = DLIST_STATIC_INIT(endpoints);

/* Two more than for writes: a claim or a scroll does not wait for them. */
#define CONNECTIONS_PER_HOST (qs_sync_connections + 2)

void
qs_calls_init(void)
{
	http = qs_http_create(CONNECTIONS_PER_HOST);
}

void
qs_calls_apply_settings(void)
{
	qs_http_set_connections(http, CONNECTIONS_PER_HOST);
}

QsEndpoint *
qs_endpoint_get(const char *server_name, Oid owner)
{
	QsEndpoint *endpoint;
	dlist_iter	iter;

	dlist_foreach(iter, &endpoints)
	{
		endpoint = dlist_container(QsEndpoint, node, iter.cur);
		if (endpoint->owner == owner && strcmp(endpoint->server_name, server_name) == 0)
			return endpoint;
	}
	endpoint = MemoryContextAllocZero(TopMemoryContext, sizeof(QsEndpoint));
	endpoint->server_name = MemoryContextStrdup(TopMemoryContext, server_name);
	endpoint->owner = owner;
	dlist_push_tail(&endpoints, &endpoint->node);
	return endpoint;
}

void
qs_endpoints_invalidate(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &endpoints)
	{
		QsEndpoint *endpoint = dlist_container(QsEndpoint, node, iter.cur);

		/* What the old server says of itself is not the new one's. */
		if (endpoint->asking != NULL)
			qs_call_cancel(endpoint->asking);
		endpoint->asking = NULL;
		/* Overwrites the key before its memory is given back. */
		if (endpoint->server != NULL)
			qs_server_free(endpoint->server);
		if (endpoint->context != NULL)
			MemoryContextReset(endpoint->context);
		endpoint->server = NULL;
		endpoint->error_passes = false;
		endpoint->state = QS_ENDPOINT_UNKNOWN;
		endpoint->failures = 0;
		endpoint->not_before = 0;
	}
}

bool
qs_endpoints_changed(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &endpoints)
	{
		QsEndpoint *endpoint = dlist_container(QsEndpoint, node, iter.cur);

		if (endpoint->server != NULL && qs_server_key_changed(endpoint->server))
			return true;
	}
	return false;
}

/*
 * The look-up's own ERROR (no such server, no USAGE) becomes endpoint->error.  It
 * is a subtransaction's, so that the caller's transaction can go on after it.
 */
bool
qs_endpoint_resolve(QsEndpoint *endpoint)
{
	MemoryContext old = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool found = true;

	if (endpoint->server != NULL)
		return true;
	if (endpoint->error_passes && GetCurrentTimestamp() < endpoint->not_before)
		return false;
	endpoint->error_passes = endpoint->no_such_server = false;
	if (endpoint->context == NULL)
		endpoint->context = AllocSetContextCreate(TopMemoryContext, "qdrant_sync server",
												  ALLOCSET_SMALL_SIZES);
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		MemoryContextSwitchTo(endpoint->context);
		endpoint->server = qs_server_get(endpoint->server_name, endpoint->owner);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		strlcpy(endpoint->error, error->message, sizeof(endpoint->error));
		endpoint->error_passes = error->sqlerrcode == ERRCODE_IO_ERROR;
		endpoint->no_such_server = error->sqlerrcode == ERRCODE_UNDEFINED_OBJECT;
		FreeErrorData(error);
		MemoryContextReset(endpoint->context);
		endpoint->server = NULL;
		found = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	CurrentResourceOwner = owner;
	if (!found && endpoint->error_passes)
		qs_endpoint_wait(endpoint, LOOK_UP_AGAIN_MS);
	return found;
}

static void
cluster_answered(void *arg, const QsHttpOutcome *outcome)
{
	QsEndpoint *endpoint = arg;
	int			peers;

	endpoint->asking = NULL;
	if (outcome->status == 0)
	{
		endpoint->state = QS_ENDPOINT_UNKNOWN;
		qs_endpoint_failed(endpoint);
		strlcpy(endpoint->error, outcome->error, sizeof(endpoint->error));
		return;
	}
	/* A key without the right to see this says nothing; standalone is assumed. */
	peers = outcome->status == 200 ? qs_json_peers(outcome->answer, outcome->answer_length) : 0;
	endpoint->in_cluster = peers > 1;
	endpoint->state = QS_ENDPOINT_READY;
	qs_endpoint_answered(endpoint);
}

/* Writes take timeout= and answer wait_timeout from 1.17 on (hazard 1). */
static bool
version_is_enough(const char *version)
{
	int			major = 0;
	int			minor = 0;

	if (sscanf(version, "%d.%d", &major, &minor) != 2)
		return false;
	return major > 1 || (major == 1 && minor >= 17);
}

static void
version_answered(void *arg, const QsHttpOutcome *outcome)
{
	QsEndpoint *endpoint = arg;

	endpoint->asking = NULL;
	endpoint->state = QS_ENDPOINT_UNKNOWN;
	if (outcome->status != 200 ||
		!qs_json_version(outcome->answer, outcome->answer_length,
						 endpoint->version, sizeof(endpoint->version)))
	{
		qs_endpoint_failed(endpoint);
		if (outcome->status == 0)
			strlcpy(endpoint->error, outcome->error, sizeof(endpoint->error));
		else
			snprintf(endpoint->error, sizeof(endpoint->error),
					 "server \"%s\" did not say that it is a Qdrant (HTTP status %d)",
					 endpoint->server_name, outcome->status);
		return;
	}
	if (!version_is_enough(endpoint->version))
	{
		snprintf(endpoint->error, sizeof(endpoint->error),
				 "server \"%s\" is Qdrant %s, and mirrors need 1.17 or newer",
				 endpoint->server_name, endpoint->version);
		endpoint->state = QS_ENDPOINT_UNUSABLE;
		qs_endpoint_wait(endpoint, 60 * 1000);
		return;
	}
	endpoint->state = QS_ENDPOINT_ASKING;
	endpoint->asking = qs_call_read(endpoint, "GET", "/cluster", NULL, cluster_answered, endpoint);
}

bool
qs_endpoint_ready(QsEndpoint *endpoint)
{
	bool		ask = endpoint->state == QS_ENDPOINT_UNKNOWN ||
		endpoint->state == QS_ENDPOINT_UNUSABLE;

	if (ask && endpoint->server != NULL && GetCurrentTimestamp() >= endpoint->not_before)
	{
		endpoint->state = QS_ENDPOINT_ASKING;
		endpoint->asking = qs_call_read(endpoint, "GET", "/", NULL, version_answered, endpoint);
	}
	return endpoint->state == QS_ENDPOINT_READY;
}

bool
qs_endpoint_open(const QsEndpoint *endpoint, TimestampTz now)
{
	return endpoint->failures == 0 || (now >= endpoint->not_before && endpoint->probes == 0);
}

TimestampTz
qs_endpoint_opens_at(const QsEndpoint *endpoint)
{
	return endpoint->probes > 0 ? 0 : endpoint->not_before;
}

int
qs_endpoint_room(const QsEndpoint *endpoint, TimestampTz now)
{
	if (endpoint->state != QS_ENDPOINT_READY || now < endpoint->not_before)
		return 0;
	if (endpoint->failures > 0)
		return endpoint->running == 0 && endpoint->probes == 0 ? 1 : 0;
	return Max(0, qs_sync_connections - endpoint->running);
}

void
qs_endpoint_wait(QsEndpoint *endpoint, int milliseconds)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds);

	endpoint->not_before = Max(endpoint->not_before, until);
}

void
qs_endpoint_failed(QsEndpoint *endpoint)
{
	/* What was under way together fails together, and counts once. */
	if (GetCurrentTimestamp() < endpoint->not_before)
		return;
	endpoint->failures++;
	qs_endpoint_wait(endpoint, qs_backoff_ms(endpoint->failures, qs_random32()));
}

void
qs_endpoint_answered(QsEndpoint *endpoint)
{
	endpoint->failures = 0;
}

TimestampTz
qs_endpoints_next_wake(TimestampTz now)
{
	TimestampTz next = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &endpoints)
	{
		QsEndpoint *endpoint = dlist_container(QsEndpoint, node, iter.cur);

		if (endpoint->not_before > now && (next == 0 || endpoint->not_before < next))
			next = endpoint->not_before;
	}
	return next;
}

char *
qs_call_path(const char *name, const char *rest)
{
	StringInfoData path;

	initStringInfo(&path);
	appendStringInfoString(&path, "/collections/");
	qs_append_percent_encoded(&path, name);
	appendStringInfoString(&path, rest);
	return path.data;
}

/* Replicas: the highest of them orders what comes at the same time. */
char *
qs_call_points(const QsEndpoint *endpoint, const char *points)
{
	return psprintf("/%s?wait=true&timeout=%d%s", points,
					Max(1, endpoint->server->timeout / 1000),
					endpoint->in_cluster ? "&ordering=medium" : "");
}

char *
qs_call_body(char *json)
{
	char	   *body;

	if (json == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("A request to Qdrant could not be written.")));
	body = MemoryContextStrdup(TopMemoryContext, json);
	free(json);
	return body;
}

static QsCall *
start_call(QsCall *call, const char *method, const char *path, Size length)
{
	QsServer   *server = call->endpoint->server;
	QsHttpRequest request = {0};
	char	   *url = psprintf("%s%s", server->url, path);

	request.method = method;
	request.url = url;
	request.body = call->body;
	request.body_length = length;
	request.api_key = server->api_key;
	request.connect = &server->connect;
	request.connect_timeout = server->connect_timeout;
	request.timeout = call->kind == QS_CALL_WRITE
		? Max(WRITE_HARD_TIMEOUT_MS, 2 * server->timeout) : READ_TIMEOUT_MS;
	request.max_answer = call->kind == QS_CALL_READ ? 64 * 1024 * 1024 : 1024 * 1024;
	request.read = call->kind == QS_CALL_READ;
	request.owner = call;
	call->exchange = qs_http_submit(http, &request);
	if (call->kind == QS_CALL_WRITE)
		call->endpoint->running++;
	pfree(url);
	return call;
}

static QsCall *
make_call(QsEndpoint *endpoint, char *body, QsCallKind kind, QsCallFinished finished, void *arg)
{
	QsCall	   *call = MemoryContextAllocZero(TopMemoryContext, sizeof(QsCall));

	Assert(endpoint->server != NULL);
	call->finished = finished;
	call->arg = arg;
	call->endpoint = endpoint;
	call->probe = endpoint->failures > 0;
	if (call->probe)
		endpoint->probes++;
	call->body = body;
	call->kind = kind;
	return call;
}

QsCall *
qs_call_write(QsEndpoint *endpoint, const char *method, const char *path,
			  char *body, Size length, QsCallFinished finished, void *arg)
{
	return start_call(make_call(endpoint, body, QS_CALL_WRITE, finished, arg), method, path, length);
}

QsCall *
qs_call_read(QsEndpoint *endpoint, const char *method, const char *path,
			 char *body, QsCallFinished finished, void *arg)
{
	return start_call(make_call(endpoint, body, QS_CALL_READ, finished, arg), method, path,
					  body ? strlen(body) : 0);
}

QsCall *
qs_call_change(QsEndpoint *endpoint, const char *method, const char *path,
			   char *body, QsCallFinished finished, void *arg)
{
	return start_call(make_call(endpoint, body, QS_CALL_CHANGE, finished, arg), method, path,
					  body ? strlen(body) : 0);
}

/* It has ended, whatever becomes of whoever is told. */
static void
uncount(QsCall *call)
{
	if (call->kind == QS_CALL_WRITE)
		call->endpoint->running--;
	if (call->probe)
		call->endpoint->probes--;
}

static void
free_call(QsCall *call)
{
	if (call->body != NULL)
		pfree(call->body);
	pfree(call);
}

void
qs_call_cancel(QsCall *call)
{
	qs_http_cancel(http, call->exchange);
	uncount(call);
	free_call(call);
}

/* A server that answers is back, unless it is the writes that fail. */
static void
note_outcome(QsCall *call, const QsHttpOutcome *outcome)
{
	QsEndpoint *endpoint = call->endpoint;

	if (call->kind == QS_CALL_WRITE)
		endpoint->writes_fail = outcome->status == 0 || outcome->status >= 500;
	else if (outcome->status >= 200 && outcome->status < 300 && !endpoint->writes_fail)
		qs_endpoint_answered(endpoint);
}

void
qs_calls_dispatch(void)
{
	QsHttpOutcome *outcome;
	QsExchange *exchange;

	while ((exchange = qs_http_next(http, &outcome)) != NULL)
	{
		QsCall	   *call = outcome->owner;

		uncount(call);
		note_outcome(call, outcome);
		call->finished(call->arg, outcome);
		qs_http_release(http, exchange);
		free_call(call);
	}
}

void
qs_calls_wait(long timeout)
{
	qs_http_wait(http, timeout);
}
