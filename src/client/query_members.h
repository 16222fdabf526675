/*
 * query_members.h
 *		What Qdrant's models of a query have as members.
 */
#ifndef QS_QUERY_MEMBERS_H
#define QS_QUERY_MEMBERS_H

#include "qdrant_sync.h"
#include "utils/jsonb.h"

/*
 * ERROR 22023 where the member of a query request that REST calls key (prefetch,
 * params, lookup_from, or the searches of a batch) has a member, at any depth, that
 * Qdrant does not know and would ignore.  Others are not looked at.
 */
extern void qs_check_query_members(const char *key, Jsonb *value);

#endif							/* QS_QUERY_MEMBERS_H */
