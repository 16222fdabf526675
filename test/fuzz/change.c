/*
 * change.c
 *		Changes of an input, the same in every run.
 */
#include <string.h>

#include "fuzz.h"

/* What JSON and HTTP are sensitive to. */
static const char *const tokens[] = {
	"\"", "\\", "\\u0000", "\\ud800", "{", "}", "[", "]", ",", ":", "null", "true", "-", "1e999", "99999999999999999999",
	"-9223372036854775809", "0.1", "\r\n", "\r\n\r\n", "\xff", "\xc0\x80", "Content-Length: ", "Transfer-Encoding: chunked",
	"ffffffffffffffff\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "\"result\"", "\"points\"", "\"id\"", "[[[[[[[[",
};

static uint64_t state = 88172645463325252u;

/* xorshift: the same numbers everywhere. */
uint64_t
fuzz_random(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return below == 0 ? 0 : state % below;
}

size_t
fuzz_change(uint8_t *data, size_t size)
{
	const char *token = tokens[fuzz_random(sizeof(tokens) / sizeof(tokens[0]))];
	size_t		at = fuzz_random(size + 1);
	size_t		length = strlen(token);
	size_t		gone = fuzz_random(2) ? 0 : fuzz_random(8);

	if (fuzz_random(4) == 0 && size > 0)
	{
		data[fuzz_random(size)] = (uint8_t) fuzz_random(256);
		return size;
	}
	if (gone > size - at)
		gone = size - at;
	if (size + length > FUZZ_MAX_INPUT)
		return size;
	memmove(data + at + length, data + at + gone, size - at - gone);
	memcpy(data + at, token, length);
	return size + length - gone;
}
