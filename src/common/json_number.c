/*
 * json_number.c
 *		Whether Qdrant's parser takes a number, to the last digit.
 *
 * Pure.  The parser (serde_json, without its exact mode) does not round the decimal
 * number to the next double, as strtod does: it makes a double of the first digits, as
 * many as 64 bits hold, and multiplies it by a power of ten.  At the upper end of the
 * range that overflows a little earlier, and differently for a number with and without
 * an exponent: 1.7976931348623157e308 is taken and the same in 309 digits is not.
 */
#include "common/json_number.h"

#include <math.h>

/* No number whose text is shorter is out of range, unless it has an exponent. */
#define ALWAYS_FITS 300

/* A power of ten is a double up to here. */
#define MAX_POWER 308

/* More than any value has digits; ten times this is an int. */
#define EXPONENT_CAP 100000000

/* The first digits as a number, and the power of ten that it is multiplied by. */
typedef struct Parts
{
	uint64		significand;
	int			exponent;
	bool		full;			/* one digit more does not fit */
} Parts;

static void
add_digit(Parts *parts, int digit, bool fraction)
{
	if (!parts->full && (parts->significand > PG_UINT64_MAX / 10 ||
						 parts->significand * 10 > PG_UINT64_MAX - digit))
		parts->full = true;
	if (parts->full)
	{
		parts->exponent += !fraction;
		return;
	}
	parts->significand = parts->significand * 10 + digit;
	parts->exponent -= fraction;
}

/* text is behind the e. */
static int
read_exponent(const char *text, const char *end)
{
	bool		negative = text < end && *text == '-';
	int			exponent = 0;

	for (text += text < end && (*text == '-' || *text == '+'); text < end; text++)
		exponent = Min(exponent * 10 + (*text - '0'), EXPONENT_CAP);
	return negative ? -exponent : exponent;
}

static double
power_of_ten(int exponent)
{
	char		text[16];

	snprintf(text, sizeof(text), "1e%d", exponent);
	return strtod(text, NULL);
}

/* What is divided by a power of ten stays finite. */
static bool
is_finite(const Parts *parts)
{
	double		value = (double) parts->significand;

	if (value == 0 || parts->exponent <= 0)
		return true;
	return parts->exponent <= MAX_POWER && isfinite(value * power_of_ten(parts->exponent));
}

bool
qs_json_number_fits(const char *text, size_t length)
{
	const char *end = text + length;
	Parts		parts = {0};
	bool		fraction = false;

	if (length < ALWAYS_FITS && memchr(text, 'e', length) == NULL && memchr(text, 'E', length) == NULL)
		return true;
	for (text += length > 0 && *text == '-'; text < end && (*text | 0x20) != 'e'; text++)
	{
		if (*text == '.')
			fraction = true;
		else
			add_digit(&parts, *text - '0', fraction);
	}
	if (text < end)
		parts.exponent += read_exponent(text + 1, end);
	return is_finite(&parts);
}
