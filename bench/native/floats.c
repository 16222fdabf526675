/*
 * floats.c
 *		Times the sync worker's float encoder against the usual ways to write a
 *		float as JSON, and reads everything back.
 *
 * A program of its own, linked with float_text.c of src/.  For each data set and
 * encoder it prints a line: data set, encoder, ns per float, bytes per float,
 * floats that did not read back bit for bit (as a double rounded to float, or
 * directly).
 */
#include "postgres.h"

#include <jansson.h>
#include <math.h>
#include <time.h>

#include "common/shortest_dec.h"
#include "float_text.h"

#define DIMENSION 384
#define VECTORS 256
#define FLOATS (DIMENSION * VECTORS)
#define REPETITIONS 9

/* Text of one vector; jansson and %.9g write at most 25 bytes a float. */
#define TEXT_BYTES (DIMENSION * 32)

typedef size_t (*Encoder) (const float *values, char *out);

static float data[FLOATS];
static char written[TEXT_BYTES];

static uint64
next_random(void)
{
	static uint64 state = UINT64CONST(0x9e3779b97f4a7c15);

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static double
uniform(void)
{
	return (double) (next_random() >> 11) / ((double) (UINT64CONST(1) << 52)) - 1.0;
}

/* ---- encoders: n floats with commas ---- */

static size_t
by_qdrant_sync(const float *values, char *out)
{
	int			bad;

	return qs_put_floats(out, values, DIMENSION, &bad) - out;
}

static size_t
by_shortest(const float *values, char *out)
{
	char	   *end = out;

	for (int i = 0; i < DIMENSION; i++)
	{
		end += float_to_shortest_decimal_bufn(values[i], end);
		*end++ = ',';
	}
	return end - out;
}

static size_t
by_printf(const float *values, char *out)
{
	char	   *end = out;

	for (int i = 0; i < DIMENSION; i++)
		end += snprintf(end, 32, "%.9g,", values[i]);
	return end - out;
}

static size_t
by_jansson(const float *values, char *out)
{
	json_t	   *array = json_array();
	char	   *dumped;
	size_t		length;

	for (int i = 0; i < DIMENSION; i++)
		json_array_append_new(array, json_real(values[i]));
	dumped = json_dumps(array, JSON_COMPACT);
	length = strlen(dumped);
	/* Without the brackets, a comma at the end, as the others. */
	memcpy(out, dumped + 1, length - 2);
	out[length - 2] = ',';
	free(dumped);
	json_decref(array);
	return length - 1;
}

static const struct
{
	const char *name;
	Encoder		encode;
}			encoders[] = {
	{"qdrant_sync", by_qdrant_sync},
	{"shortest", by_shortest},
	{"printf9", by_printf},
	{"jansson", by_jansson},
};

/* ---- data sets ---- */

static void
fill_uniform(void)
{
	for (int i = 0; i < FLOATS; i++)
		data[i] = (float) uniform();
}

/* Vectors of length 1, as embedding models give them. */
static void
fill_unit(void)
{
	for (int v = 0; v < VECTORS; v++)
	{
		double		square = 0;
		double		raw[DIMENSION];

		for (int i = 0; i < DIMENSION; i++)
		{
			raw[i] = uniform() + uniform() + uniform();
			square += raw[i] * raw[i];
		}
		for (int i = 0; i < DIMENSION; i++)
			data[v * DIMENSION + i] = (float) (raw[i] / sqrt(square));
	}
}

static void
fill_four_decimals(void)
{
	for (int i = 0; i < FLOATS; i++)
		data[i] = (float) (rint(uniform() * 10000) / 10000);
}

static const struct
{
	const char *name;
	void		(*fill) (void);
}			data_sets[] = {
	{"uniform", fill_uniform},
	{"unit", fill_unit},
	{"decimals4", fill_four_decimals},
};

/* ---- measuring ---- */

static double
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static int
compare_doubles(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static bool
same_bits(float a, float b)
{
	return memcmp(&a, &b, sizeof(float)) == 0;
}

/* Floats of one vector whose text does not read back. */
static int
wrong_floats(const float *values, const char *in)
{
	int			wrong = 0;
	char	   *end;

	for (int i = 0; i < DIMENSION; i++)
	{
		double		as_double = strtod(in, &end);
		float		as_float = strtof(in, NULL);

		if (*end != ',' || !same_bits((float) as_double, values[i]) || !same_bits(as_float, values[i]))
			wrong++;
		in = end + 1;
	}
	return wrong;
}

static double
time_once(Encoder encode)
{
	double		start = now_ns();

	for (int v = 0; v < VECTORS; v++)
		encode(data + v * DIMENSION, written);
	return (now_ns() - start) / FLOATS;
}

static void
report(const char *set, int which, double *times)
{
	size_t		bytes = 0;
	int			wrong = 0;

	for (int v = 0; v < VECTORS; v++)
	{
		bytes += encoders[which].encode(data + v * DIMENSION, written);
		wrong += wrong_floats(data + v * DIMENSION, written);
	}
	qsort(times, REPETITIONS, sizeof(double), compare_doubles);
	printf("%s %s %.2f %.2f %d\n", set, encoders[which].name, times[REPETITIONS / 2],
		   (double) bytes / FLOATS, wrong);
}

/* All encoders take turns, so that a slow moment hits all of them. */
static void
measure(const char *set)
{
	double		times[lengthof(encoders)][REPETITIONS];

	for (int r = 0; r < REPETITIONS; r++)
	{
		for (int e = 0; e < lengthof(encoders); e++)
			times[e][r] = time_once(encoders[e].encode);
	}
	for (int e = 0; e < lengthof(encoders); e++)
		report(set, e, times[e]);
}

/* Finite floats of every magnitude, from random bits. */
static void
check_all_magnitudes(long vectors)
{
	long		wrong = 0;

	for (long v = 0; v < vectors; v++)
	{
		for (int i = 0; i < DIMENSION;)
		{
			uint32		bits = (uint32) (next_random() >> 32);

			memcpy(&data[i], &bits, sizeof(float));
			i += isfinite(data[i]) != 0;
		}
		by_qdrant_sync(data, written);
		wrong += wrong_floats(data, written);
	}
	printf("random_bits qdrant_sync checked %ld %ld\n", vectors * DIMENSION, wrong);
}

int
main(int argc, char **argv)
{
	for (int s = 0; s < lengthof(data_sets); s++)
	{
		data_sets[s].fill();
		measure(data_sets[s].name);
	}
	check_all_magnitudes(argc > 1 ? atol(argv[1]) : 10000);
	return 0;
}
