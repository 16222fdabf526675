/*
 * query_argument.h
 *		The argument "query anycompatible" of the search functions.
 */
#ifndef QS_QUERY_ARGUMENT_H
#define QS_QUERY_ARGUMENT_H

#include "qdrant_sync.h"
#include "utils/jsonb.h"

typedef enum QsQueryKind
{
	QS_QUERY_NULL,				/* no rows */
	QS_QUERY_VECTOR,			/* dense, sparse or multi-vector */
	QS_QUERY_ID,				/* nearest to that point: digits, or a uuid in quotes */
	QS_QUERY_OBJECT				/* one of Qdrant's own: recommend, fusion, … */
} QsQueryKind;

typedef struct QsQuery
{
	QsQueryKind kind;
	char	   *json;			/* for the key "query"; UTF-8; NULL with QS_QUERY_NULL */
} QsQuery;

/*
 * Reads argument number argno.  Uses fn_extra.  ERROR 42804 for a type that no
 * query can have, 22023 for a value that none can have: the message says which
 * element.
 */
extern QsQuery qs_query_argument(FunctionCallInfo fcinfo, int argno);

/* The argument itself, where it was read as a QS_QUERY_OBJECT. */
extern Jsonb *qs_query_argument_object(FunctionCallInfo fcinfo, int argno);

#endif							/* QS_QUERY_ARGUMENT_H */
