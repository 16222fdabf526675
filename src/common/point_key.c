/*
 * point_key.c
 *		From the id of a point back to the key of a row (hazard 5).
 *
 * Sync worker, which sweeps, and sessions, which verify.  Pure: whether a row has
 * the key is not asked here.  What a point says of itself is believed only where
 * its id is made of it.
 */
#include "qdrant_sync.h"
#include "common/encode.h"
#include "common/key_text.h"
#include "common/point_key.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

static bool
integer_key(Oid type, const char *id, QsKey *key)
{
	uint64		limit = type == INT2OID ? PG_INT16_MAX : type == INT4OID ? PG_INT32_MAX : PG_INT64_MAX;
	char	   *end;

	errno = 0;
	key->hi = 0;
	key->lo = strtoull(id, &end, 10);
	return errno == 0 && key->lo <= limit;
}

/*
 * The key that a point says it has, in our own form of the text; NULL: it says
 * none, or one that its id was not made of.
 */
static char *
hashed_key(int n, const char *said, QsKey id)
{
	char	   *texts[INDEX_MAX_KEYS];
	StringInfoData text;
	char	   *message;

	if (said == NULL || !qs_from_utf8(said, &said) || !qs_key_text_parse(said, n, texts))
		return NULL;
	initStringInfo(&text);
	qs_append_key_texts(&text, texts, n);
	return qs_key_equal(qs_key_text_id(text.data, &message), id) && message == NULL
		? text.data : NULL;
}

QsPointOrigin
qs_point_origin(const QsKeySpec *spec, const char *id, const char *said, QsKey *key, char **text)
{
	bool		digits = strspn(id, "0123456789") == strlen(id);

	*text = NULL;
	if (digits != (spec->rule == QS_KEY_INTEGER))
		return QS_POINT_FOREIGN;
	if (digits)
		return integer_key(spec->types[0], id, key) ? QS_POINT_OF_KEY : QS_POINT_FOREIGN;
	*key = qs_key_from_datum(DirectFunctionCall1(uuid_in, CStringGetDatum(id)), UUIDOID);
	if (spec->rule != QS_KEY_HASHED)
		return QS_POINT_OF_KEY;
	*text = hashed_key(spec->n, said, *key);
	return *text != NULL ? QS_POINT_OF_KEY : QS_POINT_WITHOUT_KEY;
}
