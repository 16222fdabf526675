/*
 * example_row.h
 *		A row as the query: "nearest to the row with this key".
 */
#ifndef QS_EXAMPLE_ROW_H
#define QS_EXAMPLE_ROW_H

#include "mirror/definition.h"

/*
 * The point (JSON) of the row with that key, which the caller must be able to see
 * (hazard R9): ERROR 22023 where he cannot, or where there is none.
 *
 * By the argument like_key: the key as text, and for a key of several columns a
 * JSON array of them, in the key's order.
 */
extern char *qs_example_by_key(const QsMirrorRow *mirror, const char *like_key);

/* By an integer or uuid (JSON) in the place of a vector: a key of one column. */
extern char *qs_example_by_id(const QsMirrorRow *mirror, const char *id);

#endif							/* QS_EXAMPLE_ROW_H */
