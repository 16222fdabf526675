/*
 * settings.h
 *		The settings of the extension, qdrant_sync.*, with their units.
 */
#ifndef QS_SETTINGS_H
#define QS_SETTINGS_H

/* Fixed at server start: they size shared memory. */
extern int	qs_max_databases;		/* databases with a sync worker */
extern int	qs_max_mirrors;			/* mirrors of all databases */
extern int	qs_max_tickets;			/* requests of SQL calls at the same time */
extern int	qs_answer_memory;		/* kB of shared memory for their bodies */

/* Reload. */
extern int	qs_batch_rows;			/* points in one write */
extern int	qs_batch_bytes;			/* kB of body in one write */
extern int	qs_sync_connections;	/* writes in flight per server and worker */
extern int	qs_request_connections; /* requests in flight per server */
extern int	qs_segment_size;		/* kB at which an outbox segment is changed */
extern int	qs_outbox_limit;		/* kB of a mirror's outbox at which keys are no longer
									 * recorded */
extern int	qs_row_timeout;			/* ms for one read of rows by the worker */
extern int	qs_max_dead_letters;	/* kept per mirror before it stops */
extern int	qs_operation_window;	/* explicit operations in the worker's memory */

/* Any session. */
extern char *qs_default_server;		/* name, or "" for the only one */
extern int	qs_request_timeout;		/* ms a SQL call waits for Qdrant */
extern int	qs_limit_wait;			/* ms a request waits for room; 0: an error at once */

/* Superuser. */
extern int	qs_max_session_tickets; /* not awaited yet, of one session */

/* Called by _PG_init in every process that loads the library. */
extern void qs_settings_define(void);

#endif							/* QS_SETTINGS_H */
