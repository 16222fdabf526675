/*
 * table.h
 *		Which tables can have a mirror.
 */
#ifndef QS_TABLE_H
#define QS_TABLE_H

#include "qdrant_sync.h"
#include "access/attnum.h"

/* ERROR says what is wrong with the table. */
extern void qs_mirror_check_table(Relation rel);


#endif							/* QS_TABLE_H */
