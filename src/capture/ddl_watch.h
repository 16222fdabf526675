/*
 * ddl_watch.h
 *		Changes of a mirrored table's rows that no row trigger sees.
 */
#ifndef QS_DDL_WATCH_H
#define QS_DDL_WATCH_H

#include "qdrant_sync.h"

/* Called by _PG_init: object_access_hook. */
extern void qs_ddl_watch_install_hook(void);

#endif							/* QS_DDL_WATCH_H */
