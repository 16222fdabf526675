/*
 * reader.h
 *		What a reader of rows.h is made of: the columns of a point and the plans
 *		that read them.
 *
 * Sync worker; between reader.c, which makes it, and rows.c, which reads.
 */
#ifndef QS_READER_H
#define QS_READER_H

#include "executor/spi.h"
#include "catalog/pg_class.h"
#include "common/encode.h"
#include "common/key_text.h"
#include "common/vector.h"
#include "sync/fields.h"
#include "sync/rows.h"

/*
 * The statements of a reader.  All begin with the key's columns, so that one
 * receiver can follow any of them; only the first two give whole points.
 */
typedef enum QsPlanKind
{
	QS_PLAN_BY_KEYS,
	QS_PLAN_BY_BLOCKS,
	QS_PLAN_KEYS_BY_BLOCKS,
	QS_PLAN_EXISTING_KEYS,
	QS_PLAN_KINDS
} QsPlanKind;

/*
 * A vector of the point.  name, expression, attnum and form.kind are the definition's;
 * the rest is made with the plans, type and vector_type when one of them runs.
 */
typedef struct QsReadVector
{
	char	   *name;			/* in the point; NULL: unnamed */
	char	   *expression;
	AttrNumber	attnum;			/* 0: the expression */
	QsVectorForm form;			/* dimension and half: as the collection has them */
	/* compiled */
	char	   *label;			/* in messages */
	char	   *prefix;			/* "name": */
	Oid			type;			/* that the plan gives */
	QsVectorType vector_type;
} QsReadVector;

/* A field of the payload, in the same way. */
typedef struct QsReadField
{
	char	   *name;
	List	   *path;			/* parts of the name, as the definition has them */
	char	   *expression;
	AttrNumber	attnum;
	/* compiled */
	QsFieldKeys keys;
	Oid			type;
	QsPayloadWriter *writer;
} QsReadField;

/*
 * Everything lives in context.  What depends on the catalog is apart, in compiled
 * and plans, and is thrown away as a whole when it is out of date: an ERROR at any
 * point leaves either nothing compiled or something that works.
 */
struct QsReader
{
	MemoryContext context;
	Oid			relid;
	bool		partitioned;
	QsKeySpec	key;
	QsKeyWriter *key_writer;	/* QS_KEY_HASHED */
	QsChunkKind key_order;		/* how ids of points compare */
	char	   *row_filter;		/* condition as SQL; NULL: every row */
	bool		named;			/* vectors are an object of names */
	bool		payload_all;
	bool		omit_nulls;
	bool		versions;		/* rows by keys come with theirs */
	int			nvectors;
	QsReadVector *vectors;
	int			ndefined;		/* payload columns of the definition */
	QsReadField *defined;

	/* made from today's catalog under the table's lock; compiled is its memory */
	MemoryContext compiled;
	char	   *relation;		/* qualified name; NULL: not compiled */
	char	  **key_names;		/* columns as SQL */
	Oid			leaf;			/* that the plans by blocks read */
	int			npayload;
	QsReadField *payload;
	SPIPlanPtr	plans[QS_PLAN_KINDS];

	MemoryContext row_context;	/* of one row's encoding */
	StringInfoData json;
	StringInfoData key_text;	/* of the row at hand */
	uint64		version;		/* of the row at hand, where they are wanted; else 0 */
};

/*
 * Makes everything that depends on the catalog, unless it is there and the table
 * still has its name.  The caller holds a lock on the table, whose row in pg_class
 * this is.
 */
extern void qs_reader_compile(QsReader *reader, Form_pg_class class);

/* The plan, prepared at its first use.  Inside SPI, as the owner. */
extern SPIPlanPtr qs_reader_plan(QsReader *reader, QsPlanKind kind);

/* Which leaf the plans by blocks read; the table itself where it has none. */
extern void qs_reader_set_leaf(QsReader *reader, Oid leaf);

/* A column of the table as SQL, or the expression where attnum is 0. */
extern const char *qs_reader_column(QsReader *reader, AttrNumber attnum, const char *expression);

#endif							/* QS_READER_H */
