/*
 * operation_progress.h
 *		What the sync worker keeps of explicit operations across restarts, and
 *		their dead letters.
 *
 * Only the sync worker writes these.  Every function needs a transaction and is
 * durable with its commit.
 */
#ifndef QS_OPERATION_PROGRESS_H
#define QS_OPERATION_PROGRESS_H

#include "sync/number_set.h"

/* Last number that was drawn for an operation. */
extern int64 qs_operations_last_number(void);

/*
 * Numbers up to low_water are acknowledged, and so are those in done.  What was
 * acknowledged and is in neither is sent again after a crash.
 */
typedef struct QsOperationProgress
{
	int64		low_water;
	QsNumberSet done;
	bool		sending;		/* there may be a request whose outcome nobody knows */
} QsOperationProgress;

extern void qs_operations_load(QsOperationProgress *progress);
extern void qs_operations_save(const QsOperationProgress *progress);

typedef struct QsDeadOperation
{
	int64		number;
	Oid			owner;
	const char *server;
	const char *collection;
	const char *operation;		/* NULL: it could not be read */
	const char *body;			/* NULL: as above */
	const char *error;
	int			http_status;	/* 0: it was not sent */
} QsDeadOperation;

extern void qs_dead_operation_put(const QsDeadOperation *dead);
extern int64 qs_dead_operations_count(void);

#endif							/* QS_OPERATION_PROGRESS_H */
