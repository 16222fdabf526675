/*
 * vector_names.h
 *		What a mirror calls its vectors, for who asked Qdrant for another one.
 */
#ifndef QS_VECTOR_NAMES_H
#define QS_VECTOR_NAMES_H

#include "qdrant_sync.h"

/*
 * A hint for the error text that a request of this path was answered with, where it
 * is about the name of a vector and the collection is that of the table's mirror;
 * palloc'd, or NULL.  Waits for no lock.
 */
extern char *qs_vector_names_hint(Oid table, const char *path, const char *error);

#endif							/* QS_VECTOR_NAMES_H */
