/*
 * float_text.h
 *		Floats to JSON text: the shortest that reads back the same.
 *
 * Pure functions: no allocation, no error, no setting.
 */
#ifndef QS_FLOAT_TEXT_H
#define QS_FLOAT_TEXT_H

#include "postgres.h"

/* Room that qs_put_float needs at out; what it writes may be shorter. */
#define QS_FLOAT_MAX_TEXT 16

/*
 * Writes a finite float as a JSON number; returns its end.  Reading the text as
 * double and rounding to float, or directly as float, gives the same bits.
 */
extern char *qs_put_float(char *out, float value);

/*
 * Writes n floats, a comma after each, with QS_FLOAT_MAX_TEXT + 1 bytes of room
 * each; returns the end.  NULL, with *bad the index of the first that is NaN or
 * infinite.
 */
extern char *qs_put_floats(char *out, const float *values, int n, int *bad);

#endif							/* QS_FLOAT_TEXT_H */
