/*
 * append.h
 *		Appending rows to the outbox, and the notices that tell of them.
 */
#ifndef QS_APPEND_H
#define QS_APPEND_H

#include "capture/armed.h"
#include "access/heapam.h"
#include "access/htup_details.h"

/*
 * An outbox row that is built in place: a chunk of at most QS_CHUNK_MAX_BYTES
 * at chunk, after the headers of tuple and value.
 */
typedef struct QsRow
{
	union
	{
		char		place[MAXALIGN(SizeofHeapTupleHeader)];
		int64		aligned;
	}			header;
	char		length[VARHDRSZ];
	unsigned char chunk[QS_CHUNK_MAX_BYTES];
} QsRow;

/* Appends rows to one segment after the other; zero is one that is not open. */
typedef struct QsAppender
{
	bool		bulk;			/* many rows: set before the first */
	Oid			opened;			/* segment; also one that turned out to be gone */
	Relation	rel;			/* NULL: gone, what is appended is dropped */
	BulkInsertState bulk_state;
	CommandId	cid;
} QsAppender;

/* Stamps and appends the chunk of that many bytes in row. */
extern void qs_append_chunk(QsAppender *appender, const QsTarget *target, QsRow *row, int length);

/* Appends a row of a segment with n columns, none null. */
#define QS_APPEND_MAX_VALUES 8
extern void qs_append_values(QsAppender *appender, const QsTarget *target, Datum *values, int n);

extern void qs_append_end(QsAppender *appender);

/* At the end of the transaction: tells the worker, or forgets.  Never raise. */
extern void qs_append_post_notices(void);
extern void qs_append_forget_notices(void);
extern bool qs_append_has_notices(void);

#endif							/* QS_APPEND_H */
