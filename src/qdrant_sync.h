/*
 * qdrant_sync.h
 *		Names and limits that every part of the extension shares.
 */
#ifndef QS_QDRANT_SYNC_H
#define QS_QDRANT_SYNC_H

#include "compat.h"

#define QS_EXTENSION "qdrant_sync"
#define QS_LIBRARY "qdrant_sync"
#define QS_SCHEMA "qdrant_internal"	/* our tables, segments and trigger functions */
#define QS_FDW "qdrant_fdw"
#define QS_TRIGGER "qdrant_sync"	/* row trigger on a mirrored table */
#define QS_TRUNCATE_TRIGGER "qdrant_sync_truncate"

/* A chunk: with the headers of its row it fills a page of 8 kB, and is never toasted. */
#define QS_CHUNK_MAX_BYTES 8000

/* Qdrant: a path segment of more than 255 characters is refused (hazard 31);
 * what the fence appends is "__qs_" + a 64-bit number + "_" + 16 characters. */
#define QS_COLLECTION_MAX_LENGTH 200

/* Qdrant's own bound on dimensions. */
#define QS_MAX_DIMENSION 65536

/* True where the library was loaded by shared_preload_libraries. */
extern bool qs_preloaded;

/* ERROR 55000 with a hint where !qs_preloaded or in single-user mode. */
extern void qs_require_preload(const char *what);

#endif							/* QS_QDRANT_SYNC_H */
