/*
 * field_names.c
 *		Where in its payload a field is: the paths of names.
 *
 * Runs in sessions and in the sync worker.  A name given with AS is a path: "a.b" is
 * the field b of the object a, and "\"a.b\"" one field.  A column's own name is one key, dots and all, so that
 * payload => '*' sends every table under the names that it has.
 */
#include "qdrant_sync.h"
#include "mirror/field_names.h"

#include "common/encode.h"

/* What begins so at the payload's top is ours. */
#define RESERVED_PREFIX "_qs_"

/* ---- one name ---- */

/* Where a name's first part ends.  One in quotes may have dots, as in Qdrant's paths. */
static const char *
part_end(const char *name)
{
	const char *quote = *name == '"' ? strchr(name + 1, '"') : NULL;

	if (quote != NULL && (quote[1] == '.' || quote[1] == '\0'))
		return quote + 1;
	return name + strcspn(name, ".");
}

static char *
unquoted(const char *part, int length)
{
	bool		quoted = length > 1 && part[0] == '"' && part[length - 1] == '"';

	return quoted ? pnstrdup(part + 1, length - 2) : pnstrdup(part, length);
}

/* Of "a.b.c": a, b and c, any of which may be empty. */
static List *
split_name(const char *name)
{
	List	   *path = NIL;
	const char *end;

	for (;; name = end + 1)
	{
		end = part_end(name);
		path = lappend(path, unquoted(name, end - name));
		if (*end == '\0')
			return path;
	}
}

static void
check_path(const QsColumn *column)
{
	ListCell   *lc;

	if (strncmp(linitial(column->path), RESERVED_PREFIX, strlen(RESERVED_PREFIX)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("the name \"%s\" is reserved", column->name),
				 errdetail("Names that begin with \"%s\" are used by %s itself.",
						   RESERVED_PREFIX, QS_EXTENSION),
				 errhint("Give the column another name with AS.")));
	foreach(lc, column->path)
	{
		if (*(char *) lfirst(lc) == '\0')
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_NAME),
					 errmsg("the name \"%s\" has an empty part", column->name),
					 errdetail("A dot in a name given with AS separates the names of nested objects.")));
	}
}

/* Else each row would be a dead letter for its column's name. */
static void
check_encoding(const QsColumn *column)
{
	const char *utf8;
	int			length;
	char	   *message = qs_to_utf8(column->name, strlen(column->name), &utf8, &length);

	if (message != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("the name \"%s\" cannot be sent: %s", qs_ascii_only(column->name), message),
				 errhint("Leave the column out, or give it another name with AS.")));
}

/* ---- names side by side ---- */

static int
shared_parts(const QsColumn *a, const QsColumn *b)
{
	int			n = 0;

	while (n < list_length(a->path) && n < list_length(b->path) &&
		   strcmp(list_nth(a->path, n), list_nth(b->path, n)) == 0)
		n++;
	return n;
}

/* One is the object that the other is in; that they are the same was refused before. */
static void
refuse_conflict(const QsColumn *a, const QsColumn *b)
{
	const QsColumn *outer = list_length(a->path) < list_length(b->path) ? a : b;
	const QsColumn *inner = outer == a ? b : a;

	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_COLUMN),
			 errmsg("the names \"%s\" and \"%s\" in payload exclude each other", outer->name, inner->name),
			 errdetail("\"%s\" would be a value and an object.", outer->name)));
}

/*
 * Behind the last field with which it shares the most.  Those with the same first
 * parts are together before and after, by induction.
 */
static List *
insert_field(List *fields, QsColumn *column)
{
	int			place = list_length(fields);
	int			most = 1;

	for (int i = 0; i < list_length(fields); i++)
	{
		QsColumn   *other = list_nth(fields, i);
		int			shared = shared_parts(other, column);

		if (shared == list_length(other->path) || shared == list_length(column->path))
			refuse_conflict(other, column);
		if (shared >= most)
		{
			most = shared;
			place = i + 1;
		}
	}
	return list_insert_nth(fields, place, column);
}

List *
qs_payload_fields(List *columns)
{
	List	   *fields = NIL;
	ListCell   *lc;

	foreach(lc, columns)
	{
		QsColumn   *column = lfirst(lc);

		column->path = column->renamed ? split_name(column->name) : list_make1(column->name);
		check_path(column);
		check_encoding(column);
		fields = insert_field(fields, column);
	}
	return fields;
}
