/*
 * example_row.c
 *		From the key of a row that somebody names to the id of its point.
 *
 * Runs in backends, as the caller.  The row is read before its point is named to
 * Qdrant: how near a hidden row is would tell what is in it.  Where ids are made
 * of the key's text, it is the row's own text that counts, not the caller's: 1.5
 * finds the row 1.50, and a citext its row in any case.
 */
#include "qdrant_sync.h"

#include "client/example_row.h"
#include "client/live_rows.h"
#include "common/chunk.h"
#include "common/key_text.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

/* What take_example() makes of the row. */
typedef struct Example
{
	const QsMirrorRow *mirror;
	char	   *id;				/* NULL: no row that the caller can see */
} Example;

/* ---- the row ---- */

static bool
take_example(void *arg, Datum row, const QsHit *hit)
{
	Example    *example = arg;
	const QsKeySpec *key = &example->mirror->key;
	Datum		values[INDEX_MAX_KEYS];
	StringInfoData text;
	char	   *message;
	QsKey		id;

	for (int i = 0; i < key->n; i++)
	{
		bool		is_null;

		values[i] = GetAttributeByNum(DatumGetHeapTupleHeader(row), key->attnums[i], &is_null);
		if (is_null)
			return false;
	}
	initStringInfo(&text);
	qs_append_key_text(&text, values, qs_key_writer(key, CurrentMemoryContext));
	id = qs_key_text_id(text.data, &message);
	if (message == NULL)
		example->id = psprintf("\"%s\"", qs_key_to_text(id, true));
	return false;
}

QS_NORETURN static void
refuse_key(const QsMirrorRow *mirror, const char *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("table \"%s\" has no row with key %s that you can see",
					get_rel_name(mirror->relid), key)));
	pg_unreachable();
}

/* shown: the key as it was given. */
static char *
example_of_texts(const QsMirrorRow *mirror, char *const *texts, const char *shown)
{
	Example		example = {.mirror = mirror};

	qs_live_row_by_texts(mirror, texts, take_example, &example);
	if (example.id == NULL)
		refuse_key(mirror, shown);
	return example.id;
}

/* The columns of the key: a, b, c. */
static char *
key_columns(const QsMirrorRow *mirror)
{
	StringInfoData columns;

	initStringInfo(&columns);
	for (int i = 0; i < mirror->key.n; i++)
		appendStringInfo(&columns, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(get_attname(mirror->relid, mirror->key.attnums[i], false)));
	return columns.data;
}

/* ---- by id ---- */

char *
qs_example_by_id(const QsMirrorRow *mirror, const char *id)
{
	char	   *text = id[0] == '"' ? pnstrdup(id + 1, strlen(id) - 2) : pstrdup(id);

	if (mirror->key.rule == QS_KEY_HASHED)
	{
		if (mirror->key.n == 1)
			return example_of_texts(mirror, &text, id);
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("rows of table \"%s\" cannot be named by one value", get_rel_name(mirror->relid)),
				 errdetail("Its key has %d columns.", mirror->key.n),
				 errhint("Name the row with like_key => json_build_array(%s)::text.", key_columns(mirror))));
	}
	if (!qs_live_row_visible(mirror, id))
		refuse_key(mirror, id);
	return pstrdup(id);
}

/* ---- by like_key ---- */

QS_NORETURN static void
refuse_array(const QsMirrorRow *mirror)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument \"like_key\" is not a JSON array of the %d columns of the key of table \"%s\"",
					mirror->key.n, get_rel_name(mirror->relid)),
			 errhint("json_build_array(%s)::text makes one.", key_columns(mirror))));
	pg_unreachable();
}

/* What the element of an array would be in the key's text. */
static char *
element_text(const QsMirrorRow *mirror, JsonbValue *element)
{
	switch (element->type)
	{
		case jbvString:
			return pnstrdup(element->val.string.val, element->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(element->val.numeric)));
		case jbvBool:
			return element->val.boolean ? "t" : "f";
		default:
			refuse_array(mirror);
	}
}

static void
read_array(const QsMirrorRow *mirror, const char *text, char **texts)
{
	Jsonb	   *jsonb;

	if (text[strspn(text, " \t\r\n")] != '[')
		refuse_array(mirror);
	jsonb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	if (JB_ROOT_COUNT(jsonb) != mirror->key.n)
		refuse_array(mirror);
	for (int i = 0; i < mirror->key.n; i++)
		texts[i] = element_text(mirror, getIthJsonbValueFromContainer(&jsonb->root, i));
}

/* An integer or uuid as its type writes it; ERROR 22P02 where it is none. */
static char *
id_of_text(const QsMirrorRow *mirror, const char *text)
{
	Datum		key;

	if (mirror->key.rule == QS_KEY_UUID)
	{
		key = DirectFunctionCall1(uuid_in, CStringGetDatum(text));
		return psprintf("\"%s\"", DatumGetCString(DirectFunctionCall1(uuid_out, key)));
	}
	key = DirectFunctionCall1(int8in, CStringGetDatum(text));
	if (DatumGetInt64(key) < 0)
		refuse_key(mirror, text);
	return DatumGetCString(DirectFunctionCall1(int8out, key));
}

char *
qs_example_by_key(const QsMirrorRow *mirror, const char *like_key)
{
	char	   *texts[INDEX_MAX_KEYS];

	if (mirror->key.rule != QS_KEY_HASHED)
		return qs_example_by_id(mirror, id_of_text(mirror, like_key));
	if (mirror->key.n == 1)
		texts[0] = pstrdup(like_key);
	else
		read_array(mirror, like_key, texts);
	return example_of_texts(mirror, texts, like_key);
}
