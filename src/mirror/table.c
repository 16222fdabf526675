/*
 * table.c
 *		Which tables can have a mirror.
 *
 * Runs in sessions and in the sync worker, which repeats the checks whenever
 * the table changed.  Refused is what would be mirrored in part only, or could
 * not be repaired after a crash; what a later version takes says "yet".
 */
#include "qdrant_sync.h"
#include "mirror/table.h"

#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/extension.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

static QS_NORETURN void refuse(Relation rel, int code, const char *what, const char *hint);

static void
refuse(Relation rel, int code, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("\"%s\" cannot be mirrored: it is %s", RelationGetRelationName(rel), what),
			 hint ? errhint("%s", hint) : 0));
	pg_unreachable();
}

static void
check_kind(Relation rel)
{
	switch (rel->rd_rel->relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
			return;
		case RELKIND_VIEW:
		case RELKIND_MATVIEW:
			refuse(rel, ERRCODE_WRONG_OBJECT_TYPE, "a view",
				   "Mirror the table that it reads, with an expression or a list of columns as payload.");
		case RELKIND_FOREIGN_TABLE:
			refuse(rel, ERRCODE_WRONG_OBJECT_TYPE, "a foreign table",
				   "Its changes are not seen here. Mirror it where it is stored.");
		default:
			refuse(rel, ERRCODE_WRONG_OBJECT_TYPE, "not a table", NULL);
	}
}

/* Rows of a foreign partition change where nobody sees it. */
static void
check_leaves(Relation rel)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(RelationGetRelid(rel), NoLock, NULL))
	{
		Oid			relid = lfirst_oid(lc);

		if (get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE)
			refuse(rel, ERRCODE_WRONG_OBJECT_TYPE,
				   psprintf("a table with a foreign partition, \"%s\"", get_rel_name(relid)),
				   "Changes of foreign tables are not seen here.");
		if (get_rel_persistence(relid) == RELPERSISTENCE_UNLOGGED)
			refuse(rel, ERRCODE_WRONG_OBJECT_TYPE,
				   psprintf("a table with an unlogged partition, \"%s\"", get_rel_name(relid)),
				   "A crash would empty it. ALTER TABLE ... SET LOGGED makes it durable.");
	}
}

static void
check_inheritance(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);

	if (rel->rd_rel->relispartition)
		refuse(rel, ERRCODE_WRONG_OBJECT_TYPE, "a partition",
			   "Mirror the partitioned table that it belongs to.");
	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		check_leaves(rel);
	else if (has_superclass(relid) || find_inheritance_children(relid, NoLock) != NIL)
		refuse(rel, ERRCODE_FEATURE_NOT_SUPPORTED, "part of an inheritance tree",
			   "Triggers of a parent do not see its children's rows.");
}

List *
qs_leaves(Oid relid)
{
	List	   *leaves = NIL;
	ListCell   *lc;

	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		return NIL;
	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_RELATION)
			leaves = lappend_oid(leaves, lfirst_oid(lc));
	}
	list_sort(leaves, list_oid_cmp);
	return leaves;
}

void
qs_mirror_check_table(Relation rel)
{
	check_kind(rel);
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		refuse(rel, ERRCODE_WRONG_OBJECT_TYPE, "a temporary table",
			   "Other sessions, and so the sync worker, cannot read it.");
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		refuse(rel, ERRCODE_WRONG_OBJECT_TYPE, "an unlogged table",
			   "A crash would empty it. ALTER TABLE ... SET LOGGED makes it durable.");
	if (IsSystemRelation(rel))
		refuse(rel, ERRCODE_WRONG_OBJECT_TYPE, "a system catalog", NULL);
	if (OidIsValid(getExtensionOfObject(RelationRelationId, RelationGetRelid(rel))))
		refuse(rel, ERRCODE_WRONG_OBJECT_TYPE, "a table of an extension", NULL);
	check_inheritance(rel);
	if (rel->rd_rel->relrowsecurity && rel->rd_rel->relforcerowsecurity)
		refuse(rel, ERRCODE_FEATURE_NOT_SUPPORTED,
			   "under FORCE ROW LEVEL SECURITY, which hides rows from its owner",
			   "The sync worker reads as the owner. ALTER TABLE ... NO FORCE ROW LEVEL SECURITY lets it see all rows.");
}

char *
qs_table_argument(Relation rel)
{
	Datum		name = DirectFunctionCall1(regclassout, ObjectIdGetDatum(RelationGetRelid(rel)));

	return quote_literal_cstr(DatumGetCString(name));
}
