/*
 * number_set.h
 *		A set of numbers that mostly follow each other, as ranges.
 */
#ifndef QS_NUMBER_SET_H
#define QS_NUMBER_SET_H

#include "qdrant_sync.h"

/* More are not kept: the set then forgets its smallest numbers. */
#define QS_NUMBER_RANGES_MAX 2048

typedef struct QsNumberRange
{
	int64		first;
	int64		last;
} QsNumberRange;

/* Zero is empty; ranges neither overlap nor touch, smallest first. */
typedef struct QsNumberSet
{
	int			n;
	QsNumberRange ranges[QS_NUMBER_RANGES_MAX];
} QsNumberSet;

extern bool qs_number_set_has(const QsNumberSet *set, int64 number);
extern void qs_number_set_add(QsNumberSet *set, int64 number);
extern void qs_number_set_forget_up_to(QsNumberSet *set, int64 number);

#endif							/* QS_NUMBER_SET_H */
