/*
 * select_list.h
 *		SELECT lists over one table's columns, as a mirror's definition holds them.
 */
#ifndef QS_SELECT_LIST_H
#define QS_SELECT_LIST_H

#include "mirror/definition.h"

/*
 * Parses the list against the relation and returns QsColumns.  what names the
 * argument in messages.  sole_unnamed: a list of one item may leave out its name
 * (name is then NULL), and a name given with AS is kept as given.
 *
 * plan: expressions are also planned, which runs immutable functions of constants.
 * Whatever it runs, it runs as the table's owner, in a security-restricted operation.
 */
extern List *qs_select_list(Relation rel, const char *what, const char *list,
							bool sole_unnamed, bool plan);

/*
 * A condition over the row's columns, in the same way; what names the argument.
 * ERROR 42804 where it is not boolean.
 */
extern QsColumn *qs_condition(Relation rel, const char *what, const char *condition, bool plan);

/* The items of the list as they were parsed: ResTargets.  ERROR where it is none. */
extern List *qs_select_list_items(Relation rel, const char *what, const char *list);

/* Writes the column's expression anew, with the names that its parts have now. */
extern void qs_column_follow(Relation rel, QsColumn *column);

/* The list in a form that means the same under any search_path; palloc'd. */
extern char *qs_select_list_text(List *columns, bool always_named);

/* A plain column of the relation. */
extern QsColumn *qs_plain_column(Relation rel, AttrNumber attnum);

#endif							/* QS_SELECT_LIST_H */
