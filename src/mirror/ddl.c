/*
 * ddl.c
 *		qdrant_mirror, qdrant_unmirror, qdrant_pause, qdrant_resume, qdrant_resync;
 *		what rebuild.c needs of them.
 *
 * Runs in the session that calls them.  All five are ordinary transactional
 * DDL: they write our tables and the table's triggers and send nothing, so that
 * ROLLBACK undoes them; the sync worker acts after the commit.  Whoever owns the
 * table may call them.
 *
 * Triggers are made with the caller's rights, our tables are written with those
 * of their owner.  Qdrant is only looked at, and before the table is locked;
 * the lock is waited for shortly, since writers queue behind the wait
 * (hazard 20).
 */
#include "qdrant_sync.h"
#include "capture/capture.h"
#include "client/call_arguments.h"
#include "common/server.h"
#include "mirror/arguments.h"
#include "mirror/catalog.h"
#include "mirror/ddl.h"
#include "mirror/key.h"
#include "mirror/look.h"
#include "mirror/servers_used.h"
#include "mirror/table.h"
#include "mirror/triggers.h"

#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/sinvaladt.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* Long enough for a busy table's statements to end, short for who queues behind us. */
#define LOCK_WAIT "3s"
#define LOCK_WAIT_MS 3000

PG_FUNCTION_INFO_V1(qs_mirror);
PG_FUNCTION_INFO_V1(qs_unmirror);
PG_FUNCTION_INFO_V1(qs_pause);
PG_FUNCTION_INFO_V1(qs_resume);
PG_FUNCTION_INFO_V1(qs_resync);

/* ---- the table and its lock ---- */

static void
require_owner(Oid relid)
{
	if (!qs_relation_ownercheck(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
}

/* The relation, which the caller owns, under AccessShareLock. */
Relation
qs_ddl_open_own(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("there is no table with OID %u", relid)));
	require_owner(relid);
	return rel;
}

/* Who holds a lock that conflicts with mode: pids, or what has none. */
static char *
lock_holders(Oid relid, LOCKMODE mode)
{
	LOCKTAG		tag;
	VirtualTransactionId *holders;
	StringInfoData list;
	int			n;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	holders = GetLockConflicts(&tag, mode, &n);
	initStringInfo(&list);
	for (int i = 0; i < n; i++)
	{
		PGPROC	   *proc = qs_vxid_proc(holders[i]);

		if (list.len > 0)
			appendStringInfoString(&list, ", ");
		if (proc != NULL && proc->pid != 0)
			appendStringInfo(&list, "process %d", proc->pid);
		else
			appendStringInfoString(&list, "a prepared transaction");
	}
	return list.data;
}

static QS_NORETURN void refuse_busy(Oid relid, LOCKMODE mode);

static void
refuse_busy(Oid relid, LOCKMODE mode)
{
	char	   *holders = lock_holders(relid, mode);

	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("table \"%s\" is in use, and was waited for in vain", get_rel_name(relid)),
			 holders[0] ? errdetail("It is locked by %s.", holders) : 0,
			 errhint("Try again when that transaction has ended. Writers would wait behind a longer try.")));
	pg_unreachable();
}

/* The holder is named as it is when the wait ends. */
static void
lock_or_name_holder(Oid relid, LOCKMODE mode)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		LockRelationOid(relid, mode);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		refuse_busy(relid, mode);
	}
	PG_END_TRY();
}

static void
lock_relation(Oid relid, LOCKMODE mode)
{
	int			level;

	if (ConditionalLockRelationOid(relid, mode))
		return;
	level = NewGUCNestLevel();
	if (LockTimeout == 0 || LockTimeout > LOCK_WAIT_MS)
		(void) set_config_option("lock_timeout", LOCK_WAIT, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	lock_or_name_holder(relid, mode);
	AtEOXact_GUC(false, level);
}

/* The table and its leaves, to the end of the transaction, as any DDL does. */
void
qs_ddl_lock(Oid relid, LOCKMODE mode)
{
	ListCell   *lc;

	lock_relation(relid, mode);
	foreach(lc, qs_leaves(relid))
		lock_relation(lfirst_oid(lc), mode);
}

/* ---- the state row, with its owner's rights ---- */

/* Writers of a leaf look there, and not at the root. */
static void
tell(Oid relid)
{
	ListCell   *lc;

	CacheInvalidateRelcacheByRelid(relid);
	foreach(lc, qs_leaves(relid))
		CacheInvalidateRelcacheByRelid(lfirst_oid(lc));
	qs_at_commit_reload();
}

static Datum
attnum_array(Datum *elements, int n)
{
	return PointerGetDatum(construct_array(elements, n, INT2OID, sizeof(int16), true, TYPALIGN_SHORT));
}

static void
key_arrays(const QsKeySpec *key, Datum *attnums, Datum *types)
{
	Datum		numbers[INDEX_MAX_KEYS];
	Datum		oids[INDEX_MAX_KEYS];

	for (int i = 0; i < key->n; i++)
	{
		numbers[i] = Int16GetDatum(key->attnums[i]);
		oids[i] = ObjectIdGetDatum(key->types[i]);
	}
	*attnums = attnum_array(numbers, key->n);
	*types = PointerGetDatum(construct_array(oids, key->n, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

/* *isnull: any column's change counts. */
static Datum
columns_array(const QsDefinition *definition, bool *isnull)
{
	Datum	   *numbers = palloc((bms_num_members(definition->columns) + 1) * sizeof(Datum));
	int			attnum = -1;
	int			n = 0;

	*isnull = definition->all_columns;
	while ((attnum = bms_next_member(definition->columns, attnum)) >= 0)
		numbers[n++] = Int16GetDatum(attnum);
	return attnum_array(numbers, n);
}

/* Writes the row of that id, or what of it the definition says. */
static void
write_row(const char *statement, const QsDefinition *definition, int64 id, const Oid segments[2],
		  bool take_over)
{
	Oid			types[] = {INT8OID, OIDOID, INT8OID, OIDOID, TEXTOID, TEXTOID, CHAROID,
		INT2ARRAYOID, OIDARRAYOID, INT2ARRAYOID, OIDOID, OIDOID, INT8OID, TEXTOID};
	Datum		values[] = {
		Int64GetDatum(id),
		ObjectIdGetDatum(definition->relid),
		Int64GetDatum((int64) GetSystemIdentifier()),
		ObjectIdGetDatum(MyDatabaseId),
		CStringGetTextDatum(definition->server),
		CStringGetTextDatum(definition->collection),
		CharGetDatum((char) definition->key.rule),
		(Datum) 0, (Datum) 0, (Datum) 0,
		ObjectIdGetDatum(segments[0]),
		ObjectIdGetDatum(segments[1]),
		Int64GetDatum(take_over ? 1 : 0),
		definition->alias ? CStringGetTextDatum(definition->alias) : (Datum) 0
	};
	char		nulls[lengthof(values) + 1];
	bool		any_column;
	QsIdentity	saved;

	key_arrays(&definition->key, &values[7], &values[8]);
	values[9] = columns_array(definition, &any_column);
	memset(nulls, ' ', lengthof(values));
	nulls[lengthof(values)] = '\0';
	nulls[9] = any_column ? 'n' : ' ';
	nulls[13] = definition->alias == NULL ? 'n' : ' ';
	qs_as_owner(&saved);
	SPI_connect();
	(void) SPI_execute_with_args(statement, lengthof(types), types, values, nulls, false, 0);
	SPI_finish();
	qs_as_before(&saved);
}

static void
insert_row(const QsDefinition *definition, int64 id, const Oid segments[2], bool take_over)
{
	write_row("INSERT INTO " QS_SCHEMA ".mirror (id, relid, system_identifier, database, server, collection, "
			  "key_rule, key_attnums, key_types, columns, segment_a, segment_b, take_over, alias) "
			  "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
			  definition, id, segments, take_over);
}

/*
 * The row that came with a copy of another database: nobody writes to its
 * segments, and its collection is the original's.  Segments that somebody has
 * locked stay behind until the extension is dropped.
 */
void
qs_ddl_forget_copied(const QsMirrorRow *row)
{
	static const char *const statements[] = {
		"DELETE FROM " QS_SCHEMA ".dead_letter WHERE mirror = $1",
		"DELETE FROM " QS_SCHEMA ".progress WHERE mirror = $1",
		"DELETE FROM " QS_SCHEMA ".mirror WHERE id = $1",
	};

	for (int i = 0; i < lengthof(statements); i++)
		(void) qs_execute_as_owner(statements[i], 1, &row->id);
	(void) qs_segments_drop(row->segments);
	CommandCounterIncrement();
}

static bool
has_collection(const QsMirrorRow *row, const QsDefinition *definition)
{
	return !row->dropped &&
		strcmp(row->collection, definition->collection) == 0 &&
		strcmp(row->server, definition->server) == 0;
}

/* What the worker would do when it sees that the table was dropped. */
static void
release_collection(const QsDefinition *definition)
{
	ListCell   *lc;

	foreach(lc, qs_mirror_rows())
	{
		QsMirrorRow *row = lfirst(lc);

		if (!has_collection(row, definition) ||
			SearchSysCacheExists1(RELOID, ObjectIdGetDatum(row->relid)))
			continue;
		if (row->ours)
			(void) qs_execute_as_owner("UPDATE " QS_SCHEMA ".mirror SET dropped = true WHERE id = $1",
									   1, &row->id);
		else
			qs_ddl_forget_copied(row);
	}
}

/*
 * From the commit on, writes of this table are captured.  The caller holds a
 * lock that writers wait for, so that none of them goes on without knowing.
 */
int64
qs_ddl_arm(const QsDefinition *definition, bool take_over)
{
	int64		id = nextval_internal(qs_internal_relation("mirror_id"), false);
	Oid			segments[2];

	release_collection(definition);
	qs_segments_make(id, segments);
	insert_row(definition, id, segments, take_over);
	tell(definition->relid);
	return id;
}

/* One row of ours, as it must still be there. */
void
qs_ddl_update(const QsMirrorRow *row, const char *assignments, int64 value)
{
	int64		parameters[] = {row->id, value};
	char	   *statement = psprintf("UPDATE " QS_SCHEMA ".mirror SET %s "
									 "WHERE id = $1 AND NOT dropped AND $2 IS NOT NULL", assignments);

	if (qs_execute_as_owner(statement, 2, parameters) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the mirror of table \"%s\" was changed at the same time",
						get_rel_name(row->relid))));
	tell(row->relid);
}

/* ---- qdrant_mirror ---- */

static char *
text_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

/* A JSON object as text; NULL for NULL. */
static char *
object_argument(FunctionCallInfo fcinfo, int number, const char *name)
{
	Jsonb	   *object;

	if (PG_ARGISNULL(number))
		return NULL;
	object = PG_GETARG_JSONB_P(number);
	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON object", name)));
	return JsonbToCString(NULL, &object->root, VARSIZE(object));
}

Oid
qs_ddl_source(FunctionCallInfo fcinfo, const char *function)
{
	PreventCommandDuringRecovery(function);
	PreventCommandIfReadOnly(function);
	qs_require_preload(function);
	if (PG_ARGISNULL(ARG_SOURCE))
		qs_refuse_null("source");
	return PG_GETARG_OID(ARG_SOURCE);
}

void
qs_ddl_arguments(FunctionCallInfo fcinfo, QsMirrorArguments *asked)
{
	memset(asked, 0, sizeof(QsMirrorArguments));
	asked->vector = text_argument(fcinfo, ARG_VECTOR);
	asked->payload = text_argument(fcinfo, ARG_PAYLOAD);
	asked->row_filter = text_argument(fcinfo, ARG_ROW_FILTER);
	asked->key = text_argument(fcinfo, ARG_KEY);
	asked->indexes = text_argument(fcinfo, ARG_INDEXES);
	asked->vectors_config = object_argument(fcinfo, ARG_VECTORS_CONFIG, "vectors_config");
	asked->sparse_vectors_config = object_argument(fcinfo, ARG_SPARSE_VECTORS_CONFIG, "sparse_vectors_config");
	asked->collection_config = object_argument(fcinfo, ARG_COLLECTION_CONFIG, "collection_config");
	asked->omit_nulls = !PG_ARGISNULL(ARG_OMIT_NULLS) && PG_GETARG_BOOL(ARG_OMIT_NULLS);
	asked->collection = text_argument(fcinfo, ARG_COLLECTION);
	asked->distance = text_argument(fcinfo, ARG_DISTANCE);
	asked->server = text_argument(fcinfo, ARG_SERVER);
}

static QS_NORETURN void refuse_mirrored(Relation rel, const QsMirrorRow *row);

static void
refuse_mirrored(Relation rel, const QsMirrorRow *row)
{
	const char *table = RelationGetRelationName(rel);

	if (row != NULL && row->ours)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("table \"%s\" is mirrored already, into collection \"%s\"",
						table, row->collection),
				 errhint("qdrant_rebuild(%s, ...) gives it another definition while it is served; qdrant_unmirror(%s) ends it.",
						 qs_table_argument(rel), qs_table_argument(rel))));
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("table \"%s\" has the mirror of the database that it was restored or copied from", table),
			 errhint("qdrant_resume(%s) takes it up, qdrant_unmirror(%s) removes it.",
					 qs_table_argument(rel), qs_table_argument(rel))));
	pg_unreachable();
}

static void
refuse_second_mirror(Relation rel)
{
	QsMirrorRow *row = qs_mirror_row_by_relid(RelationGetRelid(rel));
	QsMirrorTriggers triggers;

	if (row != NULL || qs_mirror_triggers(rel, &triggers))
		refuse_mirrored(rel, row);
}

/*
 * Two mirrors of one collection would remove each other's points.  One whose
 * table was dropped is none, though the worker may not have seen that yet.
 */
void
qs_ddl_refuse_shared(const QsDefinition *definition, bool resumed)
{
	ListCell   *lc;

	foreach(lc, qs_mirror_rows())
	{
		QsMirrorRow *row = lfirst(lc);

		if (has_collection(row, definition) && row->relid != definition->relid &&
			SearchSysCacheExists1(RELOID, ObjectIdGetDatum(row->relid)))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("collection \"%s\" on server \"%s\" belongs to another mirror",
							row->collection, row->server),
					 errhint("%s.", resumed ?
							 "Call qdrant_unmirror, and qdrant_mirror with another name" :
							 "Give another name with collection => '...'")));
	}
}

/*
 * Everything that the catalogs can say about what was asked.  Takes a weak lock
 * and lets it go: a caller that holds a stronger one goes on holding that.
 */
static QsDefinition *
check_asked(Oid relid, const QsMirrorArguments *asked, QsServer **server)
{
	Relation	rel = qs_ddl_open_own(relid);
	QsMirrorArguments complete = *asked;
	QsDefinition *definition;

	qs_mirror_check_table(rel);
	refuse_second_mirror(rel);
	*server = qs_server_get(asked->server, rel->rd_rel->relowner);
	complete.server = (*server)->name;
	definition = qs_definition_make(rel, &complete);
	qs_ddl_refuse_shared(definition, false);
	relation_close(rel, AccessShareLock);
	return definition;
}

static void
append_columns(StringInfo list, List *columns)
{
	ListCell   *lc;

	foreach(lc, columns)
		appendStringInfo(list, "%s%s", lc == list_head(columns) ? "" : ", ",
						 ((QsColumn *) lfirst(lc))->expression);
}

static void
notice_payload(const QsDefinition *definition)
{
	StringInfoData sent;

	if (!definition->payload_all)
		return;
	initStringInfo(&sent);
	append_columns(&sent, definition->payload);
	ereport(NOTICE,
			(errmsg("the payload of \"%s\" is every column that is not a vector: %s",
					definition->collection, sent.len > 0 ? sent.data : "none"),
			 errhint("Choose with payload => 'column, expression AS name, ...'.")));
}

Datum
qs_mirror(PG_FUNCTION_ARGS)
{
	Oid			relid = qs_ddl_source(fcinfo, "qdrant_mirror");
	bool		take_over = !PG_ARGISNULL(ARG_TAKE_OVER) && PG_GETARG_BOOL(ARG_TAKE_OVER);
	QsMirrorArguments asked;
	QsDefinition *definition;
	QsServer   *server;

	qs_ddl_arguments(fcinfo, &asked);
	if (asked.payload == NULL)
		asked.payload = "";
	if (asked.distance == NULL)
		asked.distance = "Cosine";
	definition = check_asked(relid, &asked, &server);
	qs_look_at_collection(server, definition, take_over, false);
	qs_server_free(server);

	qs_ddl_lock(relid, ShareRowExclusiveLock);
	definition = check_asked(relid, &asked, &server);
	qs_server_free(server);
	qs_triggers_make(definition);
	(void) qs_ddl_arm(definition, take_over);
	notice_payload(definition);
	PG_RETURN_VOID();
}

/* ---- the others ---- */

static QS_NORETURN void refuse_no_mirror(Oid relid);

static void
refuse_no_mirror(Oid relid)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("table \"%s\" has no mirror", get_rel_name(relid)),
			 errhint("qdrant_mirror makes one.")));
	pg_unreachable();
}

/* The mirror of a table of the caller's; NULL: none that is armed here. */
static QsMirrorRow *
own_mirror(Oid relid)
{
	QsMirrorRow *row;

	relation_close(qs_ddl_open_own(relid), AccessShareLock);
	row = qs_mirror_row_by_relid(relid);
	return row != NULL && row->ours ? row : NULL;
}

QsMirrorRow *
qs_ddl_own_mirror(Oid relid)
{
	QsMirrorRow *row = own_mirror(relid);

	if (row != NULL)
		return row;
	if (list_member_oid(qs_triggers_tables(), relid))
		refuse_mirrored(relation_open(relid, AccessShareLock), NULL);
	refuse_no_mirror(relid);
}

/* Whatever becomes of the present collection, the unfinished one is nobody's. */
void
qs_ddl_end_rebuild(const QsMirrorRow *rebuild)
{
	if (rebuild->ours)
		qs_ddl_update(rebuild, "dropped = true, drop_collection = ($2 = 1)", 1);
	else
		qs_ddl_forget_copied(rebuild);
}

void
qs_ddl_end_mirror(const QsMirrorRow *row, bool drop_collection)
{
	if (row != NULL && row->ours)
		qs_ddl_update(row, "dropped = true, drop_collection = ($2 = 1)", drop_collection ? 1 : 0);
	else if (row != NULL)
		qs_ddl_forget_copied(row);
	if (row != NULL && row->rebuild != NULL)
		qs_ddl_end_rebuild(row->rebuild);
}

Datum
qs_unmirror(PG_FUNCTION_ARGS)
{
	Oid			relid = qs_ddl_source(fcinfo, "qdrant_unmirror");
	bool		drop_collection = PG_GETARG_BOOL(1);
	QsMirrorRow *row;
	bool		had_triggers;

	relation_close(qs_ddl_open_own(relid), AccessShareLock);
	qs_ddl_lock(relid, AccessExclusiveLock);
	row = qs_mirror_row_by_relid(relid);
	had_triggers = qs_triggers_drop(relid);
	if (row == NULL && !had_triggers)
		refuse_no_mirror(relid);
	qs_ddl_end_mirror(row, drop_collection);
	PG_RETURN_VOID();
}

Datum
qs_pause(PG_FUNCTION_ARGS)
{
	Oid			relid = qs_ddl_source(fcinfo, "qdrant_pause");

	qs_ddl_update(qs_ddl_own_mirror(relid), "paused = true", 0);
	PG_RETURN_VOID();
}

Datum
qs_resync(PG_FUNCTION_ARGS)
{
	Oid			relid = qs_ddl_source(fcinfo, "qdrant_resync");

	qs_ddl_update(qs_ddl_own_mirror(relid), "sweep = sweep + 1", 0);
	PG_RETURN_VOID();
}

/* Definition in the table's triggers, whatever state those are in; NULL: none. */
static QsDefinition *
definition_in_trigger(Oid relid, bool *whole)
{
	Relation	rel = relation_open(relid, AccessShareLock);
	QsMirrorTriggers triggers;
	QsMirrorArguments arguments;
	QsDefinition *definition = NULL;

	if (qs_mirror_triggers(rel, &triggers))
	{
		int			level = qs_pin_search_path();

		*whole = qs_triggers_are_whole(rel);
		qs_arguments_read(triggers.row, &arguments);
		definition = qs_definition_make(rel, &arguments);
		AtEOXact_GUC(false, level);
	}
	relation_close(rel, AccessShareLock);
	return definition;
}

static void
mend_triggers(const QsDefinition *definition)
{
	(void) qs_triggers_drop(definition->relid);
	qs_triggers_make(definition);
}

/* Triggers that were disabled or altered have missed changes: all is compared. */
static void
resume_own(const QsMirrorRow *row, bool take_over)
{
	bool		whole = true;
	QsDefinition *definition = definition_in_trigger(row->relid, &whole);

	if (definition == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the trigger that holds the definition of the mirror of \"%s\" is gone",
						get_rel_name(row->relid)),
				 errhint("Call qdrant_unmirror, then qdrant_mirror with take_over => true.")));
	if (!qs_key_same_ids(&row->key, &definition->key))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the key of table \"%s\" makes other ids than when it was mirrored",
						get_rel_name(row->relid)),
				 errhint("Call qdrant_unmirror, then qdrant_mirror with take_over => true.")));
	if (!whole)
	{
		qs_ddl_lock(row->relid, AccessExclusiveLock);
		mend_triggers(definition);
	}
	write_row("UPDATE " QS_SCHEMA ".mirror SET key_attnums = $8, key_types = $9, columns = $10 WHERE id = $1",
			  definition, row->id, row->segments, false);
	qs_ddl_update(row, psprintf("paused = false, resumed = resumed + 1, take_over = take_over + $2%s",
							 whole ? "" : ", sweep = sweep + 1"), take_over ? 1 : 0);
	if (row->rebuild != NULL)
		qs_ddl_update(row->rebuild, whole ? "resumed = resumed + 1" :
					  "resumed = resumed + 1, sweep = sweep + 1", 0);
}

/*
 * A table that came out of a dump or with a copy of its database.  What writes
 * the original's collection has to be asked for, and may be refused.
 */
static void
resume_restored(Oid relid, bool take_over)
{
	bool		whole = true;
	QsDefinition *definition = definition_in_trigger(relid, &whole);
	QsMirrorRow *copied;
	QsServer   *server;
	bool		had_rebuild;

	if (definition == NULL)
		refuse_no_mirror(relid);
	/* Its unfinished collection is the original's business. */
	had_rebuild = definition->rebuild != NULL;
	definition->rebuild = NULL;
	server = qs_server_get(definition->server, definition->owner);
	qs_ddl_refuse_shared(definition, true);
	qs_look_at_collection(server, definition, take_over, true);
	qs_server_free(server);

	qs_ddl_lock(relid, whole ? ShareRowExclusiveLock : AccessExclusiveLock);
	copied = qs_mirror_row_by_relid(relid);
	if (copied != NULL && copied->ours)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the mirror of table \"%s\" was resumed at the same time", get_rel_name(relid))));
	if (copied != NULL && copied->rebuild != NULL)
		qs_ddl_forget_copied(copied->rebuild);
	if (copied != NULL)
		qs_ddl_forget_copied(copied);
	if (!whole)
		mend_triggers(definition);
	else if (had_rebuild)
		qs_triggers_set_rebuild(relid, NULL);
	else
		qs_note_servers_used(relid);
	(void) qs_ddl_arm(definition, take_over);
	if (had_rebuild)
		ereport(NOTICE,
				(errmsg("the rebuild of table \"%s\" that was going on is given up", get_rel_name(relid)),
				 errhint("qdrant_rebuild begins another.")));
}

Datum
qs_resume(PG_FUNCTION_ARGS)
{
	Oid			relid = qs_ddl_source(fcinfo, "qdrant_resume");
	bool		take_over = PG_GETARG_BOOL(1);
	QsMirrorRow *row = own_mirror(relid);

	if (row != NULL)
		resume_own(row, take_over);
	else
		resume_restored(relid, take_over);
	PG_RETURN_VOID();
}
