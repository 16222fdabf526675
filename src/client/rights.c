/*
 * rights.c
 *		Keeps the collection functions from going round a table's privileges and
 *		row security.
 *
 * Runs in backends.  USAGE on a server lets its holder read every collection
 * there but those that a mirror of this database owns.
 */
#include "qdrant_sync.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/skey.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_collation.h"
#include "client/rights.h"
#include "mirror/definition.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

void
qs_check_select(Oid relid)
{
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(relid, GetUserId(), ACL_SELECT, ACLMASK_ALL) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
}

bool
qs_row_security_applies(Oid relid)
{
	return check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED;
}

/* "products__qs_3_f00d" is the alias that a mirror writes to "products" through. */
static char *
without_alias_suffix(const char *collection)
{
	char	   *name = pstrdup(collection);
	char	   *suffix = NULL;
	size_t		digits;

	for (char *at = name; (at = strstr(at, "__qs_")) != NULL; at++)
		suffix = at;
	if (suffix == NULL)
		return name;
	digits = strspn(suffix + 5, "0123456789");
	if (digits > 0 && suffix[5 + digits] == '_')
		*suffix = '\0';
	return name;
}

/* Columns of qdrant_internal.mirror are found by name: its shape is mirror/catalog.c's. */
static Oid
mirrored_table(Relation mirrors, const char *server, const char *collection)
{
	Oid			table = RelationGetRelid(mirrors);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			relid = InvalidOid;
	bool		is_null;

	ScanKeyEntryInitialize(&keys[0], 0, get_attnum(table, "server"), BTEqualStrategyNumber, InvalidOid,
						   DEFAULT_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(server));
	ScanKeyEntryInitialize(&keys[1], 0, get_attnum(table, "collection"), BTEqualStrategyNumber, InvalidOid,
						   DEFAULT_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(collection));
	scan = systable_beginscan(mirrors, qs_internal_relation("mirror_collection"), true, NULL, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		relid = DatumGetObjectId(heap_getattr(tuple, get_attnum(table, "relid"),
											  RelationGetDescr(mirrors), &is_null));
	systable_endscan(scan);
	return relid;
}

/*
 * The table whose mirror owns the collection; InvalidOid: none.  By index, since
 * every query asks; the index has no mirror that is being dropped.
 */
static Oid
table_of(const QsServer *server, const char *collection)
{
	char	   *name = without_alias_suffix(collection);
	Relation	mirrors = try_relation_open(qs_internal_relation("mirror"), AccessShareLock);
	Oid			relid;

	if (mirrors == NULL)
		return InvalidOid;
	relid = mirrored_table(mirrors, server->name, collection);
	if (!OidIsValid(relid) && strcmp(name, collection) != 0)
		relid = mirrored_table(mirrors, server->name, name);
	relation_close(mirrors, AccessShareLock);
	return relid;
}

void
qs_check_collection_read(const QsServer *server, const char *collection)
{
	Oid			relid = table_of(server, collection);
	char	   *table;

	if (!OidIsValid(relid))
		return;
	table = get_rel_name(relid);
	if (table == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("collection \"%s\" belongs to a table that is being dropped", collection)));
	qs_check_select(relid);
	if (qs_row_security_applies(relid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row security of table \"%s\" applies to you, and collection \"%s\" has all its rows",
						table, collection),
				 errhint("Use qdrant_search(NULL::%s, ...), which returns the rows that you may see.",
						 quote_identifier(table))));
}

/* Any member "collection", at any depth: lookup_from has one, in prefetch too. */
void
qs_check_lookups(const QsServer *server, Jsonb *document)
{
	JsonbIterator *iterator = JsonbIteratorInit(&document->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	bool		is_collection = false;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		if (token == WJB_VALUE && is_collection && value.type == jbvString)
			qs_check_collection_read(server, pnstrdup(value.val.string.val, value.val.string.len));
		is_collection = token == WJB_KEY && value.val.string.len == 10 &&
			memcmp(value.val.string.val, "collection", 10) == 0;
	}
}

void
qs_check_not_mirrored(const QsServer *server, const char *collection)
{
	Oid			relid = table_of(server, collection);

	if (OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("collection \"%s\" belongs to the mirror of table \"%s\"",
						collection, get_rel_name(relid)),
				 errhint("A mirror makes and fills its collection by itself.")));
}
