/*
 * encode.c
 *		Floats and strings to JSON.
 *
 * Sync worker and sessions.  Refuses, by a message, what Qdrant would store as
 * something else: NaN, infinity and values beyond a 32-bit float, bytes that are
 * no UTF-8.
 */
#include "qdrant_sync.h"
#include "common/encode.h"

#include <float.h>
#include <math.h>

#include "access/detoast.h"
#include "catalog/namespace.h"
#include "mb/pg_wchar.h"

char *
qs_check_raw_size(Datum value)
{
	Size		size = toast_raw_datum_size(value);

	if (size <= QS_VALUE_MAX_BYTES)
		return NULL;
	return psprintf("the value has %zu bytes, more than fit in one request to Qdrant", size);
}

/* --- floats --- */

/* Room for n floats as a JSON array; where the text goes. */
static char *
begin_floats(StringInfo out, int n)
{
	enlargeStringInfo(out, n * (QS_FLOAT_MAX_TEXT + 1) + 3);
	out->data[out->len] = '[';
	return out->data + out->len + 1;
}

/* end is behind the last comma, or behind the bracket where there is no float. */
static void
end_floats(StringInfo out, char *end, int n)
{
	if (n > 0)
		end--;
	*end++ = ']';
	*end = '\0';
	out->len = end - out->data;
}

bool
qs_append_floats(StringInfo out, const float *values, int n, int *bad)
{
	char	   *end = qs_put_floats(begin_floats(out, n), values, n, bad);

	if (end == NULL)
	{
		out->data[out->len] = '\0';
		return false;
	}
	end_floats(out, end, n);
	return true;
}

/* Rounding to nearest is what Qdrant would do with the longer text of the double. */
bool
qs_append_doubles(StringInfo out, const double *values, int n, int *bad)
{
	char	   *end = begin_floats(out, n);

	for (int i = 0; i < n; i++)
	{
		float		value = (float) values[i];

		if (unlikely(!isfinite(value)))
		{
			out->data[out->len] = '\0';
			*bad = i;
			return false;
		}
		end = qs_put_float(end, value);
		*end++ = ',';
	}
	end_floats(out, end, n);
	return true;
}

/* --- strings --- */

#define BYTES(byte) (UINT64CONST(0x0101010101010101) * (byte))

/* Nonzero where a byte of the word is zero. */
static inline uint64
zero_byte(uint64 word)
{
	return (word - BYTES(0x01)) & ~word & BYTES(0x80);
}

/* Bytes from text on that JSON takes as they are: all but controls, " and \. */
static int
plain_run(const char *text, int length)
{
	int			i = 0;

	while (i + (int) sizeof(uint64) <= length)
	{
		uint64		word;

		memcpy(&word, text + i, sizeof(word));
		if (((word - BYTES(0x20)) & ~word & BYTES(0x80)) != 0 ||
			zero_byte(word ^ BYTES('"')) != 0 || zero_byte(word ^ BYTES('\\')) != 0)
			break;
		i += sizeof(word);
	}
	while (i < length && (unsigned char) text[i] >= ' ' && text[i] != '"' && text[i] != '\\')
		i++;
	return i;
}

/* One of the characters that end a plain run. */
static void
append_escaped(StringInfo out, char c)
{
	switch (c)
	{
		case '"':
		case '\\':
			appendStringInfoChar(out, '\\');
			appendStringInfoChar(out, c);
			break;
		case '\n':
			appendBinaryStringInfo(out, "\\n", 2);
			break;
		case '\r':
			appendBinaryStringInfo(out, "\\r", 2);
			break;
		case '\t':
			appendBinaryStringInfo(out, "\\t", 2);
			break;
		default:
			appendStringInfo(out, "\\u%04x", (unsigned char) c);
	}
}

/* All server encodings contain ASCII as it is: no conversion then. */
static bool
is_ascii(const char *text, int length)
{
	for (int i = 0; i < length; i++)
		if (IS_HIGHBIT_SET(text[i]))
			return false;
	return true;
}

/* The database's encoding never changes, and pg_catalog's conversions are pinned. */
static Oid
conversion_to_utf8(void)
{
	static Oid	conversion = InvalidOid;

	if (!OidIsValid(conversion))
		conversion = FindDefaultConversionProc(GetDatabaseEncoding(), PG_UTF8);
	if (!OidIsValid(conversion))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("default conversion function for encoding \"%s\" to \"%s\" does not exist",
						GetDatabaseEncodingName(), "UTF8")));
	return conversion;
}

/*
 * The conversion is asked for no error: one bad character is this row's fault and
 * must not abort the read of the others.
 */
static char *
convert_to_utf8(const char *text, int length, const char **utf8, int *utf8_length)
{
	int			size = length * MAX_CONVERSION_GROWTH + 1;
	char	   *converted = palloc(size);
	int			done = pg_do_encoding_conversion_buf(conversion_to_utf8(), GetDatabaseEncoding(),
													 PG_UTF8, (unsigned char *) unconstify(char *, text),
													 length, (unsigned char *) converted, size, true);

	if (done < length)
		return psprintf("the character at byte %d has no equivalent in UTF-8", done + 1);
	*utf8 = converted;
	*utf8_length = strlen(converted);
	return NULL;
}

/*
 * Text in a UTF-8 database was checked when it was stored.  SQL_ASCII stores any
 * bytes; they are sent if they happen to be UTF-8.
 */
char *
qs_to_utf8(const char *text, int length, const char **utf8, int *utf8_length)
{
	int			encoding = GetDatabaseEncoding();

	*utf8 = text;
	*utf8_length = length;
	if (encoding == PG_UTF8 || is_ascii(text, length))
		return NULL;
	if (encoding != PG_SQL_ASCII)
		return convert_to_utf8(text, length, utf8, utf8_length);
	if (pg_verify_mbstr(PG_UTF8, text, length, true))
		return NULL;
	return pstrdup("the text is not valid UTF-8, and the database's encoding SQL_ASCII does not say what it is");
}

bool
qs_from_utf8(const char *utf8, const char **text)
{
	int			length = strlen(utf8);
	int			encoding = GetDatabaseEncoding();
	int			size = length * MAX_CONVERSION_GROWTH + 1;
	Oid			conversion;

	*text = utf8;
	if (is_ascii(utf8, length))
		return true;
	if (!pg_verify_mbstr(PG_UTF8, utf8, length, true))
		return false;
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return true;
	conversion = FindDefaultConversionProc(PG_UTF8, encoding);
	*text = palloc(size);
	return OidIsValid(conversion) &&
		pg_do_encoding_conversion_buf(conversion, PG_UTF8, encoding,
									  (unsigned char *) unconstify(char *, utf8), length,
									  (unsigned char *) unconstify(char *, *text), size, true) == length;
}

/* A message with bytes of no encoding would hide a whole view from who reads UTF-8. */
char *
qs_ascii_only(const char *text)
{
	StringInfoData ascii;

	initStringInfo(&ascii);
	for (; *text != '\0'; text++)
	{
		if (IS_HIGHBIT_SET(*text))
			appendStringInfo(&ascii, "\\x%02x", (unsigned char) *text);
		else
			appendStringInfoChar(&ascii, *text);
	}
	return ascii.data;
}

char *
qs_append_json_string(StringInfo out, const char *text, int length)
{
	char	   *message = qs_to_utf8(text, length, &text, &length);

	if (message != NULL)
		return message;
	appendStringInfoCharMacro(out, '"');
	for (;;)
	{
		int			run = plain_run(text, length);

		appendBinaryStringInfo(out, text, run);
		if (run == length)
			break;
		/* Control characters become six each. */
		if (unlikely(out->len > QS_VALUE_MAX_BYTES))
			return psprintf("the value has more than %d bytes as JSON", QS_VALUE_MAX_BYTES);
		append_escaped(out, text[run]);
		text += run + 1;
		length -= run + 1;
	}
	appendStringInfoCharMacro(out, '"');
	return NULL;
}
