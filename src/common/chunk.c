/*
 * chunk.c
 *		Keys to packed chunks and back; SQL type qdrant_internal.chunk.
 *
 * Runs in writers' backends and in sync workers.  It knows neither mirrors nor
 * the outbox, and takes nothing for granted about bytes that it unpacks: they
 * may be of another version.
 */
#include "common/chunk.h"

#include "catalog/pg_type.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define CHUNK_HEADER_BYTES 5	/* kind and time */
#define TEXTS_HEADER_BYTES (CHUNK_HEADER_BYTES + 4)	/* and the hash of types */
#define VARINT_MAX_BYTES 10		/* 64 bits, 7 a byte */

PG_FUNCTION_INFO_V1(qs_chunk_in);
PG_FUNCTION_INFO_V1(qs_chunk_out);

Datum
qs_chunk_in(PG_FUNCTION_ARGS)
{
	return DirectFunctionCall1(byteain, PG_GETARG_DATUM(0));
}

Datum
qs_chunk_out(PG_FUNCTION_ARGS)
{
	return DirectFunctionCall1(byteaout, PG_GETARG_DATUM(0));
}

/* ---- keys ---- */

int
qs_chunk_kind_of(Oid key_type)
{
	switch (key_type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return QS_CHUNK_INTEGERS;
		case UUIDOID:
			return QS_CHUNK_UUIDS;
		default:
			return 0;
	}
}

/* Keys in memory compare as words; their bytes are big-endian, as uuids compare. */
static uint64
load_word(const unsigned char *in)
{
	uint64		word;

	memcpy(&word, in, sizeof(word));
	return pg_ntoh64(word);
}

static void
store_word(unsigned char *out, uint64 word)
{
	word = pg_hton64(word);
	memcpy(out, &word, sizeof(word));
}

static QsKey
load_uuid(const unsigned char *in)
{
	QsKey		key = {load_word(in), load_word(in + 8)};

	return key;
}

QsKey
qs_key_from_datum(Datum value, Oid type)
{
	QsKey		key = {0, 0};

	if (type == INT8OID)
		key.lo = (uint64) DatumGetInt64(value);
	else if (type == INT4OID)
		key.lo = (uint64) (int64) DatumGetInt32(value);
	else if (type == INT2OID)
		key.lo = (uint64) (int64) DatumGetInt16(value);
	else if (type == UUIDOID)
		key = load_uuid(DatumGetUUIDP(value)->data);
	else
		elog(ERROR, "type %u is no key of a chunk", type);
	return key;
}

Datum
qs_key_to_datum(QsKey key, Oid type)
{
	pg_uuid_t  *uuid;

	if (type == INT8OID)
		return Int64GetDatum((int64) key.lo);
	if (type == INT4OID)
		return Int32GetDatum((int32) key.lo);
	if (type == INT2OID)
		return Int16GetDatum((int16) key.lo);
	if (type != UUIDOID)
		elog(ERROR, "type %u is no key of a chunk", type);
	uuid = palloc(sizeof(pg_uuid_t));
	store_word(uuid->data, key.hi);
	store_word(uuid->data + 8, key.lo);
	return UUIDPGetDatum(uuid);
}

char *
qs_key_to_text(QsKey key, bool uuid)
{
	if (uuid)
		return DatumGetCString(DirectFunctionCall1(uuid_out, qs_key_to_datum(key, UUIDOID)));
	return psprintf(INT64_FORMAT, (int64) key.lo);
}

#define ST_SORT sort_keys
#define ST_ELEMENT_TYPE QsKey
#define ST_COMPARE(a, b, kind) qs_key_compare(*(a), *(b), *(kind))
#define ST_COMPARE_ARG_TYPE const QsChunkKind
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

int
qs_keys_sort_unique(QsKey *keys, int n, QsChunkKind kind)
{
	int			kept = 0;

	if (n < 2)
		return n;
	sort_keys(keys, n, &kind);
	for (int i = 1; i < n; i++)
	{
		if (!qs_key_equal(keys[i], keys[kept]))
			keys[++kept] = keys[i];
	}
	return kept + 1;
}

/* ---- packing ---- */

void
qs_chunk_begin(QsChunkWriter *chunk, QsChunkKind kind, unsigned char *out, int size)
{
	Assert(size >= QS_CHUNK_MIN_BYTES);
	chunk->kind = kind;
	chunk->out = out;
	chunk->size = size;
	chunk->used = CHUNK_HEADER_BYTES;
	chunk->last = 0;
	chunk->empty = true;
	out[0] = (unsigned char) kind;
	memset(out + 1, 0, CHUNK_HEADER_BYTES - 1);
}

/* Small negative numbers become small unsigned ones: 0, -1, 1, -2 … are 0, 1, 2, 3 … */
static uint64
zigzag(uint64 value)
{
	return (value << 1) ^ (uint64) ((int64) value >> 63);
}

static uint64
unzigzag(uint64 value)
{
	return (value >> 1) ^ -(value & 1);
}

static int
varint_bytes(uint64 value)
{
	int			n = 1;

	while (value >= 0x80)
	{
		value >>= 7;
		n++;
	}
	return n;
}

static inline unsigned char *
put_varint(unsigned char *out, uint64 value)
{
	while (value >= 0x80)
	{
		*out++ = (unsigned char) (value | 0x80);
		value >>= 7;
	}
	*out++ = (unsigned char) value;
	return out;
}

/*
 * Unsigned arithmetic: from the least to the greatest key is 2^64 - 1.  The
 * exact length is only computed where the longest varint might not fit.
 */
static bool
add_integer(QsChunkWriter *chunk, uint64 key)
{
	uint64		value = chunk->empty ? zigzag(key) : key - chunk->last;
	unsigned char *out = chunk->out + chunk->used;
	int			room = chunk->size - chunk->used;

	if (unlikely(room < VARINT_MAX_BYTES) && room < varint_bytes(value))
		return false;
	out = put_varint(out, value);
	chunk->used = (int) (out - chunk->out);
	chunk->last = key;
	return true;
}

static bool
add_uuid(QsChunkWriter *chunk, QsKey key)
{
	if (chunk->size - chunk->used < UUID_LEN)
		return false;
	store_word(chunk->out + chunk->used, key.hi);
	store_word(chunk->out + chunk->used + 8, key.lo);
	chunk->used += UUID_LEN;
	return true;
}

bool
qs_chunk_add(QsChunkWriter *chunk, QsKey key)
{
	bool		added;

	Assert(chunk->kind == QS_CHUNK_INTEGERS || chunk->kind == QS_CHUNK_UUIDS);
	if (chunk->kind == QS_CHUNK_INTEGERS)
		added = add_integer(chunk, key.lo);
	else
		added = add_uuid(chunk, key);
	if (added)
		chunk->empty = false;
	return added;
}

int
qs_text_compare(const char *a, int a_length, const char *b, int b_length)
{
	int			order = memcmp(a, b, Min(a_length, b_length));

	return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

void
qs_text_chunk_begin(QsTextChunkWriter *chunk, uint32 types, unsigned char *out, int size)
{
	uint32		hash = pg_hton32(types);

	chunk->out = out;
	chunk->size = size;
	chunk->last = NULL;
	chunk->last_length = 0;
	out[0] = QS_CHUNK_TEXTS;
	memset(out + 1, 0, CHUNK_HEADER_BYTES - 1);
	memcpy(out + CHUNK_HEADER_BYTES, &hash, sizeof(hash));
	chunk->used = TEXTS_HEADER_BYTES;
}

bool
qs_text_chunk_add(QsTextChunkWriter *chunk, const char *text, int length)
{
	int			most = Min(length, chunk->last_length);
	int			shared = 0;
	unsigned char *out = chunk->out + chunk->used;

	Assert(length <= QS_KEY_TEXT_MAX);
	while (shared < most && text[shared] == chunk->last[shared])
		shared++;
	if (chunk->size - chunk->used <
		varint_bytes(shared) + varint_bytes(length - shared) + length - shared)
		return false;
	out = put_varint(out, shared);
	out = put_varint(out, length - shared);
	memcpy(out, text + shared, length - shared);
	chunk->used = (int) (out - chunk->out) + length - shared;
	chunk->last = text;
	chunk->last_length = length;
	return true;
}

void
qs_chunk_stamp(unsigned char *out, TimestampTz written_at)
{
	uint32		seconds = pg_hton32((uint32) (written_at / USECS_PER_SEC));

	memcpy(out + 1, &seconds, sizeof(seconds));
}

/* ---- unpacking ---- */

/* Returns the place after the varint; NULL where there is no whole one of 64 bits. */
static const unsigned char *
read_varint(const unsigned char *in, const unsigned char *end, uint64 *value)
{
	*value = 0;
	for (int shift = 0; in < end && shift < 64; shift += 7)
	{
		uint64		bits = *in & 0x7F;

		if (shift == 63 && bits > 1)
			return NULL;
		*value |= bits << shift;
		if ((*in++ & 0x80) == 0)
			return in;
	}
	return NULL;
}

/* Every varint ends with the only byte of its own below 0x80. */
static int
count_varints(const unsigned char *in, const unsigned char *end)
{
	int			n = 0;

	for (; in < end; in++)
		n += *in < 0x80;
	return n;
}

/*
 * Not ascending means that a difference was zero or went past the greatest key:
 * no writer makes that.
 */
static bool
read_integers(const unsigned char *in, const unsigned char *end, QsKey *keys, int n)
{
	uint64		value;

	in = read_varint(in, end, &value);
	if (in == NULL)
		return false;
	keys[0].hi = 0;
	keys[0].lo = unzigzag(value);
	for (int i = 1; i < n; i++)
	{
		in = read_varint(in, end, &value);
		if (in == NULL)
			return false;
		keys[i].hi = 0;
		keys[i].lo = keys[i - 1].lo + value;
		if (qs_key_compare(keys[i - 1], keys[i], QS_CHUNK_INTEGERS) >= 0)
			return false;
	}
	return in == end;
}

static bool
read_uuids(const unsigned char *in, QsKey *keys, int n)
{
	for (int i = 0; i < n; i++)
	{
		keys[i] = load_uuid(in + (size_t) i * UUID_LEN);
		if (i > 0 && qs_key_compare(keys[i - 1], keys[i], QS_CHUNK_UUIDS) >= 0)
			return false;
	}
	return true;
}

/* How many keys bytes of that many and of that kind hold; 0: not a chunk. */
static int
count_keys(QsChunkKind kind, const unsigned char *in, const unsigned char *end)
{
	if (kind == QS_CHUNK_INTEGERS)
		return count_varints(in, end);
	if (kind == QS_CHUNK_UUIDS && (end - in) % UUID_LEN == 0)
		return (int) ((end - in) / UUID_LEN);
	return 0;
}

/* NULL where the bytes are not what a writer makes. */
static QsKey *
read_keys(QsChunkKind kind, const unsigned char *in, const unsigned char *end, int n)
{
	QsKey	   *keys = palloc(n * sizeof(QsKey));

	if (kind == QS_CHUNK_INTEGERS ? read_integers(in, end, keys, n) : read_uuids(in, keys, n))
		return keys;
	pfree(keys);
	return NULL;
}

/* One text, after the one before it; returns the place behind, NULL: no chunk of ours. */
static const unsigned char *
read_text(const unsigned char *in, const unsigned char *end, StringInfo text)
{
	uint64		shared;
	uint64		length;

	in = read_varint(in, end, &shared);
	if (in != NULL)
		in = read_varint(in, end, &length);
	if (in == NULL || shared > text->len || length > end - in ||
		shared + length > QS_KEY_TEXT_MAX || shared + length == 0)
		return NULL;
	text->len = shared;
	appendBinaryStringInfo(text, (const char *) in, length);
	return in + length;
}

/* Every text takes three bytes at least, which bounds what is allocated. */
static bool
read_texts(const unsigned char *in, const unsigned char *end, QsChunk *chunk)
{
	StringInfoData text;
	uint32		hash;

	if (end - in < (int) sizeof(hash))
		return false;
	memcpy(&hash, in, sizeof(hash));
	in += sizeof(hash);
	chunk->types = pg_ntoh32(hash);
	chunk->texts = palloc(((end - in) / 2 + 1) * sizeof(char *));
	initStringInfo(&text);
	while (in < end)
	{
		in = read_text(in, end, &text);
		if (in == NULL || strlen(text.data) != text.len)
			return false;
		chunk->texts[chunk->n++] = pnstrdup(text.data, text.len);
	}
	pfree(text.data);
	return chunk->n > 0;
}

bool
qs_chunk_unpack(const unsigned char *in, int size, QsChunk *chunk)
{
	const unsigned char *end = in + size;
	const unsigned char *body = in + CHUNK_HEADER_BYTES;
	uint32		seconds;

	memset(chunk, 0, sizeof(QsChunk));
	if (size < CHUNK_HEADER_BYTES)
		return false;
	memcpy(&seconds, in + 1, sizeof(seconds));
	chunk->written_at = (TimestampTz) pg_ntoh32(seconds) * USECS_PER_SEC;
	chunk->kind = (QsChunkKind) in[0];
	switch (chunk->kind)
	{
		case QS_CHUNK_SWEEP:
			return body == end;
		case QS_CHUNK_TEXTS:
			return read_texts(body, end, chunk);
		case QS_CHUNK_INTEGERS:
		case QS_CHUNK_UUIDS:
			/* The count bounds what is allocated: no more than a key for each byte. */
			chunk->n = count_keys(chunk->kind, body, end);
			chunk->keys = chunk->n > 0 ? read_keys(chunk->kind, body, end, chunk->n) : NULL;
			return chunk->keys != NULL;
	}
	return false;
}
