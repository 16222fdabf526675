/*
 * query_object.h
 *		What a query object says that matters for rows of a table.
 */
#ifndef QS_QUERY_OBJECT_H
#define QS_QUERY_OBJECT_H

#include "utils/jsonb.h"

/*
 * Has it a member of that name, which is not null?  With "mmr" what comes first depends
 * on the other points, and on how many are asked for; with "order_by" a point comes once
 * for each value of its field.
 */
extern bool qs_query_object_has(Jsonb *query, const char *key);

/* Takes the id, a number or a string, of a point that a query names as an example. */
typedef void (*QsExampleTaker) (void *arg, const JsonbValue *id);

/*
 * True where each point's place in the answer depends on nothing but the point,
 * the query's vectors and the points that take() has got: other points may then be
 * hidden, and the answer tells nothing of them.  False, too, for what is not known.
 */
extern bool qs_query_object_ranks_alone(Jsonb *query, QsExampleTaker take, void *arg);

#endif							/* QS_QUERY_OBJECT_H */
