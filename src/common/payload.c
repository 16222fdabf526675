/*
 * payload.c
 *		Payload values to JSON; encode.h has the table of types.
 *
 * Sync worker.  The usual types are written directly, the others by their output
 * function; JSON is in json_text.c, composite types are in composite.c, extensions'
 * types that are cast to json in cast_json.c.
 */
#include "qdrant_sync.h"
#include "common/encode.h"
#include "common/vector.h"
#include "common/payload_writer.h"

#include <math.h>

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "datatype/timestamp.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/geo_decls.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/*
 * Qdrant's parser refuses the 128th level, and four are around a payload's field:
 * {"points":[{"payload":{…}}]}.
 */
#define JSON_MAX_DEPTH 123

/* Digits that every double gives back, and that some do. */
#define DOUBLE_DIGITS_ALWAYS 15
#define DOUBLE_DIGITS_AT_MOST 17

/* A numeric text that is no longer is within a double's range of exponents. */
#define DOUBLE_MAX_TEXT 300

/* Longest text of a number, date or time that is written directly. */
#define SHORT_TEXT 64

/*
 * What output functions of the other types look at, those of ranges and composites
 * of dates among them.  IntervalStyle is used on purpose.
 */
const char *const qs_encode_settings[] = {
	"DateStyle", "ISO, YMD",
	"IntervalStyle", "iso_8601",
	"TimeZone", "UTC",
	"extra_float_digits", "1",
	"bytea_output", "hex",
	"xmlbinary", "base64",
	"lc_monetary", "C",
	"quote_all_identifiers", "off",
	NULL
};

void
qs_pin_settings(const char *const *settings)
{
	for (; *settings != NULL; settings += 2)
	{
		const char *value = GetConfigOption(settings[0], false, false);

		if (value == NULL || strcmp(value, settings[1]) != 0)
			(void) set_config_option(settings[0], settings[1], PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	}
}

static char *
append_null(StringInfo out)
{
	appendBinaryStringInfo(out, "null", 4);
	return NULL;
}

/* --- booleans and numbers --- */

static char *
append_bool(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	appendStringInfoString(out, DatumGetBool(value) ? "true" : "false");
	return NULL;
}

static char *
append_int64(StringInfo out, int64 value)
{
	enlargeStringInfo(out, SHORT_TEXT);
	out->len += pg_lltoa(value, out->data + out->len);
	return NULL;
}

static char *
append_int2(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	return append_int64(out, DatumGetInt16(value));
}

static char *
append_int4(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	return append_int64(out, DatumGetInt32(value));
}

static char *
append_int8(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	return append_int64(out, DatumGetInt64(value));
}

static char *
append_oid(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	return append_int64(out, DatumGetObjectId(value));
}

static char *
append_float4(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	float		number = DatumGetFloat4(value);

	if (!isfinite(number))
		return append_null(out);
	enlargeStringInfo(out, SHORT_TEXT);
	out->len = qs_put_float(out->data + out->len, number) - out->data;
	out->data[out->len] = '\0';
	return NULL;
}

/* Shortest text that gives the same double back; an exponent is JSON, too. */
static void
append_double(StringInfo out, double number)
{
	enlargeStringInfo(out, SHORT_TEXT);
	out->len += double_to_shortest_decimal_buf(number, out->data + out->len);
}

static char *
append_float8(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	double		number = DatumGetFloat8(value);

	if (!isfinite(number))
		return append_null(out);
	append_double(out, number);
	return NULL;
}

/*
 * The significant digits of a decimal number, without zeros at either end.
 * Returns their count, or max + 1 where there are more than max.
 */
static int
significant_digits(const char *text, char *digits, int max)
{
	int			n = 0;
	int			zeros = 0;

	for (; *text != '\0' && *text != 'e'; text++)
	{
		if (*text < '0' || *text > '9')
			continue;
		if (*text == '0')
		{
			zeros += n > 0;
			continue;
		}
		if (n + zeros >= max)
			return max + 1;
		for (; zeros > 0; zeros--)
			digits[n++] = '0';
		digits[n++] = *text;
	}
	return n;
}

/* Whether the double next to this decimal number is written as the same number. */
static bool
double_gives_back(const char *text)
{
	char		digits[DOUBLE_DIGITS_AT_MOST];
	char		other[DOUBLE_DIGITS_AT_MOST];
	char		buffer[DOUBLE_SHORTEST_DECIMAL_LEN];
	int			n = significant_digits(text, digits, DOUBLE_DIGITS_AT_MOST);

	if (n > DOUBLE_DIGITS_AT_MOST || strlen(text) > DOUBLE_MAX_TEXT)
		return false;
	if (n <= DOUBLE_DIGITS_ALWAYS)
		return true;
	double_to_shortest_decimal_buf(strtod(text, NULL), buffer);
	return significant_digits(buffer, other, DOUBLE_DIGITS_AT_MOST) == n &&
		memcmp(digits, other, n) == 0;
}

/* Qdrant's parser keeps integers of int64 and uint64 exactly, larger ones as doubles. */
static bool
fits_64_bits(const char *text)
{
	bool		negative = *text == '-';
	const char *limit = negative ? "9223372036854775808" : "18446744073709551615";
	const char *digits = text + negative;

	if (strlen(digits) != strlen(limit))
		return strlen(digits) < strlen(limit);
	return strcmp(digits, limit) <= 0;
}

/*
 * The text is sent as it is, 12.50 with its zero.  Text with a point becomes a
 * double in Qdrant, even 100.00.
 */
static char *
append_numeric(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	char	   *text = DatumGetCString(FunctionCall1(&writer->output, value));
	bool		exact;

	if (text[0] == 'N' || text[0] == 'I' || text[1] == 'I')
		return append_null(out);
	exact = strchr(text, '.') != NULL ? double_gives_back(text) : fits_64_bits(text);
	if (!exact)
		return qs_append_json_string(out, text, strlen(text));
	appendStringInfoString(out, text);
	return NULL;
}

/* As Qdrant's geo conditions want it: x is the longitude. */
static char *
append_point(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	Point	   *point = DatumGetPointP(value);

	if (!isfinite(point->x) || !isfinite(point->y))
		return append_null(out);
	appendStringInfoString(out, "{\"lon\":");
	append_double(out, point->x);
	appendStringInfoString(out, ",\"lat\":");
	append_double(out, point->y);
	appendStringInfoChar(out, '}');
	return NULL;
}

/* --- strings --- */

/* char(n) keeps its padding: it is what a client of PostgreSQL reads. */
static char *
append_text(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	struct varlena *text = PG_DETOAST_DATUM_PACKED(value);

	return qs_append_json_string(out, VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text));
}

/*
 * All types that we do not know: text is never wrong, only less useful.  Of what an
 * output function made, nobody has checked the encoding.
 */
static char *
append_output(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	char	   *text = OutputFunctionCall(&writer->output, value);
	int			length = strlen(text);

	if (GetDatabaseEncoding() == PG_UTF8 && !pg_verify_mbstr(PG_UTF8, text, length, true))
		return pstrdup("the type's output function wrote what is not valid UTF-8");
	return qs_append_json_string(out, text, length);
}

/* "char" is a byte; 16 and later write one that is no ASCII so, and 15 writes the byte. */
static char *
append_char(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	unsigned char byte = (unsigned char) DatumGetChar(value);
	char		text[8];

	if (IS_HIGHBIT_SET(byte))
		snprintf(text, sizeof(text), "\\%03o", byte);
	else
		snprintf(text, sizeof(text), "%c", byte);
	return qs_append_json_string(out, text, strlen(text));
}

/* Infinite ones are there from 17 on. */
static char *
append_interval(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	if (INTERVAL_NOT_FINITE(DatumGetIntervalP(value)))
		return append_null(out);
	return append_output(out, value, writer);
}

static char *
append_uuid(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	static const char hex[] = "0123456789abcdef";
	pg_uuid_t  *uuid = DatumGetUUIDP(value);
	char		text[2 * UUID_LEN + 6];
	char	   *end = text;

	*end++ = '"';
	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*end++ = '-';
		*end++ = hex[uuid->data[i] >> 4];
		*end++ = hex[uuid->data[i] & 0x0f];
	}
	*end++ = '"';
	appendBinaryStringInfo(out, text, end - text);
	return NULL;
}

/* RFC 4648, with padding, without line breaks. */
static char *
append_bytea(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);
	const unsigned char *in = (const unsigned char *) VARDATA_ANY(bytes);
	int			length = VARSIZE_ANY_EXHDR(bytes);

	enlargeStringInfo(out, (length + 2) / 3 * 4 + 2);
	appendStringInfoCharMacro(out, '"');
	for (int i = 0; i < length; i += 3)
	{
		int			left = length - i;
		uint32		group = in[i] << 16 | (left > 1 ? in[i + 1] << 8 : 0) | (left > 2 ? in[i + 2] : 0);

		appendStringInfoCharMacro(out, alphabet[group >> 18]);
		appendStringInfoCharMacro(out, alphabet[(group >> 12) & 63]);
		appendStringInfoCharMacro(out, left > 1 ? alphabet[(group >> 6) & 63] : '=');
		appendStringInfoCharMacro(out, left > 2 ? alphabet[group & 63] : '=');
	}
	appendStringInfoCharMacro(out, '"');
	return NULL;
}

/* --- dates and times --- */

/* RFC 3339 has years of four digits, and none before 1. */
static char *
put_date(char *out, int julian_day)
{
	int			year;
	int			month;
	int			day;

	j2date(julian_day, &year, &month, &day);
	if (year < 1 || year > 9999)
		return NULL;
	out = pg_ultostr_zeropad(out, year, 4);
	*out++ = '-';
	out = pg_ultostr_zeropad(out, month, 2);
	*out++ = '-';
	return pg_ultostr_zeropad(out, day, 2);
}

/* Without a fraction where it is zero, else without zeros at its end. */
static char *
put_time(char *out, int64 microseconds)
{
	int			fraction = microseconds % USECS_PER_SEC;
	int			seconds = microseconds / USECS_PER_SEC;

	out = pg_ultostr_zeropad(out, seconds / SECS_PER_HOUR, 2);
	*out++ = ':';
	out = pg_ultostr_zeropad(out, seconds / SECS_PER_MINUTE % MINS_PER_HOUR, 2);
	*out++ = ':';
	out = pg_ultostr_zeropad(out, seconds % SECS_PER_MINUTE, 2);
	if (fraction == 0)
		return out;
	*out++ = '.';
	out = pg_ultostr_zeropad(out, fraction, 6);
	while (out[-1] == '0')
		out--;
	return out;
}

static char *
append_date(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	DateADT		date = DatumGetDateADT(value);
	char		text[SHORT_TEXT];
	char	   *end;

	if (DATE_NOT_FINITE(date))
		return append_null(out);
	text[0] = '"';
	end = put_date(text + 1, date + POSTGRES_EPOCH_JDATE);
	if (end == NULL)
		return append_null(out);
	*end++ = '"';
	appendBinaryStringInfo(out, text, end - text);
	return NULL;
}

/* Microseconds since 2000-01-01; before that the remainder is negative. */
static char *
append_moment(StringInfo out, Timestamp moment, bool zone)
{
	char		text[SHORT_TEXT];
	char	   *end;
	int64		days = moment / USECS_PER_DAY;
	int64		time = moment % USECS_PER_DAY;

	if (TIMESTAMP_NOT_FINITE(moment))
		return append_null(out);
	if (time < 0)
	{
		time += USECS_PER_DAY;
		days--;
	}
	text[0] = '"';
	end = put_date(text + 1, days + POSTGRES_EPOCH_JDATE);
	if (end == NULL)
		return append_null(out);
	*end++ = 'T';
	end = put_time(end, time);
	if (zone)
		*end++ = 'Z';
	*end++ = '"';
	appendBinaryStringInfo(out, text, end - text);
	return NULL;
}

static char *
append_timestamp(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	return append_moment(out, DatumGetTimestamp(value), false);
}

static char *
append_timestamptz(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	return append_moment(out, DatumGetTimestampTz(value), true);
}

static char *
append_time(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	char		text[SHORT_TEXT];
	char	   *end;

	text[0] = '"';
	end = put_time(text + 1, DatumGetTimeADT(value));
	*end++ = '"';
	appendBinaryStringInfo(out, text, end - text);
	return NULL;
}

/* A time with a zone carries its zone with it: no setting has a say. */
static char *
append_timetz(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	char		text[MAXDATELEN + 1];

	JsonEncodeDateTime(text, value, TIMETZOID, NULL);
	return qs_append_json_string(out, text, strlen(text));
}

/* --- JSON --- */

/* Keys that come twice are left so: the last one wins, there as here. */
static char *
append_json(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	struct varlena *json = PG_DETOAST_DATUM_PACKED(value);

	return qs_append_json_text(out, VARDATA_ANY(json), VARSIZE_ANY_EXHDR(json), writer->json_depth);
}

static char *
append_jsonb(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	Jsonb	   *jsonb = DatumGetJsonbP(value);
	char	   *text = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));

	return qs_append_json_text(out, text, strlen(text), writer->json_depth);
}

/* --- arrays --- */

/* Elements lie in one row, whatever the dimensions; next is the one to write. */
typedef struct ArrayWalk
{
	QsPayloadWriter *element;
	Datum	   *values;
	bool	   *nulls;
	int			next;
	const int  *dims;
	int			ndim;
} ArrayWalk;

static char *
append_element(StringInfo out, ArrayWalk *walk)
{
	int			i = walk->next++;

	if (walk->nulls[i])
		return append_null(out);
	return walk->element->append(out, walk->values[i], walk->element);
}

static char *
append_dimension(StringInfo out, ArrayWalk *walk, int dimension)
{
	char	   *message = NULL;

	appendStringInfoCharMacro(out, '[');
	for (int i = 0; i < walk->dims[dimension] && message == NULL; i++)
	{
		if (i > 0)
			appendStringInfoCharMacro(out, ',');
		if (dimension + 1 < walk->ndim)
			message = append_dimension(out, walk, dimension + 1);
		else
			message = append_element(out, walk);
	}
	appendStringInfoCharMacro(out, ']');
	return message;
}

/* Lower bounds are not kept: JSON has none. */
static char *
append_array(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	ArrayWalk	walk = {writer->element, NULL, NULL, 0, ARR_DIMS(array), ARR_NDIM(array)};
	int			n;

	if (walk.ndim == 0)
	{
		appendStringInfoString(out, "[]");
		return NULL;
	}
	deconstruct_array(array, writer->element_type, writer->element_length,
					  writer->element_by_value, writer->element_align,
					  &walk.values, &walk.nulls, &n);
	return append_dimension(out, &walk, 0);
}

/* A vector that is not the mirror's own is payload like any array. */
static char *
append_pgvector(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	static const QsVectorForm any = {QS_DENSE};

	return qs_append_vector(out, value, QS_VECTOR_PGVECTOR, &any);
}

/* --- choosing --- */

/* Types that are written without their output function, or with a rule of ours. */
typedef struct DirectType
{
	Oid			type;
	QsAppendFunction append;
} DirectType;

static const DirectType direct_types[] = {
	{BOOLOID, append_bool},
	{INT2OID, append_int2},
	{INT4OID, append_int4},
	{INT8OID, append_int8},
	{OIDOID, append_oid},
	{FLOAT4OID, append_float4},
	{FLOAT8OID, append_float8},
	{NUMERICOID, append_numeric},
	{POINTOID, append_point},
	{TEXTOID, append_text},
	{VARCHAROID, append_text},
	{BPCHAROID, append_text},
	{UUIDOID, append_uuid},
	{BYTEAOID, append_bytea},
	{DATEOID, append_date},
	{TIMESTAMPOID, append_timestamp},
	{TIMESTAMPTZOID, append_timestamptz},
	{TIMEOID, append_time},
	{TIMETZOID, append_timetz},
	{INTERVALOID, append_interval},
	{CHAROID, append_char},
	{JSONOID, append_json},
	{JSONBOID, append_jsonb},
};

static char *
append_too_deep(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	return psprintf("the type %s nests deeper than Qdrant takes", format_type_be(writer->type));
}

/* citext and its like are text with operators of their own. */
static QsAppendFunction
find_append_function(Oid type, Oid output, Oid element_type)
{
	for (int i = 0; i < lengthof(direct_types); i++)
		if (direct_types[i].type == type)
			return direct_types[i].append;
	if (OidIsValid(element_type))
		return append_array;
	if (get_typtype(type) == TYPTYPE_COMPOSITE)
		return qs_append_composite;
	if (output == F_TEXTOUT)
		return append_text;
	if (qs_vector_type(type) == QS_VECTOR_PGVECTOR)
		return append_pgvector;
	return append_output;
}

/* An array's element may nest less deep, by the most dimensions an array has. */
static void
make_element_writer(QsPayloadWriter *writer)
{
	get_typlenbyvalalign(writer->element_type, &writer->element_length,
						 &writer->element_by_value, &writer->element_align);
	writer->element = qs_make_payload_writer(writer->element_type, writer->json_depth - MAXDIM,
											 writer->context);
}

QsPayloadWriter *
qs_make_payload_writer(Oid type, int json_depth, MemoryContext context)
{
	QsPayloadWriter *writer = MemoryContextAllocZero(context, sizeof(QsPayloadWriter));
	Oid			output;

	writer->type = getBaseType(type);
	writer->context = context;
	writer->json_depth = json_depth;
	writer->element_type = get_element_type(writer->type);
	getTypeOutputInfo(writer->type, &output, &writer->varlena);
	writer->append = find_append_function(writer->type, output, writer->element_type);
	fmgr_info_cxt(output, &writer->output, context);
	if (json_depth <= 0)
		writer->append = append_too_deep;
	else if (writer->append == append_array)
		make_element_writer(writer);
	else if (writer->append == append_output)
		qs_use_cast_to_json(writer);
	return writer;
}

QsPayloadWriter *
qs_payload_writer(Oid type, int depth, MemoryContext context)
{
	return qs_make_payload_writer(type, JSON_MAX_DEPTH - depth, context);
}

Size
qs_payload_raw_size(Datum value, const QsPayloadWriter *writer)
{
	return writer->varlena ? toast_raw_datum_size(value) : 0;
}

char *
qs_append_payload(StringInfo out, Datum value, QsPayloadWriter *writer)
{
	char	   *message = writer->varlena ? qs_check_raw_size(value) : NULL;

	if (message != NULL)
		return message;
	return writer->append(out, value, writer);
}
