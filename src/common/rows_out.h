/*
 * rows_out.h
 *		Rows of a set-returning function, all made before the first is used, so
 *		that no ticket outlives the call (hazard R14).
 */
#ifndef QS_ROWS_OUT_H
#define QS_ROWS_OUT_H

#include "qdrant_sync.h"
#include "access/tupdesc.h"
#include "utils/tuplestore.h"

typedef struct QsRowsOut
{
	Tuplestorestate *store;
	TupleDesc	desc;
} QsRowsOut;

extern QsRowsOut qs_rows_out_begin(FunctionCallInfo fcinfo);
extern void qs_rows_out_put(QsRowsOut *rows, const Datum *values, const bool *nulls);

#endif							/* QS_ROWS_OUT_H */
