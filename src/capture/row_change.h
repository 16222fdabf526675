/*
 * row_change.h
 *		The less frequent half of the row trigger.
 */
#ifndef QS_ROW_CHANGE_H
#define QS_ROW_CHANGE_H

#include "capture/armed.h"
#include "commands/trigger.h"

/* True where none of the columns that count, and there are such, has another value. */
extern bool qs_update_is_untouched(const QsArmed *armed, const TriggerData *event);

/* Notes a row whose key is not noted as an id. */
extern void qs_note_indirect(QsArmed *armed, const TriggerData *event);

#endif							/* QS_ROW_CHANGE_H */
