/*
 * rows.c
 *		Reads the current rows of a mirror, as the table's owner, and writes them
 *		as Qdrant's points.
 *
 * Sync worker, and the session that runs qdrant_verify (mirror/verify_table.c).  Each
 * execution of a reader's plan streams its rows through a
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

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/params.h"
#include "storage/itemptr.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
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

/* Keys asked for, in the order of their ids, and whether their rows came. */
typedef struct KeySet
{
	QsRowKey   *keys;
	bool	   *found;
	int			n;
	int			next;			/* where the next row's key probably is */
	QsChunkKind order;
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
	QsRowKey   *keys;
	int			nkeys;
	int			capacity;
	QsVectorKind kind;			/* of the one vector */
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

/* Of the sync worker, whose handler of SIGINT this is. */
static volatile sig_atomic_t reading = false;
static volatile sig_atomic_t cancelled = false;

/* --- the owner's session --- */

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
	qs_pin_settings(read_settings);
	qs_pin_settings(qs_encode_settings);

	/*
	 * A function that writes would make the mirror send again for ever.  No
	 * setting: 16 and later do not let it be saved and put back.
	 */
	scope->read_only = XactReadOnly;
	XactReadOnly = true;
}

/* All leaves at once, so that the executor waits for none of them. */
static bool
lock_leaves(Oid relid)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		if (!ConditionalLockRelationOid(lfirst_oid(lc), AccessShareLock))
			return false;
	}
	return true;
}

/*
 * False: somebody holds or waits for a lock that conflicts.  The snapshot is taken
 * after the lock, so that it shows what the last holder committed.
 */
static bool
begin_read(QsReader *reader, ReadScope *scope)
{
	HeapTuple	tuple;

	if (!ConditionalLockRelationOid(reader->relid, AccessShareLock) ||
		(reader->partitioned && !lock_leaves(reader->relid)))
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
	MemoryContextReset(reader->row_context);
	if (reader->json.maxlen > KEPT_JSON_BYTES)
	{
		MemoryContext caller = MemoryContextSwitchTo(reader->context);

		pfree(reader->json.data);
		initStringInfo(&reader->json);
		MemoryContextSwitchTo(caller);
	}
}

/* The time limit arrives as SIGINT, too. */
void
qs_rows_handle_cancel(SIGNAL_ARGS)
{
	if (!reading)
		return;
	cancelled = true;
	StatementCancelHandler(postgres_signal_arg);
}

/*
 * What came too late to interrupt the read must not interrupt what comes after
 * it.  In a session the user's own cancel may.
 */
static void
disarm(void)
{
	disable_timeout(STATEMENT_TIMEOUT, true);
	reading = false;
	if (get_timeout_indicator(STATEMENT_TIMEOUT, true) || cancelled)
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
	cancelled = false;
	reading = true;
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
		disarm();
	}
	PG_END_TRY();
}

/* Keys that are ids, as one array. */
static Datum
id_array(QsReader *reader, const KeySet *asked)
{
	Oid			type = reader->key.types[0];
	Datum	   *elements = palloc(asked->n * sizeof(Datum));
	int16		length;
	bool		by_value;
	char		align;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	for (int i = 0; i < asked->n; i++)
		elements[i] = qs_key_to_datum(asked->keys[i].id, type);
	return PointerGetDatum(construct_array(elements, asked->n, type, length, by_value, align));
}

/* Hashed keys, as an array of texts for each column. */
static void
text_arrays(QsReader *reader, const KeySet *asked, Datum *arrays)
{
	int			n = reader->key.n;
	Datum	   *elements = palloc(asked->n * n * sizeof(Datum));
	char	   *texts[INDEX_MAX_KEYS];

	for (int i = 0; i < asked->n; i++)
	{
		if (!qs_key_text_parse(asked->keys[i].text, n, texts))
			elog(ERROR, "unexpected text of a key: %s", asked->keys[i].text);
		for (int column = 0; column < n; column++)
			elements[column * asked->n + i] = CStringGetTextDatum(texts[column]);
	}
	for (int column = 0; column < n; column++)
		arrays[column] = PointerGetDatum(construct_array(elements + column * asked->n, asked->n,
														 TEXTOID, -1, false, TYPALIGN_INT));
}

/* One execution for all keys: it costs about as much as reading four rows. */
static void
execute_for_keys(QsReader *reader, QsPlanKind kind, const KeySet *asked, RowReceiver *receiver)
{
	Oid			types[INDEX_MAX_KEYS];
	Datum		arrays[INDEX_MAX_KEYS];
	bool		hashed = reader->key.rule == QS_KEY_HASHED;

	for (int i = 0; i < reader->key.n; i++)
		types[i] = hashed ? TEXTARRAYOID : get_array_type(reader->key.types[i]);
	if (hashed)
		text_arrays(reader, asked, arrays);
	else
		arrays[0] = id_array(reader, asked);
	execute(qs_reader_plan(reader, kind), reader->key.n, types, arrays, &receiver->pub);
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

#define ST_SORT sort_row_keys
#define ST_ELEMENT_TYPE QsRowKey
#define ST_COMPARE(a, b, order) qs_key_compare((a)->id, (b)->id, *(order))
#define ST_COMPARE_ARG_TYPE const QsChunkKind
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/* Sorted, as an index over ids will give the rows. */
static void
make_key_set(KeySet *set, QsReader *reader, const QsRowKey *keys, int n)
{
	set->keys = palloc((n + 1) * sizeof(QsRowKey));
	memcpy(set->keys, keys, n * sizeof(QsRowKey));
	set->order = reader->key_order;
	sort_row_keys(set->keys, n, &set->order);
	set->n = n;
	set->found = palloc0((n + 1) * sizeof(bool));
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
		int			order = qs_key_compare(key, set->keys[middle].id, set->order);

		if (order == 0)
			return middle;
		if (order < 0)
			high = middle - 1;
		else
			low = middle + 1;
	}
	return -1;
}

/*
 * Rows mostly come in the index's order, which is the set's.  False for a row that
 * was not asked for, or came before: keys may be equal by their type's operator
 * and not be the same (hazard 10).
 */
static bool
mark_found(KeySet *set, QsKey key)
{
	int			i = set->next;

	if (i >= set->n || !qs_key_equal(set->keys[i].id, key))
		i = find_key(set, key);
	if (i < 0 || set->found[i])
		return false;
	set->found[i] = true;
	set->next = i + 1;
	return true;
}

/* The same snapshot showed the rows that came: a key without one has none. */
static void
report_absent(KeySet *set, QsRowSink sink, void *arg)
{
	for (int i = 0; i < set->n; i++)
		if (!set->found[i] && !sink(arg, &set->keys[i], QS_ROW_ABSENT, NULL, 0, NULL))
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
	if (reader->key.rule != QS_KEY_INTEGER)
		appendStringInfo(out, "\"%s\"", qs_key_to_text(key, true));
	else if ((int64) key.lo >= 0)
	{
		enlargeStringInfo(out, MAXINT8LEN);
		out->len += pg_lltoa((int64) key.lo, out->data + out->len);
	}
	else
		return psprintf("the key " INT64_FORMAT " is negative, and point ids are not (mirror the table with key => '%s::text', so that ids are UUIDs)",
						(int64) key.lo, reader->key_names[0]);
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

		if (slot->tts_isnull[reader->key.n + i])
			continue;
		if ((*n)++ > 0)
			appendStringInfoCharMacro(out, ',');
		if (reader->named)
			appendStringInfoString(out, vector->prefix);
		message = qs_append_vector(out, slot->tts_values[reader->key.n + i], vector->vector_type,
								   &vector->form);
		if (message != NULL)
			return in_column(vector->label, message);
	}
	if (reader->named)
		appendStringInfoCharMacro(out, '}');
	return NULL;
}

/* The key itself, by which a sweep finds the row of a point (hazard 5). */
static char *
append_key_field(StringInfo out, const char *text)
{
	const char *utf8;
	int			length;
	char	   *message = qs_to_utf8(text, strlen(text), &utf8, &length);

	if (message != NULL)
		return psprintf("key: %s", message);
	appendStringInfoString(out, "\"" QS_KEY_FIELD "\":");
	appendBinaryStringInfo(out, utf8, length);
	return NULL;
}

/*
 * Several values can be too much together.  Looks at headers only: a row of hundreds
 * of megabytes is refused before any of it is detoasted (hazard 19).
 */
static char *
check_row_size(QsReader *reader, TupleTableSlot *slot)
{
	int			first = reader->key.n;
	Size		size = 0;

	for (int i = first; i < first + reader->nvectors; i++)
	{
		if (!slot->tts_isnull[i])
			size += toast_raw_datum_size(slot->tts_values[i]);
	}
	first += reader->nvectors;
	for (int i = 0; i < reader->npayload; i++)
	{
		if (!slot->tts_isnull[first + i])
			size += qs_payload_raw_size(slot->tts_values[first + i], reader->payload[i].writer);
	}
	if (size <= QS_VALUE_MAX_BYTES)
		return NULL;
	return psprintf("the row has %zu bytes, more than fit in one request to Qdrant", size);
}

/* Fields always come in the same order, and those that are NULL are there or not. */
static char *
append_payload(StringInfo out, QsReader *reader, TupleTableSlot *slot)
{
	QsFieldWalk walk = QS_FIELD_WALK_START;

	for (int i = 0; i < reader->npayload; i++)
	{
		QsReadField *column = &reader->payload[i];
		int			attribute = reader->key.n + reader->nvectors + i;
		bool		isnull = slot->tts_isnull[attribute];
		char	   *message = NULL;

		if (isnull && reader->omit_nulls)
		{
			qs_field_omit(&walk, &column->keys);
			continue;
		}
		qs_field_begin(out, &walk, &column->keys);
		if (isnull)
			appendBinaryStringInfo(out, "null", 4);
		else
			message = qs_append_payload(out, slot->tts_values[attribute], column->writer);
		if (message != NULL)
			return in_column(column->name, message);
	}
	qs_fields_end(out, &walk);
	return NULL;
}

/*
 * Writes the row into reader->json.  What is wrong with it is a message, not an
 * ERROR, since the rows beside it are good.
 */
static QsRowKind
encode_point(QsReader *reader, TupleTableSlot *slot, const QsRowKey *key, char **message)
{
	StringInfo	out = &reader->json;
	int			nvectors;

	if ((*message = check_row_size(reader, slot)) != NULL)
		return QS_ROW_BAD;
	resetStringInfo(out);
	appendStringInfoString(out, "{\"id\":");
	if ((*message = append_id(out, reader, key->id)) != NULL)
		return QS_ROW_BAD;
	appendStringInfoString(out, ",\"vector\":");
	if ((*message = append_vectors(out, reader, slot, &nvectors)) != NULL)
		return QS_ROW_BAD;
	if (nvectors == 0)
		return QS_ROW_ABSENT;
	appendStringInfoString(out, ",\"payload\":{");
	if (key->text != NULL && (*message = append_key_field(out, key->text)) != NULL)
		return QS_ROW_BAD;
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

/*
 * Columns of a key are NOT NULL, unless the definition does not fit the table any
 * more.  A hashed key's text is valid until the next row.
 */
static void
key_of_slot(QsReader *reader, TupleTableSlot *slot, QsRowKey *key)
{
	char	   *message;

	for (int i = 0; i < reader->key.n; i++)
	{
		if (slot->tts_isnull[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a key of table %s is null", reader->relation)));
	}
	if (reader->key.rule != QS_KEY_HASHED)
	{
		key->id = qs_key_from_datum(slot->tts_values[0], reader->key.types[0]);
		key->text = NULL;
		return;
	}
	resetStringInfo(&reader->key_text);
	qs_append_key_text(&reader->key_text, slot->tts_values, reader->key_writer);
	key->text = reader->key_text.data;
	key->id = qs_key_text_id(key->text, &message);
}

/* Its tuple: where it lies and who wrote it, the last columns of the plan. */
static uint64
version_of(QsReader *reader, TupleTableSlot *slot)
{
	Datum	   *values = &slot->tts_values[reader->key.n + reader->nvectors + reader->npayload];
	ItemPointer tid = (ItemPointer) DatumGetPointer(values[1]);
	uint64		place = ((uint64) ItemPointerGetBlockNumberNoCheck(tid) << 16) |
		ItemPointerGetOffsetNumberNoCheck(tid);

	return hash_combine64(hash_combine64(place, DatumGetObjectId(values[0])),
						  DatumGetTransactionId(values[2]));
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
	QsRowKey	key;

	slot_getallattrs(slot);
	MemoryContextReset(reader->row_context);
	MemoryContextSwitchTo(reader->row_context);
	key_of_slot(reader, slot, &key);
	if (receiver->asked != NULL && !mark_found(receiver->asked, key.id))
	{
		MemoryContextSwitchTo(receiver->caller);
		return true;
	}
	kind = encode_point(reader, slot, &key, &message);
	if (reader->versions && receiver->asked != NULL)
		reader->version = version_of(reader, slot);
	MemoryContextSwitchTo(receiver->caller);
	receiver->stopped = !receiver->sink(receiver->arg, &key, kind,
										kind == QS_ROW_POINT ? reader->json.data : NULL,
										kind == QS_ROW_POINT ? reader->json.len : 0, message);
	return !receiver->stopped;
}

static void
collect_key(RowReceiver *receiver, const QsRowKey *key)
{
	QsRowKey   *place;

	if (receiver->nkeys == receiver->capacity)
	{
		receiver->capacity *= 2;
		receiver->keys = repalloc_huge(receiver->keys, receiver->capacity * sizeof(QsRowKey));
	}
	place = &receiver->keys[receiver->nkeys++];
	place->id = key->id;
	place->text = key->text ? MemoryContextStrdup(receiver->caller, key->text) : NULL;
}

/* Either marks a key that was asked for, or collects all that come. */
static bool
receive_key(TupleTableSlot *slot, DestReceiver *self)
{
	RowReceiver *receiver = (RowReceiver *) self;
	QsReader   *reader = receiver->reader;
	QsRowKey	key;

	slot_getallattrs(slot);
	MemoryContextReset(reader->row_context);
	MemoryContextSwitchTo(reader->row_context);
	key_of_slot(reader, slot, &key);
	MemoryContextSwitchTo(receiver->caller);
	if (receiver->asked != NULL)
		(void) mark_found(receiver->asked, key.id);
	else
		collect_key(receiver, &key);
	return true;
}

/* Until a row tells it; an empty vector does not. */
static bool
receive_dimension(TupleTableSlot *slot, DestReceiver *self)
{
	RowReceiver *receiver = (RowReceiver *) self;

	slot_getallattrs(slot);
	receiver->dimension = qs_vector_dimension(slot->tts_values[0],
											  qs_vector_type(TupleDescAttr(slot->tts_tupleDescriptor, 0)->atttypid),
											  receiver->kind);
	receiver->nkeys++;
	return receiver->dimension == 0;
}

/* Queued keys of the old type cannot be compared with those of the new (hazard 11). */
static void
check_key_types(QsReader *reader, TupleDesc desc)
{
	for (int i = 0; i < reader->key.n; i++)
	{
		if (getBaseType(TupleDescAttr(desc, i)->atttypid) != reader->key.types[i])
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("the key of table %s has another type than when it was mirrored", reader->relation),
					 errhint("Mirror the table anew with qdrant_unmirror and qdrant_mirror.")));
	}
}

static void
bind_vector(QsReader *reader, QsReadVector *vector, Oid type)
{
	if (vector->type == type)
		return;
	vector->vector_type = qs_vector_type(type);
	if (!qs_vector_can_be(vector->vector_type, vector->form.kind))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of table %s has type %s, which is not the kind of vector that is mirrored",
						vector->label, reader->relation, format_type_be(type)),
				 errhint("Mirror the table anew with qdrant_unmirror and qdrant_mirror.")));
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

	check_key_types(reader, desc);
	for (int i = 0; i < reader->nvectors; i++)
		bind_vector(reader, &reader->vectors[i], TupleDescAttr(desc, reader->key.n + i)->atttypid);
	for (int i = 0; i < reader->npayload; i++)
	{
		QsReadField *column = &reader->payload[i];
		Oid			type = TupleDescAttr(desc, reader->key.n + reader->nvectors + i)->atttypid;

		if (column->type == type)
			continue;
		column->writer = qs_payload_writer(type, column->keys.depth - 1, reader->compiled);
		column->type = type;
	}
}

static void
bind_key(DestReceiver *self, int operation, TupleDesc desc)
{
	check_key_types(((RowReceiver *) self)->reader, desc);
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
qs_reader_by_keys(QsReader *reader, const QsRowKey *keys, int n, QsRowSink sink, void *arg)
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
	reader->version = 0;
	if (!receiver.stopped)
		report_absent(&asked, sink, arg);
	end_read(reader, &scope);
	return true;
}

bool
qs_reader_by_blocks(QsReader *reader, Oid leaf, BlockNumber first, BlockNumber end,
					QsRowSink sink, void *arg)
{
	RowReceiver receiver = make_receiver(reader, receive_row, bind_columns);
	ReadScope	scope;

	if (!begin_read(reader, &scope))
		return false;
	receiver.sink = sink;
	receiver.arg = arg;
	qs_reader_set_leaf(reader, leaf);
	execute_for_blocks(reader, QS_PLAN_BY_BLOCKS, first, end, &receiver);
	end_read(reader, &scope);
	return true;
}

bool
qs_reader_keys_by_blocks(QsReader *reader, Oid leaf, BlockNumber first, BlockNumber end,
						 QsRowKey **keys, int *n)
{
	RowReceiver receiver = make_receiver(reader, receive_key, bind_key);
	ReadScope	scope;

	if (!begin_read(reader, &scope))
		return false;
	receiver.capacity = 1024;
	receiver.keys = MemoryContextAlloc(receiver.caller, receiver.capacity * sizeof(QsRowKey));
	qs_reader_set_leaf(reader, leaf);
	execute_for_blocks(reader, QS_PLAN_KEYS_BY_BLOCKS, first, end, &receiver);
	end_read(reader, &scope);
	*keys = receiver.keys;
	*n = receiver.nkeys;
	return true;
}

bool
qs_reader_exists(QsReader *reader, const QsRowKey *keys, int n, bool *found)
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
		found[i] = asked.found[find_key(&asked, keys[i].id)];
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
	receiver.kind = reader->vectors[vector].form.kind;
	column = qs_reader_column(reader, reader->vectors[vector].attnum, reader->vectors[vector].expression);
	/* OFFSET keeps the expression from being computed for the rows before. */
	plan = SPI_prepare(psprintf("SELECT %s FROM (SELECT * FROM %s OFFSET %d) AS rows"
								" WHERE %s IS NOT NULL LIMIT %d",
								column, reader->relation, skip, column, QS_DIMENSION_ROWS), 0, NULL);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	execute(plan, 0, NULL, NULL, &receiver.pub);
	end_read(reader, &scope);
	return receiver.dimension == 0 && receiver.nkeys > 0 ? -1 : receiver.dimension;
}
