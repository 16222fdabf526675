/*
 * owned.c
 *		Finds the mirror that owns a collection, in qdrant_internal.mirror.
 *
 * Runs in backends and in the sync worker, without SPI.  An alias that somebody
 * else has made for a mirror's collection is not known here: only Qdrant knows it.
 */
#include "qdrant_sync.h"
#include "mirror/definition.h"
#include "mirror/owned.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/skey.h"
#include "catalog/pg_collation.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

/* "products__qs_3_f00d", or at first "products__qs_0", is how a mirror writes to "products". */
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
	if (digits > 0 && (suffix[5 + digits] == '_' || suffix[5 + digits] == '\0'))
		*suffix = '\0';
	return name;
}

/*
 * By an index on server and column.  Columns of qdrant_internal.mirror are found
 * by name: its shape is mirror/catalog.c's.
 */
static Oid
mirrored_table(Relation mirrors, const char *index, const char *column, const char *server,
			   const char *name)
{
	Oid			table = RelationGetRelid(mirrors);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			relid = InvalidOid;
	bool		is_null;

	ScanKeyEntryInitialize(&keys[0], 0, get_attnum(table, "server"), BTEqualStrategyNumber, InvalidOid,
						   DEFAULT_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(server));
	ScanKeyEntryInitialize(&keys[1], 0, get_attnum(table, column), BTEqualStrategyNumber, InvalidOid,
						   DEFAULT_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(name));
	scan = systable_beginscan(mirrors, qs_internal_relation(index), true, NULL, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		relid = DatumGetObjectId(heap_getattr(tuple, get_attnum(table, "relid"),
											  RelationGetDescr(mirrors), &is_null));
	systable_endscan(scan);
	return relid;
}

/* Also under the alias that a rebuild moves.  The indexes have no mirror that is being dropped. */
Oid
qs_collection_table(const char *server, const char *collection)
{
	char	   *name = without_alias_suffix(collection);
	Relation	mirrors = try_relation_open(qs_internal_relation("mirror"), AccessShareLock);
	Oid			relid;

	if (mirrors == NULL)
		return InvalidOid;
	relid = mirrored_table(mirrors, "mirror_collection", "collection", server, collection);
	if (!OidIsValid(relid) && strcmp(name, collection) != 0)
		relid = mirrored_table(mirrors, "mirror_collection", "collection", server, name);
	if (!OidIsValid(relid))
		relid = mirrored_table(mirrors, "mirror_alias", "alias", server, collection);
	relation_close(mirrors, AccessShareLock);
	return relid;
}
