/*
 * follow.h
 *		What a mirror's definition and triggers do when DDL changes what they name.
 */
#ifndef QS_FOLLOW_H
#define QS_FOLLOW_H

#include "qdrant_sync.h"

/* Called by _PG_init: ProcessUtility hook. */
extern void qs_follow_install_hook(void);

#endif							/* QS_FOLLOW_H */
