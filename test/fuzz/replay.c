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

#define MAX_INPUT (1 << 20)

/* What JSON and HTTP are sensitive to. */
static const char *const tokens[] = {
	"\"", "\\", "\\u0000", "\\ud800", "{", "}", "[", "]", ",", ":", "null", "true", "-", "1e999", "99999999999999999999",
	"-9223372036854775809", "0.1", "\r\n", "\r\n\r\n", "\xff", "\xc0\x80", "Content-Length: ", "Transfer-Encoding: chunked",
	"ffffffffffffffff\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "\"result\"", "\"points\"", "\"id\"", "[[[[[[[[",
};

static unsigned long inputs;
static uint64_t state = 88172645463325252u;

/* xorshift: the same numbers everywhere. */
static uint64_t
random_number(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return below == 0 ? 0 : state % below;
}

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

/* Replaces, inserts, removes, or doubles a piece. */
static size_t
change(uint8_t *data, size_t size)
{
	const char *token = tokens[random_number(sizeof(tokens) / sizeof(tokens[0]))];
	size_t		at = random_number(size + 1);
	size_t		length = strlen(token);
	size_t		gone = random_number(2) ? 0 : random_number(8);

	if (random_number(4) == 0 && size > 0)
	{
		data[random_number(size)] = (uint8_t) random_number(256);
		return size;
	}
	if (gone > size - at)
		gone = size - at;
	if (size + length > MAX_INPUT)
		return size;
	memmove(data + at + length, data + at + gone, size - at - gone);
	memcpy(data + at, token, length);
	return size + length - gone;
}

static void
run_changed(const uint8_t *data, size_t size, long n)
{
	uint8_t    *changed = malloc(2 * MAX_INPUT);

	for (long i = 0; i < n; i++)
	{
		size_t		now = size;

		memcpy(changed, data, size);
		for (uint64_t k = 1 + random_number(4); k > 0; k--)
			now = change(changed, now);
		run(changed, now);
	}
	free(changed);
}

int
main(int argc, char **argv)
{
	static uint8_t data[MAX_INPUT];

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
