/*
 * arguments.h
 *		A mirror's definition as text: the argument of its trigger.
 */
#ifndef QS_ARGUMENTS_H
#define QS_ARGUMENTS_H

#include "mirror/definition.h"
#include "utils/reltrigger.h"

/* Texts are NULL where nothing was said. */
typedef struct QsMirrorArguments
{
	const char *server;
	const char *collection;		/* NULL when asked for: the table's name */
	const char *key;			/* NULL when asked for: the primary key */
	const char *vector;			/* NULL when asked for: the only vector column */
	const char *payload;		/* "*", "" or a SELECT list */
	const char *row_filter;
	const char *distance;
	const char *indexes;
	const char *vectors_config; /* JSON texts, as the two below */
	const char *sparse_vectors_config;
	const char *collection_config;
	const char *alias;
	const char *rebuild;		/* another object like the whole: the rebuild that is going on */
	bool		omit_nulls;
} QsMirrorArguments;

/* Argument of the row trigger; ERROR where it is not ours. */
extern void qs_arguments_read(const Trigger *trigger, QsMirrorArguments *arguments);

/* The same of the rebuild that is going on; false: there is none. */
extern bool qs_arguments_read_rebuild(const Trigger *trigger, QsMirrorArguments *arguments);

/* The definition as the trigger's argument: a JSON object. */
extern char *qs_arguments_text(const QsDefinition *definition);

/*
 * Resolves what a user asked for, with defaults filled in, and what he may not
 * ask for refused.  Expressions are planned as the table's owner.
 */
extern QsDefinition *qs_definition_make(Relation rel, const QsMirrorArguments *asked);

/* The same of what a trigger says, without planning.  search_path is pinned. */
extern QsDefinition *qs_definition_resolve(Relation rel, const QsMirrorArguments *arguments);

/* ERROR 22023 for a name that no collection of ours can have (hazard 31). */
extern void qs_collection_check_name(const char *collection);

#endif							/* QS_ARGUMENTS_H */
