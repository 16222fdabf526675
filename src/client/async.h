/*
 * async.h
 *		Requests that a session makes now and waits for later.
 */
#ifndef QS_ASYNC_H
#define QS_ASYNC_H

#include "client/request.h"

/* What can be made of the answer. */
typedef enum QsAnswerKind
{
	QS_ANSWER_POINTS,			/* {"result":{"points":[…]}}: rows, or the result */
	QS_ANSWER_POINT_ARRAY,		/* {"result":[…]}, each a point: the same */
	QS_ANSWER_DOCUMENT,			/* {"result":…}: the result */
	QS_ANSWER_BARE				/* a document without an envelope: itself */
} QsAnswerKind;

/*
 * Queues the request and returns its ticket, which is the session's until it is
 * awaited, cancelled, forgotten with all others, or the session ends.  The request
 * is copied, except for missing_hint, which must be a constant.  ERROR at a limit.
 */
extern int64 qs_async_submit(const QsRequest *request, QsAnswerKind kind);

/* Gives up all tickets of the session. */
extern void qs_async_forget_all(void);

#endif							/* QS_ASYNC_H */
