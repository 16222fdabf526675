/*
 * text_log.h
 *		Texts of hashed keys that the current transaction changed: the part of
 *		the key log whose entries have no fixed size.
 *
 * Called by key_log.c alone, which owns the targets that numbers stand for.
 */
#ifndef QS_TEXT_LOG_H
#define QS_TEXT_LOG_H

#include "capture/append.h"

/* types: qs_key_types_hash() of the key. */
extern void qs_text_log_add(uint32 target, uint32 types, const char *text, int length);

extern void qs_text_log_sub_commit(int level);
extern void qs_text_log_sub_abort(int level);
extern bool qs_text_log_is_empty(void);

/* To the outbox; afterwards the log is empty. */
extern void qs_text_log_flush(QsAppender *appender, const QsTarget *targets);
extern void qs_text_log_reset(void);	/* never raises */

#endif							/* QS_TEXT_LOG_H */
