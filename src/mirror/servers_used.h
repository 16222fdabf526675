/*
 * servers_used.h
 *		Mirrors and the servers that they are on.
 */
#ifndef QS_SERVERS_USED_H
#define QS_SERVERS_USED_H

#include "qdrant_sync.h"

/*
 * PostgreSQL knows from here on that the table's trigger needs the servers of its
 * definition, that of a rebuild among them, and no others any more: DROP SERVER is
 * refused, or drops the trigger with CASCADE.  The table is locked; nothing is done
 * where it has no trigger of ours.
 */
extern void qs_note_servers_used(Oid relid);

/* Ends the mirrors that a statement has taken server and trigger from. */
extern void qs_end_mirrors_without_server(void);

#endif							/* QS_SERVERS_USED_H */
