/*
 * qdrant_sync.c
 *		Entry point: what the library sets up, and where.
 *
 * With shared_preload_libraries the postmaster runs _PG_init and everything
 * works.  Without it the library is loaded by the first call of one of its
 * functions: CREATE EXTENSION and the validator of servers work, capture is a
 * no-op, and whatever needs a worker says so.
 */
#include "qdrant_sync.h"
#include "capture/capture.h"
#include "capture/ddl_watch.h"
#include "common/settings.h"
#include "common/shared.h"
#include "mirror/follow.h"
#include "sync/launcher.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

bool		qs_preloaded = false;

void
_PG_init(void)
{
	qs_preloaded = process_shared_preload_libraries_in_progress;
	qs_settings_define();
	if (!qs_preloaded)
		return;

	qs_shared_install_hooks();
	qs_capture_init();
	qs_ddl_watch_install_hook();
	qs_follow_install_hook();
	qs_utility_install_hook();
	if (!IsBinaryUpgrade)
		qs_launcher_register();
}

void
qs_require_preload(const char *what)
{
	if (!qs_preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s needs a background worker of qdrant_sync, and none can run", what),
				 errhint("Add \"qdrant_sync\" to shared_preload_libraries and restart the server.")));
	if (!IsUnderPostmaster)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s needs a background worker of qdrant_sync, and single-user mode has none", what)));
}
