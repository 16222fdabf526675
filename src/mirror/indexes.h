/*
 * indexes.h
 *		Payload indexes that a mirror asks for: 'category keyword, price float'.
 */
#ifndef QS_INDEXES_H
#define QS_INDEXES_H

#include "mirror/definition.h"

/*
 * The list as QsIndexes; a type that is not given is derived from the payload's
 * column.  payload: QsColumns.  ERROR 22023 for a field that the payload has not,
 * for an unknown type, and for one that cannot be derived.
 */
extern List *qs_indexes_resolve(const char *list, List *payload);

/* The list with every type in it, to be read again; NULL for an empty one. */
extern char *qs_indexes_text(List *indexes);

/*
 * Where the payload is "*", fields are called as the columns are now: so are those
 * of the indexes after a rename.
 */
extern void qs_indexes_follow(Relation rel, QsDefinition *definition);

#endif							/* QS_INDEXES_H */
