/* with: src/sync/number_set.c */
/*
 * test_number_set.c
 *		Ranges of numbers, against a plain array of flags.
 */
#include "postgres.h"

#include "sync/number_set.h"
#include "unit.h"

#define NUMBERS 600

static QsNumberSet set;

static void
check_against(const bool *flags)
{
	for (int i = 0; i < set.n; i++)
	{
		CHECK(set.ranges[i].first <= set.ranges[i].last);
		CHECK(i == 0 || set.ranges[i - 1].last + 1 < set.ranges[i].first);
	}
	for (int i = 0; i < NUMBERS; i++)
		CHECK(qs_number_set_has(&set, i) == flags[i]);
}

static void
any_order_gives_the_same_ranges(void)
{
	bool		flags[NUMBERS] = {false};
	uint32		random = 1;

	memset(&set, 0, sizeof(set));
	for (int n = 0; n < 2000; n++)
	{
		int			number;

		random = random * 1103515245 + 12345;
		number = (random >> 16) % NUMBERS;
		qs_number_set_add(&set, number);
		flags[number] = true;
		if (n % 50 == 0)
			check_against(flags);
	}
	check_against(flags);
}

static void
what_is_forgotten_is_gone_and_nothing_else(void)
{
	for (int upto = 0; upto < 30; upto++)
	{
		bool		flags[NUMBERS] = {false};

		memset(&set, 0, sizeof(set));
		for (int i = 1; i < 30; i++)
		{
			if (i % 7 == 0 || i % 7 == 3)
				continue;
			qs_number_set_add(&set, i);
			flags[i] = i > upto;
		}
		qs_number_set_forget_up_to(&set, upto);
		check_against(flags);
	}
}

static void
full_set_keeps_its_largest_numbers(void)
{
	memset(&set, 0, sizeof(set));
	for (int i = 1; i <= QS_NUMBER_RANGES_MAX + 10; i++)
		qs_number_set_add(&set, 2 * i);
	CHECK_INT(set.n, QS_NUMBER_RANGES_MAX);
	CHECK(!qs_number_set_has(&set, 20));
	CHECK(qs_number_set_has(&set, 22));
	qs_number_set_add(&set, 1);
	CHECK(!qs_number_set_has(&set, 1));
	CHECK(qs_number_set_has(&set, 22));
	CHECK(qs_number_set_has(&set, 2 * (QS_NUMBER_RANGES_MAX + 10)));
}

static const UnitTest tests[] = {
	UNIT_TEST(any_order_gives_the_same_ranges),
	UNIT_TEST(what_is_forgotten_is_gone_and_nothing_else),
	UNIT_TEST(full_set_keeps_its_largest_numbers),
};

UNIT_MAIN(tests)
