/*
 * encode.h
 *		Values to JSON: floats and strings (encode.c) and payload values
 *		(payload.c); vectors are common/vector.h's.
 *
 * Pure apart from palloc and catalog look-ups.  No session setting changes a
 * byte, provided that the caller has pinned those of qs_encode_settings.
 *
 * A message is palloc'd text that says what is wrong with this value, without
 * the column's name, to be read after "column: ".
 */
#ifndef QS_ENCODE_H
#define QS_ENCODE_H

#include "qdrant_sync.h"
#include "lib/stringinfo.h"
#include "common/float_text.h"

/*
 * Appends n floats as [a,b,…]; false, with *bad the position of the first that
 * is NaN or infinite, and out unchanged.
 */
extern bool qs_append_floats(StringInfo out, const float *values, int n, int *bad);
/* doubles are rounded to float; one beyond float's range is bad, too. */
extern bool qs_append_doubles(StringInfo out, const double *values, int n, int *bad);

/*
 * How a payload value of some type is written; made once per column.
 *
 *		bool, int2, int4, int8, oid, float4, float8		true, 12, 0.1
 *		numeric			number if Qdrant keeps it exactly, that is an integer of
 *						64 bits or what a double gives back; else a string
 *		text and its kin, enum, name, "char"			string
 *		date, timestamp, timestamptz, time, timetz		ISO 8601: "2026-11-23",
 *						"2026-11-23T04:00:00.5", the same with "Z", "04:00:00"
 *		interval		ISO 8601: "P1Y2M3DT4H5M6S"
 *		uuid, bytea		lower-case string, base64 string
 *		json, jsonb		as it is
 *		point			{"lon":x,"lat":y}
 *		arrays			arrays, nested; pgvector's vector, too
 *		composite types	objects, of their attributes
 *		extensions' types that are cast to json (hstore, geometry)	as that,
 *						a GeoJSON point as a point
 *		all others		what the type's output function writes, as a string
 *
 * null: NaN, infinities, and dates that RFC 3339 has no text for (infinity, BC,
 * after 9999).  A domain is written as its base type.
 *
 * depth: objects of the payload that the field is in, beside the payload itself.
 */
typedef struct QsPayloadWriter QsPayloadWriter;

extern QsPayloadWriter *qs_payload_writer(Oid type, int depth, MemoryContext context);

/*
 * Appends a value that is not NULL as JSON.  NULL where done; else a message, and
 * out may have grown.
 */
extern char *qs_append_payload(StringInfo out, Datum value, QsPayloadWriter *writer);

/* Appends a JSON string, with quotes; text is in the database's encoding and is
 * written in UTF-8.  NULL or a message as above. */
extern char *qs_append_json_string(StringInfo out, const char *text, int length);

/* *utf8 is text itself or palloc'd.  NULL or a message. */
extern char *qs_to_utf8(const char *text, int length, const char **utf8, int *utf8_length);

/* For messages: the text with \xNN for each byte that is no ASCII; palloc'd. */
extern char *qs_ascii_only(const char *text);

/*
 * UTF-8 from outside in the database's encoding: *text, itself or palloc'd.  False
 * where it has a character that the encoding lacks, or bytes that are none.
 */
extern bool qs_from_utf8(const char *utf8, const char **text);

/*
 * A message where a varlena value is over QS_VALUE_MAX_BYTES when detoasted;
 * looks at its header only (hazard 19).
 */
extern char *qs_check_raw_size(Datum value);

/* Detoasted size of a value of the writer's type, by its header; 0: nothing to detoast. */
extern Size qs_payload_raw_size(Datum value, const QsPayloadWriter *writer);

/*
 * Qdrant refuses bodies over 32 MiB; escaped text and decimals only get longer.  A
 * bound for one value, for all of a row, and for what is written of it.
 */
#define QS_VALUE_MAX_BYTES (64 * 1024 * 1024)

/* Settings that output functions look at: pairs of name and value, NULL at the end. */
extern const char *const qs_encode_settings[];

/*
 * Gives settings, pairs as above, their values until AtEOXact_GUC ends the level
 * that the caller began.  One that has its value costs a look only.
 */
extern void qs_pin_settings(const char *const *settings);

#endif							/* QS_ENCODE_H */
