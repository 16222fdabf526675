/*
 * look.h
 *		What a session asks Qdrant before it makes a mirror.
 */
#ifndef QS_LOOK_H
#define QS_LOOK_H

#include "common/server.h"
#include "mirror/definition.h"

/*
 * Refuses a collection that the mirror cannot have: an alias, another shape,
 * or one with points where take_over is false.  Where Qdrant does not answer, a
 * NOTICE says so: the sync worker looks again.  Reads only.  The caller holds no
 * lock on the table (hazard 20).  resumed: the collection is that of a restored mirror,
 * and not one that an argument names; for the hint.
 */
extern void qs_look_at_collection(const QsServer *server, const QsDefinition *definition,
								  bool take_over, bool resumed);

/* May a rebuild move this alias?  ERROR 42710 where it is something else's. */
extern void qs_look_at_alias(const QsServer *server, const QsDefinition *definition,
							 const char *present);

#endif							/* QS_LOOK_H */
