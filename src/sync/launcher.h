/*
 * launcher.h
 *		Which worker processes run: the launcher, and what DDL on databases asks
 *		of it.
 */
#ifndef QS_LAUNCHER_H
#define QS_LAUNCHER_H

#include "qdrant_sync.h"

/* Called by _PG_init in the postmaster: registers the launcher and the request worker. */
extern void qs_launcher_register(void);

/* Called by _PG_init: ProcessUtility hook (DROP DATABASE …, COMMIT PREPARED, CREATE EXTENSION). */
extern void qs_utility_install_hook(void);

extern PGDLLEXPORT void qs_launcher_main(Datum arg);
extern PGDLLEXPORT void qs_sync_worker_main(Datum database);
extern PGDLLEXPORT void qs_request_worker_main(Datum arg);

#endif							/* QS_LAUNCHER_H */
