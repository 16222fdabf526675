/*
 * trigger.c
 *		The trigger functions of mirrored tables.
 *
 * Run in writers' backends, for every row: what they do is counted in
 * instructions, and what most rows do not need is in row_change.c.  They refuse to run as anything but the triggers that
 * qdrant_mirror makes; on a relation that no mirror of this database and cluster
 * is armed for, and without the library preloaded, they do nothing.
 */
#include "capture/capture.h"
#include "capture/key_log.h"
#include "capture/row_change.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"

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

/*
 * Is it an update that changes no column that counts?  A statement that sets one
 * is taken at its word, which costs next to nothing; where none is set, a BEFORE
 * trigger may have changed one all the same, and values are compared.
 */
static inline bool
is_untouched(const QsArmed *armed, const TriggerData *event)
{
	return armed->ncolumns >= 0 && !bms_overlap(event->tg_updatedcols, armed->column_set) &&
		qs_update_is_untouched(armed, event);
}

/*
 * A row whose key is NULL is no point, so a change between NULL and a key is
 * one of that key.  Where an update changes the key, both points change.
 */
static inline void
note_change(QsArmed *armed, const TriggerData *event)
{
	TupleDesc	desc = RelationGetDescr(event->tg_relation);
	bool		update = TRIGGER_FIRED_BY_UPDATE(event->tg_event);
	QsKey		key;

	if (update && is_untouched(armed, event))
		return;
	if (unlikely(!armed->direct))
	{
		qs_note_indirect(armed, event);
		return;
	}
	if (get_key(armed, event->tg_trigtuple, desc, &key))
		qs_key_log_add(armed, key);
	if (update && get_key(armed, event->tg_newtuple, desc, &key))
		qs_key_log_add(armed, key); /* which knows one that it was given just now */
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
		for (; armed != NULL; armed = armed->next)
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
	for (; armed != NULL; armed = armed->next)
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
