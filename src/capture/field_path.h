/*
 * field_path.h
 *		Paths of fields in payloads, as Qdrant reads them.
 */
#ifndef QS_FIELD_PATH_H
#define QS_FIELD_PATH_H

#include "qdrant_sync.h"

/* ERROR 22023, which names the argument or member, unless Qdrant reads it as a path. */
extern void qs_check_field_path(const char *where, const char *path);

#endif							/* QS_FIELD_PATH_H */
