/*
 * upload.h
 *		The rows of a query as points, for qdrant_upload.
 */
#ifndef QS_UPLOAD_H
#define QS_UPLOAD_H

#include "capture/bodies.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"

/* Sessions that the view qdrant_uploads shows at the same time; more are not shown. */
#define QS_UPLOADS_SHOWN 64

/* A session that reads the query of an upload, in shared memory. */
typedef struct QsUploadPlace
{
	pg_atomic_uint32 pid;		/* 0: free; the session takes it and writes the rest */
	Oid			database;
	Oid			role;			/* who asked for it */
	TimestampTz started;
	pg_atomic_uint64 points;	/* read and kept so far */
} QsUploadPlace;

/*
 * Runs the query as the caller, with a cursor, and gives each row as a point to
 * bodies; a part of the rows at a time is in memory.  Returns how many there were.
 * Errors of the query, and those of upload_point.h.
 */
extern int64 qs_upload_rows(const char *query, QsBodies *bodies);

/* upload_progress.c: one upload of this session; those inside of it are not shown. */
extern void qs_upload_show(void);
extern void qs_upload_show_points(int64 points);
extern void qs_upload_hide(void);

/* Called with the other shared memory. */
extern Size qs_upload_shmem_size(void);
extern void qs_upload_shmem_init(void);

#endif							/* QS_UPLOAD_H */
