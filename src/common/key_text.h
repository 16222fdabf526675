/*
 * key_text.h
 *		The text of a row's key and the point id made of it, for keys that are no
 *		ids themselves (QS_KEY_HASHED).
 *
 * The text is a JSON array of strings without blanks, one for each column of the
 * key in its order, each what PostgreSQL writes for the value (dates in ISO, UTC,
 * shortest exact floats): ["a-1","2026-11-23"].  Only " \ and control characters
 * are escaped, as JSON.stringify and Python's json.dumps(ensure_ascii=False) do.
 * The id is the UUID of version 5 of that text in UTF-8, in the namespace
 * QS_KEY_NAMESPACE.  Two keys have one text only if they are the same.
 */
#ifndef QS_KEY_TEXT_H
#define QS_KEY_TEXT_H

#include "qdrant_sync.h"
#include "common/chunk.h"
#include "lib/stringinfo.h"
#include "mirror/definition.h"

/* UUIDv5 of "qdrant_sync:key" in the namespace of URLs; never to be changed. */
#define QS_KEY_NAMESPACE "881fdee9-b213-5fb4-90aa-e79b7dbde8a1"

/* Field of the payload that holds a point's key, as that array. */
#define QS_KEY_FIELD "_qs_key"

typedef struct QsKeyWriter QsKeyWriter;

/* For columns of these types; lives in context. */
extern QsKeyWriter *qs_key_writer(const QsKeySpec *key, MemoryContext context);

/* Appends the text of key values, none of them NULL, in the database's encoding. */
extern void qs_append_key_text(StringInfo out, const Datum *values, QsKeyWriter *writer);

/* Appends the text for values that are texts already. */
extern void qs_append_key_texts(StringInfo out, char *const *texts, int n);

/*
 * Takes a text apart into n strings, palloc'd; false where it is not the text of
 * a key of n columns.
 */
extern bool qs_key_text_parse(const char *text, int n, char **texts);

/*
 * The id of a text in the database's encoding.  *message: NULL, or palloc'd, what
 * is wrong with the text; the id is then that of its bytes, and no point has it.
 */
extern QsKey qs_key_text_id(const char *text, char **message);

/*
 * Appends the condition that a column of that type (SQL) equals a text (SQL of
 * type text), by the type's own operator, so that an index over it serves.
 */
extern void qs_append_key_condition(StringInfo sql, const char *column, Oid type, const char *text);

/* One of the types in which a value has the same text: such a key may change its type. */
extern Oid	qs_key_text_family(Oid type);

/* Tells keys of other types, and thereby other texts: a chunk carries it. */
extern uint32 qs_key_types_hash(const QsKeySpec *key);

#endif							/* QS_KEY_TEXT_H */
