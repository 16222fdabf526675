/*
 * search_rights.c
 *		Keeps searches from telling of rows that row security hides.
 *
 * Runs in backends.  Hidden rows are never returned; here it is refused that they
 * change what is: their places in a prefetch or among the candidates of mmr are seen
 * in the others' ranks, their words in an idf whose corpus the caller chooses, and
 * as examples they are seen in everybody's score.
 */
#include "qdrant_sync.h"

#include "capture/point_id.h"
#include "client/example_row.h"
#include "client/query_object.h"
#include "client/search_rights.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

QS_NORETURN static void
refuse(const QsMirrorRow *mirror, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("row security of table \"%s\" applies to you, and %s may tell of rows that it hides",
					get_rel_name(mirror->relid), what),
			 errhint("Search by vectors or by the key of a row.")));
	pg_unreachable();
}

/* Where ids are made of keys, an id does not say which row is meant. */
static void
check_example(void *arg, const JsonbValue *id)
{
	const QsMirrorRow *mirror = arg;
	char	   *text;

	if (mirror->key.rule == QS_KEY_HASHED || !qs_is_point_id(id))
		refuse(mirror, "the id of a point");
	if (id->type == jbvString)
		text = psprintf("\"%s\"", pnstrdup(id->val.string.val, id->val.string.len));
	else
		text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(id->val.numeric)));
	(void) qs_example_by_id(mirror, text);
}

static void
pass_example(void *arg, const JsonbValue *id)
{
}

void
qs_check_tells_nothing(const QsMirrorRow *mirror, Jsonb *object, Jsonb *params, bool prefetch,
					   bool elsewhere)
{
	JsonbValue	idf;

	if (prefetch)
		refuse(mirror, "a prefetch");
	if (params != NULL && JB_ROOT_IS_OBJECT(params) &&
		getKeyJsonValueFromContainer(&params->root, "idf", 3, &idf) != NULL)
		refuse(mirror, "idf");
	if (object != NULL &&
		!qs_query_object_ranks_alone(object, elsewhere ? pass_example : check_example,
									 unconstify(QsMirrorRow *, mirror)))
		refuse(mirror, "this query");
}
