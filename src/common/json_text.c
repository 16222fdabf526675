/*
 * json_text.c
 *		Values of the types json and jsonb, as they are.
 *
 * Sync worker.  Refuses, by a message, what is JSON for PostgreSQL and what Qdrant's
 * parser would refuse a whole request for: numbers that no double holds, halves of
 * surrogate pairs, deep nesting.  Looked at in the database's encoding: all of those
 * keep ASCII bytes for ASCII characters.
 */
#include "qdrant_sync.h"
#include "common/json_number.h"
#include "common/payload_writer.h"

/* -1: not four hexadecimal digits. */
static int
hex4(const char *text, const char *end)
{
	int			value = 0;

	for (int i = 0; i < 4; i++)
	{
		if (text + i >= end || !isxdigit((unsigned char) text[i]))
			return -1;
		value = value * 16 + (isdigit((unsigned char) text[i]) ? text[i] - '0' :
							  (text[i] | 0x20) - 'a' + 10);
	}
	return value;
}

/*
 * text is behind "\u".  Type json takes a surrogate without its other half, and
 * Qdrant's parser does not.  *text moves behind the escape.
 */
static bool
check_unicode_escape(const char **text, const char *end)
{
	int			code = hex4(*text, end);

	*text += 4;
	if (code < 0xd800 || code > 0xdfff)
		return true;
	if (code > 0xdbff || end - *text < 6 || (*text)[0] != '\\' || (*text)[1] != 'u')
		return false;
	code = hex4(*text + 2, end);
	*text += 6;
	return code >= 0xdc00 && code <= 0xdfff;
}

/* text is behind the opening quote; moves behind the closing one. */
static bool
check_string(const char **text, const char *end)
{
	while (*text < end && **text != '"')
	{
		if (**text != '\\')
		{
			(*text)++;
			continue;
		}
		*text += 2;
		if ((*text)[-1] == 'u' && !check_unicode_escape(text, end))
			return false;
	}
	(*text)++;
	return true;
}

/* Qdrant's parser refuses a number that a double cannot hold, such as 1e400. */
static bool
check_number(const char **text, const char *end)
{
	const char *start = *text;

	while (*text < end && strchr("+-.0123456789eE", **text) != NULL && **text != '\0')
		(*text)++;
	return qs_json_number_fits(start, *text - start);
}

/* text is valid as PostgreSQL's types json and jsonb are. */
static char *
check_json(const char *text, const char *end, int max_depth)
{
	int			depth = 0;

	while (text < end)
	{
		char		c = *text;

		if ((c >= '0' && c <= '9') || c == '-')
		{
			if (!check_number(&text, end))
				return pstrdup("the JSON value has a number beyond a double's range");
			continue;
		}
		text++;
		if (c == '"' && !check_string(&text, end))
			return pstrdup("the JSON value has half of a surrogate pair");
		if ((c == '{' || c == '[') && ++depth > max_depth)
			return psprintf("the JSON value nests deeper than %d levels", max_depth);
		if (c == '}' || c == ']')
			depth--;
	}
	return NULL;
}

char *
qs_append_json_text(StringInfo out, const char *text, int length, int max_depth)
{
	char	   *message = check_json(text, text + length, max_depth);

	if (message == NULL)
		message = qs_to_utf8(text, length, &text, &length);
	if (message == NULL)
		appendBinaryStringInfo(out, text, length);
	return message;
}
