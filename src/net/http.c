/*
 * http.c
 *		HTTP for both workers, over one libcurl multi handle.
 *
 * Runs in the sync worker and the request worker; the only file that includes
 * curl.h.  Callbacks of libcurl only record: none raises an ERROR, allocates
 * with palloc, or frees a handle.  Handles leave the multi in qs_http_wait and
 * qs_http_cancel, outside of every callback.
 *
 * Refuses redirects, proxies that no option names, every scheme but http and https,
 * answers and heads beyond their bound, and to send the body of a write a second time.
 */
#include "qdrant_sync.h"

#include <pthread.h>
#include <signal.h>
#include <curl/curl.h>

#include "common/server.h"
#include "lib/ilist.h"
#include "net/http.h"
#include "net/wait.h"
#include "access/xact.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "utils/memutils.h"

/* Qdrant closes after 5 s; libcurl counts truncated seconds, so 3 is up to 4 (R11). */
#define MAX_IDLE_SECONDS 3

/*
 * libcurl does not look at idle connections; when nothing has been under way for
 * this long they are closed, and none is left half closed for hours.
 */
#define IDLE_CLOSE_MS 4000

/* An answer's head: Qdrant's is under 500 bytes, proxies add cookies and policies. */
#define MAX_HEAD_BYTES (64 * 1024)

/* Handles kept for reuse, some 70 kB each with their buffers. */
#define MAX_FREE_HANDLES 32

/* Sockets served in one turn; the rest are ready in the next. */
#define MAX_READY 16

#define NEVER PG_INT64_MAX

typedef enum QsExchangeState
{
	QS_EXCHANGE_NEW,			/* first */
	QS_EXCHANGE_RUNNING,		/* from NEW: in the multi, in http->running */
	QS_EXCHANGE_ENDED,			/* from NEW, RUNNING: in http->ended */
	QS_EXCHANGE_TAKEN			/* from ENDED: the caller looks at the outcome */
} QsExchangeState;

/* How the body is handed to libcurl. */
typedef enum QsBodyMode
{
	QS_BODY_NONE,
	QS_BODY_MEMORY,				/* reads: one send with the head, may be repeated */
	QS_BODY_STREAM				/* writes: piece by piece, once */
} QsBodyMode;

/*
 * An easy handle with its wiring.  It outlives its exchange while the name of a
 * host that was given up is still being looked up; then exchange is NULL, and
 * callbacks refuse whatever libcurl asks for.
 */
typedef struct QsHandle
{
	dlist_node	node;			/* in http->free or http->lookups */
	QsHttp	   *http;
	CURL	   *easy;
	QsExchange *exchange;
	struct curl_slist *headers;
	bool		looking_up;		/* in getaddrinfo, as far as we know */
	uint64		digest;			/* of the connect options that it has; 0: of none */
	char		error[CURL_ERROR_SIZE];
} QsHandle;

struct QsExchange
{
	QsExchangeState state;
	dlist_node	node;
	QsHandle   *handle;			/* QS_EXCHANGE_RUNNING only */
	const char *body;			/* the caller's */
	Size		body_length;
	Size		body_taken;		/* bytes that libcurl took of a streamed body */
	QsBodyMode	body_mode;
	Size		max_answer;
	QsHttpSink	sink;
	void	   *sink_arg;
	int64		deadline;		/* of connecting while that lasts, then of the whole */
	int64		last_deadline;	/* of the whole */
	int			connect_timeout;	/* ms; 0: none */
	int			timeout;		/* ms; 0: none */
	bool		connecting;		/* the clock of connecting was started */
	int			issued;			/* times that its head was about to be sent */
	Size		head_bytes;
	Size		answer_room;
	bool		head_whole;		/* the empty line after the last head was there */
	bool		retry_after_seen;
	const char *fault;			/* a callback's reason to end it; constant text */
	QsHttpOutcome outcome;
};

struct QsHttp
{
	MemoryContext context;
	CURLM	   *multi;
	QsWaiter   *waiter;
	int			connections_per_host;
	int64		curl_deadline;	/* when libcurl wants to be called */
	int			open_sockets;
	int64		idle_since;
	int			nrunning;
	int			nfree;
	int			most_free;		/* handles kept to be used again */
	dlist_head	running;		/* of QsExchange */
	dlist_head	ended;			/* of QsExchange, in the order of their ends */
	dlist_head	free;			/* of QsHandle */
	dlist_head	lookups;		/* of QsHandle without an exchange */
};

static int64
now_ms(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MILLISEC(now);
}

static void
set_state(QsHttp *http, QsExchange *exchange, QsExchangeState state)
{
	switch (state)
	{
		case QS_EXCHANGE_NEW:
			Assert(false);
			break;
		case QS_EXCHANGE_RUNNING:
			Assert(exchange->state == QS_EXCHANGE_NEW);
			dlist_push_tail(&http->running, &exchange->node);
			http->nrunning++;
			break;
		case QS_EXCHANGE_ENDED:
			if (exchange->state == QS_EXCHANGE_RUNNING)
			{
				dlist_delete(&exchange->node);
				if (--http->nrunning == 0)
					http->idle_since = now_ms();
			}
			else
				Assert(exchange->state == QS_EXCHANGE_NEW);
			dlist_push_tail(&http->ended, &exchange->node);
			break;
		case QS_EXCHANGE_TAKEN:
			Assert(exchange->state == QS_EXCHANGE_ENDED);
			dlist_delete(&exchange->node);
			break;
	}
	exchange->state = state;
}

/* ---------------------------------------------------- callbacks of a request */

/* CURLOPT_READFUNCTION, for writes. */
static size_t
give_body(char *buffer, size_t size, size_t count, void *arg)
{
	QsExchange *exchange = ((QsHandle *) arg)->exchange;
	Size		length;

	if (exchange == NULL)
		return CURL_READFUNC_ABORT;
	length = Min(size * count, exchange->body_length - exchange->body_taken);
	memcpy(buffer, exchange->body + exchange->body_taken, length);
	exchange->body_taken += length;
	return length;
}

/*
 * CURLOPT_SEEKFUNCTION, for writes: libcurl wants to send the body again, since a
 * kept connection was closed before the answer came.  The server may have read
 * the first copy (hazard 1), so it must not; the request then ends in doubt.
 */
static int
refuse_rewind(void *arg, curl_off_t offset, int origin)
{
	QsExchange *exchange = ((QsHandle *) arg)->exchange;

	if (exchange != NULL)
		exchange->fault = "the server closed the connection without an answer";
	return CURL_SEEKFUNC_FAIL;
}

#if QS_CURL_HAS_PREREQFUNCTION
/*
 * CURLOPT_PREREQFUNCTION: the head is about to be sent.  Comes again where
 * libcurl repeats a request; a write may be repeated only while its body is
 * untouched.  (libcurl asks for no rewind where it took bytes that no send took.)
 */
static int
before_request(void *arg, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	QsExchange *exchange = ((QsHandle *) arg)->exchange;

	if (exchange == NULL)
		return CURL_PREREQFUNC_ABORT;
	exchange->issued++;
	if (exchange->body_taken == 0)
		return CURL_PREREQFUNC_OK;
	exchange->fault = "the server closed the connection without an answer";
	return CURL_PREREQFUNC_ABORT;
}
#endif

static bool
make_room(QsExchange *exchange, Size more)
{
	QsHttpOutcome *outcome = &exchange->outcome;
	Size		needed = outcome->answer_length + more + 1;
	Size		room = Max(exchange->answer_room, 1024);
	char	   *answer;

	if (needed <= exchange->answer_room)
		return true;
	while (room < needed)
		room *= 2;
	answer = realloc(outcome->answer, room);
	if (answer == NULL)
		return false;
	outcome->answer = answer;
	exchange->answer_room = room;
	return true;
}

/* CURLOPT_WRITEFUNCTION: a short return ends the transfer. */
static size_t
take_answer(char *data, size_t size, size_t count, void *arg)
{
	QsExchange *exchange = ((QsHandle *) arg)->exchange;
	Size		length = size * count;

	if (exchange == NULL)
		return 0;
	if (length > exchange->max_answer - exchange->outcome.answer_length)
	{
		exchange->fault = "the answer is larger than allowed";
		return 0;
	}
	if (exchange->sink != NULL)
	{
		if (!exchange->sink(exchange->sink_arg, data, length))
		{
			exchange->fault = "there is no room for the answer";
			return 0;
		}
	}
	else
	{
		if (!make_room(exchange, length))
		{
			exchange->fault = "out of memory for the answer";
			return 0;
		}
		memcpy(exchange->outcome.answer + exchange->outcome.answer_length, data, length);
	}
	exchange->outcome.answer_length += length;
	return length;
}

/* CURLOPT_HEADERFUNCTION: one line of the answer's head (or of a trailer). */
static size_t
take_header(char *line, size_t size, size_t count, void *arg)
{
	static const char retry_after[] = "retry-after:";
	QsExchange *exchange = ((QsHandle *) arg)->exchange;
	Size		length = size * count;

	if (exchange == NULL)
		return 0;
	exchange->head_bytes += length;
	if (exchange->head_bytes > MAX_HEAD_BYTES)
	{
		exchange->fault = "the head of the answer is too large";
		return 0;
	}
	if (length >= 5 && memcmp(line, "HTTP/", 5) == 0)
		exchange->head_whole = false;
	else if (line[0] == '\r' || line[0] == '\n')
		exchange->head_whole = true;
	else if (length >= sizeof(retry_after) - 1 &&
		pg_strncasecmp(line, retry_after, sizeof(retry_after) - 1) == 0)
		exchange->retry_after_seen = true;
	return length;
}

/* ------------------------------------------------- callbacks of a connection */

/* The clock of connecting starts here, not where a request waits for a connection. */
static void
start_connect_clock(QsExchange *exchange)
{
	if (exchange->connect_timeout > 0 && !exchange->connecting)
		exchange->deadline = Min(exchange->last_deadline,
								 now_ms() + exchange->connect_timeout);
	exchange->connecting = true;
}

/* CURLOPT_RESOLVER_START_FUNCTION: a name is to be looked up, by a thread. */
static int
before_lookup(void *resolver, void *reserved, void *arg)
{
	QsHandle   *handle = arg;

	if (handle->exchange == NULL)
		return 1;
	start_connect_clock(handle->exchange);
	handle->looking_up = true;
	return 0;
}

/* CURLOPT_OPENSOCKETFUNCTION; the descriptor is counted against the server's budget. */
static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	QsHandle   *handle = arg;
	int			fd;

	handle->looking_up = false;
	if (handle->exchange == NULL)
		return CURL_SOCKET_BAD;
	start_connect_clock(handle->exchange);
	if (!AcquireExternalFD())
	{
		handle->exchange->fault = "too many open files in this process";
		return CURL_SOCKET_BAD;
	}
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	if (fd < 0)
	{
		ReleaseExternalFD();
		return CURL_SOCKET_BAD;
	}
	handle->http->open_sockets++;
	return fd;
}

/* CURLOPT_CLOSESOCKETFUNCTION: kept by the connection, which outlives its handles. */
static int
close_socket(void *arg, curl_socket_t fd)
{
	QsHttp	   *http = arg;

	http->open_sockets--;
	ReleaseExternalFD();
	return close(fd);
}

/* CURLMOPT_SOCKETFUNCTION */
static int
watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	QsHttp	   *http = arg;
	bool		readable = what == CURL_POLL_IN || what == CURL_POLL_INOUT;
	bool		writable = what == CURL_POLL_OUT || what == CURL_POLL_INOUT;

	return qs_waiter_watch(http->waiter, fd, readable, writable) ? 0 : -1;
}

/* CURLMOPT_TIMERFUNCTION: when to call libcurl next; -1: no need. */
static int
set_timer(CURLM *multi, long timeout, void *arg)
{
	((QsHttp *) arg)->curl_deadline = timeout < 0 ? NEVER : now_ms() + timeout;
	return 0;
}

/* ----------------------------------------------------------------- handles */

/* Plain http stays with 1.1. */
static long
http_version_for(unsigned int curl, bool no_http2)
{
	if (!no_http2 && qs_curl_http2_works(curl))
		return CURL_HTTP_VERSION_2TLS;
	return CURL_HTTP_VERSION_1_1;
}

static long
http_version(bool no_http2)
{
	return http_version_for(curl_version_info(CURLVERSION_NOW)->version_num, no_http2);
}

/* Options that no request changes.  False: libcurl is out of memory, or too old. */
static bool
set_constant_options(QsHandle *handle)
{
	CURL	   *easy = handle->easy;
	CURLcode	failed = CURLE_OK;

#define SET(option, value) \
	do { if (failed == CURLE_OK) failed = curl_easy_setopt(easy, option, value); } while (0)

	SET(CURLOPT_PRIVATE, handle);
	SET(CURLOPT_ERRORBUFFER, handle->error);
	SET(CURLOPT_NOSIGNAL, 1L);	/* its SIGALRM would replace PostgreSQL's */
#if QS_CURL_HAS_QUICK_EXIT
	SET(CURLOPT_QUICK_EXIT, 1L);	/* never join a resolver thread (R2) */
#endif
	SET(CURLOPT_USERAGENT, QS_EXTENSION);
	SET(CURLOPT_HTTP_VERSION, http_version(false));
	SET(CURLOPT_PATH_AS_IS, 1L);	/* R7 */
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NOPROXY, "");
	SET(CURLOPT_HEADEROPT, (long) CURLHEADER_SEPARATE); /* the key is not the proxy's */
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_FOLLOWLOCATION, 0L);	/* our headers would go with it */
#if QS_CURL_HAS_PROTOCOLS_STR
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
	SET(CURLOPT_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
	SET(CURLOPT_MAXAGE_CONN, (long) MAX_IDLE_SECONDS);
	SET(CURLOPT_TCP_KEEPALIVE, 1L); /* a host that vanished: 30 + 9 * 10 s */
	SET(CURLOPT_TCP_KEEPIDLE, 30L);
	SET(CURLOPT_TCP_KEEPINTVL, 10L);
	SET(CURLOPT_BUFFERSIZE, 64L * 1024);
	SET(CURLOPT_UPLOAD_BUFFERSIZE, 64L * 1024);
	SET(CURLOPT_READFUNCTION, give_body);
	SET(CURLOPT_READDATA, handle);
	SET(CURLOPT_SEEKFUNCTION, refuse_rewind);
	SET(CURLOPT_SEEKDATA, handle);
#if QS_CURL_HAS_PREREQFUNCTION
	SET(CURLOPT_PREREQFUNCTION, before_request);
	SET(CURLOPT_PREREQDATA, handle);
#endif
	SET(CURLOPT_WRITEFUNCTION, take_answer);
	SET(CURLOPT_WRITEDATA, handle);
	SET(CURLOPT_HEADERFUNCTION, take_header);
	SET(CURLOPT_HEADERDATA, handle);
	SET(CURLOPT_RESOLVER_START_FUNCTION, before_lookup);
	SET(CURLOPT_RESOLVER_START_DATA, handle);
	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, handle);
	SET(CURLOPT_CLOSESOCKETFUNCTION, close_socket);
	SET(CURLOPT_CLOSESOCKETDATA, handle->http);
	return failed == CURLE_OK;
}

/* NULL: libcurl is out of memory. */
static QsHandle *
take_handle(QsHttp *http)
{
	QsHandle   *handle;

	if (!dlist_is_empty(&http->free))
	{
		http->nfree--;
		return dlist_container(QsHandle, node, dlist_pop_head_node(&http->free));
	}
	handle = MemoryContextAllocZero(http->context, sizeof(QsHandle));
	handle->http = http;
	handle->easy = curl_easy_init();
	if (handle->easy != NULL && set_constant_options(handle))
		return handle;
	if (handle->easy != NULL)
		curl_easy_cleanup(handle->easy);
	pfree(handle);
	return NULL;
}

/* The key is among them: its memory is overwritten before it is given back. */
static void
wipe_headers(QsHandle *handle)
{
	for (struct curl_slist *header = handle->headers; header != NULL; header = header->next)
		explicit_bzero(header->data, strlen(header->data));
	curl_slist_free_all(handle->headers);
	handle->headers = NULL;
}

static void
free_handle(QsHandle *handle)
{
	curl_easy_cleanup(handle->easy);
	wipe_headers(handle);
	pfree(handle);
}

/* Gives back a handle that is in no multi. */
static void
return_handle(QsHttp *http, QsHandle *handle)
{
	handle->exchange = NULL;
	if (http->nfree >= http->most_free)
	{
		free_handle(handle);
		return;
	}
	curl_easy_setopt(handle->easy, CURLOPT_HTTPHEADER, NULL);
	wipe_headers(handle);
	dlist_push_head(&http->free, &handle->node);
	http->nfree++;
}

static bool
add_header(QsHandle *handle, const char *header)
{
	struct curl_slist *longer = curl_slist_append(handle->headers, header);

	if (longer == NULL)
		return false;
	handle->headers = longer;
	return true;
}

static bool
add_key_header(QsHandle *handle, const char *api_key)
{
	char	   *header = psprintf("api-key: %s", api_key);
	bool		added = add_header(handle, header);

	explicit_bzero(header, strlen(header));
	pfree(header);
	return added;
}

static CURLcode
set_file(CURL *easy, CURLoption option, const char *path, uint64 digest)
{
	char	   *spelled;
	CURLcode	result;

	if (path == NULL)
		return CURLE_OK;
	spelled = palloc(strlen(path) + QS_SPELLED_PATH_EXTRA);
	qs_spell_path(spelled, path, digest);
	result = curl_easy_setopt(easy, option, spelled);
	pfree(spelled);
	return result;
}

/*
 * How the server is reached: the one place for both workers.  Whatever another
 * server's options left in the handle is taken back first.
 */
static bool
set_connect_options(QsHandle *handle, const QsConnectOptions *options, uint64 digest)
{
	CURL	   *easy = handle->easy;
	const char *key_file;
	CURLcode	failed = CURLE_OK;

	if (handle->digest == digest)
		return true;
	curl_easy_reset(easy);
	handle->digest = PG_UINT64_MAX; /* until all are set */
	if (!set_constant_options(handle))
		return false;
	if (digest == 0)
	{
		handle->digest = 0;
		return true;
	}
	SET(CURLOPT_HTTP_VERSION, http_version(options->no_http2));
	SET(CURLOPT_PROXY, options->proxy != NULL ? options->proxy : "");
	SET(CURLOPT_SSL_VERIFYPEER, options->no_verify ? 0L : 1L);
	SET(CURLOPT_SSL_VERIFYHOST, options->no_verify ? 0L : 2L);
	if (options->ca_file != NULL)
		SET(CURLOPT_CAPATH, NULL);	/* these authorities and no others */
	if (failed == CURLE_OK)
		failed = set_file(easy, CURLOPT_CAINFO, options->ca_file, digest);
	if (failed == CURLE_OK)
		failed = set_file(easy, CURLOPT_SSLCERT, options->cert_file, digest);
	key_file = options->key_file != NULL ? options->key_file : options->cert_file;
	if (failed == CURLE_OK)
		failed = set_file(easy, CURLOPT_SSLKEY, key_file, digest);
	SET(CURLOPT_KEYPASSWD, ""); /* OpenSSL would ask the terminal */
	if (failed == CURLE_OK)
		handle->digest = digest;
	return failed == CURLE_OK;
}

/* What a request sets anew: everything that the last user of the handle may have set. */
static bool
set_request_options(QsHandle *handle, QsExchange *exchange, const QsHttpRequest *request)
{
	CURL	   *easy = handle->easy;
	CURLcode	failed = CURLE_OK;
	bool		bodyless_write = !request->read && exchange->body_length == 0;

	switch (exchange->body_mode)
	{
		case QS_BODY_NONE:
			SET(CURLOPT_POSTFIELDS, NULL);
			SET(CURLOPT_HTTPGET, 1L);
			break;
		case QS_BODY_MEMORY:
			SET(CURLOPT_POST, 1L);
			SET(CURLOPT_POSTFIELDS, exchange->body);
			SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) exchange->body_length);
			break;
		case QS_BODY_STREAM:
			/* While it has POSTFIELDS, libcurl rewinds without asking us. */
			SET(CURLOPT_POSTFIELDS, NULL);
			SET(CURLOPT_UPLOAD, 1L);
			SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t) exchange->body_length);
			break;
	}
	/* Without a body there is no rewind to refuse; only a kept connection is tried twice. */
	SET(CURLOPT_FRESH_CONNECT, bodyless_write ? 1L : 0L);
	SET(CURLOPT_CUSTOMREQUEST, request->method);
	SET(CURLOPT_URL, request->url);
	SET(CURLOPT_HTTPHEADER, handle->headers);
	return failed == CURLE_OK;
}

static bool
configure(QsHandle *handle, QsExchange *exchange, const QsHttpRequest *request, uint64 digest)
{
	handle->exchange = exchange;
	handle->looking_up = false;
	handle->error[0] = '\0';
	return set_connect_options(handle, request->connect, digest) &&
		add_header(handle, "Expect:") &&
		add_header(handle, "Accept: application/json") &&
		(exchange->body_mode == QS_BODY_NONE ||
		 add_header(handle, "Content-Type: application/json")) &&
		(request->api_key == NULL || add_key_header(handle, request->api_key)) &&
		set_request_options(handle, exchange, request);
}

#undef SET

/* ---------------------------------------------------------------- outcomes */

/* libcurl's own text names a file as we spell it, which nobody would recognise. */
static bool
names_a_file(const QsHandle *handle)
{
	char		spelled[1 + QS_SPELLED_PATH_EXTRA];

	if (handle->digest == 0)
		return false;
	qs_spell_path(spelled, "/", handle->digest);
	spelled[20] = '\0';			/* the text may be cut */
	return strstr(handle->error, spelled) != NULL;
}

static const char *
why(const QsExchange *exchange, CURLcode result)
{
	if (exchange->fault != NULL)
		return exchange->fault;
	if (result == CURLE_SSL_CACERT_BADFILE)
		return "the file of option ca_file holds no certificate";
	if (result == CURLE_SSL_CERTPROBLEM || names_a_file(exchange->handle))
		return "the files of options cert_file and key_file hold no certificate and key that belong together";
	if (exchange->handle->error[0] != '\0')
		return exchange->handle->error;
	return curl_easy_strerror(result);
}

/* Ended without a whole answer; reason is copied. */
static void
fail(QsExchange *exchange, const char *reason)
{
	exchange->outcome.status = 0;
	strlcpy(exchange->outcome.error, reason, sizeof(exchange->outcome.error));
}

/*
 * Whether anything of the request may have left.  Of a write with a body nothing
 * counts before its first byte: without it, the server has no whole request.
 */
static void
note_sent(QsExchange *exchange)
{
	long		head = 0;

	if (exchange->body_length > 0 && exchange->body_mode == QS_BODY_STREAM)
		exchange->outcome.sent = exchange->body_taken > 0;
	else
		exchange->outcome.sent =
			curl_easy_getinfo(exchange->handle->easy, CURLINFO_REQUEST_SIZE, &head) != CURLE_OK ||
			head > 0;
}

static void
note_answer(QsExchange *exchange)
{
	QsHttpOutcome *outcome = &exchange->outcome;
	CURL	   *easy = exchange->handle->easy;
	long		status = 0;
	char	   *type = NULL;
	curl_off_t	retry_after = 0;

	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &type);
	curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &retry_after);
	outcome->status = (int) status;
	outcome->json = type != NULL && pg_strncasecmp(type, "application/json", 16) == 0;
	if (exchange->retry_after_seen)
		outcome->retry_after = (int) Min(Max(retry_after, 0), INT_MAX);

	/* libcurl takes a connection that ends within the head for an empty answer. */
	if (!exchange->head_whole)
		fail(exchange, "the connection was closed in the middle of the answer");

	/* It reads as many digits as there are. */
	else if (status < 100 || status > 999)
		fail(exchange, "the answer has no HTTP status");

	/* Success before the body had left cannot be the answer to all of it. */
	else if (status < 300 && exchange->body_mode == QS_BODY_STREAM &&
		exchange->body_taken < exchange->body_length)
		fail(exchange, "the server answered before it had the whole request");
}

/* What libcurl says at a transfer's end becomes the outcome. */
static void
complete(QsExchange *exchange, CURLcode result)
{
	note_sent(exchange);
	exchange->outcome.resent = exchange->issued > 1 && exchange->body_mode != QS_BODY_STREAM;
	if (result == CURLE_OK)
		note_answer(exchange);
	else
		fail(exchange, why(exchange, result));
}

/*
 * Takes the handle out of the multi, which closes the connection of a transfer
 * under way.  A handle in a name look-up stays: to remove it could mean to wait
 * for the look-up's thread (R2); and while it stays it counts as one of its
 * host's connections, which bounds the threads.
 */
static void
let_go(QsHttp *http, QsExchange *exchange)
{
	QsHandle   *handle = exchange->handle;

	exchange->handle = NULL;
	handle->exchange = NULL;
	if (handle->looking_up)
	{
		/* The body is the caller's again. */
		curl_easy_setopt(handle->easy, CURLOPT_POSTFIELDS, "");
		curl_easy_setopt(handle->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) 0);
		dlist_push_tail(&http->lookups, &handle->node);
		return;
	}
	curl_multi_remove_handle(http->multi, handle->easy);
	return_handle(http, handle);
}

static void
give_up(QsHttp *http, QsExchange *exchange, const char *reason)
{
	note_sent(exchange);
	fail(exchange, reason);
	let_go(http, exchange);
	set_state(http, exchange, QS_EXCHANGE_ENDED);
}

/* ------------------------------------------------------------ driving libcurl */

/*
 * libcurl starts its resolver threads with the caller's signal mask, and
 * PostgreSQL's handlers must never run in one (R15).
 */
static void
block_signals(sigset_t *before)
{
	sigset_t	all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, before);
}

static void
restore_signals(const sigset_t *before)
{
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

static void
create_multi(QsHttp *http)
{
	CURLMcode	failed = CURLM_OK;

	http->curl_deadline = NEVER;
	http->multi = curl_multi_init();

#define SET(option, value) \
	do { if (failed == CURLM_OK) failed = curl_multi_setopt(http->multi, option, value); } while (0)

	if (http->multi != NULL)
	{
		SET(CURLMOPT_SOCKETFUNCTION, watch_socket);
		SET(CURLMOPT_SOCKETDATA, http);
		SET(CURLMOPT_TIMERFUNCTION, set_timer);
		SET(CURLMOPT_TIMERDATA, http);
		SET(CURLMOPT_MAX_HOST_CONNECTIONS, (long) http->connections_per_host);
		/* Idle ones, of all hosts; by default few are kept, and counted by handles. */
		SET(CURLMOPT_MAXCONNECTS, (long) http->connections_per_host * 8);
	}
#undef SET

	if (http->multi == NULL || failed != CURLM_OK)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not set up libcurl"),
				 errdetail("%s", curl_multi_strerror(failed ? failed : CURLM_OUT_OF_MEMORY))));
}

/* Closes all connections, too: the look-ups nobody waits for are left to their threads. */
static void
destroy_multi(QsHttp *http)
{
	dlist_mutable_iter iter;
	sigset_t	before;

	block_signals(&before);
	dlist_foreach_modify(iter, &http->lookups)
	{
		QsHandle   *handle = dlist_container(QsHandle, node, iter.cur);

		dlist_delete(&handle->node);
		curl_multi_remove_handle(http->multi, handle->easy);
		free_handle(handle);
	}
	curl_multi_cleanup(http->multi);
	http->multi = NULL;
	restore_signals(&before);
}

/* After an error of the multi the state of every transfer is uncertain. */
static void
start_over(QsHttp *http, CURLMcode code)
{
	dlist_mutable_iter iter;

	ereport(LOG,
			(errmsg("libcurl failed and is set up anew: %s", curl_multi_strerror(code))));
	dlist_foreach_modify(iter, &http->running)
	{
		QsExchange *exchange = dlist_container(QsExchange, node, iter.cur);
		QsHandle   *handle = exchange->handle;

		fail(exchange, "libcurl failed in the middle of the request");
		exchange->outcome.sent = true;
		exchange->handle = NULL;
		curl_multi_remove_handle(http->multi, handle->easy);
		free_handle(handle);
		set_state(http, exchange, QS_EXCHANGE_ENDED);
	}
	destroy_multi(http);
	create_multi(http);
}

static void
take_messages(QsHttp *http)
{
	CURLMsg    *message;
	int			left;

	while ((message = curl_multi_info_read(http->multi, &left)) != NULL)
	{
		CURL	   *easy = message->easy_handle;
		CURLcode	result = message->data.result;
		QsHandle   *handle;
		QsExchange *exchange;

		if (message->msg != CURLMSG_DONE ||
			curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &handle) != CURLE_OK)
			continue;
		exchange = handle->exchange;
		if (exchange != NULL)
		{
			complete(exchange, result);
			exchange->handle = NULL;
			set_state(http, exchange, QS_EXCHANGE_ENDED);
		}
		else
			dlist_delete(&handle->node);	/* from http->lookups */
		curl_multi_remove_handle(http->multi, easy);
		return_handle(http, handle);
	}
}

/* Serves libcurl's timer and the sockets that are ready. */
static void
drive(QsHttp *http, const QsReady *ready, int nready)
{
	CURLMcode	failed = CURLM_OK;
	sigset_t	before;
	int			running;

	if (nready == 0 && http->curl_deadline > now_ms())
		return;
	block_signals(&before);
	for (int i = 0; i < nready && failed == CURLM_OK; i++)
		failed = curl_multi_socket_action(http->multi, ready[i].socket,
										  (ready[i].readable ? CURL_CSELECT_IN : 0) |
										  (ready[i].writable ? CURL_CSELECT_OUT : 0),
										  &running);
	if (failed == CURLM_OK && http->curl_deadline <= now_ms())
	{
		http->curl_deadline = NEVER;	/* it sets the next one */
		failed = curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	if (failed == CURLM_OK)
		take_messages(http);
	restore_signals(&before);
	if (failed != CURLM_OK)
		start_over(http, failed);
}

static bool
head_sent(const QsExchange *exchange)
{
	long		bytes = 0;

	curl_easy_getinfo(exchange->handle->easy, CURLINFO_REQUEST_SIZE, &bytes);
	return bytes > 0;
}

/* A deadline has passed: of connecting, where it is not over; or of the whole. */
static void
expire_one(QsHttp *http, QsExchange *exchange, int64 now)
{
	char		reason[128];

	if (now < exchange->last_deadline && head_sent(exchange))
	{
		exchange->deadline = exchange->last_deadline;
		return;
	}
	if (now < exchange->last_deadline)
		snprintf(reason, sizeof(reason), "no connection within %d ms%s",
				 exchange->connect_timeout,
				 exchange->handle->looking_up ? ": the host's name is still being looked up" : "");
	else
		snprintf(reason, sizeof(reason), "no answer within %d ms", exchange->timeout);
	give_up(http, exchange, reason);
}

static void
expire(QsHttp *http, int64 now)
{
	dlist_mutable_iter iter;
	sigset_t	before;

	block_signals(&before);
	dlist_foreach_modify(iter, &http->running)
	{
		QsExchange *exchange = dlist_container(QsExchange, node, iter.cur);

		if (exchange->deadline <= now)
			expire_one(http, exchange, now);
	}
	restore_signals(&before);
}

/* Nothing was under way for a while: close what the servers are about to close. */
static void
close_idle(QsHttp *http, int64 now)
{
	if (http->nrunning > 0 || http->open_sockets == 0 ||
		!dlist_is_empty(&http->lookups) || now < http->idle_since + IDLE_CLOSE_MS)
		return;
	destroy_multi(http);
	create_multi(http);
}

/* When qs_http_wait has to do something even where nothing happens. */
static int64
next_deadline(const QsHttp *http)
{
	int64		next = http->curl_deadline;
	dlist_iter	iter;

	dlist_foreach(iter, (dlist_head *) &http->running)
		next = Min(next, dlist_container(QsExchange, node, iter.cur)->deadline);
	if (http->nrunning == 0 && http->open_sockets > 0 && dlist_is_empty((dlist_head *) &http->lookups))
		next = Min(next, http->idle_since + IDLE_CLOSE_MS);
	return next;
}

void
qs_http_wait(QsHttp *http, long timeout)
{
	int64		until = timeout < 0 ? NEVER : now_ms() + timeout;
	bool		latch_set = false;
	QsReady		ready[MAX_READY];
	int			nready = 0;

	Assert(!IsTransactionState());
	for (;;)
	{
		int64		now;
		int64		next;

		drive(http, ready, nready);
		now = now_ms();
		expire(http, now);
		close_idle(http, now);
		if (latch_set || !dlist_is_empty(&http->ended))
			return;
		next = Min(until, next_deadline(http));
		nready = qs_waiter_wait(http->waiter,
								next == NEVER ? -1 : (long) Min(Max(next - now, 0), INT_MAX),
								&latch_set, ready, MAX_READY);
		if (nready == 0 && !latch_set && now_ms() >= until)
			return;
	}
}

/* --------------------------------------------------------------- the interface */

/*
 * The environment of whoever started the server decides neither about proxies
 * nor about where TLS keys are written (R17).
 */
static void
clean_environment(void)
{
	static const char *const names[] = {
		"http_proxy", "https_proxy", "all_proxy", "no_proxy",
		"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSLKEYLOGFILE"
	};

	for (int i = 0; i < lengthof(names); i++)
		unsetenv(names[i]);
}

QsHttp *
qs_http_create(int connections_per_host)
{
	static bool initialized = false;
	MemoryContext context;
	QsHttp	   *http;

	if (!initialized)
	{
		clean_environment();
		if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
			ereport(ERROR, (errmsg("could not initialize libcurl")));
		initialized = true;
	}
	if ((curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("this libcurl cannot look up names without blocking"),
				 errhint("Install a libcurl that was built with a threaded resolver or c-ares.")));

	context = AllocSetContextCreate(TopMemoryContext, "qdrant_sync HTTP", ALLOCSET_DEFAULT_SIZES);
	http = MemoryContextAllocZero(context, sizeof(QsHttp));
	http->context = context;
	http->connections_per_host = connections_per_host;
	http->most_free = qs_curl_handle_lasts(curl_version_info(CURLVERSION_NOW)->version_num) ?
		MAX_FREE_HANDLES : 0;
	dlist_init(&http->running);
	dlist_init(&http->ended);
	dlist_init(&http->free);
	dlist_init(&http->lookups);
	http->waiter = qs_waiter_create();
	create_multi(http);
	return http;
}

void
qs_http_set_connections(QsHttp *http, int connections_per_host)
{
	http->connections_per_host = connections_per_host;
	curl_multi_setopt(http->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long) connections_per_host);
	curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, (long) connections_per_host * 8);
}

static void
free_exchange(QsExchange *exchange)
{
	if (exchange->answer_room > 0)
		free(exchange->outcome.answer);
	pfree(exchange);
}

void
qs_http_destroy(QsHttp *http)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &http->running)
		qs_http_cancel(http, dlist_container(QsExchange, node, iter.cur));
	dlist_foreach_modify(iter, &http->ended)
		free_exchange(dlist_container(QsExchange, node, iter.cur));
	destroy_multi(http);
	dlist_foreach_modify(iter, &http->free)
		free_handle(dlist_container(QsHandle, node, iter.cur));
	qs_waiter_destroy(http->waiter);
	MemoryContextDelete(http->context);
}

/*
 * What would break the request's head open (hazard R8), or files that cannot be used;
 * NULL: nothing.  *digest is of the connect options.
 */
static const char *
refusal(const QsHttpRequest *request, uint64 *digest)
{
	*digest = 0;
	if (request->api_key != NULL && !qs_header_value_ok(request->api_key))
		return "the api_key has characters that no HTTP header can carry";
	if (request->method[0] == '\0' ||
		request->method[strspn(request->method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")] != '\0')
		return "the method is not an HTTP method";
	return request->connect != NULL ? qs_connect_options_check(request->connect, digest) : NULL;
}

static QsBodyMode
body_mode_of(const QsHttpRequest *request)
{
	if (request->read)
		return request->body_length > 0 ? QS_BODY_MEMORY : QS_BODY_NONE;

	/* A bodyless POST, PUT or PATCH is streamed, too: some proxies ask for its length, 0. */
	if (request->body_length > 0 || request->method[0] == 'P')
		return QS_BODY_STREAM;
	return QS_BODY_NONE;
}

static QsExchange *
make_exchange(QsHttp *http, const QsHttpRequest *request)
{
	QsExchange *exchange = MemoryContextAllocZero(http->context, sizeof(QsExchange));

	exchange->body = request->body;
	exchange->body_length = request->body != NULL ? request->body_length : 0;
	exchange->body_mode = body_mode_of(request);
	exchange->max_answer = request->max_answer;
	exchange->sink = request->sink;
	exchange->sink_arg = request->sink_arg;
	exchange->connect_timeout = request->connect_timeout;
	exchange->timeout = request->timeout;
	exchange->last_deadline = request->timeout > 0 ? now_ms() + request->timeout : NEVER;
	exchange->deadline = exchange->last_deadline;
	exchange->outcome.owner = request->owner;
	exchange->outcome.retry_after = -1;
	return exchange;
}

QsExchange *
qs_http_submit(QsHttp *http, const QsHttpRequest *request)
{
	QsExchange *exchange = make_exchange(http, request);
	uint64		digest;
	const char *refused = refusal(request, &digest);
	QsHandle   *handle;

	if (refused != NULL)
	{
		fail(exchange, refused);
		set_state(http, exchange, QS_EXCHANGE_ENDED);
		return exchange;
	}

	handle = take_handle(http);
	if (handle == NULL || !configure(handle, exchange, request, digest) ||
		curl_multi_add_handle(http->multi, handle->easy) != CURLM_OK)
	{
		if (handle != NULL)
			return_handle(http, handle);
		free_exchange(exchange);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("libcurl could not start a request.")));
	}
	exchange->handle = handle;
	set_state(http, exchange, QS_EXCHANGE_RUNNING);
	return exchange;
}

void
qs_http_cancel(QsHttp *http, QsExchange *exchange)
{
	sigset_t	before;

	if (exchange->state == QS_EXCHANGE_RUNNING)
	{
		block_signals(&before);
		let_go(http, exchange);
		restore_signals(&before);
		set_state(http, exchange, QS_EXCHANGE_ENDED);
	}
	if (exchange->state == QS_EXCHANGE_ENDED)
		set_state(http, exchange, QS_EXCHANGE_TAKEN);
	free_exchange(exchange);
}

int
qs_http_running(const QsHttp *http)
{
	return http->nrunning;
}

/* A sink's caller has the answer; everybody else gets text, be it empty. */
static void
terminate_answer(QsExchange *exchange)
{
	static char empty[1] = "";
	QsHttpOutcome *outcome = &exchange->outcome;

	if (outcome->answer != NULL)
		outcome->answer[outcome->answer_length] = '\0';
	else if (exchange->sink == NULL)
		outcome->answer = empty;
}

QsExchange *
qs_http_next(QsHttp *http, QsHttpOutcome **outcome)
{
	QsExchange *exchange;

	if (dlist_is_empty(&http->ended))
		return NULL;
	exchange = dlist_head_element(QsExchange, node, &http->ended);
	set_state(http, exchange, QS_EXCHANGE_TAKEN);
	terminate_answer(exchange);
	*outcome = &exchange->outcome;
	return exchange;
}

void
qs_http_release(QsHttp *http, QsExchange *exchange)
{
	Assert(exchange->state == QS_EXCHANGE_TAKEN);
	free_exchange(exchange);
}

void
qs_append_percent_encoded(StringInfo out, const char *segment)
{
	static const char unreserved[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";

	for (const char *c = segment; *c != '\0'; c++)
	{
		if (strchr(unreserved, *c) != NULL)
			appendStringInfoChar(out, *c);
		else
			appendStringInfo(out, "%%%02X", (unsigned char) *c);
	}
}
