/*
 * points.h
 *		Points that a user wrote as jsonb, checked.
 */
#ifndef QS_POINTS_H
#define QS_POINTS_H

#include "capture/bodies.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/* Zero but for the first two is a check that has seen nothing. */
typedef struct QsPointsCheck
{
	const char *where;			/* before "point 2: " in messages; "" or "operation 3, " */
	bool		only_vectors;	/* points of update_vectors, which have no payload */

	/* points.c's: how long the vectors of each name are. */
	List	   *widths;
	MemoryContext context;
} QsPointsCheck;

/*
 * ERROR 22023, naming the position, unless points is an array of points that
 * Qdrant can take: id, vector, payload.  With one check for several arrays, the
 * vectors of a name have to be equally long in all of them.
 */
extern void qs_points_check(QsPointsCheck *check, JsonbContainer *points);

/*
 * The same of one point's vector, or object of named ones, alone; and of the length
 * that a dense one, or a row of a multi-vector, has.  check->context is set.
 */
extern void qs_points_check_vector(QsPointsCheck *check, int position, const Jsonb *vector);
extern void qs_points_check_width(QsPointsCheck *check, int position, const char *name, int size);

/* Gives each point to bodies, which names them "point". */
extern void qs_points_write(JsonbContainer *points, QsBodies *bodies);

/*
 * ERROR 22023 where it is nested deeper than fits into a request, or has a number that
 * Qdrant's parser does not take.
 */
extern void qs_json_check(const char *where, JsonbContainer *json);
extern void qs_json_check_value(const char *where, JsonbValue *value);

#endif							/* QS_POINTS_H */
