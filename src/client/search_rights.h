/*
 * search_rights.h
 *		Which searches of a table row security allows (hazard R9).
 */
#ifndef QS_SEARCH_RIGHTS_H
#define QS_SEARCH_RIGHTS_H

#include "mirror/definition.h"
#include "utils/jsonb.h"

/*
 * For a caller from whom row security hides rows of the mirror's table: ERROR 42501
 * where the answer could be another one if they were not there, 22023 for an example
 * that he cannot see.  object: the query, NULL where it is none; params: NULL where
 * none are given; elsewhere: ids in it are those of another collection.
 */
extern void qs_check_tells_nothing(const QsMirrorRow *mirror, Jsonb *object, Jsonb *params,
								   bool prefetch, bool elsewhere);

#endif							/* QS_SEARCH_RIGHTS_H */
