/*
 * number_set.c
 *		Numbers of operations that are done, though a smaller one is not.
 *
 * Sync worker only.  Pure, and of a fixed size: what it forgets is sent once
 * more after a crash, and no harm is done but for that.
 */
#include "sync/number_set.h"

/* First range that ends at number or behind it. */
static int
find_range(const QsNumberSet *set, int64 number)
{
	int			low = 0;
	int			high = set->n;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (set->ranges[middle].last < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void
remove_ranges(QsNumberSet *set, int from, int count)
{
	memmove(&set->ranges[from], &set->ranges[from + count],
			(set->n - from - count) * sizeof(QsNumberRange));
	set->n -= count;
}

bool
qs_number_set_has(const QsNumberSet *set, int64 number)
{
	int			at = find_range(set, number);

	return at < set->n && set->ranges[at].first <= number;
}

static void
insert_range(QsNumberSet *set, int at, int64 number)
{
	if (set->n == QS_NUMBER_RANGES_MAX)
	{
		if (at == 0)
			return;
		remove_ranges(set, 0, 1);
		at--;
	}
	memmove(&set->ranges[at + 1], &set->ranges[at], (set->n - at) * sizeof(QsNumberRange));
	set->ranges[at].first = set->ranges[at].last = number;
	set->n++;
}

void
qs_number_set_add(QsNumberSet *set, int64 number)
{
	int			at = find_range(set, number);
	bool		after = at > 0 && set->ranges[at - 1].last == number - 1;
	bool		before = at < set->n && set->ranges[at].first == number + 1;

	if (at < set->n && set->ranges[at].first <= number)
		return;
	if (after && before)
	{
		set->ranges[at - 1].last = set->ranges[at].last;
		remove_ranges(set, at, 1);
	}
	else if (after)
		set->ranges[at - 1].last = number;
	else if (before)
		set->ranges[at].first = number;
	else
		insert_range(set, at, number);
}

void
qs_number_set_forget_up_to(QsNumberSet *set, int64 number)
{
	int			at = find_range(set, number + 1);

	remove_ranges(set, 0, at);
	if (set->n > 0 && set->ranges[0].first <= number)
		set->ranges[0].first = number + 1;
}
