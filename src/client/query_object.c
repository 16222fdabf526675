/*
 * query_object.c
 *		Looks into a query object of the caller's, which is else sent as it is.
 *
 * Runs in backends.  Refuses nothing: what it does not know, Qdrant judges.
 */
#include "qdrant_sync.h"

#include "client/query_object.h"

bool
qs_query_object_is_mmr(Jsonb *query)
{
	JsonbValue	mmr;

	return getKeyJsonValueFromContainer(&query->root, "mmr", 3, &mmr) != NULL && mmr.type != jbvNull;
}
