/*
 * verify_confirm.h
 *		From a suspect to a difference.
 *
 * Private to src/mirror/verify*.c.
 */
#ifndef QS_VERIFY_CONFIRM_H
#define QS_VERIFY_CONFIRM_H

#include "common/point_key.h"
#include "mirror/verify.h"
#include "nodes/pg_list.h"
#include "utils/hsearch.h"

typedef enum QsVerifyKind
{
	QS_VERIFY_EQUAL,
	QS_VERIFY_MISSING,			/* a row without a point */
	QS_VERIFY_STALE,			/* its point is not as it should be */
	QS_VERIFY_LEFT_OVER,		/* a point without a row */
	QS_VERIFY_REFUSED,			/* a row with a dead letter, or that cannot be read */
	QS_VERIFY_UNCLEAR,			/* changed too often, or too large to be compared */
	QS_VERIFY_KINDS
} QsVerifyKind;

typedef struct QsVerifyFinding
{
	int64		n;
	List	   *examples;		/* of char *, the first few */
} QsVerifyFinding;

/* A point or a row that was found to differ while both sides go on changing. */
typedef struct QsVerifySuspect
{
	QsRowKey	key;
	char	   *id;				/* of its point */
	QsPointOrigin origin;		/* QS_POINT_OF_KEY, where it is confirmed by its key */
	int			absent;			/* how often a point was there, and no row */
} QsVerifySuspect;

typedef struct QsVerify
{
	QsMirrorRow *mirror;
	bool		repair;
	int			timeout;		/* ms; for what is pending, each time that it is waited for */
	MemoryContext context;		/* of the call: findings */
	MemoryContext page;			/* reset after each page or range */
	MemoryContext slice;		/* of a confirmation; NULL: none yet */
	QsVerifyTable table;
	QsVerifyRemote remote;
	QsVerifyFinding findings[QS_VERIFY_KINDS];
	QsVerifySuspect *suspects;	/* of the range at hand */
	int			nsuspects;
	int			range_blocks;
	HTAB	   *unnamed;		/* ids of points that do not say their key; NULL: none */
	bool		sweep;			/* repair needs one */
} QsVerify;

/* Everything that is committed reaches Qdrant, or an ERROR says why it does not. */
extern void qs_verify_wait(QsVerify *verify);

/* A key's point: its id as Qdrant writes it; palloc'd. */
extern char *qs_verify_id(const QsVerify *verify, const QsRowKey *key);

/* Counts; the first few of a kind are kept as "who: detail".  Any of the three may be NULL. */
extern void qs_verify_found(QsVerify *verify, QsVerifyKind kind, const QsRowKey *key, const char *id,
							const char *detail);

/*
 * Decides about suspects that have a key, and marks what differs where it is to be
 * repaired.  rows: they are rows; else points, of which only those without a row count.
 */
extern void qs_verify_confirm(QsVerify *verify, QsVerifySuspect *suspects, int n, bool rows);

/* About points that no key of the mirror can have. */
extern void qs_verify_confirm_ids(QsVerify *verify, char **ids, int n);

/*
 * Points that do not say their key may be rows': they are kept until all rows were
 * seen.  False: there are too many.
 */
extern bool qs_verify_remember_unnamed(QsVerify *verify, const QsVerifySuspect *suspect);
extern void qs_verify_forget_unnamed(QsVerify *verify, QsKey id);
extern void qs_verify_confirm_unnamed(QsVerify *verify);

#endif							/* QS_VERIFY_CONFIRM_H */
