/*
 * ddl.h
 *		What the DDL of mirrors shares: arguments, checks, locks, and the rows of
 *		qdrant_internal.mirror.
 */
#ifndef QS_DDL_H
#define QS_DDL_H

#include "mirror/arguments.h"
#include "storage/lockdefs.h"

/* Arguments of qdrant_mirror and qdrant_rebuild, as qdrant_sync--1.0.sql orders them. */
enum
{
	ARG_SOURCE,
	ARG_VECTOR,
	ARG_PAYLOAD,
	ARG_ROW_FILTER,
	ARG_COLLECTION,
	ARG_KEY,
	ARG_DISTANCE,
	ARG_INDEXES,
	ARG_VECTORS_CONFIG,
	ARG_SPARSE_VECTORS_CONFIG,
	ARG_COLLECTION_CONFIG,
	ARG_SERVER,
	ARG_TAKE_OVER,
	ARG_OMIT_NULLS,
	ARG_ALIAS,					/* from here on of qdrant_rebuild alone */
	ARG_KEEP_OLD
};

/* The table that is meant; ERROR where a mirror's DDL is not possible at all. */
extern Oid	qs_ddl_source(FunctionCallInfo fcinfo, const char *function);

/* What was asked for, NULL where nothing was. */
extern void qs_ddl_arguments(FunctionCallInfo fcinfo, QsMirrorArguments *asked);

/* The relation, which the caller owns, under AccessShareLock. */
extern Relation qs_ddl_open_own(Oid relid);

/*
 * The mirror of a table of the caller's.  ERROR 42501 where it is another's, 42704 or
 * 42710 where no mirror is armed here.
 */
extern QsMirrorRow *qs_ddl_own_mirror(Oid relid);

/* ERROR where the collection belongs to the mirror of another table; resumed as in look.h. */
extern void qs_ddl_refuse_shared(const QsDefinition *definition, bool resumed);

/* The table and its leaves, to the end of the transaction; waits shortly. */
extern void qs_ddl_lock(Oid relid, LOCKMODE mode);

/* Makes row and segments; from the commit on, changes are captured.  Returns the id. */
extern int64 qs_ddl_arm(const QsDefinition *definition, bool take_over);

/* One row of ours, as it must still be there; $2 is the value. */
extern void qs_ddl_update(const QsMirrorRow *row, const char *assignments, int64 value);

/* The row that came with a copy of another database. */
extern void qs_ddl_forget_copied(const QsMirrorRow *row);

/* The rebuild's row goes, and with it the collection that was made for it. */
extern void qs_ddl_end_rebuild(const QsMirrorRow *rebuild);

/* The rows of a mirror whose triggers are gone, and of its rebuild; NULL: there is none. */
extern void qs_ddl_end_mirror(const QsMirrorRow *row, bool drop_collection);

#endif							/* QS_DDL_H */
