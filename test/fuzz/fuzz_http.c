/* with: src/net/http.c src/common/connect_options.c src/common/secret_file.c src/net/wait.c test/unit/http_server.c */
/*
 * fuzz_http.c
 *		src/net/http.c before a server that answers any bytes and closes.
 *
 * The first byte says what is asked, the rest is the whole answer, head and all.  A
 * thread is the server; each input is one request, and more where a read is repeated.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "net/http.h"

#define REQUIRE(condition) do { if (!(condition)) abort(); } while (0)

#define MAX_ANSWER 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t answer[65536];
static size_t answer_size;
static int	listener = -1;
static char url[64];
static QsHttp *http;
static size_t sunk;

/* ---- the server ---- */

static void
serve(int connection)
{
	char		head[8192];
	size_t		n = 0;
	ssize_t		got;

	while (n < sizeof(head) - 1 && (got = read(connection, head + n, sizeof(head) - 1 - n)) > 0)
	{
		n += got;
		head[n] = '\0';
		if (strstr(head, "\r\n\r\n") != NULL)
			break;
	}
	pthread_mutex_lock(&lock);
	(void) !send(connection, answer, answer_size, MSG_NOSIGNAL);
	pthread_mutex_unlock(&lock);
	shutdown(connection, SHUT_WR);
}

static void *
run_server(void *arg)
{
	for (;;)
	{
		int			connection = accept(listener, NULL, NULL);

		if (connection < 0)
			continue;
		serve(connection);
		close(connection);
	}
	return NULL;
}

static void
start(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	length = sizeof(address);
	int			silence[2];
	pthread_t	thread;

	/* Standard input is the latch, which nobody sets here. */
	REQUIRE(pipe(silence) == 0 && dup2(silence[0], STDIN_FILENO) == STDIN_FILENO);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	REQUIRE(bind(listener, (struct sockaddr *) &address, sizeof(address)) == 0);
	REQUIRE(listen(listener, 64) == 0);
	REQUIRE(getsockname(listener, (struct sockaddr *) &address, &length) == 0);
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/collections/c/points", ntohs(address.sin_port));
	REQUIRE(pthread_create(&thread, NULL, run_server, NULL) == 0);
	http = qs_http_create(2);
}

/* ---- the client ---- */

static bool
sink(void *arg, const char *data, Size length)
{
	sunk += length;
	return sunk <= MAX_ANSWER / 2;
}

static void
check(const QsHttpOutcome *outcome, const QsHttpRequest *request)
{
	REQUIRE(outcome->owner == request->owner);
	REQUIRE(outcome->status == 0 || (outcome->status >= 100 && outcome->status <= 999));
	REQUIRE(outcome->status != 0 || outcome->error[0] != '\0');
	REQUIRE(memchr(outcome->error, '\0', sizeof(outcome->error)) != NULL);
	REQUIRE(strchr(outcome->error, '\n') == NULL);
	REQUIRE(outcome->retry_after >= -1);
	REQUIRE(!outcome->resent || request->read);
	REQUIRE(request->sink != NULL || outcome->answer_length <= MAX_ANSWER);
	if (outcome->answer != NULL)
		REQUIRE(outcome->answer[outcome->answer_length] == '\0');
}

static void
ask(uint8_t how)
{
	QsHttpRequest request = {.method = how & 1 ? "PUT" : "GET", .url = url, .connect_timeout = 2000,
	.timeout = 2000, .max_answer = MAX_ANSWER, .owner = &request};
	QsExchange *exchange;
	QsHttpOutcome *outcome;

	request.body = how & 1 ? "{}" : NULL;
	request.body_length = how & 1 ? 2 : 0;
	request.read = (how & 2) != 0;
	request.api_key = how & 8 ? "key" : NULL;
	request.sink = how & 4 ? sink : NULL;
	sunk = 0;
	REQUIRE(qs_http_submit(http, &request) != NULL);
	while ((exchange = qs_http_next(http, &outcome)) == NULL)
		qs_http_wait(http, 100);
	check(outcome, &request);
	qs_http_release(http, exchange);
	REQUIRE(qs_http_running(http) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > sizeof(answer))
		return 0;
	if (listener < 0)
		start();
	pthread_mutex_lock(&lock);
	answer_size = size - 1;
	memcpy(answer, data + 1, answer_size);
	pthread_mutex_unlock(&lock);
	ask(data[0]);
	return 0;
}
