/* with: src/net/http.c src/common/connect_options.c src/common/secret_file.c src/net/wait.c test/unit/http_server.c */
/*
 * http_driver.c
 *		src/net/http.c without a server, driven by lines on standard input, so that
 *		test_http.py can put bad servers before it.
 *
 * Standard input is the latch: a line that waits is a latch that is set.
 * Fields are separated by tabs, "-" is none.
 *
 *		submit ID METHOD URL BODY_BYTES READ CONNECT_MS MS MAX_ANSWER KEY SINK_BYTES
 *		cancel ID
 *		connections N
 *		running			answers "running N"
 *
 * Each outcome is a line:
 *		ended ID STATUS SENT RESENT RETRY_AFTER JSON LENGTH ERROR ANSWER
 */
#include "postgres.h"

#include <poll.h>
#include <unistd.h>

#include "net/http.h"

#define MAX_REQUESTS 4096

typedef struct Request
{
	int			id;
	QsExchange *exchange;		/* NULL: not under way */
	char	   *body;
	long		sink_room;
	long		sunk;
} Request;

static QsHttp *http;
static Request requests[MAX_REQUESTS];
static char input[1 << 16];
static size_t input_length;

/* ---------------------------------------------------------------- commands */

static bool
sink(void *arg, const char *data, Size length)
{
	Request    *request = arg;

	request->sunk += length;
	return request->sunk <= request->sink_room;
}

/* The next field of a line, with "\r" and "\n" for what cannot stand in one. */
static char *
field(char **line)
{
	char	   *start = strsep(line, "\t");
	char	   *out = start;

	if (start == NULL || strcmp(start, "-") == 0)
		return NULL;
	for (char *in = start; *in != '\0'; in++)
	{
		bool		escape = in[0] == '\\' && (in[1] == 'r' || in[1] == 'n');

		*out++ = escape ? (*++in == 'r' ? '\r' : '\n') : *in;
	}
	*out = '\0';
	return start;
}

static long
number(char **line)
{
	char	   *text = field(line);

	return text ? strtol(text, NULL, 10) : 0;
}

static void
do_submit(char *line)
{
	int			id = number(&line);
	Request    *request = &requests[id % MAX_REQUESTS];
	QsHttpRequest wanted = {0};

	memset(request, 0, sizeof(*request));
	request->id = id;
	wanted.method = field(&line);
	wanted.url = field(&line);
	wanted.body_length = number(&line);
	if (wanted.body_length > 0)
	{
		request->body = malloc(wanted.body_length);
		memset(request->body, 'x', wanted.body_length);
		wanted.body = request->body;
	}
	wanted.read = number(&line) != 0;
	wanted.connect_timeout = number(&line);
	wanted.timeout = number(&line);
	wanted.max_answer = number(&line);
	wanted.api_key = field(&line);
	request->sink_room = number(&line);
	wanted.sink = request->sink_room > 0 ? sink : NULL;
	wanted.sink_arg = request;
	wanted.owner = request;
	request->exchange = qs_http_submit(http, &wanted);
}

static void
do_cancel(int id)
{
	Request    *request = &requests[id % MAX_REQUESTS];

	if (request->exchange == NULL)
		return;
	qs_http_cancel(http, request->exchange);
	request->exchange = NULL;
	free(request->body);		/* nothing may look at it any more */
	printf("cancelled %d\n", id);
}

static void
say_outcome(const Request *request, const QsHttpOutcome *outcome)
{
	printf("ended\t%d\t%d\t%d\t%d\t%d\t%d\t%zu\t%s\t", request->id, outcome->status,
		   outcome->sent, outcome->resent, outcome->retry_after, outcome->json,
		   (size_t) outcome->answer_length, outcome->error);
	for (size_t i = 0; outcome->answer != NULL && i < outcome->answer_length && i < 200; i++)
		putchar((unsigned char) outcome->answer[i] < 0x20 ? ' ' : outcome->answer[i]);
	putchar('\n');
}

static void
take_outcomes(void)
{
	QsExchange *exchange;
	QsHttpOutcome *outcome;

	while ((exchange = qs_http_next(http, &outcome)) != NULL)
	{
		Request    *request = outcome->owner;

		request->exchange = NULL;
		say_outcome(request, outcome);
		qs_http_release(http, exchange);
		free(request->body);
	}
	fflush(stdout);
}

static void
do_line(char *line)
{
	char	   *command = strsep(&line, "\t");

	if (strcmp(command, "submit") == 0)
		do_submit(line);
	else if (strcmp(command, "cancel") == 0)
		do_cancel(number(&line));
	else if (strcmp(command, "connections") == 0)
		qs_http_set_connections(http, number(&line));
	else if (strcmp(command, "running") == 0)
		printf("running %d\n", qs_http_running(http));
	fflush(stdout);
}

/* False: standard input was closed. */
static bool
read_lines(void)
{
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
	ssize_t		n;
	char	   *end;

	if (poll(&in, 1, 0) <= 0)
		return true;
	n = read(STDIN_FILENO, input + input_length, sizeof(input) - input_length - 1);
	if (n <= 0)
		return false;
	input_length += n;
	input[input_length] = '\0';
	while ((end = strchr(input, '\n')) != NULL)
	{
		*end = '\0';
		do_line(input);
		input_length -= end + 1 - input;
		memmove(input, end + 1, input_length + 1);
	}
	return true;
}

int
main(int argc, char **argv)
{
	http = qs_http_create(argc > 1 ? atoi(argv[1]) : 4);
	printf("ready\n");
	fflush(stdout);
	do
	{
		qs_http_wait(http, -1);
		take_outcomes();
	} while (read_lines());
	qs_http_destroy(http);
	printf("destroyed\n");
	return 0;
}
