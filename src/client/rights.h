/*
 * rights.h
 *		What the caller may read of collections that mirrors own (hazard R9).
 */
#ifndef QS_RIGHTS_H
#define QS_RIGHTS_H

#include "common/server.h"
#include "utils/jsonb.h"

/* ERROR 42501 unless the caller may SELECT every column of the table. */
extern void qs_check_select(Oid relid);

/* True where row security hides rows of the table from the caller. */
extern bool qs_row_security_applies(Oid relid);

/*
 * For a collection, or an alias of ours, that a mirror of this database owns:
 * ERROR 42501 unless the caller may read the whole table, which is returned.
 */
extern Oid	qs_check_collection_read(const QsServer *server, const char *collection);

/* The same for every collection that a document of the caller looks up points in. */
extern void qs_check_lookups(const QsServer *server, Jsonb *document);

/* The same for every collection that the place of a snapshot to recover from names. */
extern void qs_check_location(const QsServer *server, Jsonb *document);

/* For a mirror's collection: ERROR 42501 unless the caller owns the table. */
extern void qs_check_collection_owner(const QsServer *server, const char *collection);

/*
 * ERROR 25006, which names the function that is called, in a read-only transaction
 * and on a standby, where the mirrors of the primary are not all known yet.
 */
extern void qs_check_read_write(FunctionCallInfo fcinfo);

/* ERROR 42809 where a mirror of this database owns the collection. */
extern void qs_check_not_mirrored(const QsServer *server, const char *collection);

/*
 * The same for every collection and alias that actions on aliases name: an alias of a
 * mirror's collection would be a way round the table's rights, and a mirror's own alias
 * is moved by the mirror alone.
 */
extern void qs_check_alias_actions(const QsServer *server, Jsonb *actions);

#endif							/* QS_RIGHTS_H */
