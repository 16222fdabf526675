/*
 * rows.h
 *		Reads the current rows of a mirror, as the table's owner, and writes them
 *		as Qdrant's points.
 *
 * Sync worker, and the session that runs qdrant_verify.  No user's code runs outside
 * the functions here.
 */
#ifndef QS_ROWS_H
#define QS_ROWS_H

#include "common/chunk.h"
#include "lib/stringinfo.h"
#include "mirror/definition.h"
#include "storage/block.h"

typedef struct QsReader QsReader;	/* opaque: compiled definition, kept plans */

/*
 * Qdrant refuses a body over 32 MiB before it reads it; this leaves room for what
 * a request has around its only point.
 */
#define QS_POINT_MAX_BYTES (32 * 1024 * 1024 - 1024)

/*
 * A NULL in a payload column is sent as null, so that every point has the same
 * fields, and is_null finds it; or the field is left out (omit_nulls).  A vector that
 * is NULL is left out; a row without any is QS_ROW_ABSENT.
 */

/*
 * What a worker holds of a row's key: the id of its point, and, where ids are
 * made of a text (QS_KEY_HASHED), that text in the database's encoding; else NULL.
 */
typedef struct QsRowKey
{
	QsKey		id;
	const char *text;
} QsRowKey;

/* What became of a row. */
typedef enum QsRowKind
{
	QS_ROW_POINT,				/* text holds {"id":…,"vector":…,"payload":…} */
	QS_ROW_ABSENT,				/* no such row, or one without a vector: delete */
	QS_ROW_BAD					/* cannot become a point: error says why */
} QsRowKind;

/*
 * Receives each row, in no order.  The key's text, json (of a point) and error (of
 * a bad row) are valid during the call only; what the sink pallocs is in the reader's caller's
 * context.  It runs inside the executor, as the table's owner: it looks at no
 * catalog and raises no error.  Returns false to stop the read after this row (the
 * batch is full): rows not given were not read.
 */
typedef bool (*QsRowSink) (void *arg, const QsRowKey *key, QsRowKind kind,
						   const char *json, int length, const char *error);

/*
 * Copies the definition; the reader lives in a memory context of its own below
 * parent.  Its plans are made by the first read, under the table's lock, and
 * follow renames of the table and new types of its columns.  After any other
 * change of the table the reader is to be made anew.
 */
extern QsReader *qs_reader_create(const QsDefinition *definition, MemoryContext parent);
extern void qs_reader_free(QsReader *reader);

/*
 * What the collection has for this vector, set by the worker once it is known:
 * dimension that every row must have, 0: not checked; and whether it stores half
 * floats as they are sent, so that what none of them can hold is refused.
 */
extern void qs_reader_set_collection(QsReader *reader, int vector, int dimension, bool half);

/*
 * Before the first read: qs_reader_by_keys tells versions of its rows, and during a
 * call of the sink qs_reader_version says that of the row at hand; 0: no row.  Two
 * reads of a key that give one version saw the same row, not another that became
 * equal to it again.
 */
extern void qs_reader_want_versions(QsReader *reader);
extern uint64 qs_reader_version(const QsReader *reader);

/* How many rows one look for a dimension takes. */
#define QS_DIMENSION_ROWS 1000

/*
 * Dimension of the first value of a vector in the table that has one, after so many
 * rows that are not looked at.  0: only NULLs, or the table is locked; -1: values,
 * and none of those looked at tells it.
 */
extern int	qs_reader_find_dimension(QsReader *reader, int vector, int skip);

/*
 * All three: inside a transaction that the caller began and ends, READ
 * COMMITTED, no snapshot pushed; each takes its own fresh snapshot after it has
 * the lock.  The table is locked with ConditionalLock…(AccessShareLock): false
 * where somebody holds a stronger lock (try later).  ERRORs are the caller's to
 * catch; the caller aborts the transaction.  A statement timeout of
 * qdrant_sync.row_timeout is armed around the read.
 */

/*
 * The sync worker's handler of SIGINT: ends a read, as its time limit does, and
 * does nothing at any other time.
 */
extern void qs_rows_handle_cancel(SIGNAL_ARGS);

/* Rows of these keys (distinct), QS_ROW_ABSENT for keys without a row. */
extern bool qs_reader_by_keys(QsReader *reader, const QsRowKey *keys, int n,
							  QsRowSink sink, void *arg);

/* Rows in heap blocks first to end - 1 of the table, or of that leaf of it. */
extern bool qs_reader_by_blocks(QsReader *reader, Oid leaf, BlockNumber first, BlockNumber end,
								QsRowSink sink, void *arg);

/* Keys of the rows in those blocks, palloc'd: no expression is evaluated. */
extern bool qs_reader_keys_by_blocks(QsReader *reader, Oid leaf, BlockNumber first,
									 BlockNumber end, QsRowKey **keys, int *n);

/* Which of these keys (distinct) have a row that is a point: found[i]. */
extern bool qs_reader_exists(QsReader *reader, const QsRowKey *keys, int n, bool *found);

/* batch.c: an error in a read that one row's expressions raised, rather than the table's
 * definition or its circumstances. */
extern bool qs_is_rows_fault(int sqlerrcode);

#endif							/* QS_ROWS_H */
