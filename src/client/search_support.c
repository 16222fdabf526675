/*
 * search_support.c
 *		Makes plans that call qdrant_search depend on the searched table, and tells
 *		the planner how many rows a search gives.
 *
 * Runs in backends, in the planner; asks Qdrant nothing.  Nothing else ties a prepared statement to
 * the table whose row type its NULL::products is of: after DROP and CREATE of the
 * table, the statement would fail with "cache lookup failed for type".
 *
 * The argument "source" is wrapped in a function that returns it and has, as a
 * second argument, the table as a constant of type regclass.  PostgreSQL records
 * such constants, and plans anew when the table changes.
 */
#include "qdrant_sync.h"

#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/supportnodes.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "parser/parse_type.h"
#include "funcapi.h"
#include "utils/plancache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(qs_search_support);
PG_FUNCTION_INFO_V1(qs_rows_support);
PG_FUNCTION_INFO_V1(qs_of_table);

/* qdrant_internal.of_table(anyelement, regclass) returns its first argument. */
Datum
qs_of_table(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(PG_GETARG_DATUM(0));
}

static Oid
of_table_function(void)
{
	Oid			types[2] = {ANYELEMENTOID, REGCLASSOID};
	List	   *name = list_make2(makeString(pstrdup(QS_SCHEMA)), makeString(pstrdup("of_table")));

	return LookupFuncName(name, 2, types, true);
}

/*
 * Plans of statements that were parsed before the table was dropped are all
 * forgotten, so that the next try parses again and finds the new table.
 */
static void
check_type(Oid type)
{
	if (SearchSysCacheExists1(TYPEOID, ObjectIdGetDatum(type)))
		return;
	ResetPlanCache();
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("the table that this statement searches was dropped after the statement was prepared"),
			 errhint("If it was made anew, run the statement again, or prepare it again.")));
}

static FuncExpr *
wrap_source(FuncExpr *call)
{
	Node	   *source = linitial(call->args);
	Oid			type = exprType(source);
	Oid			of_table = of_table_function();
	FuncExpr   *copy;
	Const	   *table;
	Oid			relid;

	if (!OidIsValid(of_table) || (IsA(source, FuncExpr) && ((FuncExpr *) source)->funcid == of_table))
		return NULL;
	check_type(type);
	relid = type == RECORDOID ? InvalidOid : typeOrDomainTypeRelid(type);
	if (!OidIsValid(relid))
		return NULL;
	table = makeConst(REGCLASSOID, -1, InvalidOid, sizeof(Oid), ObjectIdGetDatum(relid), false, true);
	copy = copyObject(call);
	linitial(copy->args) = makeFuncExpr(of_table, type, list_make2(linitial(copy->args), table),
										InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
	return copy;
}

/* ---- how many rows ---- */

/* Position of the argument that says how many rows are wanted; -1: none. */
static int
count_position(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			n;
	int			found = -1;

	if (!HeapTupleIsValid(tuple))
		return -1;
	n = get_func_arg_info(tuple, &types, &names, &modes);
	for (int i = 0; names != NULL && i < n && found < 0; i++)
		if (strcmp(names[i], "k") == 0 || strcmp(names[i], "limit") == 0)
			found = i;
	ReleaseSysCache(tuple);
	return found;
}

/* As many as are asked for, where that is known; else the function's ROWS. */
static bool
estimate_rows(SupportRequestRows *request)
{
	FuncExpr   *call = (FuncExpr *) request->node;
	int			position;
	Node	   *count;

	if (call == NULL || !IsA(call, FuncExpr))
		return false;
	position = count_position(call->funcid);
	if (position < 0 || position >= list_length(call->args))
		return false;
	count = estimate_expression_value(request->root, list_nth(call->args, position));
	if (!IsA(count, Const) || ((Const *) count)->constisnull)
		return false;
	request->rows = Max(1, DatumGetInt64(((Const *) count)->constvalue));
	return true;
}

/* For all functions that return points: argument "k" or "limit", a bigint. */
Datum
qs_rows_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (IsA(request, SupportRequestRows) && estimate_rows((SupportRequestRows *) request))
		PG_RETURN_POINTER(request);
	PG_RETURN_POINTER(NULL);
}

Datum
qs_search_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (IsA(request, SupportRequestSimplify))
		PG_RETURN_POINTER(wrap_source(((SupportRequestSimplify *) request)->fcall));
	return qs_rows_support(fcinfo);
}
