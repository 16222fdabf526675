/*
 * points_reader.h
 *		Points out of the text of an answer.
 */
#ifndef QS_POINTS_READER_H
#define QS_POINTS_READER_H

#include "client/hits.h"

/*
 * The points of an answer {"result":{"points":[…]}}, palloc'd; false where a character
 * cannot be stored.  ERROR 08P01 for an answer of another shape; what PostgreSQL's
 * parser and numeric raise comes through, up to version 15 22P05 for such a character.
 */
extern bool qs_read_points(const QsServer *server, const char *text, Size length,
						   QsHit **hits, int *n);

#endif							/* QS_POINTS_READER_H */
