/*
 * look.c
 *		The look at Qdrant before a mirror is made or armed again.
 *
 * Runs in the session that calls qdrant_mirror or qdrant_resume, through the
 * request worker.  It only spares the user a mirror that fails later: the sync
 * worker decides, and looks at everything again before it writes.
 */
#include "qdrant_sync.h"
#include "client/request.h"
#include "mirror/catalog.h"
#include "mirror/look.h"
#include "mirror/shape.h"
#include "net/qdrant_json.h"

#include "executor/spi.h"
#include "utils/builtins.h"

/* Rows that are looked at for one with a vector, to learn its dimension. */
#define SAMPLE_ROWS "1000"

static QS_NORETURN void refuse_collection(const QsDefinition *definition, const char *why,
										  const char *hint);

static void
refuse_collection(const QsDefinition *definition, const char *why, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("table \"%s\" cannot be mirrored into collection \"%s\": %s",
					definition->table, definition->collection, why),
			 hint ? errhint("%s", hint) : 0));
	pg_unreachable();
}

/* Returns NULL, having told the user, where there is nothing to look at. */
static QsAnswer *
ask(const QsServer *server, const QsDefinition *definition, const char *path)
{
	QsRequest	request = {.server = server, .method = "GET", .path = path, .read = true};
	QsAnswer   *answer = qs_send_request(&request, false);

	if (answer->status == 401)
		qs_throw_status(&request, answer);
	if (answer->status == 200 || answer->status == 404)
		return answer;
	ereport(NOTICE,
			(errmsg("collection \"%s\" could not be looked at: %s", definition->collection,
					answer->error ? answer->error :
					psprintf("server \"%s\" answered HTTP status %d", server->name, answer->status)),
			 errdetail("The sync worker checks it, or makes it, when it can.")));
	return NULL;
}

/* Hazard 30: an alias of an alias does not work, nor a collection of that name. */
static void
refuse_alias(const QsDefinition *definition, const QsAnswer *answer)
{
	char	   *target;
	char	   *copy;

	if (answer->status != 200)
		return;
	target = qs_json_alias_target(answer->body, answer->length, definition->collection);
	if (target == NULL)
		return;
	copy = pstrdup(target);
	free(target);
	refuse_collection(definition, psprintf("that is an alias of \"%s\"", copy),
					  psprintf("Mirror into the collection itself: collection => %s.",
							   quote_literal_cstr(copy)));
}

/*
 * Dimension in the table's first rows, 0 where none has a vector.  An expression
 * runs as the table's owner, who will be the one that reads it.
 */
static int
sampled_dimension(const QsDefinition *definition, const QsColumn *column, QsVectorKind kind)
{
	char	   *query = psprintf("SELECT v FROM (SELECT %s AS v FROM %s%s LIMIT " SAMPLE_ROWS ") s "
								 "WHERE v IS NOT NULL LIMIT 1",
								 column->expression, definition->partitioned ? "" : "ONLY ",
								 quote_qualified_identifier(definition->schema, definition->table));
	QsIdentity	saved;
	int			dimension = 0;

	qs_as_role(definition->owner, true, &saved);
	SPI_connect();
	if (SPI_execute(query, true, 1) == SPI_OK_SELECT && SPI_processed == 1)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);

		if (!isnull)
			dimension = qs_vector_dimension(value, qs_vector_type(column->type), kind);
	}
	SPI_finish();
	qs_as_before(&saved);
	return dimension;
}

static void
check_vector(const QsDefinition *definition, int i, const QsCollectionInfo *info)
{
	const QsColumn *column = list_nth(definition->vectors, i);
	const QsVectorSpec *spec = &definition->specs[i];
	QsMismatch	mismatch;
	const QsVectorConfig *config = qs_shape_vector(spec, info, &mismatch);
	int			dimension;

	if (config == NULL)
		refuse_collection(definition, mismatch.what, mismatch.hint);
	if (spec->kind == QS_SPARSE)
		return;
	dimension = spec->size > 0 ? spec->size : sampled_dimension(definition, column, spec->kind);
	if (dimension > 0 && dimension != config->size)
		refuse_collection(definition, psprintf("its vectors have %d dimensions, and those of %s have %d",
											   config->size, column->expression, dimension), NULL);
}

static void
check_indexes(const QsDefinition *definition, const QsAnswer *answer)
{
	ListCell   *lc;

	foreach(lc, definition->index_list)
	{
		QsMismatch	mismatch;
		bool		there;

		if (!qs_shape_index(lfirst(lc), answer->body, answer->length, &there, &mismatch))
			refuse_collection(definition, mismatch.what, mismatch.hint);
	}
}

/* points_count is -1 where Qdrant does not say: then it may have some. */
static void
check_existing(const QsDefinition *definition, const QsAnswer *answer, bool take_over, bool resumed)
{
	QsCollectionInfo info;

	qs_json_collection_info(answer->body, answer->length, &info);
	if (!info.valid)
		return;
	for (int i = 0; i < list_length(definition->vectors); i++)
		check_vector(definition, i, &info);
	check_indexes(definition, answer);
	if (info.points != 0 && !take_over)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 info.points > 0 ?
				 errmsg_plural("collection \"%s\" exists and holds " INT64_FORMAT " point",
							   "collection \"%s\" exists and holds " INT64_FORMAT " points",
							   info.points, definition->collection, info.points) :
				 errmsg("collection \"%s\" exists and may hold points", definition->collection),
				 errdetail("A mirror removes the points that are not rows of its table."),
				 errhint("With take_over => true that is what you want. Otherwise %s.", resumed ?
						 "call qdrant_unmirror, and qdrant_mirror with another name" :
						 "give another name with collection => '...'")));
}

/* By an earlier mirror that was ended with its collection: the new one waits for that. */
static bool
is_being_deleted(const QsDefinition *definition)
{
	ListCell   *lc;

	foreach(lc, qs_mirror_rows())
	{
		const QsMirrorRow *row = lfirst(lc);

		if (row->ours && row->dropped && row->drop_collection &&
			strcmp(row->server, definition->server) == 0 &&
			strcmp(row->collection, definition->collection) == 0)
			return true;
	}
	return false;
}

void
qs_look_at_collection(const QsServer *server, const QsDefinition *definition, bool take_over,
					  bool resumed)
{
	QsAnswer   *answer;

	if (is_being_deleted(definition))
		return;
	answer = ask(server, definition, "/aliases");
	if (answer == NULL)
		return;
	refuse_alias(definition, answer);
	answer = ask(server, definition, qs_collection_path(definition->collection, ""));
	if (answer != NULL && answer->status == 200)
		check_existing(definition, answer, take_over, resumed);
}

/*
 * What the sync worker will move to the new collection must be nothing else: a
 * name that is free, or an alias of the present collection already.
 */
void
qs_look_at_alias(const QsServer *server, const QsDefinition *definition, const char *present)
{
	QsAnswer   *answer = ask(server, definition, "/aliases");
	char	   *target;

	if (answer == NULL || answer->status != 200)
		return;
	target = qs_json_alias_target(answer->body, answer->length, definition->alias);
	if (target != NULL)
	{
		char	   *copy = pstrdup(target);

		free(target);
		if (strcmp(copy, present) != 0 && strcmp(copy, definition->collection) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("alias \"%s\" means collection \"%s\", which is not this table's",
							definition->alias, copy),
					 errhint("Choose another alias, or delete that one.")));
		return;
	}
	answer = ask(server, definition, qs_collection_path(definition->alias, ""));
	if (answer != NULL && answer->status == 200)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("\"%s\" cannot be the alias: there is a collection of that name", definition->alias),
				 errhint("Choose a name that nothing has.")));
}
