/*
 * transaction.c
 *		What happens to captured changes when a transaction or subtransaction
 *		ends.
 *
 * Runs in every process of a server that preloads the library, mostly to find
 * nothing to do.  After PRE_COMMIT and PRE_PREPARE nothing here allocates or
 * raises: an error in a commit that has happened takes the server down (hazard
 * 15).  The order matters: PostgreSQL has run deferred triggers and holdable
 * cursors before PRE_COMMIT, and made the commit visible before COMMIT.
 */
#include "capture/append.h"
#include "capture/capture.h"
#include "capture/key_log.h"
#include "capture/operations.h"
#include "common/shared.h"

#include "access/xact.h"
#include "utils/resowner.h"

static bool tell_reload = false;
static bool tell_launcher = false;
static bool tell_scan = false;

/*
 * Who is told of changed catalogs reads them at once: so not before the
 * invalidations of this commit are out, or its caches would still hold what was
 * there before.
 */
static void
after_locks(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_top_level)
		return;
	if (is_commit && tell_reload)
		qs_post_reload();
	if (is_commit && tell_launcher)
		qs_post_launcher_look();
	tell_reload = tell_launcher = false;
}

/* Only a session that has something to tell pays for it. */
static void
watch_release(void)
{
	static bool watched = false;

	if (!watched)
		RegisterResourceReleaseCallback(after_locks, NULL);
	watched = true;
}

void
qs_at_commit_reload(void)
{
	watch_release();
	tell_reload = true;
}

void
qs_at_commit_launcher_look(void)
{
	watch_release();
	tell_launcher = true;
}

void
qs_at_commit_scan(void)
{
	tell_scan = true;
}

bool
qs_capture_pending(void)
{
	return !qs_key_log_is_empty() || qs_operation_log_pending() || qs_append_has_notices();
}

/* The commit is visible and cannot fail any more. */
static void
tell(void)
{
	qs_append_post_notices();
	if (tell_scan)
		qs_notices_post(NULL, 0, true);
}

/* Also after PREPARE: COMMIT PREPARED, maybe in another session, tells. */
static void
reset(void)
{
	qs_key_log_reset();
	qs_operation_log_reset();
	qs_append_forget_notices();
	tell_scan = false;
}

static void
at_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			qs_key_log_flush();
			qs_operation_log_flush();
			break;
		case XACT_EVENT_PRE_PREPARE:
			qs_operation_log_refuse_prepare();
			qs_key_log_flush();
			break;
		case XACT_EVENT_COMMIT:
			tell();
			reset();
			break;
		case XACT_EVENT_PREPARE:
			/* Its COMMIT PREPARED cannot know: the worker finds out by itself. */
			tell_reload = tell_launcher = false;
			reset();
			break;
		case XACT_EVENT_ABORT:
			reset();
			break;
		default:
			/* Parallel workers do not write. */
			break;
	}
}

/* The nesting level is still that of the subtransaction that ends. */
static void
at_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		qs_key_log_sub_commit(level);
		qs_operation_log_sub_commit(level);
	}
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		qs_key_log_sub_abort(level);
		qs_operation_log_sub_abort(level);
	}
}

void
qs_capture_init(void)
{
	RegisterXactCallback(at_transaction, NULL);
	RegisterSubXactCallback(at_subtransaction, NULL);
}
