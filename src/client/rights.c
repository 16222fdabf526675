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

/* Copies of the strings, at any depth, whose keys are wanted. */
static List *
string_members(Jsonb *document, bool (*wanted) (const JsonbValue *key))
{
	JsonbIterator *iterator = JsonbIteratorInit(&document->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	bool		is_wanted = false;
	List	   *strings = NIL;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		if (token == WJB_VALUE && is_wanted && value.type == jbvString)
			strings = lappend(strings, pnstrdup(value.val.string.val, value.val.string.len));
		is_wanted = token == WJB_KEY && wanted(&value);
	}
	return strings;
}

/* lookup_from has "collection", in prefetch too; with_lookup too, or is the name alone. */
static bool
names_lookup(const JsonbValue *key)
{
	return key_is(key, "collection") || key_is(key, "with_lookup");
}

void
qs_check_lookups(const QsServer *server, Jsonb *document)
{
	List	   *collections = string_members(document, names_lookup);
	ListCell   *cell;

	foreach(cell, collections)
		(void) qs_check_collection_read(server, lfirst(cell));
}

static bool
names_location(const JsonbValue *key)
{
	return key_is(key, "location");
}

void
qs_check_location(const QsServer *server, Jsonb *document)
{
	List	   *locations = string_members(document, names_location);
	ListCell   *location;

	foreach(location, locations)
	{
		List	   *segments = qs_url_segments(lfirst(location));
		ListCell   *cell;

		foreach(cell, segments)
			(void) qs_check_collection_read(server, lfirst(cell));
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

static bool
names_collection_or_alias(const JsonbValue *key)
{
	return key_is(key, "collection_name") || key_is(key, "alias_name") ||
		key_is(key, "old_alias_name") || key_is(key, "new_alias_name");
}

void
qs_check_alias_actions(const QsServer *server, Jsonb *actions)
{
	List	   *names = string_members(actions, names_collection_or_alias);
	ListCell   *name;

	foreach(name, names)
		qs_check_not_mirrored(server, lfirst(name));
}
