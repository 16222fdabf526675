/*
 * raw_path.h
 *		Paths and query strings of qdrant_request (hazard R7).
 */
#ifndef QS_RAW_PATH_H
#define QS_RAW_PATH_H

#include "qdrant_sync.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

typedef struct QsRawPath
{
	char	   *path;			/* as it is sent: UTF-8, percent-encoded, no query */
	char	   *collection;		/* that the path names, in the database's encoding; NULL: none */
	char	   *rest;			/* what follows it, decoded: "", "/points/query"; "" without one */
} QsRawPath;

/*
 * ERROR 22023 for a path that could mean another one to libcurl, to a proxy or to
 * Qdrant than to whoever reads it here.  Palloc'd.
 */
extern void qs_parse_raw_path(const char *path, QsRawPath *parsed);

/*
 * The segments of a URL or path, each as it is and as it reads decoded; palloc'd, in
 * the database's encoding.  Where "?" begins does not matter to whoever looks for a name.
 */
extern List *qs_url_segments(const char *url);

/* "?name=value&..." from a JSON object of texts, numbers and booleans; NULLs are
 * left out.  ERROR 22023 for anything else. */
extern void qs_append_query_string(StringInfo out, Jsonb *query);

#endif							/* QS_RAW_PATH_H */
