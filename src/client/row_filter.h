/*
 * row_filter.h
 *		A mirror's row filter, for rows that a search has read.
 */
#ifndef QS_ROW_FILTER_H
#define QS_ROW_FILTER_H

#include "utils/rel.h"

typedef struct QsRowFilter QsRowFilter;

/* Condition of the mirror of the table rel, for as long as this memory context lives. */
extern QsRowFilter *qs_row_filter_open(Relation rel, const char *condition);

/* True where the row, a composite datum of the table's type, is one that the mirror takes. */
extern bool qs_row_filter_takes(QsRowFilter *filter, Datum row);

extern void qs_row_filter_close(QsRowFilter *filter);

#endif							/* QS_ROW_FILTER_H */
