/*
 * select_list.c
 *		From the SELECT list that a user typed to columns that the worker can read
 *		later, under another search_path and role.
 *
 * Runs in sessions (qdrant_mirror, with the caller's search_path) and in the
 * sync worker (with search_path pinned, on the text that came out here).
 *
 * Analysis runs users' code: a literal becomes a value of its type at once, and in
 * an array or a row of a domain that evaluates the domain's CHECK, which its owner
 * may have altered since.  So it is done as the table's owner, in a
 * security-restricted operation, whoever asks.
 *
 * Refused is everything that is no function of one row: the worker reads a row at
 * any time and any number of times, and must get the same point.
 */
#include "qdrant_sync.h"
#include "mirror/catalog.h"
#include "mirror/select_list.h"

#include "access/sysattr.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "catalog/pg_type.h"

/* What messages need: the text as it was parsed, and the argument's name. */
typedef struct ListSource
{
	const char *what;
	char	   *text;			/* "SELECT " and the list */
	Relation	rel;
	bool		sole_unnamed;
	bool		plan;
	List	   *deparse_context;
} ListSource;

/* Errors point into the list, not into the statement that called us. */
static void
point_into_list(void *arg)
{
	ListSource *source = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(source->text);
	}
	errcontext("%s of the mirror of table \"%s\"", source->what,
			   RelationGetRelationName(source->rel));
}

static bool
only_target_list(const SelectStmt *select)
{
	return select->op == SETOP_NONE && select->distinctClause == NIL &&
		select->intoClause == NULL && select->fromClause == NIL &&
		select->whereClause == NULL && select->groupClause == NIL &&
		select->havingClause == NULL && select->windowClause == NIL &&
		select->valuesLists == NIL && select->sortClause == NIL &&
		select->limitOffset == NULL && select->limitCount == NULL &&
		select->lockingClause == NIL && select->withClause == NULL;
}

/* The mistake of who thinks of text[]. */
static void
refuse_array_literal(const ListSource *source, const char *list)
{
	if (list[strspn(list, " \t\r\n")] == '{')
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("%s is a SELECT list, not an array", source->what),
				 errhint("Write the columns as after SELECT: 'title, round(price, 2) AS price'.")));
}

static List *
parse_targets(const ListSource *source)
{
	List	   *statements = raw_parser(source->text, RAW_PARSE_DEFAULT);
	Node	   *statement;

	statement = list_length(statements) == 1 ? linitial_node(RawStmt, statements)->stmt : NULL;
	if (statement == NULL || !IsA(statement, SelectStmt) ||
		!only_target_list((SelectStmt *) statement))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("%s must be a SELECT list and nothing else", source->what),
				 errdetail("Given is: %s", source->text + strlen("SELECT "))));
	return ((SelectStmt *) statement)->targetList;
}

static bool
is_star(Node *node)
{
	return IsA(node, ColumnRef) && IsA(llast(((ColumnRef *) node)->fields), A_Star);
}

static QS_NORETURN void refuse(ParseState *pstate, Node *item, int code, const char *why);

static void
refuse(ParseState *pstate, Node *item, int code, const char *why)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("%s cannot be part of a mirror", why),
			 errhint("What is sent must depend on the columns of its own row alone, and always in the same way."),
			 parser_errposition(pstate, exprLocation(item))));
	pg_unreachable();
}

/* Columns that are not the table's own: system columns, and the row as a whole. */
static void
refuse_unfit_columns(ParseState *pstate, Node *item, Node *expr)
{
	Bitmapset  *attnums = NULL;
	int			member = -1;

	pull_varattnos(expr, 1, &attnums);
	while ((member = bms_next_member(attnums, member)) >= 0)
	{
		AttrNumber	attnum = member + FirstLowInvalidHeapAttributeNumber;

		if (attnum < 0)
			refuse(pstate, item, ERRCODE_FEATURE_NOT_SUPPORTED, "a system column");
		if (attnum == 0)
			refuse(pstate, item, ERRCODE_FEATURE_NOT_SUPPORTED, "the whole row as one value");
	}
}

/*
 * Planning puts in what analysis leaves out (defaults of arguments, bodies of
 * SQL functions), and runs immutable functions.
 */
static bool
mutable_when_planned(Node *expr)
{
	return contain_mutable_functions((Node *) expression_planner(copyObject((Expr *) expr)));
}

static void
refuse_unfit(ParseState *pstate, const ListSource *source, Node *item, Node *expr)
{
	if (pstate->p_hasAggs)
		refuse(pstate, item, ERRCODE_FEATURE_NOT_SUPPORTED, "an aggregate function");
	if (pstate->p_hasWindowFuncs)
		refuse(pstate, item, ERRCODE_FEATURE_NOT_SUPPORTED, "a window function");
	if (pstate->p_hasSubLinks)
		refuse(pstate, item, ERRCODE_FEATURE_NOT_SUPPORTED, "a subquery");
	if (pstate->p_hasTargetSRFs)
		refuse(pstate, item, ERRCODE_FEATURE_NOT_SUPPORTED, "a set-returning function");
	refuse_unfit_columns(pstate, item, expr);
	if (contain_mutable_functions(expr) ||
		(source->plan && mutable_when_planned(expr)))
		refuse(pstate, item, ERRCODE_INVALID_OBJECT_DEFINITION,
			   "an expression that is not immutable");
}

static void
set_type(QsColumn *column, Oid type, int32 typmod)
{
	column->typmod = typmod;
	column->type = getBaseTypeAndTypmod(type, &column->typmod);
}

QsColumn *
qs_plain_column(Relation rel, AttrNumber attnum)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	QsColumn   *column = palloc0(sizeof(QsColumn));

	column->name = pstrdup(NameStr(attribute->attname));
	column->expression = pstrdup(quote_identifier(column->name));
	column->attnum = attnum;
	column->used = bms_make_singleton(attnum);
	set_type(column, attribute->atttypid, attribute->atttypmod);
	return column;
}

static Node *
transform_item(ParseState *pstate, const ListSource *source, ResTarget *target)
{
	Node	   *expr;

	if (is_star(target->val))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("* cannot be part of a list here"),
				 errhint("Name the columns, or give payload => '*' alone."),
				 parser_errposition(pstate, exprLocation(target->val))));
	expr = transformExpr(pstate, target->val, EXPR_KIND_SELECT_TARGET);
	if (exprType(expr) == UNKNOWNOID)
		expr = coerce_type(pstate, expr, UNKNOWNOID, TEXTOID, -1, COERCION_IMPLICIT,
						   COERCE_IMPLICIT_CAST, -1);
	assign_expr_collations(pstate, expr);
	refuse_unfit(pstate, source, target->val, expr);
	return expr;
}

/* Every name in the text says its schema, whatever the caller's search_path. */
static char *
deparse_pinned(const ListSource *source, Node *expr)
{
	int			level = qs_pin_search_path();
	char	   *text = deparse_expression(expr, source->deparse_context, false, false);

	AtEOXact_GUC(false, level);
	return text;
}

/* Only the table's own columns are in it (refuse_unfit_columns). */
static Bitmapset *
columns_of(Node *expr)
{
	Bitmapset  *attnums = NULL;
	Bitmapset  *columns = NULL;
	int			member = -1;

	pull_varattnos(expr, 1, &attnums);
	while ((member = bms_next_member(attnums, member)) >= 0)
		columns = bms_add_member(columns, member + FirstLowInvalidHeapAttributeNumber);
	return columns;
}

static QsColumn *
make_expression(const ListSource *source, Node *expr)
{
	QsColumn   *column = palloc0(sizeof(QsColumn));

	column->expression = deparse_pinned(source, expr);
	column->used = columns_of(expr);
	column->expr = expr;
	set_type(column, exprType(expr), exprTypmod(expr));
	return column;
}

static QsColumn *
resolve_item(ParseState *pstate, const ListSource *source, ResTarget *target, bool sole)
{
	Node	   *expr = transform_item(pstate, source, target);
	QsColumn   *column;

	if (IsA(expr, Var))
		column = qs_plain_column(source->rel, ((Var *) expr)->varattno);
	else
		column = make_expression(source, expr);
	column->renamed = target->name != NULL;
	if (column->renamed)
		column->name = pstrdup(target->name);
	else if (sole && source->sole_unnamed)
		column->name = NULL;
	else if (column->name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("an expression in %s has no name", source->what),
				 errhint("Write: %s AS name.", column->expression),
				 parser_errposition(pstate, exprLocation(target->val))));
	return column;
}

static void
refuse_duplicate(ParseState *pstate, const ListSource *source, List *columns,
				 const QsColumn *column, const ResTarget *target)
{
	ListCell   *lc;

	foreach(lc, columns)
	{
		if (strcmp(((QsColumn *) lfirst(lc))->name, column->name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 errmsg("the name \"%s\" is twice in %s", column->name, source->what),
					 parser_errposition(pstate, exprLocation(target->val))));
	}
}

static ParseState *
start_analysis(const ListSource *source)
{
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *item;

	pstate->p_sourcetext = source->text;
	item = addRangeTableEntryForRelation(pstate, source->rel, AccessShareLock, NULL, false, true);
	addNSItemToQuery(pstate, item, true, true, true);
	return pstate;
}

static void *
analyse_list(ListSource *source)
{
	List	   *targets = parse_targets(source);
	ParseState *pstate = start_analysis(source);
	List	   *columns = NIL;
	ListCell   *lc;

	foreach(lc, targets)
	{
		ResTarget  *target = lfirst_node(ResTarget, lc);
		QsColumn   *column = resolve_item(pstate, source, target, list_length(targets) == 1);

		refuse_duplicate(pstate, source, columns, column, target);
		columns = lappend(columns, column);
	}
	free_parsestate(pstate);
	return columns;
}

/* Runs resolve with errors that point into the text. */
static void *
with_source(Relation rel, const char *what, const char *text, bool sole_unnamed, bool plan,
			void *(*resolve) (ListSource *source))
{
	ListSource	source = {what, psprintf("SELECT %s", text), rel, sole_unnamed, plan, NIL};
	ErrorContextCallback callback = {error_context_stack, point_into_list, &source};
	void	   *result;

	source.deparse_context = deparse_context_for(RelationGetRelationName(rel),
												 RelationGetRelid(rel));
	error_context_stack = &callback;
	refuse_array_literal(&source, text);
	result = resolve(&source);
	error_context_stack = callback.previous;
	return result;
}

static void *
as_owner(ListSource *source, void *(*analyse) (ListSource *source))
{
	QsIdentity	saved;
	void	   *result;

	qs_as_role_with_path(source->rel->rd_rel->relowner, &saved);
	result = analyse(source);
	qs_as_before(&saved);
	return result;
}

static void *
resolve_list(ListSource *source)
{
	return as_owner(source, analyse_list);
}

List *
qs_select_list(Relation rel, const char *what, const char *list, bool sole_unnamed, bool plan)
{
	return with_source(rel, what, list, sole_unnamed, plan, resolve_list);
}

static void *
resolve_items(ListSource *source)
{
	return parse_targets(source);
}

List *
qs_select_list_items(Relation rel, const char *what, const char *list)
{
	return with_source(rel, what, list, false, false, resolve_items);
}

static void *
analyse_condition(ListSource *source)
{
	List	   *targets = parse_targets(source);
	ParseState *pstate = start_analysis(source);
	ResTarget  *target = list_length(targets) == 1 ? linitial_node(ResTarget, targets) : NULL;
	QsColumn   *column;
	Node	   *expr;

	if (target == NULL || target->name != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("%s must be one condition", source->what)));
	expr = transform_item(pstate, source, target);
	expr = coerce_to_boolean(pstate, expr, source->what);
	column = make_expression(source, expr);
	free_parsestate(pstate);
	return column;
}

static void *
resolve_condition(ListSource *source)
{
	return as_owner(source, analyse_condition);
}

QsColumn *
qs_condition(Relation rel, const char *what, const char *condition, bool plan)
{
	return with_source(rel, what, condition, false, plan, resolve_condition);
}

void
qs_column_follow(Relation rel, QsColumn *column)
{
	ListSource	source = {.rel = rel};

	if (column->expr == NULL)
	{
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), column->attnum - 1);

		column->expression = pstrdup(quote_identifier(NameStr(attribute->attname)));
		return;
	}
	source.deparse_context = deparse_context_for(RelationGetRelationName(rel), RelationGetRelid(rel));
	column->expression = deparse_pinned(&source, column->expr);
}

/* The field of a column that has another name since then: one key, dots and all. */
static const char *
own_name(const QsColumn *column)
{
	return strchr(column->name, '.') != NULL ? psprintf("\"%s\"", column->name) : column->name;
}

char *
qs_select_list_text(List *columns, bool always_named)
{
	StringInfoData text;
	ListCell   *lc;

	initStringInfo(&text);
	foreach(lc, columns)
	{
		QsColumn   *column = lfirst(lc);

		appendStringInfo(&text, "%s%s", text.len > 0 ? ", " : "", column->expression);
		if (column->name == NULL)
			continue;
		if (always_named || column->renamed)
			appendStringInfo(&text, " AS %s", quote_identifier(column->name));
		else if (strcmp(column->expression, quote_identifier(column->name)) != 0)
			appendStringInfo(&text, " AS %s", quote_identifier(own_name(column)));
	}
	return text.data;
}
