/*
 * capture.h
 *		The writer's side: changed keys and explicit operations of the current
 *		transaction, until they are in the outbox.
 */
#ifndef QS_CAPTURE_H
#define QS_CAPTURE_H

#include "qdrant_sync.h"
#include "common/chunk.h"

/* Called by _PG_init: transaction callbacks, once per process. */
extern void qs_capture_init(void);

/*
 * True where this transaction has changes (keys or operations) that are sent
 * only after its commit; qdrant_wait would wait for itself.
 */
extern bool qs_capture_pending(void);

/*
 * At the commit of this transaction: tell the sync worker to read the catalog of
 * mirrors again; tell the launcher to look at databases; tell the sync worker to
 * scan (COMMIT PREPARED).  Follows savepoints only in that an extra telling is
 * harmless.
 */
extern void qs_at_commit_reload(void);
extern void qs_at_commit_launcher_look(void);
extern void qs_at_commit_scan(void);

/* Puts "compare everything" for this relation's mirror into the transaction. */
extern void qs_capture_sweep(Oid relid);

/*
 * Puts a key of this relation's mirror into the transaction, as its trigger would;
 * all of them, where its keys are no longer of this kind.  text: of a hashed key.
 */
extern void qs_capture_key(Oid relid, QsKey key, QsChunkKind kind);
extern void qs_capture_key_text(Oid relid, const char *text);

#endif							/* QS_CAPTURE_H */
