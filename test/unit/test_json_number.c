/* with: src/common/json_number.c */
/*
 * test_json_number.c
 *		Which numbers are taken for infinite; as Qdrant 1.18 answered to each.
 */
#include "postgres.h"

#include "common/json_number.h"
#include "unit.h"

static bool
fits(const char *text)
{
	return qs_json_number_fits(text, strlen(text));
}

/* digits, and zeros behind them until there are as many as length. */
static bool
long_fits(const char *digits, int length, const char *rest)
{
	char		text[1024];

	memset(text, '0', sizeof(text));
	memcpy(text, digits, strlen(digits));
	strcpy(text + length, rest);
	return fits(text);
}

static void
usual_numbers_are_taken(void)
{
	CHECK(fits("0"));
	CHECK(fits("-0"));
	CHECK(fits("-0.0"));
	CHECK(fits("1.5e3"));
	CHECK(fits("18446744073709551616"));
	CHECK(fits("123456789012345678901234567890"));
}

static void
the_largest_doubles_are_taken(void)
{
	CHECK(fits("1e308"));
	CHECK(fits("-1E+308"));
	CHECK(fits("1.7976931348623157e308"));
	CHECK(long_fits("1797693134862315", 309, ""));
	CHECK(long_fits("1", 309, "." "00000000000000000000000001"));
	CHECK(long_fits("99999999999999999999999999999", 309, "e-1"));
}

static void
what_is_beyond_is_not(void)
{
	CHECK(!fits("1e309"));
	CHECK(!fits("-1e309"));
	CHECK(!fits("1e99999999999999999999"));
	CHECK(!fits("1.7976931348623158e308"));
	CHECK(!fits("1.797693134862315807e308"));
	CHECK(!long_fits("17976931348623157", 309, ""));
	CHECK(!long_fits("17976931348623157", 309, ".5"));
	CHECK(!long_fits("1", 310, ""));
	CHECK(!long_fits("1", 310, ".25"));
}

static void
what_rounds_to_zero_is_taken(void)
{
	CHECK(fits("1e-400"));
	CHECK(fits("1e-99999999999999999999"));
	CHECK(fits("0e400"));
	CHECK(fits("0.0e999999999"));
	CHECK(long_fits("0.", 402, "1"));
}

static void
digits_and_exponent_may_cancel_out(void)
{
	CHECK(long_fits("1", 401, "e-400"));
	CHECK(long_fits("0.", 402, "1e401"));
	CHECK(!long_fits("0.", 402, "1e720"));
}

static const UnitTest tests[] = {
	UNIT_TEST(usual_numbers_are_taken),
	UNIT_TEST(the_largest_doubles_are_taken),
	UNIT_TEST(what_is_beyond_is_not),
	UNIT_TEST(what_rounds_to_zero_is_taken),
	UNIT_TEST(digits_and_exponent_may_cancel_out),
};

UNIT_MAIN(tests)
