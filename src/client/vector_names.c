/*
 * vector_names.c
 *		Lists the vectors of a mirror where Qdrant says that a request named none,
 *		or one that is not there.
 *
 * Runs in backends, while an error is made: a table that is locked or gone gives no
 * hint, and is not waited for.
 */
#include "qdrant_sync.h"

#include "access/relation.h"
#include "client/request.h"
#include "client/vector_names.h"
#include "lib/stringinfo.h"
#include "mirror/arguments.h"
#include "mirror/select_list.h"
#include "mirror/triggers.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "utils/rel.h"

/* Qdrant has several texts for it, of which none has a code. */
static bool
is_about_a_name(const char *error)
{
	return strstr(error, "ector name") != NULL || strstr(error, "ector with name") != NULL ||
		strstr(error, "amed vector") != NULL;
}

static bool
is_of_collection(const char *path, const char *collection)
{
	char	   *begin = qs_collection_path(collection, "/");

	return strncmp(path, begin, strlen(begin)) == 0;
}

/* Every name in the list is written with AS; an item without one is alone. */
static char *
hint_of_list(Relation rel, const char *vector)
{
	StringInfoData names;
	ListCell   *lc;

	initStringInfo(&names);
	foreach(lc, qs_select_list_items(rel, "vector", vector))
	{
		const char *name = lfirst_node(ResTarget, lc)->name;

		if (name == NULL)
			return psprintf("The mirror of table \"%s\" has one vector, without a name: leave out vector_name and \"using\".",
							RelationGetRelationName(rel));
		appendStringInfo(&names, "%s\"%s\"", names.len > 0 ? ", " : "", name);
	}
	return psprintf("The mirror of table \"%s\" has the vectors %s: name one by vector_name, or \"using\" where the function has that.",
					RelationGetRelationName(rel), names.data);
}

static char *
hint_of_table(Relation rel, const char *path)
{
	QsMirrorTriggers triggers;
	QsMirrorArguments arguments;
	QsMirrorArguments rebuild;

	if (!qs_mirror_triggers(rel, &triggers))
		return NULL;
	qs_arguments_read(triggers.row, &arguments);
	if (qs_arguments_read_rebuild(triggers.row, &rebuild) && is_of_collection(path, rebuild.collection))
		arguments = rebuild;
	return hint_of_list(rel, arguments.vector);
}

char *
qs_vector_names_hint(Oid table, const char *path, const char *error)
{
	Relation	rel;
	char	   *hint;

	if (!OidIsValid(table) || !is_about_a_name(error) ||
		!ConditionalLockRelationOid(table, AccessShareLock))
		return NULL;
	rel = try_relation_open(table, NoLock);
	if (rel == NULL)
	{
		UnlockRelationOid(table, AccessShareLock);
		return NULL;
	}
	hint = hint_of_table(rel, path);
	relation_close(rel, AccessShareLock);
	return hint;
}
