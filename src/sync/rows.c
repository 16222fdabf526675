/*
 * rows.c
 *		Reads the current rows of a mirror, as the table's owner, and writes them
 *		as Qdrant's points.
 *
 * Sync worker.  Each execution of a reader's plan streams its rows through a
 * DestReceiver into one JSON buffer, so that nothing is materialised.  What
 * runs under the owner's name is bracketed by begin_read and end_read; an ERROR
 * between them leaves the rest to the abort of the transaction, which gives back
 * user, settings, snapshot and SPI's stack.
 *
 * Refuses to wait: for the table's lock, for another lock longer than
 * READ_LOCK_TIMEOUT, for the owner's functions longer than qdrant_sync.row_timeout.
 */
#include "qdrant_sync.h"
#include "common/encode.h"
#include "common/settings.h"
#include "sync/reader.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/params.h"
#include "storage/itemptr.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"

/* Locks besides the table's are those of its indexes, held for DDL on them. */
#define READ_LOCK_TIMEOUT "500ms"

/* A buffer that one large row has grown is not kept. */
#define KEPT_JSON_BYTES (1024 * 1024)

/* What begin_read changes and end_read puts back. */
typedef struct ReadScope
{
	Oid			user;
	int			security_context;
	int			guc_level;
	bool		read_only;
} ReadScope;

/* Keys asked for, in order, and whether their rows came. */
typedef struct KeySet
{
	QsKey	   *keys;
	bool	   *found;
	int			n;
	int			next;			/* where the next row's key probably is */
	QsChunkKind kind;
} KeySet;

/*
 * Where the executor sends its rows.  It lives on the stack of the function that
 * reads; the executor never sees it after that.
 */
typedef struct RowReceiver
{
	DestReceiver pub;
	QsReader   *reader;
	MemoryContext caller;		/* in which the sink runs */
	QsRowSink	sink;
	void	   *arg;
	bool		stopped;		/* the sink wanted no more */
	KeySet	   *asked;			/* NULL: rows of blocks */
	/* receivers of keys or of one vector */
	QsKey	   *keys;
	int			nkeys;
	int			capacity;
	int			dimension;
} RowReceiver;

/*
 * Nothing that a role, a database or an owner's function can set changes what is
 * read.  No sequential scan: the kept plan is made without statistics, perhaps
 * when the table was empty; and its cost must then not call for JIT.
 */
static const char *const read_settings[] = {
	"search_path", "pg_catalog, pg_temp",
	"row_security", "off",
	"lock_timeout", READ_LOCK_TIMEOUT,
	"standard_conforming_strings", "on",
	"transform_null_equals", "off",
	"plan_cache_mode", "force_generic_plan",
	"enable_seqscan", "off",
	"enable_indexscan", "on",
	"enable_bitmapscan", "on",
	"enable_tidscan", "on",
	"jit", "off",
	NULL
};

/* --- the owner's session --- */

/* Settings that already have their value, as the worker's own do, cost a look only. */
static void
pin_settings(const char *const *settings)
{
	for (; *settings != NULL; settings += 2)
	{
		const char *value = GetConfigOption(settings[0], false, false);

		if (value == NULL || strcmp(value, settings[1]) != 0)
			(void) set_config_option(settings[0], settings[1], PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	}
}

/*
 * From here on the owner's functions may run.  In a security-restricted operation
 * they cannot change the role, and what they set is taken back with the GUC level.
 */
static void
become_owner(ReadScope *scope, Oid owner)
{
	GetUserIdAndSecContext(&scope->user, &scope->security_context);
	SetUserIdAndSecContext(owner, scope->security_context | SECURITY_RESTRICTED_OPERATION);
	scope->guc_level = NewGUCNestLevel();
	pin_settings(read_settings);
	pin_settings(qs_encode_settings);

	/*
	 * A function that writes would make the mirror send again for ever.  No
	 * setting: 16 and later do not let it be saved and put back.
	 */
	scope->read_only = XactReadOnly;
	XactReadOnly = true;
}

/*
 * False: somebody holds or waits for a lock that conflicts.  The snapshot is taken
 * after the lock, so that it shows what the last holder committed.
 */
static bool
begin_read(QsReader *reader, ReadScope *scope)
{
	HeapTuple	tuple;

	if (!ConditionalLockRelationOid(reader->relid, AccessShareLock))
		return false;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(reader->relid));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the mirrored table does not exist any more")));
	become_owner(scope, ((Form_pg_class) GETSTRUCT(tuple))->relowner);
	qs_reader_compile(reader, (Form_pg_class) GETSTRUCT(tuple));
	ReleaseSysCache(tuple);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	PushActiveSnapshot(GetTransactionSnapshot());
	return true;
}

/* The lock stays until the caller's transaction ends; so does nothing else. */
static void
end_read(QsReader *reader, ReadScope *scope)
{
	PopActiveSnapshot();
	SPI_finish();
	XactReadOnly = scope->read_only;
	AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->user, scope->security_context);
	if (reader->json.maxlen > KEPT_JSON_BYTES)
	{
		MemoryContext caller = MemoryContextSwitchTo(reader->context);

		pfree(reader->json.data);
		initStringInfo(&reader->json);
		MemoryContextSwitchTo(caller);
	}
}

/*
 * A timeout that fired too late to interrupt the read must not interrupt what
 * comes after it.
 */
static void
disarm_timeout(void)
{
	disable_timeout(STATEMENT_TIMEOUT, true);
	if (get_timeout_indicator(STATEMENT_TIMEOUT, true))
		QueryCancelPending = false;
}

/*
 * Runs a plan under the time limit; every row goes to the receiver while it is
 * read.  read_only: the snapshot is the one that begin_read pushed, and SPI takes
 * no other.
 */
static void
execute(SPIPlanPtr plan, int nargs, const Oid *types, const Datum *values, DestReceiver *receiver)
{
	SPIExecuteOptions options = {.read_only = true, .dest = receiver};

	options.params = makeParamList(nargs);
	for (int i = 0; i < nargs; i++)
	{
		ParamExternData *param = &options.params->params[i];

		param->value = values[i];
		param->isnull = false;
		param->pflags = PARAM_FLAG_CONST;
		param->ptype = types[i];
	}
	if (qs_row_timeout > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, qs_row_timeout);
	PG_TRY();
	{
		int			result = SPI_execute_plan_extended(plan, &options);

		if (result < 0)
			elog(ERROR, "SPI_execute_plan_extended failed: %s", SPI_result_code_string(result));
	}
	PG_FINALLY();
	{
		disarm_timeout();
	}
	PG_END_TRY();
}

/* One execution for all keys: it costs about as much as reading four rows. */
static void
execute_for_keys(QsReader *reader, QsPlanKind kind, const KeySet *asked, RowReceiver *receiver)
{
	Oid			type = get_array_type(reader->key_type);
	Datum	   *elements = palloc(asked->n * sizeof(Datum));
	int16		length;
	bool		by_value;
	char		align;
	Datum		array;

	get_typlenbyvalalign(reader->key_type, &length, &by_value, &align);
	for (int i = 0; i < asked->n; i++)
		elements[i] = qs_key_to_datum(asked->keys[i], reader->key_type);
	array = PointerGetDatum(construct_array(elements, asked->n, reader->key_type,
											length, by_value, align));
	execute(qs_reader_plan(reader, kind), 1, &type, &array, &receiver->pub);
}

static void
execute_for_blocks(QsReader *reader, QsPlanKind kind, BlockNumber first, BlockNumber end,
				   RowReceiver *receiver)
{
	Oid			types[] = {TIDOID, TIDOID};
	ItemPointerData from;
	ItemPointerData to;
	Datum		values[] = {PointerGetDatum(&from), PointerGetDatum(&to)};

	ItemPointerSet(&from, first, 0);
	ItemPointerSet(&to, end, 0);
	execute(qs_reader_plan(reader, kind), 2, types, values, &receiver->pub);
}

/* --- keys that were asked for --- */

/* Sorted, as the index will give the rows, and without duplicates. */
static void
make_key_set(KeySet *set, QsReader *reader, const QsKey *keys, int n)
{
	set->keys = palloc(n * sizeof(QsKey));
	memcpy(set->keys, keys, n * sizeof(QsKey));
	set->kind = reader->key_kind;
	set->n = qs_keys_sort_unique(set->keys, n, set->kind);
	set->found = palloc0(n * sizeof(bool));
	set->next = 0;
}

/* Position in the set; -1: not in it. */
static int
find_key(const KeySet *set, QsKey key)
{
	int			low = 0;
	int			high = set->n - 1;

	while (low <= high)
	{
		int			middle = (low + high) / 2;
		int			order = qs_key_compare(key, set->keys[middle], set->kind);

		if (order == 0)
			return middle;
		if (order < 0)
			high = middle - 1;
		else
			low = middle + 1;
	}
	return -1;
}

/* Rows mostly come in the index's order, which is the set's. */
static void
mark_found(KeySet *set, QsKey key)
{
	int			i = set->next;

	if (i >= set->n || set->keys[i].lo != key.lo || set->keys[i].hi != key.hi)
		i = find_key(set, key);
	if (i < 0)
		return;
	set->found[i] = true;
	set->next = i + 1;
}

/* The same snapshot showed the rows that came: a key without one has none. */
static void
report_absent(KeySet *set, QsRowSink sink, void *arg)
{
	for (int i = 0; i < set->n; i++)
		if (!set->found[i] && !sink(arg, set->keys[i], QS_ROW_ABSENT, NULL, 0, NULL))
			return;
}

/* --- one row --- */

/* NULL stays NULL: nothing is wrong. */
static char *
in_column(const char *label, char *message)
{
	return message == NULL ? NULL : psprintf("column \"%s\": %s", label, message);
}

/* Of the row that was read, never of the key that was asked for (hazard 10). */
static char *
append_id(StringInfo out, QsReader *reader, QsKey key)
{
	bool		uuid = reader->key_kind == QS_CHUNK_UUIDS;

	if (uuid)
		appendStringInfo(out, "\"%s\"", qs_key_to_text(key, true));
	else if ((int64) key.lo >= 0)
	{
		enlargeStringInfo(out, MAXINT8LEN);
		out->len += pg_lltoa((int64) key.lo, out->data + out->len);
	}
	else
		return psprintf("the key " INT64_FORMAT " is negative, and point ids are not (use keys from 0 on, or of type uuid)",
						(int64) key.lo);
	return NULL;
}

/* *n: how many are not NULL. */
static char *
append_vectors(StringInfo out, QsReader *reader, TupleTableSlot *slot, int *n)
{
	*n = 0;
	if (reader->named)
		appendStringInfoCharMacro(out, '{');
	for (int i = 0; i < reader->nvectors; i++)
	{
		QsReadVector *vector = &reader->vectors[i];
		char	   *message;

		if (slot->tts_isnull[i + 1])
			continue;
		if ((*n)++ > 0)
			appendStringInfoCharMacro(out, ',');
		if (reader->named)
			appendStringInfoString(out, vector->prefix);
		message = qs_append_vector(out, slot->tts_values[i + 1], vector->vector_type, vector->dimension);
		if (message != NULL)
			return in_column(vector->label, message);
	}
	if (reader->named)
		appendStringInfoCharMacro(out, '}');
	return NULL;
}

/* Fields always come in the same order and all of them: NULL is written, too. */
static char *
append_payload(StringInfo out, QsReader *reader, TupleTableSlot *slot)
{
	for (int i = 0; i < reader->npayload; i++)
	{
		QsReadField *column = &reader->payload[i];
		int			attribute = 1 + reader->nvectors + i;
		char	   *message;

		appendBinaryStringInfo(out, column->prefix, column->prefix_length);
		if (slot->tts_isnull[attribute])
		{
			appendBinaryStringInfo(out, "null", 4);
			continue;
		}
		message = qs_append_payload(out, slot->tts_values[attribute], column->writer);
		if (message != NULL)
			return in_column(column->name, message);
	}
	return NULL;
}

/*
 * Writes the row into reader->json.  What is wrong with it is a message, not an
 * ERROR, since the rows beside it are good.
 */
static QsRowKind
encode_point(QsReader *reader, TupleTableSlot *slot, QsKey key, char **message)
{
	StringInfo	out = &reader->json;
	int			nvectors;

	resetStringInfo(out);
	appendStringInfoString(out, "{\"id\":");
	if ((*message = append_id(out, reader, key)) != NULL)
		return QS_ROW_BAD;
	appendStringInfoString(out, ",\"vector\":");
	if ((*message = append_vectors(out, reader, slot, &nvectors)) != NULL)
		return QS_ROW_BAD;
	if (nvectors == 0)
		return QS_ROW_ABSENT;
	appendStringInfoString(out, ",\"payload\":{");
	if ((*message = append_payload(out, reader, slot)) != NULL)
		return QS_ROW_BAD;
	appendStringInfoString(out, "}}");
	if (out->len <= QS_POINT_MAX_BYTES)
		return QS_ROW_POINT;
	*message = psprintf("the point has %d bytes, and Qdrant takes at most %d in one request",
						out->len, QS_POINT_MAX_BYTES);
	return QS_ROW_BAD;
}

/* --- receivers --- */

/* A key's column is NOT NULL, unless the definition does not fit the table any more. */
static QsKey
key_of_slot(QsReader *reader, TupleTableSlot *slot)
{
	if (slot->tts_isnull[0])
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a key of table %s is null", reader->relation)));
	return qs_key_from_datum(slot->tts_values[0], reader->key_type);
}

/*
 * The row's values point into the executor's memory and its pages; whatever is
 * detoasted or converted on the way lives until the next row.
 */
static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	RowReceiver *receiver = (RowReceiver *) self;
	QsReader   *reader = receiver->reader;
	char	   *message = NULL;
	QsRowKind	kind;
	QsKey		key;

	slot_getallattrs(slot);
	key = key_of_slot(reader, slot);
	if (receiver->asked != NULL)
		mark_found(receiver->asked, key);

	MemoryContextReset(reader->row_context);
	MemoryContextSwitchTo(reader->row_context);
	kind = encode_point(reader, slot, key, &message);
	MemoryContextSwitchTo(receiver->caller);
	receiver->stopped = !receiver->sink(receiver->arg, key, kind,
										kind == QS_ROW_POINT ? reader->json.data : NULL,
										kind == QS_ROW_POINT ? reader->json.len : 0, message);
	return !receiver->stopped;
}

/* Either marks a key that was asked for, or collects all that come. */
static bool
receive_key(TupleTableSlot *slot, DestReceiver *self)
{
	RowReceiver *receiver = (RowReceiver *) self;
	QsKey		key;

	slot_getallattrs(slot);
	key = key_of_slot(receiver->reader, slot);
	if (receiver->asked != NULL)
	{
		mark_found(receiver->asked, key);
		return true;
	}
	if (receiver->nkeys == receiver->capacity)
	{
		receiver->capacity *= 2;
		receiver->keys = repalloc_huge(receiver->keys, receiver->capacity * sizeof(QsKey));
	}
	receiver->keys[receiver->nkeys++] = key;
	return true;
}

/* One row is enough. */
static bool
receive_dimension(TupleTableSlot *slot, DestReceiver *self)
{
	RowReceiver *receiver = (RowReceiver *) self;

	slot_getallattrs(slot);
	receiver->dimension = qs_vector_dimension(slot->tts_values[0],
											  qs_vector_type(TupleDescAttr(slot->tts_tupleDescriptor, 0)->atttypid));
	return false;
}

/* Queued keys of the old type cannot be compared with those of the new (hazard 11). */
static void
check_key_type(QsReader *reader, Oid type)
{
	if (getBaseType(type) != reader->key_type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the key of table %s has another type than when it was mirrored", reader->relation),
				 errhint("Mirror the table anew with qdrant_unmirror and qdrant_mirror.")));
}

static void
bind_vector(QsReader *reader, QsReadVector *vector, Oid type)
{
	if (vector->type == type)
		return;
	vector->vector_type = qs_vector_type(type);
	if (vector->vector_type == QS_VECTOR_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of table %s has type %s, which is not a vector",
						vector->label, reader->relation, format_type_be(type)),
				 errhint("A vector is real[], double precision[] or pgvector's vector.")));
	vector->type = type;
}

/*
 * A kept plan may give other types than the last time: columns are bound to what
 * it gives now.
 */
static void
bind_columns(DestReceiver *self, int operation, TupleDesc desc)
{
	QsReader   *reader = ((RowReceiver *) self)->reader;

	check_key_type(reader, TupleDescAttr(desc, 0)->atttypid);
	for (int i = 0; i < reader->nvectors; i++)
		bind_vector(reader, &reader->vectors[i], TupleDescAttr(desc, 1 + i)->atttypid);
	for (int i = 0; i < reader->npayload; i++)
	{
		QsReadField *column = &reader->payload[i];
		Oid			type = TupleDescAttr(desc, 1 + reader->nvectors + i)->atttypid;

		if (column->type == type)
			continue;
		column->writer = qs_payload_writer(type, reader->compiled);
		column->type = type;
	}
}

static void
bind_key(DestReceiver *self, int operation, TupleDesc desc)
{
	check_key_type(((RowReceiver *) self)->reader, TupleDescAttr(desc, 0)->atttypid);
}

static void
bind_nothing(DestReceiver *self, int operation, TupleDesc desc)
{
}

static void
do_nothing(DestReceiver *self)
{
}

/* The sink runs in the memory context that is current now, the caller's. */
static RowReceiver
make_receiver(QsReader *reader, bool (*receive) (TupleTableSlot *, DestReceiver *),
			  void (*bind) (DestReceiver *, int, TupleDesc))
{
	RowReceiver receiver = {
		.pub = {receive, bind, do_nothing, do_nothing, DestNone},
		.reader = reader,
		.caller = CurrentMemoryContext,
	};

	return receiver;
}

/* --- reading --- */

bool
qs_reader_by_keys(QsReader *reader, const QsKey *keys, int n, QsRowSink sink, void *arg)
{
	RowReceiver receiver = make_receiver(reader, receive_row, bind_columns);
	ReadScope	scope;
	KeySet		asked;

	if (!begin_read(reader, &scope))
		return false;
	make_key_set(&asked, reader, keys, n);
	receiver.sink = sink;
	receiver.arg = arg;
	receiver.asked = &asked;
	execute_for_keys(reader, QS_PLAN_BY_KEYS, &asked, &receiver);
	MemoryContextSwitchTo(receiver.caller);
	if (!receiver.stopped)
		report_absent(&asked, sink, arg);
	end_read(reader, &scope);
	return true;
}

bool
qs_reader_by_blocks(QsReader *reader, BlockNumber first, BlockNumber end,
					QsRowSink sink, void *arg)
{
	RowReceiver receiver = make_receiver(reader, receive_row, bind_columns);
	ReadScope	scope;

	if (!begin_read(reader, &scope))
		return false;
	receiver.sink = sink;
	receiver.arg = arg;
	execute_for_blocks(reader, QS_PLAN_BY_BLOCKS, first, end, &receiver);
	end_read(reader, &scope);
	return true;
}

bool
qs_reader_keys_by_blocks(QsReader *reader, BlockNumber first, BlockNumber end,
						 QsKey **keys, int *n)
{
	RowReceiver receiver = make_receiver(reader, receive_key, bind_key);
	ReadScope	scope;

	if (!begin_read(reader, &scope))
		return false;
	receiver.capacity = 1024;
	receiver.keys = MemoryContextAlloc(receiver.caller, receiver.capacity * sizeof(QsKey));
	execute_for_blocks(reader, QS_PLAN_KEYS_BY_BLOCKS, first, end, &receiver);
	end_read(reader, &scope);
	*keys = receiver.keys;
	*n = receiver.nkeys;
	return true;
}

bool
qs_reader_exists(QsReader *reader, const QsKey *keys, int n, bool *found)
{
	RowReceiver receiver = make_receiver(reader, receive_key, bind_key);
	ReadScope	scope;
	KeySet		asked;

	if (!begin_read(reader, &scope))
		return false;
	make_key_set(&asked, reader, keys, n);
	receiver.asked = &asked;
	execute_for_keys(reader, QS_PLAN_EXISTING_KEYS, &asked, &receiver);
	for (int i = 0; i < n; i++)
		found[i] = asked.found[find_key(&asked, keys[i])];
	end_read(reader, &scope);
	return true;
}

/* Not kept: it is asked once, when the collection is made. */
int
qs_reader_find_dimension(QsReader *reader, int vector, int skip)
{
	RowReceiver receiver = make_receiver(reader, receive_dimension, bind_nothing);
	ReadScope	scope;
	const char *column;
	SPIPlanPtr	plan;

	if (!begin_read(reader, &scope))
		return 0;
	column = qs_reader_column(reader, reader->vectors[vector].attnum, reader->vectors[vector].expression);
	/* OFFSET keeps the expression from being computed for the rows before. */
	plan = SPI_prepare(psprintf("SELECT %s FROM (SELECT * FROM %s OFFSET %d) AS rows"
								" WHERE %s IS NOT NULL LIMIT 1",
								column, reader->relation, skip, column), 0, NULL);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	execute(plan, 0, NULL, NULL, &receiver.pub);
	end_read(reader, &scope);
	return receiver.dimension;
}
