/*
 * query_object.h
 *		What a query object says that matters for rows of a table.
 */
#ifndef QS_QUERY_OBJECT_H
#define QS_QUERY_OBJECT_H

#include "utils/jsonb.h"

/*
 * True for mmr: what comes first depends on the other points, and on how many
 * are asked for.
 */
extern bool qs_query_object_is_mmr(Jsonb *query);

#endif							/* QS_QUERY_OBJECT_H */
