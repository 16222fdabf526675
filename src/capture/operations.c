/*
 * operations.c
 *		Explicit operations: point writes that a user asks for by SQL.
 *
 * Runs in users' backends.  An operation is checked when it is asked for, kept
 * with its transaction, undone with its savepoint, and gets its number at
 * PRE_COMMIT: so a transaction that begins after another's commit has the
 * larger numbers (hazard 7).  PREPARE TRANSACTION is refused, as for NOTIFY:
 * numbers of prepared transactions would say nothing.
 */
#include "capture/append.h"
#include "capture/operations.h"
#include "capture/points.h"
#include "capture/savepoints.h"
#include "capture/spool.h"
#include "client/request.h"
#include "common/server.h"
#include "mirror/definition.h"
#include "mirror/identity.h"

#include "access/xact.h"
#include "commands/sequence.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(qs_upsert);

#define SPOOL_MEMORY (256 * 1024)

/* Columns of qdrant_internal.operations_a and _b. */
enum
{
	OPERATION_NUMBER,
	OPERATION_OWNER,
	OPERATION_SERVER,
	OPERATION_COLLECTION,
	OPERATION_OPERATION,
	OPERATION_BODY,
	OPERATION_COLUMNS
};

/* The texts of an operation, in their order in the spool. */
#define OPERATION_TEXTS (OPERATION_COLUMNS - OPERATION_SERVER)

/* Before each operation of the spool. */
typedef struct OperationHead
{
	Oid			owner;
	int			length[OPERATION_TEXTS];
} OperationHead;

/* What the operations of one call have in common. */
typedef struct Call
{
	Oid			owner;
	const char *server;
	const char *collection;
	const char *operation;
} Call;

static QsSpool spool;
static QsSavepoints savepoints;
static MemoryContext context = NULL;	/* of this transaction; NULL: none yet */
static bool flushed = false;

/* ---- the transaction's log ---- */

static void
begin_log(void)
{
	QsPlace		now = {spool.size, 0};
	int			level = GetCurrentTransactionNestLevel();

	if (context == NULL)
	{
		context = AllocSetContextCreate(TopTransactionContext, "qdrant_sync operations",
										ALLOCSET_DEFAULT_SIZES);
		spool.context = context;
		spool.limit = SPOOL_MEMORY;
		savepoints.context = context;
	}
	if (level > 1)
		qs_savepoints_note(&savepoints, level, now);
}

/* A QsBodySink.  Lengths go first, so that a reader allocates what it needs. */
static void
log_operation(void *arg, const char *body, int length)
{
	const Call *call = arg;
	const char *texts[OPERATION_TEXTS] = {call->server, call->collection, call->operation, body};
	OperationHead head = {.owner = call->owner};

	for (int i = 0; i < OPERATION_TEXTS - 1; i++)
		head.length[i] = (int) strlen(texts[i]);
	head.length[OPERATION_TEXTS - 1] = length;
	begin_log();
	qs_spool_append(&spool, &head, sizeof(head));
	for (int i = 0; i < OPERATION_TEXTS; i++)
		qs_spool_append(&spool, texts[i], head.length[i]);
}

void
qs_operation_log_sub_commit(int level)
{
	qs_savepoints_commit(&savepoints, level);
}

void
qs_operation_log_sub_abort(int level)
{
	QsPlace		start;

	if (qs_savepoints_abort(&savepoints, level, &start))
		qs_spool_cut(&spool, start.spooled);
}

bool
qs_operation_log_pending(void)
{
	return spool.size > 0;
}

void
qs_operation_log_reset(void)
{
	flushed = false;
	if (context == NULL)
		return;
	memset(&spool, 0, sizeof(spool));
	memset(&savepoints, 0, sizeof(savepoints));
	context = NULL;
}

/* ---- to the outbox ---- */

static text *
read_text(uint64 place, int length)
{
	text	   *value = palloc(VARHDRSZ + length);

	SET_VARSIZE(value, VARHDRSZ + length);
	qs_spool_read(&spool, place, VARDATA(value), length);
	return value;
}

/* Returns the place of the next. */
static uint64
append_operation(QsAppender *appender, const QsTarget *target, Oid sequence, uint64 place)
{
	Datum		values[OPERATION_COLUMNS];
	OperationHead head;

	qs_spool_read(&spool, place, &head, sizeof(head));
	place += sizeof(head);
	/* The sync worker concludes from old transaction ids that no smaller number can come. */
	(void) GetTopTransactionId();
	values[OPERATION_NUMBER] = Int64GetDatum(nextval_internal(sequence, false));
	values[OPERATION_OWNER] = ObjectIdGetDatum(head.owner);
	for (int i = 0; i < OPERATION_TEXTS; i++)
	{
		values[OPERATION_SERVER + i] = PointerGetDatum(read_text(place, head.length[i]));
		place += head.length[i];
	}
	qs_append_values(appender, target, values, OPERATION_COLUMNS);
	return place;
}

/*
 * Numbers are drawn here, not when the operation was asked for: who begins after
 * this commit draws larger ones.  The sequence is logged, so that no number comes
 * twice after a crash.  Large bodies are toasted; none of that needs a snapshot.
 */
static void
append_operations(void)
{
	QsTarget	target = {
		.mirror = QS_OPERATIONS_MIRROR,
		.segments = {qs_internal_relation("operations_a"), qs_internal_relation("operations_b")}
	};
	Oid			sequence = qs_internal_relation("operation_number");
	MemoryContext each = AllocSetContextCreate(context, "qdrant_sync operation",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext before = MemoryContextSwitchTo(each);
	QsAppender	appender = {0};

	qs_target_find_slot(&target);
	for (uint64 place = 0; place < spool.size;)
	{
		CHECK_FOR_INTERRUPTS();
		place = append_operation(&appender, &target, sequence, place);
		MemoryContextReset(each);
	}
	qs_append_end(&appender);
	MemoryContextSwitchTo(before);
	MemoryContextDelete(each);
}

void
qs_operation_log_flush(void)
{
	flushed = true;
	if (spool.size == 0)
		return;
	append_operations();
	qs_spool_close(&spool);
}

void
qs_operation_log_refuse_prepare(void)
{
	if (spool.size > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has written points with qdrant_upsert"),
				 errdetail("Such writes reach Qdrant in the order of commits, which a prepared transaction does not have yet.")));
}

/* ---- SQL functions ---- */

/* The server is part of what a mirror owns: the same name elsewhere is another one. */
static void
check_collection(const char *server, const char *collection)
{
	pfree(qs_collection_path(collection, ""));
	if (qs_collection_is_mirrored(server, collection))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("collection \"%s\" belongs to a mirror", collection),
				 errdetail("A mirror keeps its collection equal to its table, and would remove or overwrite what is written here."),
				 errhint("Write to the mirrored table, or to another collection.")));
}

static char *
text_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* Appends ,"name":value of an argument that is not null. */
static void
add_member(StringInfo members, const char *name, FunctionCallInfo fcinfo, int n, bool object)
{
	Jsonb	   *value;

	if (PG_ARGISNULL(n))
		return;
	value = PG_GETARG_JSONB_P(n);
	if (object && !JB_ROOT_IS_OBJECT(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON object", name)));
	appendStringInfo(members, ",\"%s\":", name);
	JsonbToCString(members, &value->root, VARSIZE(value));
}

/* Unlike keys they cannot be read again from a table, so at the limit they are refused. */
static void
check_room(void)
{
	QsMirrorSlot *slot = qs_mirror_slot_find(MyDatabaseId, QS_OPERATIONS_MIRROR);

	if (slot != NULL && pg_atomic_read_u32(&slot->skipping) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("the outbox of explicit operations is full"),
				 errdetail("Operations that were enqueued before could not be sent yet."),
				 errhint("Look at qdrant_workers and the server's log, or raise qdrant_sync.outbox_limit.")));
}

Datum
qs_upsert(PG_FUNCTION_ARGS)
{
	char	   *collection = text_argument(fcinfo, 0, "collection_name");
	StringInfoData members;
	QsServer   *server;
	Jsonb	   *points;
	Call		call;

	qs_require_preload("qdrant_upsert");
	PreventCommandIfReadOnly("qdrant_upsert()");
	PreventCommandIfParallelMode("qdrant_upsert()");
	PreventCommandDuringRecovery("qdrant_upsert()");
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("points must not be null")));
	qs_operations_require_ours();
	check_room();
	points = PG_GETARG_JSONB_P(1);
	server = qs_server_get(PG_ARGISNULL(2) ? NULL : text_argument(fcinfo, 2, "server"),
						   GetUserId());
	check_collection(server->name, collection);
	qs_points_check(points);
	initStringInfo(&members);
	add_member(&members, "shard_key", fcinfo, 3, false);
	add_member(&members, "update_filter", fcinfo, 4, true);

	call.owner = GetUserId();
	call.server = server->name;
	call.collection = collection;
	call.operation = "upsert";
	qs_points_to_bodies(points, members.data, log_operation, &call);
	/* Another extension may call this in its own PRE_COMMIT callback. */
	if (flushed)
		qs_operation_log_flush();
	qs_server_free(server);
	PG_RETURN_VOID();
}
