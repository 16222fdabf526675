/*
 * segments.c
 *		Making and dropping the two outbox segments of a mirror.
 *
 * A segment is a materialized view WITH NO DATA: it is in no publication and in
 * no dump (hazard 16).  It belongs to the extension by a dependency, so that
 * DROP EXTENSION removes it; nothing leads from a user's table to it, so that
 * nobody who drops a table drops the extension with it (hazard 24).
 *
 * Made in the session that makes the mirror, dropped by the sync worker, which
 * waits for no lock.
 */
#include "qdrant_sync.h"
#include "mirror/catalog.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define SEGMENT_PREFIX "segment_"

static Oid
make_segment(int64 mirror, char letter)
{
	char		name[NAMEDATALEN];
	char	   *statement;
	Oid			segment;
	ObjectAddress view,
				extension;

	snprintf(name, sizeof(name), SEGMENT_PREFIX INT64_FORMAT "_%c", mirror, letter);
	statement = psprintf("CREATE MATERIALIZED VIEW " QS_SCHEMA ".%s (chunk) WITH (autovacuum_enabled = off) "
						 "AS SELECT NULL::" QS_SCHEMA ".chunk WITH NO DATA", name);
	if (SPI_execute(statement, false, 0) < 0)
		elog(ERROR, "could not make segment %s", name);
	segment = get_relname_relid(name, get_namespace_oid(QS_SCHEMA, false));
	ObjectAddressSet(view, RelationRelationId, segment);
	ObjectAddressSet(extension, ExtensionRelationId, qs_extension_oid());
	recordDependencyOn(&view, &extension, DEPENDENCY_EXTENSION);
	return segment;
}

void
qs_segments_make(int64 mirror, Oid segments[2])
{
	QsIdentity	saved;

	qs_as_owner(&saved);
	SPI_connect();
	segments[0] = make_segment(mirror, 'a');
	segments[1] = make_segment(mirror, 'b');
	SPI_finish();
	qs_as_before(&saved);
	CommandCounterIncrement();
}

/* Still there, and nothing else that took over its OID? */
static bool
is_segment(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_class) GETSTRUCT(tuple);
	result = form->relkind == RELKIND_MATVIEW &&
		form->relnamespace == get_namespace_oid(QS_SCHEMA, true) &&
		strncmp(NameStr(form->relname), SEGMENT_PREFIX, strlen(SEGMENT_PREFIX)) == 0;
	ReleaseSysCache(tuple);
	return result;
}

/* The extension stays: a member is dropped by itself only when told so. */
static bool
drop_segment(Oid relid)
{
	ObjectAddress view;

	if (!is_segment(relid))
		return true;
	if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return false;
	if (!is_segment(relid))
		return true;
	ObjectAddressSet(view, RelationRelationId, relid);
	/* Rows of catalogs may have parts elsewhere, which are found by a snapshot; a worker has none by itself. */
	PushActiveSnapshot(GetTransactionSnapshot());
	performDeletion(&view, DROP_RESTRICT,
					PERFORM_DELETION_INTERNAL | PERFORM_DELETION_SKIP_EXTENSIONS);
	PopActiveSnapshot();
	return true;
}

bool
qs_segments_drop(const Oid segments[2])
{
	return drop_segment(segments[0]) && drop_segment(segments[1]);
}
