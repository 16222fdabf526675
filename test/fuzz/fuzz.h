/*
 * fuzz.h
 *		What each fuzz target is: a function that takes any bytes, and must come back.
 *
 * A target is one fuzz_*.c.  Its first line names what is compiled with it:
 *		with: src/net/outcome.c src/net/qdrant_json.c
 * in a comment.
 */
#ifndef QS_FUZZ_H
#define QS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif							/* QS_FUZZ_H */
