/*
 * chunk.h
 *		The packed form of changed keys: one outbox row.
 *
 * Pure functions, used by the writer's backend (capture/) and by the sync
 * worker.  A chunk's bytes:
 *
 *		1 byte	kind (QsChunkKind; also says how to read the rest: the format)
 *		4 bytes	seconds since 2000-01-01 UTC at which it was written, big-endian
 *		then	QS_CHUNK_INTEGERS: zigzag varint of the first key, then varints
 *				of the differences (keys ascending and distinct)
 *				QS_CHUNK_UUIDS: 16 bytes each, ascending and distinct
 *				QS_CHUNK_SWEEP: nothing
 *				QS_CHUNK_TEXTS: 4 bytes, the hash of the key's types; then for each
 *				key, ascending by bytes and distinct, two varints: bytes shared with
 *				the one before, and bytes that follow
 *
 * A chunk that names keys names at least one.
 */
#ifndef QS_CHUNK_H
#define QS_CHUNK_H

#include "qdrant_sync.h"
#include "datatype/timestamp.h"

typedef enum QsChunkKind
{
	QS_CHUNK_INTEGERS = 1,
	QS_CHUNK_UUIDS = 2,
	QS_CHUNK_SWEEP = 3,			/* keys are not known: compare everything */
	QS_CHUNK_TEXTS = 4			/* texts of hashed keys (key_text.h) */
} QsChunkKind;

/* A longer text of a key is not noted: its mirror is compared (hazard 10). */
#define QS_KEY_TEXT_MAX 4096

/*
 * A key as writers note it and workers hold it: a signed integer in hi = 0 and
 * lo (two's complement), or the 16 bytes of a uuid as two big-endian words, so
 * that comparing (hi, lo) is comparing bytes.  It is the id of the row's point.
 */
typedef struct QsKey
{
	uint64		hi;
	uint64		lo;
} QsKey;

/* A chunk being packed: qs_chunk_begin, qs_chunk_add …, then used bytes at out. */
typedef struct QsChunkWriter
{
	QsChunkKind kind;
	unsigned char *out;
	int			size;
	int			used;
	uint64		last;			/* key before, of QS_CHUNK_INTEGERS */
	bool		empty;
} QsChunkWriter;

/* Key of a datum of type int2, int4, int8 or uuid, and back. */
extern QsKey qs_key_from_datum(Datum value, Oid type);
extern Datum qs_key_to_datum(QsKey key, Oid type);	/* uuid: palloc'd */
extern char *qs_key_to_text(QsKey key, bool uuid);	/* palloc'd */

/* Chunk kind for a key type; 0 for a type that no chunk can hold. */
extern int	qs_chunk_kind_of(Oid key_type);

static inline bool
qs_key_equal(QsKey a, QsKey b)
{
	return a.lo == b.lo && a.hi == b.hi;
}

/* Order of a chunk: integers by value, uuids by bytes. */
static inline int
qs_key_compare(QsKey a, QsKey b, QsChunkKind kind)
{
	if (kind == QS_CHUNK_INTEGERS)
		return ((int64) a.lo > (int64) b.lo) - ((int64) a.lo < (int64) b.lo);
	if (a.hi != b.hi)
		return a.hi < b.hi ? -1 : 1;
	return (a.lo > b.lo) - (a.lo < b.lo);
}

/* Sorts and removes duplicates in place; returns the new count. */
extern int	qs_keys_sort_unique(QsKey *keys, int n, QsChunkKind kind);

/*
 * Packs keys that come sorted and distinct.  qs_chunk_add returns false, and
 * leaves the chunk as it was, when the key no longer fits; the first always
 * does.  size is at least QS_CHUNK_MIN_BYTES.  Of a chunk of QS_CHUNK_SWEEP
 * qs_chunk_begin is all.
 */
#define QS_CHUNK_MIN_BYTES 32
extern void qs_chunk_begin(QsChunkWriter *chunk, QsChunkKind kind, unsigned char *out, int size);
extern bool qs_chunk_add(QsChunkWriter *chunk, QsKey key);

/* Writes the time into the chunk at out. */
extern void qs_chunk_stamp(unsigned char *out, TimestampTz written_at);

/*
 * The same for texts, which come sorted and distinct, none longer than
 * QS_KEY_TEXT_MAX, so that the first always fits.
 */
typedef struct QsTextChunkWriter
{
	unsigned char *out;
	int			size;
	int			used;
	const char *last;			/* text before, the caller's; NULL: none */
	int			last_length;
} QsTextChunkWriter;

extern void qs_text_chunk_begin(QsTextChunkWriter *chunk, uint32 types, unsigned char *out, int size);
extern bool qs_text_chunk_add(QsTextChunkWriter *chunk, const char *text, int length);

/* Order of texts in a chunk. */
extern int	qs_text_compare(const char *a, int a_length, const char *b, int b_length);

/* An unpacked chunk; keys or texts, or neither with QS_CHUNK_SWEEP. */
typedef struct QsChunk
{
	QsChunkKind kind;
	TimestampTz written_at;
	int			n;
	QsKey	   *keys;
	uint32		types;			/* QS_CHUNK_TEXTS: qs_key_types_hash() */
	char	  **texts;
} QsChunk;

/*
 * Unpacks.  Returns false where the bytes are not a chunk of a known kind: the
 * reader then sweeps the mirror (hazard 11).  What is in *chunk is palloc'd in the
 * current context.
 */
extern bool qs_chunk_unpack(const unsigned char *in, int size, QsChunk *chunk);

#endif							/* QS_CHUNK_H */
