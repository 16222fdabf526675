/*
 * replay.c
 *		Runs a fuzz target without libFuzzer, for compilers that lack it:
 *		replay N FILE...
 *
 * Each file as it is, cut at each of many places, and with N changes each, which are
 * the same in every run.  Says how many inputs there were.  With QS_FUZZ_LAST, the
 * name of a file, each input is written to it first, to be found there after a crash.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

static unsigned long inputs;

static void
keep(const uint8_t *data, size_t size)
{
	FILE	   *file = fopen(getenv("QS_FUZZ_LAST"), "wb");

	if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0)
		exit(1);
}

static void
run(const uint8_t *data, size_t size)
{
	/* Exactly as large, so that a sanitizer sees who passes the end. */
	uint8_t    *copy = malloc(size == 0 ? 1 : size);

	memcpy(copy, data, size);
	if (getenv("QS_FUZZ_LAST") != NULL)
		keep(data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
	inputs++;
}

static void
run_cut(const uint8_t *data, size_t size)
{
	size_t		step = size / 64 + 1;

	for (size_t at = 0; at < size; at += step)
		run(data, at);
	run(data, size);
}

static void
run_changed(const uint8_t *data, size_t size, long n)
{
	uint8_t    *changed = malloc(FUZZ_MAX_INPUT);

	for (long i = 0; i < n; i++)
	{
		size_t		now = size;

		memcpy(changed, data, size);
		for (uint64_t k = 1 + fuzz_random(4); k > 0; k--)
			now = fuzz_change(changed, now);
		run(changed, now);
	}
	free(changed);
}

int
main(int argc, char **argv)
{
	static uint8_t data[FUZZ_MAX_INPUT];

	for (int i = 2; i < argc; i++)
	{
		FILE	   *file = fopen(argv[i], "rb");
		size_t		size;

		if (file == NULL)
			return 1;
		size = fread(data, 1, sizeof(data), file);
		fclose(file);
		run_cut(data, size);
		run_changed(data, size, atol(argv[1]));
	}
	printf("%lu inputs\n", inputs);
	return 0;
}
