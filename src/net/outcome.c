/*
 * outcome.c
 *		What the answer to a write means, and how long to wait before the next try.
 *
 * Runs in both workers.  Pure: no clock, no memory, no state.  Where it cannot
 * be known whether the request may still be applied, the answer is QS_IN_DOUBT:
 * a needless fence costs half a second, a missing one an old row in the
 * collection (hazard 1).
 */
#include "qdrant_sync.h"

#include "net/outcome.h"

/* First and longest wait between two tries. */
#define QS_BACKOFF_FIRST_MS 100
#define QS_BACKOFF_LONGEST_MS 30000

/* A full disk or a quota is mended by people: look again at this pace. */
#define QS_FULL_RETRY_SECONDS 10

/* A Retry-After beyond this is a proxy's maintenance page; we look at least so often. */
#define QS_LONGEST_RETRY_SECONDS 300

static const char *
meaning_of_update_status(const char *status)
{
	if (strcmp(status, "acknowledged") == 0)
		return "it was accepted but not applied, as a collection with custom sharding does";
	if (strcmp(status, "clock_rejected") == 0)
		return "another replica had newer data";
	return "it was not completed";
}

/* A 2xx answer in Qdrant's own form.  Only "completed" means done (hazard 29). */
static QsVerdict
judge_success(const QsEnvelope *envelope, QsWriteOutcome *outcome)
{
	const char *status = envelope->update_status;

	if (strcmp(status, "completed") == 0 || envelope->result_true)
		return QS_DONE;
	if (strcmp(status, "wait_timeout") == 0)
	{
		strlcpy(outcome->message,
				"Qdrant logged the write but did not apply it within its time-out",
				sizeof(outcome->message));
		return QS_SLOWER;
	}
	snprintf(outcome->message, sizeof(outcome->message),
			 "Qdrant answered \"%s\" to a write: %s",
			 status[0] ? status : "false", meaning_of_update_status(status));
	return QS_AGAIN;
}

/* Qdrant has 400 for a body over its limit, in two wordings, and proxies 413. */
static bool
says_too_large(const char *error)
{
	return strstr(error, "larger than allowed") != NULL ||
		strstr(error, "reached size limit") != NULL;
}

static QsVerdict
judge_rate_limit(const QsHttpOutcome *http, const QsEnvelope *envelope,
				 QsWriteOutcome *outcome)
{
	/* Qdrant leaves Retry-After out where no wait would help: the request is
	 * larger than the bucket.  Other people's 429 says nothing of the sort. */
	outcome->retry_after = Min(Max(http->retry_after, 1), QS_LONGEST_RETRY_SECONDS);
	return (http->retry_after < 0 && envelope->valid) ? QS_SPLIT : QS_LATER;
}

static QsVerdict
judge_client_error(const QsHttpOutcome *http, const QsEnvelope *envelope,
				   bool in_cluster, QsWriteOutcome *outcome)
{
	switch (http->status)
	{
		case 400:
			return says_too_large(envelope->error) ? QS_SPLIT : QS_REFUSED;
		case 422:
			return QS_REFUSED;
		case 404:
			/* Only Qdrant knows its collections; a proxy's 404 may be a moment's. */
			if (!envelope->valid)
				return QS_AGAIN;
			return strstr(envelope->error, "No point with id") ? QS_REFUSED : QS_MISSING;
		case 408:
			return (envelope->valid && !in_cluster) ? QS_AGAIN : QS_IN_DOUBT;
		case 409:
			return QS_AGAIN;
		case 413:
			return QS_SPLIT;
		case 429:
			return judge_rate_limit(http, envelope, outcome);
		default:
			/* 401, 403, and what no row is the cause of: 405, 411, 414, 431, … */
			return QS_DENIED;
	}
}

static QsVerdict
judge_server_error(const QsHttpOutcome *http, const QsEnvelope *envelope,
				   bool in_cluster, QsWriteOutcome *outcome)
{
	/* A gateway that gave up does not know what happened behind it; in a cluster
	 * of Qdrant the node that answers does not either. */
	if (!envelope->valid || in_cluster || http->status == 502 || http->status == 504)
		return QS_IN_DOUBT;
	if (http->status == 507 || strstr(envelope->error, "No space left") != NULL)
	{
		outcome->retry_after = QS_FULL_RETRY_SECONDS;
		return QS_LATER;
	}
	return QS_AGAIN;
}

/* One line for people: Qdrant's own words, or what is known without them. */
static void
describe(const QsHttpOutcome *http, const QsEnvelope *envelope, QsWriteOutcome *outcome)
{
	if (envelope->error[0] != '\0')
		snprintf(outcome->message, sizeof(outcome->message),
				 "Qdrant answered %d: %s", http->status, envelope->error);
	else if (http->status == 401)
		strlcpy(outcome->message, "Qdrant answered 401: it asks for another api_key",
				sizeof(outcome->message));
	else if (http->status >= 300 && http->status < 400)
		snprintf(outcome->message, sizeof(outcome->message),
				 "the server answered %d, a redirect, which is not followed: its url must be the final one",
				 http->status);
	else
		snprintf(outcome->message, sizeof(outcome->message),
				 "the server answered %d, and not in Qdrant's form", http->status);
}

static QsVerdict
judge_answer(const QsHttpOutcome *http, bool in_cluster, QsWriteOutcome *outcome)
{
	QsEnvelope	envelope;

	qs_json_envelope(http->answer, http->answer_length, &envelope);
	outcome->operation_id = envelope.operation_id;
	if (http->status == 200 && envelope.valid && envelope.ok)
		return judge_success(&envelope, outcome);

	describe(http, &envelope, outcome);
	if (http->status < 300 || http->status >= 500)
		return judge_server_error(http, &envelope, in_cluster, outcome);
	if (http->status < 400)
		return QS_DENIED;
	return judge_client_error(http, &envelope, in_cluster, outcome);
}

void
qs_write_outcome(const QsHttpOutcome *http, bool in_cluster, QsWriteOutcome *outcome)
{
	memset(outcome, 0, sizeof(*outcome));
	outcome->http_status = http->status;
	outcome->operation_id = -1;

	if (http->status == 0)
	{
		strlcpy(outcome->message, http->error, sizeof(outcome->message));
		outcome->verdict = http->sent ? QS_IN_DOUBT : QS_AGAIN;
	}
	else
		outcome->verdict = judge_answer(http, in_cluster, outcome);

	/* Whatever one copy was answered, the other may still be in limbo. */
	if (http->resent)
	{
		strlcpy(outcome->message, "the request may have been sent twice",
				sizeof(outcome->message));
		outcome->verdict = QS_IN_DOUBT;
	}
}

void
qs_write_outcome_single(QsWriteOutcome *outcome)
{
	if (outcome->verdict == QS_SPLIT)
		outcome->verdict = (outcome->http_status == 429) ? QS_LATER : QS_REFUSED;
}

int
qs_backoff_ms(int tries, uint32_t random)
{
	/* 100 ms doubled nine times is past the longest. */
	int			doublings = Min(Max(tries, 1) - 1, 9);
	int			wait = Min(QS_BACKOFF_FIRST_MS << doublings, QS_BACKOFF_LONGEST_MS);

	return wait / 2 + (int) (((uint64) (wait / 2) * random) >> 32);
}
