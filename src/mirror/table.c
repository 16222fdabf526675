/*
 * table.c
 *		Which tables can have a mirror, and which column is its key.
 *
 * Runs in sessions and in the sync worker, which repeats the checks whenever
 * the table changed.  Refused is what would be mirrored in part only, or could
 * not be repaired after a crash; what a later version takes says "yet".
 */
#include "qdrant_sync.h"
#include "mirror/table.h"

#include "access/sysattr.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "nodes/bitmapset.h"
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
			return;
		case RELKIND_PARTITIONED_TABLE:
			refuse(rel, ERRCODE_FEATURE_NOT_SUPPORTED,
				   "a partitioned table, which is not supported yet", NULL);
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

static void
check_inheritance(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);

	if (rel->rd_rel->relispartition)
		refuse(rel, ERRCODE_FEATURE_NOT_SUPPORTED,
			   "a partition, which is not supported yet", NULL);
	if (has_superclass(relid) || find_inheritance_children(relid, NoLock) != NIL)
		refuse(rel, ERRCODE_FEATURE_NOT_SUPPORTED, "part of an inheritance tree",
			   "Triggers of a parent do not see its children's rows.");
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

static QS_NORETURN void refuse_key(Relation rel, const char *why);

static void
refuse_key(Relation rel, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("\"%s\" cannot be mirrored: %s", RelationGetRelationName(rel), why),
			 errhint("The primary key must be one column of type smallint, integer, bigint or uuid; others are not supported yet.")));
	pg_unreachable();
}

static bool
is_key_type(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID || type == UUIDOID;
}

/* Also where it is deferrable: what commits is unique, and nothing else is sent. */
AttrNumber
qs_mirror_key_column(Relation rel)
{
	Oid			constraint;
	Bitmapset  *columns = get_primary_key_attnos(RelationGetRelid(rel), true, &constraint);
	AttrNumber	attnum;
	Oid			type;

	if (columns == NULL)
		refuse_key(rel, "it has no primary key");
	if (bms_num_members(columns) > 1)
		refuse_key(rel, "its primary key has more than one column");
	attnum = bms_singleton_member(columns) + FirstLowInvalidHeapAttributeNumber;
	type = TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid;
	if (!is_key_type(getBaseType(type)))
		refuse_key(rel, psprintf("its primary key is of type %s", format_type_be(type)));
	return attnum;
}
