/*
 * point_id.c
 *		Tells ids of points from everything else.
 *
 * Pure apart from palloc.  Qdrant's message for a bad id names no position.
 */
#include "capture/point_id.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

static bool
all_hex(const char *text, int length)
{
	for (int i = 0; i < length; i++)
	{
		if (!isxdigit((unsigned char) text[i]))
			return false;
	}
	return true;
}

/* As Qdrant takes them: 32 digits, or 8-4-4-4-12 of them. */
bool
qs_is_uuid(const char *text, int length)
{
	static const int groups[] = {8, 4, 4, 4, 12};
	int			at = 0;

	if (length == 32)
		return all_hex(text, length);
	if (length != 36)
		return false;
	for (int i = 0; i < lengthof(groups); i++)
	{
		if (!all_hex(text + at, groups[i]))
			return false;
		at += groups[i];
		if (i < lengthof(groups) - 1 && text[at++] != '-')
			return false;
	}
	return true;
}

/* Without fraction, exponent or leading zero, as a JSON reader of integers wants it. */
bool
qs_is_unsigned_integer(const char *text, int length)
{
	static const char greatest[] = "18446744073709551615";
	int			longest = (int) strlen(greatest);

	if (length == 0 || length > longest || (text[0] == '0' && length > 1))
		return false;
	for (int i = 0; i < length; i++)
	{
		if (!isdigit((unsigned char) text[i]))
			return false;
	}
	return length < longest || memcmp(text, greatest, longest) <= 0;
}

bool
qs_is_point_id(const JsonbValue *value)
{
	char	   *text;
	bool		is_id;

	if (value->type == jbvString)
		return qs_is_uuid(value->val.string.val, value->val.string.len);
	if (value->type != jbvNumeric)
		return false;
	text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
	is_id = qs_is_unsigned_integer(text, (int) strlen(text));
	pfree(text);
	return is_id;
}
