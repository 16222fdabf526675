/*
 * owners_code.c
 *		Under whose name, with which settings and for how long an owner's code runs.
 *
 * Sync worker, and the session that runs qdrant_verify.  Every analysis, plan and
 * execution of an owner's expressions is in such a bracket: the worker itself is a
 * superuser.
 */
#include "qdrant_sync.h"
#include "common/encode.h"
#include "common/settings.h"
#include "sync/owners_code.h"

#include "access/xact.h"
#include "tcop/tcopprot.h"
#include "utils/timeout.h"

/* Locks besides the table's are those of its indexes, held for DDL on them. */
#define READ_LOCK_TIMEOUT "500ms"

/*
 * Nothing that a role, a database or an owner's function can set changes what is
 * read.  No sequential scan: the kept plan is made without statistics, perhaps
 * when the table was empty; and its cost must then not call for JIT.
 */
static const char *const read_settings[] = {
	"search_path", "pg_catalog, pg_temp",
	"row_security", "off",
	"lock_timeout", READ_LOCK_TIMEOUT,
	"standard_conforming_strings", "on",
	"transform_null_equals", "off",
	"plan_cache_mode", "force_generic_plan",
	"enable_seqscan", "off",
	"enable_indexscan", "on",
	"enable_bitmapscan", "on",
	"enable_tidscan", "on",
	"jit", "off",
	NULL
};

/* Of the sync worker, whose handler of SIGINT looks at them. */
static volatile sig_atomic_t in_time = false;
static volatile sig_atomic_t cancelled = false;

/*
 * In a security-restricted operation the owner's functions cannot change the role,
 * and what they set is taken back with the GUC level.
 */
void
qs_owners_code_begin(QsOwnerScope *scope, Oid owner)
{
	GetUserIdAndSecContext(&scope->user, &scope->security_context);
	SetUserIdAndSecContext(owner, scope->security_context | SECURITY_RESTRICTED_OPERATION);
	scope->guc_level = NewGUCNestLevel();
	qs_pin_settings(read_settings);
	qs_pin_settings(qs_encode_settings);

	/*
	 * A function that writes would make the mirror send again for ever.  No
	 * setting: 16 and later do not let it be saved and put back.
	 */
	scope->read_only = XactReadOnly;
	XactReadOnly = true;
}

void
qs_owners_code_end(const QsOwnerScope *scope)
{
	XactReadOnly = scope->read_only;
	AtEOXact_GUC(false, scope->guc_level);
	SetUserIdAndSecContext(scope->user, scope->security_context);
}

/* The time limit arrives as SIGINT, too. */
void
qs_owners_code_handle_cancel(SIGNAL_ARGS)
{
	if (!in_time)
		return;
	cancelled = true;
	StatementCancelHandler(postgres_signal_arg);
}

/*
 * What came too late to interrupt the work must not interrupt what comes after
 * it.  In a session the user's own cancel may.
 */
static void
disarm(void)
{
	disable_timeout(STATEMENT_TIMEOUT, true);
	in_time = false;
	if (get_timeout_indicator(STATEMENT_TIMEOUT, true) || cancelled)
		QueryCancelPending = false;
}

void
qs_owners_code_in_time(void (*work) (void *arg), void *arg)
{
	cancelled = false;
	in_time = true;
	if (qs_row_timeout > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, qs_row_timeout);
	PG_TRY();
	{
		work(arg);
	}
	PG_FINALLY();
	{
		disarm();
	}
	PG_END_TRY();
}
