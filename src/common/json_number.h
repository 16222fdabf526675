/*
 * json_number.h
 *		Whether Qdrant's parser takes a number.
 */
#ifndef QS_JSON_NUMBER_H
#define QS_JSON_NUMBER_H

#include "qdrant_sync.h"

/*
 * False for a number that it takes for infinite: 1e309, or 309 digits.  Text is a
 * number as JSON writes it, of any length.  What rounds to 0 is taken.
 */
extern bool qs_json_number_fits(const char *text, size_t length);

#endif							/* QS_JSON_NUMBER_H */
