/*
 * spool.h
 *		Bytes of the current transaction in the order in which they came: the
 *		first in memory, the rest in a temporary file.
 */
#ifndef QS_SPOOL_H
#define QS_SPOOL_H

#include "qdrant_sync.h"
#include "storage/buffile.h"

/* Zero is an empty spool; what it needs lives in context, to the transaction's end. */
typedef struct QsSpool
{
	MemoryContext context;
	Size		limit;			/* bytes kept in memory */
	uint64		size;			/* bytes in all */
	char	   *memory;			/* the first of them */
	Size		memory_size;	/* allocated */
	BufFile    *file;			/* those from limit on; NULL: none yet */
	uint64		file_place;		/* where the file stands */
} QsSpool;

extern void qs_spool_append(QsSpool *spool, const void *data, Size length);

/* Bytes from place on; they are there. */
extern void qs_spool_read(QsSpool *spool, uint64 place, void *data, Size length);

/* Forgets everything from size on. */
extern void qs_spool_cut(QsSpool *spool, uint64 size);

/* Before a commit, so that PostgreSQL finds no temporary file left open. */
extern void qs_spool_close(QsSpool *spool);

#endif							/* QS_SPOOL_H */
