/*
 * outcome.h
 *		What the answer to a write means (hazard 29; DESIGN section 7): a pure
 *		function from status and document to what its sender does next.
 */
#ifndef QS_OUTCOME_H
#define QS_OUTCOME_H

#include "net/http.h"
#include "net/qdrant_json.h"

typedef enum QsVerdict
{
	QS_DONE,					/* completed: applied and durable */
	QS_AGAIN,					/* not applied, or logged but not known applied; order
								 * is safe: read again, send again, after a back-off */
	QS_SLOWER,					/* wait_timeout: as QS_AGAIN, with one in flight */
	QS_LATER,					/* rate limit, full disk, quota: not applied; not
								 * before retry_after seconds */
	QS_SPLIT,					/* too large: send in smaller parts */
	QS_REFUSED,					/* 400, 422: a row's fault: bisect, or dead letter */
	QS_MISSING,					/* 404: fenced under an old alias, or no collection */
	QS_DENIED,					/* 401, 403: stop until it is mended */
	QS_IN_DOUBT					/* may be applied any time later: fence */
} QsVerdict;

typedef struct QsWriteOutcome
{
	QsVerdict	verdict;
	int			http_status;
	int			retry_after;	/* QS_LATER: seconds, 1 to 300 */
	int64_t		operation_id;	/* -1: none */
	char		message[600];	/* for people: one line of UTF-8, no secrets; ""
								 * with QS_DONE */
} QsWriteOutcome;

/* in_cluster: the server has more than one peer, where every 5xx and 408 is in doubt. */
extern void qs_write_outcome(const QsHttpOutcome *http, bool in_cluster,
							 QsWriteOutcome *outcome);

/*
 * For a batch of a single point, which cannot be split: QS_SPLIT becomes
 * QS_LATER where it came of a rate limit, else QS_REFUSED.
 */
extern void qs_write_outcome_single(QsWriteOutcome *outcome);

/*
 * Exponential back-off with jitter: ms to wait before try number tries (from 1):
 * 100 ms doubling to 30 s, times 0.5 to 1 by random (any 32 random bits).
 */
extern int	qs_backoff_ms(int tries, uint32_t random);

#endif							/* QS_OUTCOME_H */
