/*
 * bodies.h
 *		Bodies of requests out of many elements, each of a size that Qdrant takes.
 */
#ifndef QS_BODIES_H
#define QS_BODIES_H

#include "qdrant_sync.h"
#include "lib/stringinfo.h"

/* Receives a whole body, in the database's encoding; it is the callee's to copy. */
typedef void (*QsBodySink) (void *arg, const char *body, int length);

typedef struct QsBodies
{
	/* Set by the caller. */
	const char *before;			/* such as {"points":[ */
	const char *after;			/* such as ],"shard_key":1} */
	const char *element;		/* what messages call one, such as "point" */
	int			most;			/* elements of one body; 0: any number */
	QsBodySink	sink;
	void	   *arg;

	/* bodies.c's: the body being filled. */
	StringInfoData body;
	int			elements;		/* in it */
	int			first;			/* position of the first of them */
} QsBodies;

extern void qs_bodies_begin(QsBodies *bodies);

/*
 * Elements stay in their order.  They go together until they are as many as most
 * says, or have about a megabyte.  ERROR 54000 for one that makes a body of more than Qdrant takes,
 * 22P05 for text that has no UTF-8.
 */
extern void qs_bodies_add(QsBodies *bodies, int position, const char *text, int length);
extern void qs_bodies_end(QsBodies *bodies);

#endif							/* QS_BODIES_H */
