/*
 * progress.h
 *		What the sync worker keeps of a mirror across restarts
 *		(qdrant_internal.progress), and the dead letters.
 *
 * Only the sync worker writes these tables; at the end of a rebuild it writes
 * qdrant_internal.mirror as well.  Every function needs a
 * transaction and is durable with its commit.
 */
#ifndef QS_PROGRESS_H
#define QS_PROGRESS_H

#include "qdrant_sync.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#define QS_NONCE_LENGTH 16
#define QS_PROGRESS_VECTORS 16

typedef struct QsProgress
{
	int64		mirror;
	Oid			owner;			/* whose key the collection was claimed with; InvalidOid: never */
	const char *phase;			/* a literal */
	char	   *error;			/* palloc'd; NULL: none */
	TimestampTz error_at;
	int64		resumed;
	int64		taken_over;
	int64		epoch;
	char		nonce[QS_NONCE_LENGTH + 1]; /* "": no alias yet */
	char		next_nonce[QS_NONCE_LENGTH + 1];
	char		last_nonce[QS_NONCE_LENGTH + 1];
	bool		fence_by_time;
	bool		collection_made;
	int32		timeline;
	Oid			segment_files[2];
	bool		skipping;		/* keys were not recorded, or may not have been */
	int64		sweep_wanted;
	int64		sweep_done;
	char	   *scroll_offset;	/* palloc'd; NULL: not begun */
	bool		scroll_done;
	Oid			backfill_leaf;	/* leaf under way, or the table where it has none */
	Oid			backfill_after; /* last leaf that is done; they go by their OIDs */
	Oid			backfill_file;	/* relfilenode of the leaf; InvalidOid: not begun */
	int64		backfill_next;	/* block of the leaf */
	int64		backfill_end;
	int64		backfill_base;	/* blocks of the leaves that are done */
	int64		backfill_total; /* of all leaves, as it began */
	int64		backfill_rows;
	TimestampTz backfill_started;	/* 0: not */
	TimestampTz backfill_finished;	/* 0: not */
	int			dimensions[QS_PROGRESS_VECTORS];	/* of the collection when it was
												 * claimed last; 0: not known */
} QsProgress;

/* Reads the row, making it where there is none; texts in the current context. */
extern void qs_progress_load(int64 mirror, QsProgress *progress);
extern void qs_progress_save(const QsProgress *progress);

/* The mirror is gone: its rows in mirror, progress and dead_letter. */
extern void qs_progress_forget(int64 mirror);

/* Row locks of two mirrors, to the end of the transaction, waiting for none. */
typedef enum QsMirrorsLock
{
	QS_MIRRORS_LOCKED,
	QS_MIRRORS_BUSY,			/* somebody changes or drops one of them */
	QS_MIRRORS_PAUSED			/* the first is paused */
} QsMirrorsLock;

extern QsMirrorsLock qs_mirrors_lock(int64 old, int64 rebuild);

/* The second takes the first's place; they are locked. */
extern void qs_mirrors_switch(int64 old, int64 rebuild);

/* mirror 0: an explicit operation, whose body is kept.  True: there was one of that key. */
extern bool qs_dead_letter_put(int64 mirror, const char *server, const char *collection,
							   const char *key, const char *error, int http_status,
							   const char *body);
extern void qs_dead_letters_remove(int64 mirror, List *keys);	/* of char * */
extern int	qs_dead_letters_count(int64 mirror);

/*
 * After pg_upgrade: the mirrors of the old cluster become this one's, with what
 * they have still to send.
 */
extern void qs_mirrors_adopt(void);

#endif							/* QS_PROGRESS_H */
