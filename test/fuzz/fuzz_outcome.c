/* with: src/net/outcome.c src/net/qdrant_json.c */
/*
 * fuzz_outcome.c
 *		What the answer to a write means, for any status and any body.
 *
 * The first three bytes are the status and flags, the rest is the body.
 */
#include "postgres.h"

#include "fuzz.h"
#include "net/outcome.h"

#define REQUIRE(condition) do { if (!(condition)) abort(); } while (0)

static void
check(const QsWriteOutcome *outcome)
{
	REQUIRE(outcome->verdict >= QS_DONE && outcome->verdict <= QS_IN_DOUBT);
	REQUIRE(memchr(outcome->message, '\0', sizeof(outcome->message)) != NULL);
	REQUIRE(strchr(outcome->message, '\n') == NULL);
	REQUIRE(outcome->verdict != QS_DONE || outcome->message[0] == '\0');
	REQUIRE(outcome->verdict != QS_LATER || (outcome->retry_after >= 1 && outcome->retry_after <= 300));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	QsHttpOutcome http = {0};
	QsWriteOutcome outcome;

	if (size < 3)
		return 0;
	/* The statuses that are told apart come often. */
	http.status = (data[0] % 6) * 100 + data[1] % 100;
	http.sent = data[2] & 1;
	http.json = data[2] & 2;
	http.retry_after = (data[2] & 4) ? (int) data[1] * 1000 - 1 : -1;
	http.answer = malloc(size - 2);
	memcpy(http.answer, data + 3, size - 3);
	http.answer[size - 3] = '\0';
	http.answer_length = size - 3;
	strlcpy(http.error, http.answer, sizeof(http.error));
	/* libcurl's own, which is one line. */
	for (char *c = http.error; *c != '\0'; c++)
	{
		if ((unsigned char) *c < 0x20)
			*c = ' ';
	}
	qs_write_outcome(&http, (data[2] & 8) != 0, &outcome);
	check(&outcome);
	qs_write_outcome_single(&outcome);
	check(&outcome);
	REQUIRE(outcome.verdict != QS_SPLIT);
	free(http.answer);
	return 0;
}
