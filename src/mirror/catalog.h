/*
 * catalog.h
 *		Our own tables as src/mirror/ uses them: with the rights of their owner,
 *		whoever calls.
 */
#ifndef QS_CATALOG_H
#define QS_CATALOG_H

#include "mirror/definition.h"

/* What a change of role and settings has to give back. */
typedef struct QsIdentity
{
	Oid			userid;
	int			sec_context;
	int			guc_level;
} QsIdentity;

/*
 * The extension's owner (qs_as_owner) or any role (qs_as_role), with search_path
 * pinned.  restricted: no user's code run meanwhile can leave anything behind
 * (SECURITY_RESTRICTED_OPERATION).  An ERROR gives everything back by itself.
 */
extern void qs_as_owner(QsIdentity *saved);
extern void qs_as_role(Oid role, bool restricted, QsIdentity *saved);
extern void qs_as_before(const QsIdentity *saved);

/* Restricted, and with the search_path that is set. */
extern void qs_as_role_with_path(Oid role, QsIdentity *saved);

/* Owner of a relation that is there. */
extern Oid	qs_relation_owner(Oid relid);

/* Only the search_path, pinned to pg_catalog, pg_temp; ended by AtEOXact_GUC. */
extern int	qs_pin_search_path(void);

/* Function of ours in qdrant_internal that a trigger calls; InvalidOid: none. */
extern Oid	qs_trigger_function(const char *name);

/*
 * Runs one statement on our tables as the extension's owner.  Parameters are
 * all bigint; returns the number of rows.  SPI must not be connected.
 */
extern uint64 qs_execute_as_owner(const char *statement, int n, const int64 *parameters);

#endif							/* QS_CATALOG_H */
