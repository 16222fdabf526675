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

#define FUZZ_MAX_INPUT (1 << 20)

/* From 0 to below - 1; the same numbers in every run. */
extern uint64_t fuzz_random(uint64_t below);

/* Replaces a byte, inserts a token, or puts one in a piece's place, in FUZZ_MAX_INPUT bytes; the new size. */
extern size_t fuzz_change(uint8_t *data, size_t size);

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif							/* QS_FUZZ_H */
