/*
 * selector.h
 *		Which points an operation is about: ids, or a filter.
 */
#ifndef QS_SELECTOR_H
#define QS_SELECTOR_H

#include "capture/bodies.h"
#include "utils/jsonb.h"

typedef struct QsSelector
{
	char	   *filter;			/* JSON; NULL: ids are meant */
	StringInfoData ids;			/* JSON, with a comma between two; may be empty */
	char	   *shard_key;		/* JSON, of the forms that have it inside; NULL: none */
	bool		only_ids;		/* no object, but {}, which is an empty array */
} QsSelector;

/*
 * Reads argument number argno, of type anycompatible.  ERROR 22004 for NULL, 42804
 * for a type that names no points, 22023 for a value that does not.
 */
extern void qs_selector_read(FunctionCallInfo fcinfo, int argno, const char *name,
							 QsSelector *selector);

/* The same where only ids may stand: of objects only {}, which is an empty array. */
extern void qs_selector_read_ids(FunctionCallInfo fcinfo, int argno, const char *name,
								 QsSelector *selector);

/* ERROR 22023 unless it is an array of ids; where begins the message. */
extern void qs_check_id_list(const char *where, JsonbContainer *list);

/* ERROR 22023 unless it has the shape of a filter; where begins the message. */
extern void qs_check_filter(const char *where, JsonbContainer *filter);

/* ERROR 22023 unless it selects shards, by a key, several, or one and another in its place. */
extern void qs_check_shard_key(const char *where, JsonbValue *value);

/*
 * Writes {"points":[…]…} in bodies of about a megabyte, or one {"filter":…}.
 * after is what the object has besides, such as ,"payload":{}, without the brace
 * that ends it.
 */
extern void qs_selector_write(const QsSelector *selector, const char *after,
							  QsBodySink sink, void *arg);

#endif							/* QS_SELECTOR_H */
