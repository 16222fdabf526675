/*
 * row_change.c
 *		What of a row's change is noted where its key is no id, and whether an
 *		update changes anything that a mirror has.
 *
 * Runs in writers' backends, from the row trigger.  Apart from trigger.c so that
 * the way of most rows stays short.
 */
#include "capture/key_log.h"
#include "capture/row_change.h"

#include "access/htup_details.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"

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

bool
qs_update_is_untouched(const QsArmed *armed, const TriggerData *event)
{
	return same_values(event, armed->columns, armed->ncolumns);
}

/* As trigger.c notes keys that are ids. */
static void
note_texts(QsArmed *armed, const TriggerData *event)
{
	TupleDesc	desc = RelationGetDescr(event->tg_relation);

	note_text(armed, event->tg_trigtuple, desc);
	if (TRIGGER_FIRED_BY_UPDATE(event->tg_event) &&
		!same_values(event, armed->key.attnums, armed->key.n))
		note_text(armed, event->tg_newtuple, desc);
}

void
qs_note_indirect(QsArmed *armed, const TriggerData *event)
{
	if (armed->kind == QS_CHUNK_TEXTS)
		note_texts(armed, event);
	else
		qs_key_log_sweep(armed);
}
