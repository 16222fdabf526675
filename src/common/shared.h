/*
 * shared.h
 *		What writers and sync workers share: a slot for each database with its
 *		ring of notices, and a slot for each mirror.
 *
 * Nothing here is needed for correctness: a lost notice or slot means that the
 * worker scans the outbox.  No pointer, descriptor or handle is in it.
 */
#ifndef QS_SHARED_H
#define QS_SHARED_H

#include "qdrant_sync.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/itemptr.h"
#include "storage/lwlock.h"

/*
 * Notices that wait in one database's ring.  A worker takes them in every turn;
 * 1,024 is what 100 ms at 10,000 commits a second leave.  A full ring costs one
 * scan of the outbox.
 */
#define QS_RING_SIZE 1024

/* Where a committed chunk lies. */
typedef struct QsNotice
{
	Oid			segment;		/* relation */
	RelFileNumber relfilenumber;	/* its storage when the chunk was written */
	ItemPointerData tid;
} QsNotice;

typedef enum QsWorkerState
{
	QS_WORKER_ABSENT,			/* no process; the launcher may start one */
	QS_WORKER_STARTING,			/* registered by the launcher, not yet connected */
	QS_WORKER_RUNNING,			/* its main loop turns */
	QS_WORKER_NO_EXTENSION,		/* it looked: the database has no qdrant_sync */
	QS_WORKER_NO_SLOT,			/* max_worker_processes was reached */
	QS_WORKER_CRASHED			/* ended with an error; started again at restart_at */
} QsWorkerState;

typedef struct QsDatabaseSlot
{
	LWLock		lock;			/* guards everything in this slot */
	Oid			database;		/* InvalidOid: free */
	QsWorkerState state;
	pid_t		pid;			/* 0: none */
	int			proc_number;	/* of the worker, for its latch; -1: none */
	int			failures;		/* starts that failed in a row */
	TimestampTz restart_at;		/* QS_WORKER_CRASHED: not before */
	TimestampTz started_at;
	TimestampTz turned_at;		/* last turn of the worker's main loop: its heartbeat */
	int			blockers;		/* sessions whose DDL needs the database without a worker */
	bool		scan;			/* a notice was lost or is not exact: scan all segments */
	bool		reload;			/* mirrors were made, changed or dropped */
	uint32		head;			/* next notice to take; modulo QS_RING_SIZE */
	uint32		count;			/* notices that wait */
	QsNotice	ring[QS_RING_SIZE];
} QsDatabaseSlot;

typedef struct QsMirrorSlot
{
	/* Identity: written under QsShared.mirror_lock exclusively. */
	Oid			database;		/* InvalidOid: free */
	int64		mirror;			/* qdrant_internal.mirror.id */
	Oid			relid;

	/* Which of the two segments writers append to: 0 or 1.  The worker sets it. */
	pg_atomic_uint32 active_segment;

	/*
	 * 1: the outbox is at its limit and writers record nothing (hazard 5).  The
	 * worker sets it after its wish for a sweep is durable.
	 */
	pg_atomic_uint32 skipping;

	/*
	 * qdrant_wait: a waiter raises wait_requested and waits on wait_done_cv for
	 * wait_done to reach its number.  The worker scans with a snapshot taken
	 * after it read wait_requested (hazard 18).
	 */
	pg_atomic_uint64 wait_requested;
	pg_atomic_uint64 wait_done;
	pg_atomic_uint32 stopped;	/* paused or failed: a waiter gives up at once */
	ConditionVariable wait_done_cv;

	/* For the views; the worker writes them, anybody reads them. */
	pg_atomic_uint64 pending;	/* keys known and not yet acknowledged */
	pg_atomic_uint32 pending_is_bound;	/* 1: there are more, in chunks not read yet */
	pg_atomic_uint64 oldest;	/* TimestampTz of the oldest of them; 0: none */
	pg_atomic_uint64 points_sent;	/* points upserted or deleted since server start */
	pg_atomic_uint64 requests;	/* writes sent since server start */
	pg_atomic_uint64 retries;	/* of them, ended without success */

	/* A session in qdrant_verify: it takes the place by its pid and writes the rest. */
	pg_atomic_uint32 verify_pid;	/* 0: none */
	pg_atomic_uint32 verify_phase;	/* QsVerifyPhase */
	pg_atomic_uint64 verify_done;	/* points or rows of that phase */
	pg_atomic_uint64 verify_total;	/* about how many there are; 0: not known */
	pg_atomic_uint64 verify_started;	/* TimestampTz */
} QsMirrorSlot;

/* Databases that the launcher looks at by name; with more it looks at all. */
#define QS_LOOK_MAX 16

typedef struct QsShared
{
	LWLock		database_lock;	/* guards QsDatabaseSlot.database of all slots */
	LWLock		mirror_lock;	/* guards identity of all mirror slots */
	int			databases_used; /* database slots from here on were never taken */
	int			launcher_proc_number;	/* -1: none; under database_lock */
	pid_t		launcher_pid;
	bool		launcher_look;	/* a database appeared or vanished, or got the extension */
	int			look_count;		/* of look_at; more than fits: look at all */
	Oid			look_at[QS_LOOK_MAX];	/* databases whose sessions asked for it */
} QsShared;

extern QsShared *qs_shared;
extern QsDatabaseSlot *qs_database_slots;	/* qs_max_databases of them */
extern QsMirrorSlot *qs_mirror_slots;	/* qs_max_mirrors of them */

/* Called by _PG_init, in the postmaster (or every process under EXEC_BACKEND). */
extern void qs_shared_install_hooks(void);

/* Called by writers and workers. */
extern QsDatabaseSlot *qs_database_slot_find(Oid database);
extern QsMirrorSlot *qs_mirror_slot_find(Oid database, int64 mirror);

/* Called by the launcher, and by DDL that blocks: find or make; NULL when all are taken. */
extern QsDatabaseSlot *qs_database_slot_make(Oid database);
/* False where a process or a blocker still needs it. */
extern bool qs_database_slot_free(QsDatabaseSlot *slot);

/* Called by the sync worker. */
extern QsMirrorSlot *qs_mirror_slot_make(Oid database, int64 mirror, Oid relid);
extern void qs_mirror_slot_free(QsMirrorSlot *slot);
/* All of a database that has no worker any more. */
extern void qs_mirror_slots_free(Oid database);

/*
 * Posts n notices (or, with scan, "scan everything") to this database's worker
 * and wakes it.  Allocates nothing and raises nothing: it is called while a
 * commit can no longer fail (hazard 15).
 */
extern void qs_notices_post(const QsNotice *notices, int n, bool scan);

/* Tells this database's worker to read the catalog of mirrors again.  As above. */
extern void qs_post_reload(void);

/* Tells the launcher to look at databases again, this session's above all.  As above. */
extern void qs_post_launcher_look(void);

/*
 * Called by the sync worker: moves up to max waiting notices out of the ring
 * and fetches-and-clears the two flags.  Returns their number.
 */
extern int	qs_notices_take(QsDatabaseSlot *slot, QsNotice *notices, int max,
							bool *scan, bool *reload);

#endif							/* QS_SHARED_H */
