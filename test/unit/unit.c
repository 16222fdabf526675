/*
 * unit.c
 *		Checks for the programs of test/unit.
 */
#include <stdio.h>
#include <string.h>

#include "unit.h"

static int	failures;			/* of the test that runs */

static void
failed(const char *file, int line)
{
	failures++;
	printf("  %s:%d: ", file, line);
}

void
unit_check(bool holds, const char *what, const char *file, int line)
{
	if (holds)
		return;
	failed(file, line);
	printf("not true: %s\n", what);
}

void
unit_check_int(long long actual, long long expected, const char *what,
			   const char *file, int line)
{
	if (actual == expected)
		return;
	failed(file, line);
	printf("%s is %lld, expected %lld\n", what, actual, expected);
}

void
unit_check_text(const char *actual, const char *expected, const char *what,
				const char *file, int line)
{
	if (actual == expected || (actual && expected && strcmp(actual, expected) == 0))
		return;
	failed(file, line);
	printf("%s is %s, expected %s\n", what, actual ? actual : "NULL",
		   expected ? expected : "NULL");
}

int
unit_main(const UnitTest *tests, int n)
{
	int			failed_tests = 0;

	for (int i = 0; i < n; i++)
	{
		failures = 0;
		tests[i].run();
		printf("%s %s\n", failures ? "FAILED" : "ok", tests[i].name);
		if (failures)
			failed_tests++;
	}
	printf("%d passed, %d failed\n", n - failed_tests, failed_tests);
	return failed_tests ? 1 : 0;
}
