/*
 * vectors.h
 *		A mirror's vectors: what each is in the collection, by its type and by what
 *		the _config arguments say.
 */
#ifndef QS_VECTORS_H
#define QS_VECTORS_H

#include "mirror/arguments.h"
#include "mirror/definition.h"

/* A name of Qdrant's, whatever its case in the argument; ERROR 22023 for another. */
extern const char *qs_known_distance(const char *distance);

/*
 * Fills in specs, and the _config texts in their canonical form, from vectors and
 * distance, which are there, and the arguments.  ERROR 22023 for what contradicts
 * itself or is not known.
 *
 * declared: an array that the table declares with two dimensions is a
 * multi-vector.  The canonical text then says so, since a dump does not keep how
 * many dimensions were declared.
 */
extern void qs_vectors_resolve(Relation rel, const QsMirrorArguments *arguments, bool declared,
							   QsDefinition *definition);

/* Text in UTF-8; ERROR 22P05 where it cannot be. */
extern char *qs_utf8_text(const char *text);

#endif							/* QS_VECTORS_H */
