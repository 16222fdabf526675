/*
 * fields.h
 *		Fields of a payload in its JSON object and the objects nested in it.
 *
 * Sync worker; used by reader.c, which makes them, and rows.c, which writes them.
 */
#ifndef QS_FIELDS_H
#define QS_FIELDS_H

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

/*
 * The keys of a field: text is "a":{"b":{"c": for a.b.c, and starts[i] is where its
 * key number i begins.
 */
typedef struct QsFieldKeys
{
	char	   *text;
	int			length;
	int		   *starts;
	int			depth;
	int			shared;			/* keys that it has in common with the field before */
} QsFieldKeys;

/* Where a payload stands while its fields are written, in their order. */
typedef struct QsFieldWalk
{
	int			open;			/* nested objects */
	int			shared;			/* keys that the last field written has in common with
								 * all that were left out since */
} QsFieldWalk;

/* Appends "name": in UTF-8; ERROR 22021 where it has no equivalent there. */
extern void qs_append_key(StringInfo out, const char *name);

/* path, before: keys of the field and of the one before it (NIL: the first). */
extern QsFieldKeys qs_field_keys(List *path, List *before);

/*
 * For each field one of the two, in order: its keys, to be followed by its value; or
 * nothing of it.  A nested object without any field is not written.
 */
extern void qs_field_begin(StringInfo out, QsFieldWalk *walk, const QsFieldKeys *keys);
extern void qs_field_omit(QsFieldWalk *walk, const QsFieldKeys *keys);

/* After the last field: closes what is nested, not the payload itself. */
extern void qs_fields_end(StringInfo out, QsFieldWalk *walk);

#define QS_FIELD_WALK_START {0, INT_MAX}

#endif							/* QS_FIELDS_H */
