/*
 * rights.c
 *		Keeps the collection functions from going round a table's privileges and
 *		row security.
 *
 * Runs in backends.  USAGE on a server lets its holder read every collection
 * there but those that a mirror of this database owns.
 */
#include "qdrant_sync.h"

#include "catalog/objectaddress.h"
#include "client/raw_path.h"
#include "client/rights.h"
#include "mirror/owned.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
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

Oid
qs_check_collection_read(const QsServer *server, const char *collection)
{
	Oid			relid = qs_collection_table(server->name, collection);
	char	   *table;

	if (!OidIsValid(relid))
		return InvalidOid;
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
	return relid;
}

static bool
key_is(const JsonbValue *key, const char *name)
{
	return key->val.string.len == (int) strlen(name) &&
		memcmp(key->val.string.val, name, strlen(name)) == 0;
}

/*
 * Any member "collection", at any depth: lookup_from has one, in prefetch too, and
 * with_lookup, which may be the name alone.
 */
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
			(void) qs_check_collection_read(server, pnstrdup(value.val.string.val, value.val.string.len));
		is_collection = token == WJB_KEY &&
			(key_is(&value, "collection") || key_is(&value, "with_lookup"));
	}
}

void
qs_check_location(const QsServer *server, Jsonb *document)
{
	JsonbIterator *iterator = JsonbIteratorInit(&document->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	bool		is_location = false;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		if (token == WJB_VALUE && is_location && value.type == jbvString)
		{
			char	   *url = pnstrdup(value.val.string.val, value.val.string.len);
			List	   *segments = qs_url_segments(url);
			ListCell   *cell;

			foreach(cell, segments)
				(void) qs_check_collection_read(server, lfirst(cell));
		}
		is_location = token == WJB_KEY && key_is(&value, "location");
	}
}

void
qs_check_read_write(FunctionCallInfo fcinfo)
{
	char	   *call = psprintf("%s()", get_func_name(fcinfo->flinfo->fn_oid));

	PreventCommandDuringRecovery(call);
	PreventCommandIfReadOnly(call);
}

void
qs_check_collection_owner(const QsServer *server, const char *collection)
{
	Oid			relid = qs_collection_table(server->name, collection);
	char	   *table;

	if (!OidIsValid(relid) || qs_relation_ownercheck(relid, GetUserId()))
		return;
	table = get_rel_name(relid);
	aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relid)),
				   table != NULL ? table : collection);
}

void
qs_check_not_mirrored(const QsServer *server, const char *collection)
{
	Oid			relid = qs_collection_table(server->name, collection);

	if (OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("collection \"%s\" belongs to the mirror of table \"%s\"",
						collection, get_rel_name(relid)),
				 errhint("A mirror makes and fills its collection by itself.")));
}
