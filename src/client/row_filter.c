/*
 * row_filter.c
 *		Whether a row that a search has read is one that its mirror takes: Qdrant
 *		may still have the point of a row that has left the filter since.
 *
 * Runs in backends.  The condition is evaluated as the mirror evaluates it: as the
 * table's owner, in a security-restricted operation and with search_path pinned,
 * whoever searches.  It sees nothing but the row.  Refused is, by select_list.c,
 * what could not be a mirror's filter.
 */
#include "qdrant_sync.h"

#include "access/htup_details.h"
#include "client/row_filter.h"
#include "executor/executor.h"
#include "mirror/catalog.h"
#include "mirror/select_list.h"

struct QsRowFilter
{
	Oid			owner;
	EState	   *estate;
	ExprState  *condition;
	TupleTableSlot *slot;
};

QsRowFilter *
qs_row_filter_open(Relation rel, const char *condition)
{
	QsRowFilter *filter = palloc(sizeof(QsRowFilter));
	QsIdentity	saved;
	QsColumn   *column;

	filter->owner = rel->rd_rel->relowner;
	filter->slot = MakeSingleTupleTableSlot(CreateTupleDescCopyConstr(RelationGetDescr(rel)),
											&TTSOpsHeapTuple);
	filter->estate = CreateExecutorState();
	qs_as_role(filter->owner, true, &saved);
	column = qs_condition(rel, "row_filter", condition, false);
	filter->condition = ExecPrepareQual(list_make1(column->expr), filter->estate);
	qs_as_before(&saved);
	return filter;
}

bool
qs_row_filter_takes(QsRowFilter *filter, Datum row)
{
	ExprContext *econtext = GetPerTupleExprContext(filter->estate);
	HeapTupleHeader header = DatumGetHeapTupleHeader(row);
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(header), .t_data = header};
	QsIdentity	saved;
	bool		takes;

	ItemPointerSetInvalid(&tuple.t_self);
	ExecStoreHeapTuple(&tuple, filter->slot, false);
	econtext->ecxt_scantuple = filter->slot;
	qs_as_role(filter->owner, true, &saved);
	takes = ExecQual(filter->condition, econtext);
	qs_as_before(&saved);
	ExecClearTuple(filter->slot);
	ResetExprContext(econtext);
	return takes;
}

void
qs_row_filter_close(QsRowFilter *filter)
{
	ExecDropSingleTupleTableSlot(filter->slot);
	FreeExecutorState(filter->estate);
	pfree(filter);
}
