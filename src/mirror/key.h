/*
 * key.h
 *		The key of a mirrored table.
 */
#ifndef QS_KEY_H
#define QS_KEY_H

#include "mirror/definition.h"

/*
 * Resolves the columns that list names, or those of the primary key (NULL), into
 * *key and *text, the list in its canonical form.  A column written as
 * column::text asks for QS_KEY_HASHED.  ERROR where no unique index over columns
 * that are NOT NULL says that they identify a row.
 */
extern void qs_key_resolve(Relation rel, const char *list, QsKeySpec *key, char **text);

/* The canonical list of the key's columns, by the names that they have now. */
extern char *qs_key_list(Relation rel, const QsKeySpec *key);

/*
 * Do the columns of the key still have types under which the same rows have the
 * same ids?
 */
extern bool qs_key_same_ids(const QsKeySpec *a, const QsKeySpec *b);

/*
 * Whether a text can be read as this type without running functions of a user: base
 * types are a superuser's, but in a composite type, or around a domain, a CHECK runs,
 * and in a range the function that makes it canonical.  type: no domain itself, of
 * which only the base is read.
 */
extern bool qs_key_reading_is_safe(Oid type);

#endif							/* QS_KEY_H */
