/*
 * point_key.h
 *		From the id of a point back to the key of a row.
 */
#ifndef QS_POINT_KEY_H
#define QS_POINT_KEY_H

#include "common/chunk.h"
#include "mirror/definition.h"

typedef enum QsPointOrigin
{
	QS_POINT_OF_KEY,			/* id and text are those of a key, whether a row has it or not */
	QS_POINT_WITHOUT_KEY,		/* the id may be one of ours, but the point does not say its key */
	QS_POINT_FOREIGN			/* no key of this mirror has that id */
} QsPointOrigin;

/*
 * id: digits or a uuid, as Qdrant writes them.  said: JSON text in UTF-8 of the
 * point's field QS_KEY_FIELD; NULL: none; only looked at where ids are made of texts.
 * *text: that of the key, palloc'd, in the database's encoding, or NULL.  *key is
 * set unless the point is foreign.
 */
extern QsPointOrigin qs_point_origin(const QsKeySpec *spec, const char *id, const char *said,
									 QsKey *key, char **text);

#endif							/* QS_POINT_KEY_H */
