/*
 * table.h
 *		Which tables can have a mirror.
 */
#ifndef QS_TABLE_H
#define QS_TABLE_H

#include "qdrant_sync.h"
#include "nodes/pg_list.h"
#include "utils/relcache.h"

/* ERROR says what is wrong with the table. */
extern void qs_mirror_check_table(Relation rel);

/* Leaf partitions of a partitioned table, by their OIDs; NIL for any other table. */
extern List *qs_leaves(Oid relid);

/* Its name as the argument of a function of ours: 'name', quoted and with its schema as needed; for hints. */
extern char *qs_table_argument(Relation rel);

#endif							/* QS_TABLE_H */
