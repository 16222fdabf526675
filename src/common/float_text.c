/*
 * float_text.c
 *		Floats to JSON text: the shortest that reads back the same.
 *
 * Pure functions of the sync worker.  NaN and infinity have no JSON and are the
 * caller's to refuse.
 *
 * A float in [2^e, 2^(e+1)) has its neighbours 2^(e-23) away, so a decimal
 * within half of that reads back as this float.  Let D be the fewest decimals
 * whose rounding error, 0.5 * 10^-D, is always below this half.  The shortest
 * text then has D decimals or fewer.  If one with fewer reads back, it is less
 * than 0.5 * 10^-(D-1) away, hence it is what rounding to D - 1 decimals gives.
 * So two roundings and the removal of trailing zeros find the shortest text,
 * without a branch that depends on the digits.
 *
 * The product with 10^D is exact in a double: 24 bits of the float, and 5^12 has
 * 28.  That bounds D by 12 and e by -16.  From 10 up the integer part has more
 * digits than one.  Outside this range PostgreSQL's own function is called.
 */
#include "common/float_text.h"

#include <math.h>
#include <string.h>

#include "common/shortest_dec.h"
#include "port/pg_bitutils.h"
#include "port/pg_bswap.h"

#define FLOAT_SIGN_BIT 0x80000000U
#define FLOAT_INFINITY_BITS 0x7f800000U
#define FIXED_FROM_BITS 0x37800000U		/* 2^-16 */
#define FIXED_TO_BITS 0x41200000U	/* 10, the first beyond */
#define FIXED_FROM_EXPONENT (127 - 16)	/* as biased in the float */

/* Floats of a pass of qs_put_floats; more gain nothing. */
#define PASS_FLOATS 32

/* How floats of one binary exponent are written. */
typedef struct FixedForm
{
	double		power;			/* 10^D */
	double		half;			/* half the gap to the next float, times 10^D */
	uint32		one;			/* 10^D while there is an integer part; else 0 */
	uint32		scale;			/* to nine decimals, where D is less */
	int32		zeros;			/* D - 9, where D is more */
} FixedForm;

/* 10^D * 2^(e-24), in two factors that an int can shift; both are exact. */
#define FORM(power, exponent, one, scale, zeros) \
	{power, (power) * (1.0 / (1 << (24 - (exponent)) / 2)) / (1 << ((25 - (exponent)) / 2)), \
	 one, scale, zeros}

static const FixedForm fixed_forms[] = {
	FORM(1e12, -16, 0, 1, 3),
	FORM(1e12, -15, 0, 1, 3),
	FORM(1e12, -14, 0, 1, 3),
	FORM(1e11, -13, 0, 1, 2),
	FORM(1e11, -12, 0, 1, 2),
	FORM(1e11, -11, 0, 1, 2),
	FORM(1e10, -10, 0, 1, 1),
	FORM(1e10, -9, 0, 1, 1),
	FORM(1e10, -8, 0, 1, 1),
	FORM(1e10, -7, 0, 1, 1),
	FORM(1e9, -6, 0, 1, 0),
	FORM(1e9, -5, 0, 1, 0),
	FORM(1e9, -4, 0, 1, 0),
	FORM(1e8, -3, 0, 10, 0),
	FORM(1e8, -2, 0, 10, 0),
	FORM(1e8, -1, 0, 10, 0),
	FORM(1e7, 0, 10000000, 100, 0),
	FORM(1e7, 1, 10000000, 100, 0),
	FORM(1e7, 2, 10000000, 100, 0),
	FORM(1e7, 3, 10000000, 100, 0),
};

/*
 * Eight digits, one a byte, the first in the lowest byte: halves, then pairs,
 * then digits, all lanes of a word at once.  Multiplying and shifting divides by
 * 100 (below 10,000) and by 10 (below 100).
 */
static inline uint64
eight_digits(uint32 value)
{
	uint64		halves = (value / 10000) | ((uint64) (value % 10000) << 32);
	uint64		high = ((halves * 10486) >> 20) & UINT64CONST(0x0000007f0000007f);
	uint64		pairs = high | ((halves - 100 * high) << 16);
	uint64		tens = ((pairs * 103) >> 10) & UINT64CONST(0x000f000f000f000f);

	return tens | ((pairs - 10 * tens) << 8);
}

static inline void
store_eight(char *out, uint64 digits)
{
#ifdef WORDS_BIGENDIAN
	digits = pg_bswap64(digits);
#endif
	memcpy(out, &digits, sizeof(digits));
}

/* A float in the fixed range, rounded: integer.nine, zeros before nine. */
typedef struct Decimal
{
	uint32		nine;			/* decimals; OTHER: not in the fixed range */
	uint8		integer;
	uint8		zeros;
	bool		negative;
} Decimal;

#define OTHER UINT32_MAX

static inline Decimal
to_decimal(uint32 bits)
{
	uint32		magnitude = bits & ~FLOAT_SIGN_BIT;
	Decimal		result = {OTHER, 0, 0, (bits & FLOAT_SIGN_BIT) != 0};
	const FixedForm *form;
	float		value;
	double		scaled;
	uint32		decimal;
	uint32		shorter;
	bool		reads_back;

	if (unlikely(magnitude - FIXED_FROM_BITS >= FIXED_TO_BITS - FIXED_FROM_BITS))
		return result;
	form = &fixed_forms[(magnitude >> 23) - FIXED_FROM_EXPONENT];
	memcpy(&value, &magnitude, sizeof(value));
	scaled = value * form->power;
	decimal = (int32) (scaled + 0.5);
	shorter = (int32) (scaled * 0.1 + 0.5) * 10;

	/* Chosen by a mask: the branch would be mispredicted for every third float. */
	reads_back = fabs((int32) shorter - scaled) < form->half;
	decimal ^= (decimal ^ shorter) & -(uint32) reads_back;

	result.integer = (int32) value;
	result.zeros = form->zeros;
	result.nine = (decimal - result.integer * form->one) * form->scale;
	return result;
}

static inline char *
put_decimal(char *out, Decimal decimal)
{
	uint32		first = decimal.nine / 100000000;
	uint64		digits = eight_digits(decimal.nine - first * 100000000);
	int			trailing;

	*out = '-';
	out += decimal.negative;
	memcpy(out, "0.000000", 8);
	out[0] = '0' + decimal.integer;
	out += 2 + decimal.zeros;
	out[0] = '0' + first;
	store_eight(out + 1, digits | UINT64CONST(0x3030303030303030));

	/* The last digits are in the highest bytes.  No decimals: no point either. */
	if (likely(digits != 0))
		trailing = (63 - pg_leftmost_one_pos64(digits)) / 8;
	else
		trailing = first != 0 ? 8 : 10;
	return out + 9 - trailing;
}

static inline char *
put_float(char *out, float value, Decimal decimal)
{
	if (likely(decimal.nine != OTHER))
		return put_decimal(out, decimal);
	return out + float_to_shortest_decimal_bufn(value, out);
}

static inline uint32
bits_of(float value)
{
	uint32		bits;

	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

char *
qs_put_float(char *out, float value)
{
	return put_float(out, value, to_decimal(bits_of(value)));
}

/*
 * In two passes over a few floats at a time: either by itself is short enough for
 * the processor to work on several floats at once.
 */
char *
qs_put_floats(char *out, const float *values, int n, int *bad)
{
	Decimal		decimals[PASS_FLOATS];

	for (int start = 0; start < n; start += PASS_FLOATS)
	{
		int			end = Min(start + PASS_FLOATS, n);

		for (int i = start; i < end; i++)
			decimals[i - start] = to_decimal(bits_of(values[i]));
		for (int i = start; i < end; i++)
		{
			out = put_float(out, values[i], decimals[i - start]);
			*out++ = ',';
			if (unlikely((bits_of(values[i]) & FLOAT_INFINITY_BITS) == FLOAT_INFINITY_BITS))
			{
				*bad = i;
				return NULL;
			}
		}
	}
	return out;
}
