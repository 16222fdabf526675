/*
 * key_text.c
 *		From the columns of a key to its text, and from that to a point's id.
 *
 * Runs in writers' backends, in searching sessions and in the sync worker, which
 * all have to come to the same bytes whatever settings a session has: types whose
 * text depends on some are written with those pinned.
 */
#include "qdrant_sync.h"
#include "common/encode.h"
#include "common/key_text.h"

#include "access/htup_details.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "utils/uuid.h"
#include "utils/xml.h"

#define SHA1_BYTES 20

/* What the text of a type depends on. */
typedef enum Settings
{
	SETTINGS_NONE,
	SETTINGS_VARIABLES,			/* those of with_variables() */
	SETTINGS_ALL				/* not known: all of qs_encode_settings */
} Settings;

typedef struct KeyColumn
{
	bool		is_text;		/* stored as text: its bytes are it */
	FmgrInfo	output;
} KeyColumn;

struct QsKeyWriter
{
	Settings	settings;
	int			n;
	KeyColumn	columns[FLEXIBLE_ARRAY_MEMBER];
};

/* ---- making a writer ---- */

static Settings
settings_of(Oid type, Oid output)
{
	switch (type)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case NUMERICOID:
		case CHAROID:
		case NAMEOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case UUIDOID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
		case BITOID:
		case VARBITOID:
			return SETTINGS_NONE;
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
		case FLOAT4OID:
		case FLOAT8OID:
		case BYTEAOID:
			return SETTINGS_VARIABLES;
	}
	return output == F_ENUM_OUT ? SETTINGS_NONE : SETTINGS_ALL;
}

/* By the function's address: citext has one of its own that is textout. */
static bool
is_text_output(Oid output, const FmgrInfo *function)
{
	return function->fn_addr == textout || output == F_VARCHAROUT || output == F_BPCHAROUT;
}

QsKeyWriter *
qs_key_writer(const QsKeySpec *key, MemoryContext context)
{
	QsKeyWriter *writer = MemoryContextAllocZero(context, offsetof(QsKeyWriter, columns) +
												 key->n * sizeof(KeyColumn));

	writer->n = key->n;
	for (int i = 0; i < key->n; i++)
	{
		Settings	settings;
		Oid			output;
		bool		varlena;

		getTypeOutputInfo(key->types[i], &output, &varlena);
		fmgr_info_cxt(output, &writer->columns[i].output, context);
		writer->columns[i].is_text = is_text_output(output, &writer->columns[i].output);
		settings = writer->columns[i].is_text ? SETTINGS_NONE : settings_of(key->types[i], output);
		writer->settings = Max(writer->settings, settings);
	}
	return writer;
}

/* ---- writing ---- */

static void
append_escaped(StringInfo out, char c)
{
	switch (c)
	{
		case '"':
			appendStringInfoString(out, "\\\"");
			break;
		case '\\':
			appendStringInfoString(out, "\\\\");
			break;
		case '\b':
			appendStringInfoString(out, "\\b");
			break;
		case '\f':
			appendStringInfoString(out, "\\f");
			break;
		case '\n':
			appendStringInfoString(out, "\\n");
			break;
		case '\r':
			appendStringInfoString(out, "\\r");
			break;
		case '\t':
			appendStringInfoString(out, "\\t");
			break;
		default:
			appendStringInfo(out, "\\u%04x", (unsigned char) c);
	}
}

/* All server encodings keep ASCII bytes for ASCII characters. */
static void
append_string(StringInfo out, const char *text, int length)
{
	int			start = 0;

	appendStringInfoCharMacro(out, '"');
	for (int i = 0; i < length; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		appendBinaryStringInfo(out, text + start, i - start);
		append_escaped(out, c);
		start = i + 1;
	}
	appendBinaryStringInfo(out, text + start, length - start);
	appendStringInfoCharMacro(out, '"');
}

static void
append_column(StringInfo out, Datum value, KeyColumn *column)
{
	if (column->is_text)
	{
		struct varlena *text = PG_DETOAST_DATUM_PACKED(value);

		append_string(out, VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text));
		if ((Pointer) text != DatumGetPointer(value))
			pfree(text);
	}
	else
	{
		char	   *text = OutputFunctionCall(&column->output, value);

		append_string(out, text, strlen(text));
		pfree(text);
	}
}

static void
append_columns(StringInfo out, const Datum *values, QsKeyWriter *writer)
{
	appendStringInfoCharMacro(out, '[');
	for (int i = 0; i < writer->n; i++)
	{
		if (i > 0)
			appendStringInfoCharMacro(out, ',');
		append_column(out, values[i], &writer->columns[i]);
	}
	appendStringInfoCharMacro(out, ']');
}

/*
 * Settings as the variables behind them, for types that are frequent in keys: a
 * GUC level for each row would cost more than the row.
 */
static void
with_variables(StringInfo out, const Datum *values, QsKeyWriter *writer)
{
	static pg_tz *utc = NULL;
	int			date_style = DateStyle;
	int			date_order = DateOrder;
	int			interval_style = IntervalStyle;
	int			float_digits = extra_float_digits;
	int			bytea = bytea_output;
	pg_tz	   *zone = session_timezone;

	if (utc == NULL)
		utc = pg_tzset("UTC");
	PG_TRY();
	{
		DateStyle = USE_ISO_DATES;
		DateOrder = DATEORDER_YMD;
		IntervalStyle = INTSTYLE_ISO_8601;
		extra_float_digits = 1;
		bytea_output = BYTEA_OUTPUT_HEX;
		session_timezone = utc;
		append_columns(out, values, writer);
	}
	PG_FINALLY();
	{
		DateStyle = date_style;
		DateOrder = date_order;
		IntervalStyle = interval_style;
		extra_float_digits = float_digits;
		bytea_output = bytea;
		session_timezone = zone;
	}
	PG_END_TRY();
}

static void
with_settings(StringInfo out, const Datum *values, QsKeyWriter *writer)
{
	int			level = NewGUCNestLevel();

	qs_pin_settings(qs_encode_settings);
	append_columns(out, values, writer);
	AtEOXact_GUC(false, level);
}

void
qs_append_key_text(StringInfo out, const Datum *values, QsKeyWriter *writer)
{
	switch (writer->settings)
	{
		case SETTINGS_NONE:
			append_columns(out, values, writer);
			break;
		case SETTINGS_VARIABLES:
			with_variables(out, values, writer);
			break;
		case SETTINGS_ALL:
			with_settings(out, values, writer);
			break;
	}
}

void
qs_append_key_texts(StringInfo out, char *const *texts, int n)
{
	appendStringInfoChar(out, '[');
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			appendStringInfoChar(out, ',');
		append_string(out, texts[i], strlen(texts[i]));
	}
	appendStringInfoChar(out, ']');
}

/* ---- taking apart ---- */

/* *text is behind the backslash, and moves behind the escape; -1: none of ours. */
static int
unescape(const char **text)
{
	static const char codes[] = "\"\\/bfnrt";
	static const char meanings[] = "\"\\/\b\f\n\r\t";
	const char *code = **text != '\0' ? strchr(codes, **text) : NULL;
	unsigned int value;

	if (code != NULL)
	{
		(*text)++;
		return meanings[code - codes];
	}
	if (**text != 'u' || strspn(*text + 1, "0123456789abcdefABCDEF") < 4 ||
		sscanf(*text + 1, "%4x", &value) != 1 || value == 0 || value > 0x7f)
		return -1;
	*text += 5;
	return value;
}

/* *text is at the opening quote, and moves behind the closing one; NULL: not a string. */
static char *
parse_string(const char **text)
{
	StringInfoData string;
	const char *in = *text;

	if (*in++ != '"')
		return NULL;
	initStringInfo(&string);
	while (*in != '"')
	{
		int			c = (unsigned char) *in++;

		if (c == '\0')
			return NULL;
		if (c == '\\')
			c = unescape(&in);
		if (c < 0)
			return NULL;
		appendStringInfoCharMacro(&string, (char) c);
	}
	*text = in + 1;
	return string.data;
}

bool
qs_key_text_parse(const char *text, int n, char **texts)
{
	if (*text++ != '[')
		return false;
	for (int i = 0; i < n; i++)
	{
		if (i > 0 && *text++ != ',')
			return false;
		texts[i] = parse_string(&text);
		if (texts[i] == NULL)
			return false;
	}
	return text[0] == ']' && text[1] == '\0';
}

/* ---- the id ---- */

static const unsigned char *
namespace_bytes(void)
{
	static pg_uuid_t namespace;
	static bool made = false;

	if (!made)
		namespace = *DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(QS_KEY_NAMESPACE)));
	made = true;
	return namespace.data;
}

/* Needs a resource owner, as a transaction has one. */
static void
sha1(const char *text, int length, unsigned char *digest)
{
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA1);

	if (hash == NULL || pg_cryptohash_init(hash) < 0 ||
		pg_cryptohash_update(hash, namespace_bytes(), UUID_LEN) < 0 ||
		pg_cryptohash_update(hash, (const uint8 *) text, length) < 0 ||
		pg_cryptohash_final(hash, digest, SHA1_BYTES) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute the SHA-1 digest of a key"),
				 errhint("UUIDs of version 5 need SHA-1, which a FIPS mode may forbid.")));
	pg_cryptohash_free(hash);
}

QsKey
qs_key_text_id(const char *text, char **message)
{
	unsigned char digest[SHA1_BYTES];
	pg_uuid_t	uuid;
	const char *utf8 = text;
	int			length = strlen(text);

	*message = qs_to_utf8(text, length, &utf8, &length);
	if (*message != NULL)
	{
		utf8 = text;
		length = strlen(text);
	}
	sha1(utf8, length, digest);
	memcpy(uuid.data, digest, UUID_LEN);
	uuid.data[6] = (uuid.data[6] & 0x0f) | 0x50;
	uuid.data[8] = (uuid.data[8] & 0x3f) | 0x80;
	return qs_key_from_datum(UUIDPGetDatum(&uuid), UUIDOID);
}

/* ---- looking a row up ---- */

/* The type's own equality, in whatever schema it is. */
static const char *
equality(Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_EQ_OPR);
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(entry->eq_opr));
	Form_pg_operator operator;
	char	   *result;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("type %s of a mirror's key has no equality operator", format_type_be(type))));
	operator = (Form_pg_operator) GETSTRUCT(tuple);
	result = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(operator->oprnamespace)),
					  NameStr(operator->oprname));
	ReleaseSysCache(tuple);
	return result;
}

void
qs_append_key_condition(StringInfo sql, const char *column, Oid type, const char *text)
{
	/* "character" alone would mean character(1): with no modifier it is bpchar. */
	appendStringInfo(sql, "%s %s CAST(%s AS %s)", column, equality(type), text,
					 format_type_extended(type, -1,
										  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
}

Oid
qs_key_text_family(Oid type)
{
	switch (type)
	{
		case VARCHAROID:
			return TEXTOID;
		case INT2OID:
		case INT4OID:
			return INT8OID;
		default:
			return type;
	}
}

uint32
qs_key_types_hash(const QsKeySpec *key)
{
	Oid			families[INDEX_MAX_KEYS];

	for (int i = 0; i < key->n; i++)
		families[i] = qs_key_text_family(key->types[i]);
	return hash_bytes((const unsigned char *) families, key->n * sizeof(Oid));
}
