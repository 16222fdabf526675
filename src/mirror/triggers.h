/*
 * triggers.h
 *		The triggers of a mirrored table and of its leaves.
 *
 * The row trigger is on the table; PostgreSQL clones it to partitions.  A truncate
 * trigger is on the table and on every leaf.
 */
#ifndef QS_TRIGGERS_H
#define QS_TRIGGERS_H

#include "mirror/definition.h"
#include "utils/reltrigger.h"

/*
 * Our triggers on the relation; false where the row trigger is missing.  Copies, in
 * the current memory context: the relation cache forgets its own at the next look at a
 * catalog, where a change of the table arrives.
 */
typedef struct QsMirrorTriggers
{
	const Trigger *row;
	const Trigger *truncate;	/* NULL: not there */
} QsMirrorTriggers;

extern bool qs_mirror_triggers(Relation rel, QsMirrorTriggers *triggers);

/*
 * OIDs of the tables that have a row trigger of their own, and not that of the table
 * that they are a part of; mirrored here or not.
 */
extern List *qs_triggers_tables(void);

/*
 * Do they, and those of all leaves, still fire for everything, whatever
 * session_replication_role?  The caller has locked the table.
 */
extern bool qs_triggers_are_whole(Relation rel);

/* With the caller's rights, on a table that he has locked. */
extern void qs_triggers_make(const QsDefinition *definition);
extern bool qs_triggers_drop(Oid relid);	/* true: there was one */

/* Leaves of the table that lack a truncate trigger get one, as their owner. */
extern void qs_triggers_complete(Oid relid);

/* The truncate triggers of what was a partition go, as its owner. */
extern void qs_triggers_drop_detached(Oid relid);

/* Writes another argument into the row trigger and its clones. */
extern void qs_triggers_set_argument(Oid relid, const char *argument);

/*
 * The definition of a rebuild, a member of the argument.  set: JSON, or NULL where
 * none is going on any more.  serve: it becomes the table's definition; false where
 * there is none.
 */
extern List *qs_triggers_servers(const Trigger *trigger);	/* names, as palloc'd text */
extern bool qs_triggers_have_rebuild(Oid relid);
extern void qs_triggers_set_rebuild(Oid relid, const char *rebuild);
extern bool qs_triggers_serve_rebuild(Oid relid);

#endif							/* QS_TRIGGERS_H */
