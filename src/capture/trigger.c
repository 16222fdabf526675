/*
 * trigger.c
 *		The trigger functions of mirrored tables.
 *
 * Run in writers' backends, for every row: what they do is counted in
 * instructions.  They refuse to run as anything but the triggers that
 * qdrant_mirror makes; on a relation that no mirror of this database and cluster
 * is armed for, and without the library preloaded, they do nothing.
 */
#include "capture/capture.h"
#include "capture/key_log.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "utils/datum.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(qs_capture);
PG_FUNCTION_INFO_V1(qs_capture_truncate);

/* Timing and level of a trigger event, without what fired it. */
#define EVENT_FORM (TRIGGER_EVENT_ROW | TRIGGER_EVENT_TIMINGMASK)

static QS_NORETURN void
refuse_call(const char *function, const char *form)
{
	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("%s.%s can only be called as a trigger %s", QS_SCHEMA, function, form),
			 errhint("qdrant_mirror makes the triggers of a mirrored table.")));
}

static inline bool
get_key(const QsArmed *armed, HeapTuple tuple, TupleDesc desc, QsKey *key)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, armed->key.attnums[0], desc, &isnull);

	if (unlikely(isnull))
		return false;
	if (likely(armed->key.types[0] == INT8OID))
	{
		key->hi = 0;
		key->lo = (uint64) DatumGetInt64(value);
	}
	else
		*key = qs_key_from_datum(value, armed->key.types[0]);
	return true;
}

/* ---- hashed keys ---- */

static void
note_text(QsArmed *armed, HeapTuple tuple, TupleDesc desc)
{
	static StringInfoData text = {0};
	Datum		values[INDEX_MAX_KEYS];

	for (int i = 0; i < armed->key.n; i++)
	{
		bool		isnull;

		values[i] = heap_getattr(tuple, armed->key.attnums[i], desc, &isnull);
		if (isnull)
			return;
	}
	if (text.data == NULL)
	{
		MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);

		initStringInfo(&text);
		MemoryContextSwitchTo(before);
	}
	resetStringInfo(&text);
	qs_append_key_text(&text, values, armed->writer);
	qs_key_log_add_text(armed, text.data, text.len);
	if (text.maxlen > 2 * QS_KEY_TEXT_MAX)
	{
		pfree(text.data);
		text.data = NULL;
	}
}

/* ---- what changed ---- */

/*
 * By the stored bytes, so that nothing is detoasted: a value out of line that was
 * not changed has the same pointer.  Equal by its type's operator is not enough
 * (hazard 10).
 */
static bool
same_value(const TriggerData *event, TupleDesc desc, AttrNumber attnum)
{
	Form_pg_attribute attribute = TupleDescAttr(desc, attnum - 1);
	bool		old_null;
	bool		new_null;
	Datum		old_value = heap_getattr(event->tg_trigtuple, attnum, desc, &old_null);
	Datum		new_value = heap_getattr(event->tg_newtuple, attnum, desc, &new_null);

	if (old_null || new_null)
		return old_null && new_null;
	return datumIsEqual(old_value, new_value, attribute->attbyval, attribute->attlen);
}

static bool
same_values(const TriggerData *event, const AttrNumber *columns, int n)
{
	TupleDesc	desc = RelationGetDescr(event->tg_relation);

	for (int i = 0; i < n; i++)
	{
		if (!same_value(event, desc, columns[i]))
			return false;
	}
	return true;
}

/*
 * A row whose key is NULL is no point, so a change between NULL and a key is
 * one of that key.  Where an update changes the key, both points change.
 */
static void
note_texts(QsArmed *armed, const TriggerData *event)
{
	TupleDesc	desc = RelationGetDescr(event->tg_relation);

	note_text(armed, event->tg_trigtuple, desc);
	if (TRIGGER_FIRED_BY_UPDATE(event->tg_event) &&
		!same_values(event, armed->key.attnums, armed->key.n))
		note_text(armed, event->tg_newtuple, desc);
}

static inline void
note_change(QsArmed *armed, const TriggerData *event)
{
	TupleDesc	desc = RelationGetDescr(event->tg_relation);
	QsKey		key;

	if (armed->ncolumns >= 0 && TRIGGER_FIRED_BY_UPDATE(event->tg_event) &&
		same_values(event, armed->columns, armed->ncolumns))
		return;
	if (unlikely(armed->kind == QS_CHUNK_SWEEP))
		qs_key_log_sweep(armed);
	else if (unlikely(armed->kind == QS_CHUNK_TEXTS))
		note_texts(armed, event);
	else
	{
		if (get_key(armed, event->tg_trigtuple, desc, &key))
			qs_key_log_add(armed, key);
		if (TRIGGER_FIRED_BY_UPDATE(event->tg_event) &&
			get_key(armed, event->tg_newtuple, desc, &key))
			qs_key_log_add(armed, key); /* which knows one that it was given just now */
	}
}

Datum
qs_capture(PG_FUNCTION_ARGS)
{
	const TriggerData *event = (const TriggerData *) fcinfo->context;
	QsArmed    *armed;

	if (unlikely(!CALLED_AS_TRIGGER(fcinfo) ||
				 (event->tg_event & EVENT_FORM) != (TRIGGER_EVENT_ROW | TRIGGER_EVENT_AFTER)))
		refuse_call("capture", "AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW");
	if (likely(qs_preloaded))
	{
		armed = qs_armed_find(RelationGetRelid(event->tg_relation));
		if (armed != NULL)
			note_change(armed, event);
	}
	return PointerGetDatum(NULL);
}

Datum
qs_capture_truncate(PG_FUNCTION_ARGS)
{
	const TriggerData *event = (const TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		(event->tg_event & EVENT_FORM) != TRIGGER_EVENT_AFTER ||
		!TRIGGER_FIRED_BY_TRUNCATE(event->tg_event))
		refuse_call("capture_truncate", "AFTER TRUNCATE FOR EACH STATEMENT");
	qs_capture_sweep(RelationGetRelid(event->tg_relation));
	return PointerGetDatum(NULL);
}

void
qs_capture_sweep(Oid relid)
{
	QsArmed    *armed;

	if (!qs_preloaded)
		return;
	armed = qs_armed_find(relid);
	if (armed != NULL)
		qs_key_log_sweep(armed);
}

void
qs_capture_key(Oid relid, QsKey key, QsChunkKind kind)
{
	QsArmed    *armed = qs_preloaded ? qs_armed_find(relid) : NULL;

	if (armed == NULL)
		return;
	if (armed->kind == kind)
		qs_key_log_add(armed, key);
	else
		qs_key_log_sweep(armed);
}

void
qs_capture_key_text(Oid relid, const char *text)
{
	QsArmed    *armed = qs_preloaded ? qs_armed_find(relid) : NULL;

	if (armed == NULL)
		return;
	if (armed->kind == QS_CHUNK_TEXTS)
		qs_key_log_add_text(armed, text, strlen(text));
	else
		qs_key_log_sweep(armed);
}
