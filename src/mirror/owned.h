/*
 * owned.h
 *		Which collections belong to mirrors.
 */
#ifndef QS_OWNED_H
#define QS_OWNED_H

#include "qdrant_sync.h"

/*
 * The table whose mirror, not one that is being dropped, owns the collection of
 * that name at that server; the name may also be an alias that a mirror writes
 * through.  InvalidOid: none.  By index, since every query and every operation asks.
 */
extern Oid	qs_collection_table(const char *server, const char *collection);

#endif							/* QS_OWNED_H */
