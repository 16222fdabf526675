/*
 * operations.c
 *		Explicit operations, point writes that a user asks for by SQL, until they
 *		are in the outbox.
 *
 * Runs in users' backends.  An operation is kept with its transaction, undone
 * with its savepoint, and gets its number at PRE_COMMIT: so a transaction that
 * begins after another's commit has the larger numbers (hazard 7).  PREPARE
 * TRANSACTION is refused, as for NOTIFY: numbers of prepared transactions would
 * say nothing.
 */
#include "capture/append.h"
#include "capture/operations.h"
#include "capture/savepoints.h"
#include "capture/spool.h"
#include "mirror/definition.h"

#include "access/xact.h"
#include "commands/sequence.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#define SPOOL_MEMORY (256 * 1024)

/* Columns of qdrant_internal.operations_a and _b. */
enum
{
	OPERATION_NUMBER,
	OPERATION_TRANSACTION,
	OPERATION_DATABASE,
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

static QsSpool spool;
static QsSavepoints savepoints;
static MemoryContext context = NULL;	/* of this transaction; NULL: none yet */
static bool flushed = false;
static int64 first_number = 0;	/* of this transaction; 0: none was drawn */

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

/* Lengths go first, so that a reader allocates what it needs. */
void
qs_operation_log(void *arg, const char *body, int length)
{
	const QsOperation *operation = arg;
	const char *texts[OPERATION_TEXTS] = {operation->server, operation->collection,
	operation->name, body};
	OperationHead head = {.owner = operation->owner};

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
	first_number = 0;
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
	int64		number;

	qs_spool_read(&spool, place, &head, sizeof(head));
	place += sizeof(head);
	/* The sync worker concludes from old transaction ids that no smaller number can come. */
	(void) GetTopTransactionId();
	number = nextval_internal(sequence, false);
	if (first_number == 0)
		first_number = number;
	values[OPERATION_NUMBER] = Int64GetDatum(number);
	values[OPERATION_TRANSACTION] = Int64GetDatum(first_number);
	values[OPERATION_DATABASE] = ObjectIdGetDatum(MyDatabaseId);
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
 * A transaction is known by its first number: two that draw at the same moment
 * are sent one after the other, not in turns.  Numbers are drawn here, not when the operation was asked for: who begins after
 * this commit draws larger ones.  The sequence is logged, so that no number comes
 * twice after a crash.  Large bodies are toasted, for which PostgreSQL wants a
 * snapshot; a transaction that is about to commit has none by itself.
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
	PushActiveSnapshot(GetTransactionSnapshot());
	for (uint64 place = 0; place < spool.size;)
	{
		CHECK_FOR_INTERRUPTS();
		place = append_operation(&appender, &target, sequence, place);
		MemoryContextReset(each);
	}
	PopActiveSnapshot();
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
qs_operation_log_end_call(void)
{
	if (flushed)
		qs_operation_log_flush();
}

void
qs_operation_log_refuse_prepare(void)
{
	if (spool.size > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has enqueued writes of points"),
				 errdetail("Such writes reach Qdrant in the order of commits, which a prepared transaction does not have yet.")));
}
