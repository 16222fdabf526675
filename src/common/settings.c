/*
 * settings.c
 *		Definition of the settings qdrant_sync.*.
 *
 * Runs in every process that loads the library.  What sizes shared memory can
 * only be set at server start, and is defined only where the library is
 * preloaded: elsewhere PostgreSQL would refuse it.
 */
#include "qdrant_sync.h"
#include "common/settings.h"

#include <limits.h>

int			qs_max_databases = 32;
int			qs_max_mirrors = 256;
int			qs_max_tickets = 512;
int			qs_answer_memory = 32 * 1024;
int			qs_batch_rows = 100;
int			qs_batch_bytes = 512;
int			qs_sync_connections = 4;
int			qs_request_connections = 16;
int			qs_segment_size = 16 * 1024;
int			qs_outbox_limit = 1024 * 1024;
int			qs_row_timeout = 5 * 1000;
int			qs_max_dead_letters = 10000;
int			qs_operation_window = 65536;
char	   *qs_default_server = NULL;
int			qs_request_timeout = 10 * 1000;
int			qs_max_session_tickets = 256;
int			qs_limit_wait = 0;

static void
define_shared_memory_settings(void)
{
	DefineCustomIntVariable("qdrant_sync.max_databases",
							"Number of databases that can have a sync worker.",
							NULL, &qs_max_databases,
							32, 1, 1024, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("qdrant_sync.max_mirrors",
							"Number of mirrors in all databases together.",
							NULL, &qs_max_mirrors,
							256, 1, 65536, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("qdrant_sync.max_tickets",
							"Number of requests that SQL calls can have under way at the same time.",
							NULL, &qs_max_tickets,
							512, 8, 65536, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("qdrant_sync.answer_memory",
							"Shared memory for the requests and answers of SQL calls.",
							NULL, &qs_answer_memory,
							32 * 1024, 4 * 1024, 2 * 1024 * 1024, PGC_POSTMASTER,
							GUC_UNIT_KB, NULL, NULL, NULL);
}

static void
define_worker_settings(void)
{
	DefineCustomIntVariable("qdrant_sync.batch_rows",
							"Largest number of points that one write to Qdrant carries.",
							NULL, &qs_batch_rows,
							100, 1, 10000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("qdrant_sync.batch_bytes",
							"Size of a body at which a write to Qdrant is sent.",
							"A single larger row is still sent by itself.", &qs_batch_bytes,
							512, 16, 16 * 1024, PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("qdrant_sync.sync_connections",
							"Writes that a sync worker has in flight at each server.",
							NULL, &qs_sync_connections,
							4, 2, 64, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("qdrant_sync.request_connections",
							"Requests of SQL calls that are in flight at each server.",
							NULL, &qs_request_connections,
							16, 1, 256, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("qdrant_sync.segment_size",
							"Size of an outbox segment at which writers change to the other one.",
							NULL, &qs_segment_size,
							16 * 1024, 64, 1024 * 1024, PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("qdrant_sync.outbox_limit",
							"Size of a mirror's outbox at which its keys are no longer recorded.",
							"The mirror then compares the whole table when it has caught up.",
							&qs_outbox_limit,
							1024 * 1024, 256, INT_MAX, PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("qdrant_sync.row_timeout",
							"Longest time that a sync worker reads the rows of one batch.",
							"It bounds what an expression in a mirror's definition can cost the other mirrors.",
							&qs_row_timeout,
							5 * 1000, 100, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("qdrant_sync.operation_window",
							"Explicit operations that a sync worker keeps in memory.",
							"The rest stays in the outbox until there is room.",
							&qs_operation_window,
							65536, 16, 16 * 1024 * 1024, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("qdrant_sync.max_dead_letters",
							"Dead letters that are kept for a mirror; at one more it stops.",
							"As many are kept of explicit operations; at more, new ones are refused.",
							&qs_max_dead_letters,
							10000, 1, INT_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);
}

void
qs_settings_define(void)
{
	if (qs_preloaded)
		define_shared_memory_settings();
	define_worker_settings();
	DefineCustomStringVariable("qdrant_sync.server",
							   "Server that is meant where none is named.",
							   "Empty means the only registered server of qdrant_fdw.",
							   &qs_default_server,
							   "", PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("qdrant_sync.request_timeout",
							"Longest time that a SQL call waits for Qdrant.",
							NULL, &qs_request_timeout,
							10 * 1000, 1, INT_MAX, PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("qdrant_sync.max_session_tickets",
							"Number of tickets that one session can have and not have awaited.",
							NULL, &qs_max_session_tickets,
							256, 1, 65536, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("qdrant_sync.limit_wait",
							"Longest time that a request waits for a ticket, or for memory for itself, that others have.",
							"Zero raises an error at once.",
							&qs_limit_wait,
							0, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	qs_reserve_guc_prefix("qdrant_sync");
}
