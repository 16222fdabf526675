/* with: src/net/outcome.c src/net/qdrant_json.c */
/*
 * test_outcome.c
 *		Hazard 29, row by row: what each answer to a write means.
 */
#include "postgres.h"

#include "net/outcome.h"
#include "unit.h"

#define UPDATE(status) "{\"result\":{\"operation_id\":7,\"status\":\"" status "\"},\"status\":\"ok\",\"time\":0.1}"
#define ERROR_TEXT(error) "{\"status\":{\"error\":\"" error "\"},\"time\":0.1}"
#define HTML "<html><body>nginx</body></html>"

typedef struct Case
{
	const char *what;
	int			status;
	const char *answer;
	QsVerdict	standalone;
	QsVerdict	in_cluster;
} Case;

static const Case cases[] = {
	{"completed", 200, UPDATE("completed"), QS_DONE, QS_DONE},
	{"wait_timeout", 200, UPDATE("wait_timeout"), QS_SLOWER, QS_SLOWER},
	{"acknowledged to wait=true", 200, UPDATE("acknowledged"), QS_AGAIN, QS_AGAIN},
	{"clock_rejected", 200, UPDATE("clock_rejected"), QS_AGAIN, QS_AGAIN},
	{"an unknown word", 200, UPDATE("postponed"), QS_AGAIN, QS_AGAIN},
	{"result true", 200, "{\"result\":true,\"status\":\"ok\",\"time\":0}", QS_DONE, QS_DONE},
	{"result false", 200, "{\"result\":false,\"status\":\"ok\",\"time\":0}", QS_AGAIN, QS_AGAIN},
	{"one of two operations not completed", 200,
		"{\"result\":[{\"operation_id\":1,\"status\":\"completed\"},{\"operation_id\":2,\"status\":\"wait_timeout\"}],"
	"\"status\":\"ok\",\"time\":0}", QS_SLOWER, QS_SLOWER},
	{"200 with an error inside", 200, ERROR_TEXT("odd"), QS_AGAIN, QS_IN_DOUBT},
	{"200 of a proxy", 200, HTML, QS_IN_DOUBT, QS_IN_DOUBT},
	{"200 cut short", 200, "{\"result\":{\"operation_id\":7,\"status\":\"comp", QS_IN_DOUBT, QS_IN_DOUBT},
	{"200 empty", 200, "", QS_IN_DOUBT, QS_IN_DOUBT},
	{"202 accepted", 202, "{\"result\":true,\"status\":\"accepted\",\"time\":0}", QS_AGAIN, QS_IN_DOUBT},
	{"301", 301, HTML, QS_DENIED, QS_DENIED},
	{"400 bad vector", 400, ERROR_TEXT("Wrong input: Vector dimension error: expected dim: 4, got 3"),
	QS_REFUSED, QS_REFUSED},
	{"400 too large", 400,
		ERROR_TEXT("JSON payload (40000000 bytes) is larger than allowed (limit: 33554432 bytes)."),
	QS_SPLIT, QS_SPLIT},
	{"400 too large, older", 400, ERROR_TEXT("Payload error: A payload reached size limit."), QS_SPLIT, QS_SPLIT},
	{"400 not Qdrant's", 400, HTML, QS_REFUSED, QS_REFUSED},
	{"401 as text", 401, "Must provide an API key or an Authorization bearer token", QS_DENIED, QS_DENIED},
	{"403", 403, ERROR_TEXT("Forbidden: Global manage access is required"), QS_DENIED, QS_DENIED},
	{"404 collection", 404, ERROR_TEXT("Not found: Collection `x` doesn't exist!"), QS_MISSING, QS_MISSING},
	{"404 point", 404, ERROR_TEXT("Not found: No point with id 5 found"), QS_REFUSED, QS_REFUSED},
	{"404 of a proxy", 404, HTML, QS_AGAIN, QS_AGAIN},
	{"404 empty", 404, "", QS_AGAIN, QS_AGAIN},
	{"405", 405, ERROR_TEXT("Qdrant is running in standalone mode"), QS_DENIED, QS_DENIED},
	{"408 Qdrant's", 408, ERROR_TEXT("Timeout: Timeout error: 5"), QS_AGAIN, QS_IN_DOUBT},
	{"408 empty", 408, "", QS_IN_DOUBT, QS_IN_DOUBT},
	{"409", 409, ERROR_TEXT("Conflict"), QS_AGAIN, QS_AGAIN},
	{"413 of a proxy", 413, HTML, QS_SPLIT, QS_SPLIT},
	{"422", 422, ERROR_TEXT("Validation error in JSON body: [points[0].vector]"), QS_REFUSED, QS_REFUSED},
	{"431", 431, "", QS_DENIED, QS_DENIED},
	{"500 Qdrant's", 500, ERROR_TEXT("Service internal error: no active replica"), QS_AGAIN, QS_IN_DOUBT},
	{"500 disk full", 500,
		ERROR_TEXT("Service internal error: No space left on device: WAL buffer size exceeds available"),
	QS_LATER, QS_IN_DOUBT},
	{"500 not Qdrant's", 500, HTML, QS_IN_DOUBT, QS_IN_DOUBT},
	{"502", 502, HTML, QS_IN_DOUBT, QS_IN_DOUBT},
	{"502 that looks like Qdrant's", 502, ERROR_TEXT("x"), QS_IN_DOUBT, QS_IN_DOUBT},
	{"503 Qdrant's", 503, ERROR_TEXT("Shard temporarily unavailable: x"), QS_AGAIN, QS_IN_DOUBT},
	{"503 of a proxy", 503, "Service Unavailable", QS_IN_DOUBT, QS_IN_DOUBT},
	{"503 of a proxy that speaks JSON", 503, "{\"message\":\"no upstream\",\"status\":503}", QS_IN_DOUBT, QS_IN_DOUBT},
	{"504", 504, HTML, QS_IN_DOUBT, QS_IN_DOUBT},
	{"507", 507, ERROR_TEXT("Insufficient storage: quota"), QS_LATER, QS_IN_DOUBT},
};

static QsHttpOutcome
answered(int status, const char *answer)
{
	QsHttpOutcome http = {0};

	http.status = status;
	http.sent = true;
	http.retry_after = -1;
	http.answer = (char *) answer;
	http.answer_length = strlen(answer);
	return http;
}

static QsWriteOutcome
judge(QsHttpOutcome http, bool in_cluster)
{
	QsWriteOutcome outcome;

	qs_write_outcome(&http, in_cluster, &outcome);
	return outcome;
}

static void
every_answer(void)
{
	for (int i = 0; i < lengthof(cases); i++)
	{
		QsHttpOutcome http = answered(cases[i].status, cases[i].answer);
		QsWriteOutcome alone = judge(http, false);

		unit_check_int(alone.verdict, cases[i].standalone, cases[i].what, __FILE__, __LINE__);
		unit_check_int(judge(http, true).verdict, cases[i].in_cluster, cases[i].what, __FILE__, __LINE__);
		unit_check_int(alone.http_status, cases[i].status, cases[i].what, __FILE__, __LINE__);
		unit_check((alone.verdict == QS_DONE) == (alone.message[0] == '\0'),
				   cases[i].what, __FILE__, __LINE__);
	}
}

static void
no_answer(void)
{
	QsHttpOutcome http = {.status = 0, .sent = true, .retry_after = -1, .error = "connection reset"};

	CHECK_INT(judge(http, false).verdict, QS_IN_DOUBT);
	CHECK_TEXT(judge(http, false).message, "connection reset");
	http.sent = false;
	CHECK_INT(judge(http, true).verdict, QS_AGAIN);
}

static void
a_hidden_resend_is_in_doubt_whatever_was_answered(void)
{
	QsHttpOutcome http = answered(200, UPDATE("completed"));

	http.resent = true;
	CHECK_INT(judge(http, false).verdict, QS_IN_DOUBT);
	http.status = 400;
	CHECK_INT(judge(http, false).verdict, QS_IN_DOUBT);
}

static void
rate_limits(void)
{
	QsHttpOutcome http = answered(429, ERROR_TEXT("Rate limiting exceeded: Write rate limit exceeded"));
	QsWriteOutcome outcome;

	http.retry_after = 7;
	CHECK_INT(judge(http, false).verdict, QS_LATER);
	CHECK_INT(judge(http, false).retry_after, 7);
	http.retry_after = 0;
	CHECK_INT(judge(http, false).retry_after, 1);
	http.retry_after = 86400;
	CHECK_INT(judge(http, false).retry_after, 300);

	/* Without Retry-After the batch is larger than Qdrant's bucket. */
	http.retry_after = -1;
	outcome = judge(http, false);
	CHECK_INT(outcome.verdict, QS_SPLIT);
	qs_write_outcome_single(&outcome);
	CHECK_INT(outcome.verdict, QS_LATER);
	CHECK_INT(outcome.retry_after, 1);

	/* A proxy's limit knows nothing of batches. */
	http.answer = (char *) HTML;
	http.answer_length = strlen(HTML);
	outcome = judge(http, false);
	CHECK_INT(outcome.verdict, QS_LATER);
	CHECK_INT(outcome.retry_after, 1);
}

static void
a_single_row_that_is_too_large_is_refused(void)
{
	QsWriteOutcome outcome = judge(answered(413, HTML), false);

	qs_write_outcome_single(&outcome);
	CHECK_INT(outcome.verdict, QS_REFUSED);
	outcome = judge(answered(500, ERROR_TEXT("x")), false);
	qs_write_outcome_single(&outcome);
	CHECK_INT(outcome.verdict, QS_AGAIN);
}

static void
what_people_read(void)
{
	QsWriteOutcome outcome = judge(answered(400, ERROR_TEXT("Wrong input: \\n two\\tlines")), false);

	CHECK_TEXT(outcome.message, "Qdrant answered 400: Wrong input:   two lines");
	CHECK_TEXT(judge(answered(502, HTML), false).message,
			   "the server answered 502, and not in Qdrant's form");
	outcome = judge(answered(200, UPDATE("completed")), false);
	CHECK_INT(outcome.operation_id, 7);
	CHECK_INT(judge(answered(502, HTML), false).operation_id, -1);
}

static void
backoff(void)
{
	CHECK_INT(qs_backoff_ms(1, 0), 50);
	CHECK_INT(qs_backoff_ms(1, UINT32_MAX), 99);
	CHECK_INT(qs_backoff_ms(2, 0), 100);
	CHECK_INT(qs_backoff_ms(9, 0), 12800);
	CHECK_INT(qs_backoff_ms(10, 0), 15000);
	CHECK_INT(qs_backoff_ms(1000000, UINT32_MAX), 29999);
	CHECK_INT(qs_backoff_ms(0, 0), 50);
	CHECK_INT(qs_backoff_ms(-5, 0), 50);
}

static const UnitTest tests[] = {
	UNIT_TEST(every_answer),
	UNIT_TEST(no_answer),
	UNIT_TEST(a_hidden_resend_is_in_doubt_whatever_was_answered),
	UNIT_TEST(rate_limits),
	UNIT_TEST(a_single_row_that_is_too_large_is_refused),
	UNIT_TEST(what_people_read),
	UNIT_TEST(backoff),
};

UNIT_MAIN(tests)
