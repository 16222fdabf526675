/*
 * identity.h
 *		Was something armed, or enqueued, by this cluster in this database?
 */
#ifndef QS_IDENTITY_H
#define QS_IDENTITY_H

#include "qdrant_sync.h"

/*
 * False in a copy, which must not write to what is the original's: another
 * database (CREATE DATABASE ... TEMPLATE), or another cluster that has the same
 * files.  True also after pg_upgrade, whose cluster is the old one's successor.
 * Needs a transaction.
 */
extern bool qs_is_ours(uint64 system_identifier, Oid database);
#endif							/* QS_IDENTITY_H */
