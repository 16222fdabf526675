/*
 * verify.h
 *		qdrant_verify: its two sides, and what it found.
 *
 * Private to src/mirror/verify*.c, which run in the session that calls it.
 */
#ifndef QS_VERIFY_H
#define QS_VERIFY_H

#include "common/server.h"
#include "common/shared.h"
#include "datatype/timestamp.h"
#include "mirror/compare.h"
#include "mirror/definition.h"
#include "storage/block.h"
#include "sync/rows.h"

/* Rows that are compared at once: as many bytes of points, and as many rows. */
#define QS_VERIFY_BYTES (512 * 1024)
#define QS_VERIFY_ROWS 256

/* Sleeps interruptibly. */
extern void qs_verify_sleep(int milliseconds);

/* ---- the table's side (verify_table.c) ---- */

typedef struct QsVerifyTable
{
	Oid			relid;
	MemoryContext context;		/* of definition and reader */
	QsDefinition *definition;
	QsReader   *reader;
	TimestampTz statement_end;	/* of statement_timeout; 0: none */
	int			lock_timeout;	/* ms; how long a locked table is tried again */
	bool		overran;		/* the last read took longer than qdrant_sync.row_timeout */
} QsVerifyTable;

typedef struct QsVerifyRow
{
	QsRowKey	key;
	QsRowKind	kind;
	char	   *json;			/* QS_ROW_POINT; NULL: there was no room for it */
	char	   *error;			/* QS_ROW_BAD */
	uint64		version;		/* of rows by keys */
} QsVerifyRow;

/* What one read gave; in the memory context that was current. */
typedef struct QsVerifyRows
{
	int			n;
	int			capacity;
	QsVerifyRow *rows;
	Size		bytes;			/* of their points */
	bool		more;			/* keys were not read: there was no room */
} QsVerifyRows;

/*
 * Reads the table's definition of today, and makes a reader of it; again, to follow
 * DDL.  No lock outlives it, or any of the reads.
 */
extern void qs_verify_open_table(QsVerifyTable *table, Oid relid, int lock_timeout);
extern void qs_verify_renew_table(QsVerifyTable *table);
extern void qs_verify_close_table(QsVerifyTable *table);

/* Leaves, or the table itself: list of OIDs; and about how many rows they have. */
extern List *qs_verify_leaves(QsVerifyTable *table, int64 *rows);

/* Blocks of a leaf now; -1: it is gone. */
extern int64 qs_verify_blocks(QsVerifyTable *table, Oid leaf);

/*
 * Rows of some blocks.  Those beyond QS_VERIFY_BYTES come without their JSON, as do all
 * where an expression of one of them raised an error.
 */
extern void qs_verify_read_blocks(QsVerifyTable *table, Oid leaf, BlockNumber first, BlockNumber end,
								  QsVerifyRows *rows);

/*
 * Rows of keys, in any order, up to QS_VERIFY_BYTES: rows->more where that was not all.
 * A row whose expression raises an error is QS_ROW_BAD.
 */
extern void qs_verify_read_keys(QsVerifyTable *table, const QsRowKey *keys, int n, QsVerifyRows *rows);

/* Which of the keys have rows; all false where an expression raised an error. */
extern void qs_verify_exist(QsVerifyTable *table, const QsRowKey *keys, int n, bool *found);

/* ---- Qdrant's side (verify_remote.c) ---- */

typedef struct QsVerifyRemote
{
	QsServer   *server;
	char	   *collection;
	QsStoredVectors stored[2];	/* as parsed unescaped and escaped */
	int64		points;			/* about how many there are */
	int			page_ids;		/* that a page of a scroll may have */
} QsVerifyRemote;

/* Asks for the collection's configuration. */
extern void qs_verify_open_remote(QsVerifyRemote *remote, const QsDefinition *definition);
extern void qs_verify_close_remote(QsVerifyRemote *remote);

/* Points of ids, points[i] of ids[i]; NULL: there is none. */
typedef struct QsVerifyPoints
{
	int			n;
	char	  **ids;			/* as Qdrant writes them, without quotes */
	char	   *text;			/* the answer */
	bool		escaped;		/* how it was parsed */
	JsonbContainer **points;
} QsVerifyPoints;

/* NULL: more than one answer may have. */
extern QsVerifyPoints *qs_verify_fetch(QsVerifyRemote *remote, char **ids, int n);

/* Whether the row's point, as JSON, is the i-th point: NULL, or what is not equal. */
extern char *qs_verify_compare(QsVerifyRemote *remote, QsVerifyPoints *points, int i, const char *json);

typedef struct QsVerifyPage
{
	int			n;
	char	  **ids;
	char	  **keys;			/* JSON text of QS_KEY_FIELD; NULL: none, or not asked for */
	char	   *next;			/* NULL: the last page */
} QsVerifyPage;

/* Next page of ids, with what points of hashed keys say of their key. */
extern QsVerifyPage *qs_verify_scroll(QsVerifyRemote *remote, bool with_keys, const char *offset);

/* What is still there of these ids, in the same way. */
extern QsVerifyPage *qs_verify_look_again(QsVerifyRemote *remote, char **ids, int n);

/* ---- progress (verify_progress.c) ---- */

typedef enum QsVerifyPhase
{
	QS_VERIFY_STARTING,
	QS_VERIFY_POINTS,			/* points are looked for that have no row */
	QS_VERIFY_ROWS_PHASE,		/* rows are compared with their points */
	QS_VERIFY_ENDING			/* points that do not say their key are looked at again */
} QsVerifyPhase;

/* Shows this session in the mirror's slot (NULL: nowhere), unless another is shown there. */
extern void qs_verify_show(QsMirrorSlot *slot);
extern void qs_verify_show_phase(QsVerifyPhase phase, int64 total);
extern void qs_verify_show_done(int64 more);
extern void qs_verify_hide(void);

#endif							/* QS_VERIFY_H */
