/*
 * key_log.h
 *		Keys that the current transaction changed, in bounded memory.
 */
#ifndef QS_KEY_LOG_H
#define QS_KEY_LOG_H

#include "capture/armed.h"

/* Called by triggers. */
extern void qs_key_log_add(QsArmed *armed, QsKey key);
extern void qs_key_log_add_text(QsArmed *armed, const char *text, int length);
extern void qs_key_log_sweep(QsArmed *armed);	/* all may have changed */

/* Called by the transaction's callbacks. */
extern void qs_key_log_sub_commit(int level);
extern void qs_key_log_sub_abort(int level);
extern void qs_key_log_flush(void); /* to the outbox; what is added later goes there at once */
extern void qs_key_log_reset(void); /* never raises */

extern bool qs_key_log_is_empty(void);

#endif							/* QS_KEY_LOG_H */
