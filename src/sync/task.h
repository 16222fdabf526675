/*
 * task.h
 *		One mirror in its sync worker: what batches, claim and sweep share.
 *
 * Private to src/sync/.
 */
#ifndef QS_TASK_H
#define QS_TASK_H

#include "common/shared.h"
#include "mirror/definition.h"
#include "net/qdrant_json.h"
#include "sync/call.h"
#include "sync/lanes.h"
#include "sync/outbox.h"
#include "sync/progress.h"
#include "sync/rows.h"
#include "storage/lock.h"

/* Predecessors are asserted by qs_task_set_phase(). */
typedef enum QsPhase
{
	QS_PHASE_CREATING,			/* start: the collection is looked for, made, checked */
	QS_PHASE_CLAIMING,			/* from CREATING, ACTIVE: the write alias is made ours */
	QS_PHASE_ACTIVE,			/* from CLAIMING: rows go out */
	QS_PHASE_FAILED,			/* from any: until it is mended or resumed */
	QS_PHASE_DROPPING			/* from any: unmirrored; cleans up, then is forgotten */
} QsPhase;

/* Steps of a claim (claim.c). */
typedef enum QsClaimStep
{
	QS_CLAIM_IDLE,
	QS_CLAIM_LIST,				/* which aliases has the collection? */
	QS_CLAIM_SEED,				/* none: make the seed */
	QS_CLAIM_RENAME,			/* the old one, or the seed, to mine */
	QS_CLAIM_EXTRA,				/* taking over: delete another one first */
	QS_CLAIM_WITHDRAW,			/* contested: delete mine */
	QS_CLAIM_VERIFY,			/* is mine the only one? */
	QS_CLAIM_SETTLE				/* let what is in limbo end */
} QsClaimStep;

/* Steps by which a rebuild takes its place (switch.c). */
typedef enum QsSwitchStep
{
	QS_SWITCH_FILLING,
	QS_SWITCH_CATCHING_UP,
	QS_SWITCH_LOOK,				/* what does the alias mean?  Then it is moved */
	QS_SWITCH_HERE
} QsSwitchStep;

typedef struct QsTask
{
	dlist_node	node;
	QsPhase		phase;
	MemoryContext context;		/* everything of this task */

	QsMirrorRow row;
	QsProgress	progress;
	bool		progress_dirty; /* to be saved in the next housekeeping */
	QsMirrorSlot *slot;			/* NULL: all are taken */

	/* Definition; made anew when the table or the mirror changed. */
	bool		stale;
	TimestampTz made_at;
	bool		definition_failed;	/* … and that is why it has stopped */
	int			restarts;		/* after errors, each soon after the one before */
	TimestampTz prepare_after;	/* the table was locked: not before */
	bool		server_missing; /* when it was looked for last */
	MemoryContext definition_context;
	QsDefinition *definition;
	QsReader   *reader;
	int			dimensions[QS_PROGRESS_VECTORS]; /* of the collection's vectors, as the definition
								 * orders them; 0: not known */
	QsVectorKind kinds[16];		/* of the same */
	bool		halves[16];		/* … which are stored as half floats, not normalised */
	char	   *indexed;		/* indexes that it has; NULL: none */
	bool		reshaped;		/* the definition says other kinds, sizes or indexes */
	int			rows_skipped;	/* in looking for dimensions, after an error or unusable ones */
	int			indexes_made;	/* QS_PHASE_CREATING: so many of the definition's */
	QsEndpoint *endpoint;

	QsOutbox   *outbox;
	QsLanes    *lanes;

	/* Requests: made and not sent, sent, and groups to be read by themselves. */
	dlist_head	ready;
	int			nready;
	dlist_head	flying;
	int			nflying;
	dlist_head	groups;
	int			foreign;		/* deletes of ids that are no keys, not done yet */
	dlist_head	doubtful;		/* ended in doubt: their lanes wait for the fence */
	QsCall	   *call;			/* of creation, claim or scroll: one at a time */

	/* Pacing after a failure of this mirror's own. */
	int			tries;
	TimestampTz not_before;
	bool		slow;			/* one request in flight (wait_timeout) */
	int			refused_in_row; /* single rows, no point accepted between them */
	int			dead_letters;	/* about how many there are */
	List	   *accepted;		/* keys (texts) accepted while there are dead letters */

	/* Rows refused: is it they, or the collection? (fit.c) */
	dlist_head	suspects;		/* their lanes are closed until it is known */
	bool		look_wanted;	/* nothing is sent before the look */
	QsCall	   *look_call;
	TimestampTz fitted_at;		/* the last look found that it fits; 0: none yet */
	int			bad_in_row;		/* rows that cannot be sent, no point accepted between */

	/* Fence. */
	QsClaimStep claim;
	char		claim_old[QS_COLLECTION_MAX_LENGTH + 64];
	TimestampTz claim_started;
	TimestampTz rename_sent;
	bool		settle;			/* something may be in limbo */
	bool		settle_by_time; /* the alias does not fence, or not everywhere */
	int			pings;
	TimestampTz settle_until;
	bool		fence_wanted;	/* a request ended in doubt */
	dlist_head	echoes;			/* keys in doubt, to be sent once more */

	/* Who writes the collection (owner.c). */
	QsCall	   *beat_call;
	TimestampTz beat_after;
	bool		silent;			/* the key may not say so */
	TimestampTz watch_until;	/* 0: nobody else is watched */
	char		watched_owner[65];
	char		watched_beat[33];

	/* Writers that may have recorded nothing (limit.c). */
	VirtualTransactionId *skippers; /* NULL: not asked for yet */
	int			nskippers;

	/* Sweep (sweep.c). */
	bool		sweeping;
	int64		sweep_number;	/* the one under way */
	bool		sweep_again;	/* keys were lost: start over */
	int			page_ids;		/* how many ids to ask for; 0: not asked yet */
	int			page_most;		/* that the collection's strict mode lets through; 0: not known */
	QsDebt	   *page;			/* suspects of the page under way; NULL: settled */
	char	   *page_next;		/* offset after it */
	bool		page_last;
	bool		page_again;		/* its foreign points were not removed: ask for it again */
	dlist_head	ranges;			/* of blocks, read and not settled, in order */
	int			nranges;
	BlockNumber backfill_cursor;	/* next block to read */
	bool		look_at_leaf;	/* a read failed: the leaf may be gone */
	int			range_blocks;	/* blocks a range; follows the rows in them */
	int			turn;			/* of reads: every fourth is the sweep's */

	/* qdrant_wait. */
	uint64		wait_number;	/* being waited for; 0: none */
	int64		wait_sweep;		/* sweep that it needs */

	/* The end of a rebuild (switch.c). */
	QsSwitchStep switch_step;
	uint64		switch_number;	/* its own wait */
	TimestampTz switch_asked;	/* when that began; once it has ended, when it did */
	TimestampTz switch_after;	/* not before */
	int			switch_tries;
	bool		alias_is_back;	/* QS_PHASE_DROPPING */

	bool		making;			/* QS_PHASE_CREATING: task->call makes the collection */
	bool		next_withdrawn; /* QS_PHASE_DROPPING: the alias of the claim under way is gone */
	bool		empty;			/* QS_PHASE_CREATING: no row that tells the dimension */
	bool		remote_dropped; /* … Qdrant's side is done */
	TimestampTz housekeep_after;
} QsTask;

extern void qs_task_set_phase(QsTask *task, QsPhase phase);

/* Stops the mirror with a reason, until it is mended; keeps its work. */
extern void qs_task_fail(QsTask *task, const char *format,...) pg_attribute_printf(2, 3);

/* Says it in the view, until something succeeds. */
extern void qs_task_show_error(QsTask *task, const char *message);

/* A failure that passes: says so in the view, and waits longer each time. */
extern void qs_task_retry_later(QsTask *task, const char *message);
extern void qs_task_succeeded(QsTask *task);
extern void qs_task_remote_dropped(QsTask *task);	/* Qdrant's side of a drop is done */
extern void qs_task_tell_accepted(QsTask *task);

/* Makes progress durable at once, in a transaction of its own. */
extern void qs_task_save(QsTask *task);

/* Another cluster or database writes the collection: stops, and says what to do. */
extern void qs_task_fail_contested(QsTask *task);

/* qdrant_mirror or qdrant_resume allowed to take the collection, and it was not taken since. */
extern bool qs_task_may_take_over(const QsTask *task);

/* For the view, of a mirror whose rows go out: sweeping, live or switching; a literal. */
extern const char *qs_task_active_phase(const QsTask *task);

/* Alias that writes go to, or the collection itself where the fence is by time. */
extern char *qs_task_write_path(const QsTask *task, const char *rest);
extern char *qs_task_collection_path(const QsTask *task, const char *rest);
extern char *qs_task_alias(const QsTask *task, int64 epoch, const char *nonce);

/* Highest sweep that is wished for. */
extern int64 qs_task_sweep_wanted(const QsTask *task);

/* Key as in the view of dead letters; palloc'd. */
extern char *qs_task_key_text(const QsTask *task, const QsLane *lane);

/* Ids are uuids, which in JSON are strings. */
extern bool qs_task_uuid_ids(const QsTask *task);

/* The collection was made anew, or keys were lost: compare everything. */
extern void qs_task_want_sweep(QsTask *task);

/* fit.c: before a row becomes a dead letter (hazard 19) */
extern bool qs_fit_is_known(const QsTask *task);	/* true: the row is to blame */
extern bool qs_fit_bad_rows(QsTask *task, int n);	/* false: not yet known; a look comes */
extern void qs_fit_suspect(QsTask *task, QsLane *lane, const char *error, int http_status);
extern void qs_fit_accepted(QsTask *task);	/* the collection took a point */
extern bool qs_fit_step(QsTask *task);

/* create.c: the collection, before the claim; and what is left after unmirror. */
extern bool qs_create_check(QsTask *task, const QsCollectionInfo *info);	/* false: it failed */
extern void qs_create_step(QsTask *task);
extern void qs_drop_step(QsTask *task);
extern bool qs_create_fits(const QsTask *task);	/* the definition says what was checked */

/* payload_index.c */
extern bool qs_indexes_are_there(QsTask *task, const char *document, Size length);

/* claim.c */
extern void qs_claim_start(QsTask *task);
extern void qs_claim_step(QsTask *task);

/* switch.c, of a mirror that is filled to take another's place */
extern void qs_switch_step(QsTask *task);
extern TimestampTz qs_switch_next(const QsTask *task, TimestampTz now);

/* ... of one that is dropped */
extern bool qs_switch_old_stays(const QsTask *task, TimestampTz *until);
extern bool qs_switch_drops_collection(const QsTask *task);
extern bool qs_switch_gives_alias_back(QsTask *task);	/* true: a call was started */

/* limit.c */
extern void qs_limit_check(QsTask *task);
extern bool qs_limit_lift(QsTask *task);	/* true: all is recorded again */

/* owner.c */
extern bool qs_owner_agrees(QsTask *task, const char *document, Size length);
extern void qs_owner_beat(QsTask *task);

/* batch.c */
extern void qs_batch_bury(QsTask *task, QsLane *lane, const char *error, int http_status);
extern bool qs_batch_read_dirty(QsTask *task);	/* true: something was read */
extern bool qs_batch_read_blocks(QsTask *task, QsDebt *range, int *rows);
extern void qs_batch_send(QsTask *task);
extern void qs_batch_unmake(QsTask *task);
extern void qs_batch_delete_foreign(QsTask *task, char **ids, int n);
extern void qs_batch_drop_all(QsTask *task);
extern void qs_batch_echo_due(QsTask *task, TimestampTz now);
extern TimestampTz qs_batch_echo_next(const QsTask *task);
extern void qs_batch_reopen_doubtful(QsTask *task);

/* sweep.c */
extern void qs_sweep_step(QsTask *task);
extern bool qs_sweep_wants_read(const QsTask *task);
extern void qs_sweep_read(QsTask *task);
extern void qs_sweep_paid(QsTask *task, QsDebt *debt);
extern void qs_sweep_foreign_done(QsTask *task, bool deleted);

/* task.c, for worker.c */
extern QsTask *qs_task_create(MemoryContext parent, const QsMirrorRow *row);
extern void qs_task_free(QsTask *task);
extern QsTask *qs_task_restart(QsTask *task, const char *message);
extern void qs_task_update(QsTask *task, const QsMirrorRow *row);
extern void qs_task_notice(QsTask *task, const QsNotice *notice);
extern void qs_task_scan(QsTask *task);
extern void qs_task_turn(QsTask *task);
extern bool qs_task_housekeep(QsTask *task);	/* false: forgotten, free it */
extern TimestampTz qs_task_next_wake(const QsTask *task, TimestampTz now);
extern bool qs_task_runs(const QsTask *task);	/* neither paused nor failed */

/* worker.c: one short transaction, pinned and without anything to inherit. */
extern void qs_begin(void);
extern void qs_commit(void);

/* Makes all durable that could be seen until now (hazard 2). */
extern void qs_flush_wal(void);

/* An error of this mirror alone: ends the transaction; returns a copy in the
 * task's own context. */
extern ErrorData *qs_catch_error(MemoryContext context);

#endif							/* QS_TASK_H */
