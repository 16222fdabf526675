/*
 * fields.c
 *		Fields of a payload in its JSON object and the objects nested in it.
 *
 * Sync worker.  Fields of one nested object follow each other (mirror/field_names.c
 * sees to that), so each object is opened once.  Knows keys only, no values.
 */
#include "qdrant_sync.h"
#include "sync/fields.h"

#include "common/encode.h"

void
qs_append_key(StringInfo out, const char *name)
{
	char	   *message = qs_append_json_string(out, name, strlen(name));

	if (message != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("the name \"%s\" cannot be sent: %s", qs_ascii_only(name), message)));
	appendStringInfoChar(out, ':');
}

static int
count_shared(List *path, List *before)
{
	int			n = 0;

	while (n < list_length(path) && n < list_length(before) &&
		   strcmp(list_nth(path, n), list_nth(before, n)) == 0)
		n++;
	return n;
}

QsFieldKeys
qs_field_keys(List *path, List *before)
{
	QsFieldKeys keys = {.depth = list_length(path), .shared = count_shared(path, before)};
	StringInfoData text;

	keys.starts = palloc(keys.depth * sizeof(int));
	initStringInfo(&text);
	for (int i = 0; i < keys.depth; i++)
	{
		if (i > 0)
			appendStringInfoChar(&text, '{');
		keys.starts[i] = text.len;
		qs_append_key(&text, list_nth(path, i));
	}
	keys.text = text.data;
	keys.length = text.len;
	return keys;
}

static void
close_objects(StringInfo out, QsFieldWalk *walk, int keep)
{
	for (; walk->open > keep; walk->open--)
		appendStringInfoCharMacro(out, '}');
}

/* No value ends with an opening brace: behind one, the field is its object's first. */
void
qs_field_begin(StringInfo out, QsFieldWalk *walk, const QsFieldKeys *keys)
{
	int			shared = Min(walk->shared, keys->shared);
	int			start = keys->starts[shared];

	close_objects(out, walk, shared);
	if (out->data[out->len - 1] != '{')
		appendStringInfoCharMacro(out, ',');
	appendBinaryStringInfo(out, keys->text + start, keys->length - start);
	walk->open = keys->depth - 1;
	walk->shared = INT_MAX;
}

void
qs_field_omit(QsFieldWalk *walk, const QsFieldKeys *keys)
{
	walk->shared = Min(walk->shared, keys->shared);
}

void
qs_fields_end(StringInfo out, QsFieldWalk *walk)
{
	close_objects(out, walk, 0);
}
