/*
 * hits.h
 *		Points in Qdrant's answers.
 */
#ifndef QS_HITS_H
#define QS_HITS_H

#include "client/request.h"
#include "utils/jsonb.h"

/* The largest double below 2^63: no bigint overflows, and no collection gets there. */
#define QS_MAX_VERSION 9223372036854774784.0

typedef struct QsHit
{
	char	   *id;				/* digits or a uuid */
	bool		is_uuid;
	float		score;
	bool		has_score;
	int64		version;
	bool		has_version;
	Jsonb	   *payload;		/* this and the others: NULL where there is none */
	Jsonb	   *vector;
	Jsonb	   *order_value;
	Jsonb	   *shard_key;
} QsHit;

/*
 * The points of an answer {"result":{"points":[…]}}, palloc'd.  ERROR 08P01 for
 * another answer.  A character \u0000 in a point, which no jsonb can hold, is
 * replaced, with a WARNING that names the point; one that the database's encoding
 * lacks is an ERROR 22P05 that names it.
 */
extern QsHit *qs_hits_decode(const QsServer *server, const QsAnswer *answer, int *n);

/* The same where the points are the result itself: that of qs_answer_result. */
extern QsHit *qs_hits_of_result(const QsServer *server, Jsonb *result, int *n);

/* (id, score, payload, vector, version, order_value, shard_key) */
#define QS_HIT_COLUMNS 7

extern void qs_hit_columns(const QsHit *hit, Datum *values, bool *nulls);

/*
 * The member result of an answer.  ERROR 08P01 where there is none, or null;
 * characters as above, without a name.
 */
extern Jsonb *qs_answer_result(const QsServer *server, const QsAnswer *answer);

/* One point, an object. */
extern void qs_hit_decode(const QsServer *server, JsonbContainer *point, QsHit *hit);

/* Parts of an answer.  ERROR 08P01 where they are anything else. */
extern char *qs_answer_id(const QsServer *server, const JsonbValue *id);
extern JsonbContainer *qs_answer_object(const QsServer *server, JsonbContainer *array, uint32 i);

/* The member score of an object; false: there is none, or null. */
extern bool qs_answer_score(const QsServer *server, JsonbContainer *object, float *score);

/* An answer, which is an object, whole; characters as above. */
extern Jsonb *qs_answer_document(const QsServer *server, const QsAnswer *answer);

/* ERROR 08P01 */
QS_NORETURN extern void qs_answer_not_understood(const QsServer *server);

#endif							/* QS_HITS_H */
