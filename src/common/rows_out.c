/*
 * rows_out.c
 *		Materialises the rows of a set-returning function.
 *
 * Runs in backends.  The version of core (InitMaterializedSRF) has another name
 * or is missing in some versions.
 */
#include "qdrant_sync.h"

#include "common/rows_out.h"
#include "funcapi.h"

/* A function that returns a table of one column returns a set of its type. */
static TupleDesc
row_type(FunctionCallInfo fcinfo)
{
	Oid			type;
	TupleDesc	desc;

	switch (get_call_result_type(fcinfo, &type, &desc))
	{
		case TYPEFUNC_COMPOSITE:
			break;
		case TYPEFUNC_SCALAR:
			desc = CreateTemplateTupleDesc(1);
			TupleDescInitEntry(desc, 1, "value", type, -1, 0);
			break;
		default:
			elog(ERROR, "return type must be a row type");
	}
	return BlessTupleDesc(desc);
}

QsRowsOut
qs_rows_out_begin(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *info = (ReturnSetInfo *) fcinfo->resultinfo;
	QsRowsOut	rows;
	MemoryContext old;

	if (info == NULL || !IsA(info, ReturnSetInfo) || !(info->allowedModes & SFRM_Materialize))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));

	old = MemoryContextSwitchTo(info->econtext->ecxt_per_query_memory);
	rows.desc = row_type(fcinfo);
	rows.store = tuplestore_begin_heap((info->allowedModes & SFRM_Materialize_Random) != 0,
									   false, work_mem);
	MemoryContextSwitchTo(old);

	info->returnMode = SFRM_Materialize;
	info->setResult = rows.store;
	info->setDesc = rows.desc;
	return rows;
}

void
qs_rows_out_put(QsRowsOut *rows, const Datum *values, const bool *nulls)
{
	tuplestore_putvalues(rows->store, rows->desc, unconstify(Datum *, values),
						 unconstify(bool *, nulls));
}
