/*
 * definition.h
 *		A mirror's definition: what is in the trigger's arguments, checked, and
 *		the state rows beside it.
 */
#ifndef QS_DEFINITION_H
#define QS_DEFINITION_H

#include "qdrant_sync.h"
#include "common/vector.h"
#include "datatype/timestamp.h"
#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"

/* A column of the SELECT list that the worker reads. */
typedef struct QsColumn
{
	char	   *name;			/* in the point; NULL: the unnamed vector */
	bool		renamed;		/* the name was given with AS */
	List	   *path;			/* a payload's field: its name's parts, outermost first */
	char	   *expression;		/* canonical SQL over the row's columns, every name
								 * in it quoted and schema-qualified as needed */
	AttrNumber	attnum;			/* a plain column's; 0: an expression */
	Oid			type;			/* of the value (domains resolved to their base) */
	int32		typmod;
	Bitmapset  *used;			/* columns of the table that it is made of */
	struct Node *expr;			/* analysed; NULL: a plain column */
} QsColumn;

/* What a vector is in the collection. */
typedef struct QsVectorSpec
{
	char	   *name;			/* in UTF-8; "": the unnamed vector */
	const char *shown_name;		/* the same for messages */
	QsVectorKind kind;
	int			size;			/* by its type or vectors_config; 0: a first row says it,
								 * or it is sparse */
	const char *distance;		/* NULL: sparse */
	const char *datatype;		/* as vectors_config says; NULL: nothing said */
	const char *modifier;		/* of a sparse vector, in the same way */
	char	   *config;			/* JSON object for Qdrant, in UTF-8; NULL: nothing said */
} QsVectorSpec;

/* A payload index. */
typedef struct QsIndex
{
	char	   *field;
	char	   *path;			/* the same as Qdrant writes it, in UTF-8 */
	const char *type;			/* as Qdrant calls it; a literal */
} QsIndex;

/* How a point's id is made of a row's key; the same for all rows of a mirror. */
typedef enum QsKeyRule
{
	QS_KEY_INTEGER = 'i',		/* one column of int2, int4 or int8: the id itself */
	QS_KEY_UUID = 'u',			/* one column of uuid: the id itself */
	QS_KEY_HASHED = 'h'			/* all others: UUIDv5 of common/key_text.h's text */
} QsKeyRule;

typedef struct QsKeySpec
{
	QsKeyRule	rule;
	int			n;
	AttrNumber	attnums[INDEX_MAX_KEYS];
	Oid			types[INDEX_MAX_KEYS];	/* domains resolved to their base */
} QsKeySpec;

/* Definition as the trigger on the table says, resolved against today's table. */
typedef struct QsDefinition
{
	Oid			relid;
	Oid			owner;			/* of the table; its rows are read as this role */
	char	   *schema;
	char	   *table;
	bool		partitioned;	/* its rows are in leaves */
	char	   *server;
	char	   *collection;
	char	   *distance;		/* Cosine, Dot, Euclid, Manhattan */
	QsKeySpec	key;
	char	   *key_text;		/* canonical list of the key's columns */
	List	   *vectors;		/* of QsColumn; at least one */
	QsVectorSpec *specs;		/* of each of them */
	bool		payload_all;
	List	   *payload;		/* of QsColumn */
	bool		omit_nulls;		/* a NULL is no field, not null */
	QsColumn   *row_filter;		/* of type boolean; NULL: every row */
	char	   *indexes;		/* canonical; NULL: none */
	List	   *index_list;		/* the same: of QsIndex */
	char	   *vectors_config; /* canonical JSON objects; NULL: nothing said */
	char	   *sparse_vectors_config;
	char	   *collection_config;
	char	   *create_config;	/* the last in UTF-8 */
	char	   *alias;			/* of the collection, for other clients; NULL: none */
	char	   *rebuild;		/* definition of the rebuild that is going on, as JSON;
								 * NULL: none */
	bool		all_columns;	/* a change of any column counts */
	Bitmapset  *columns;		/* else: columns whose change counts */
} QsDefinition;

/* Row of qdrant_internal.mirror. */
typedef struct QsMirrorRow
{
	int64		id;
	Oid			relid;
	bool		ours;			/* armed by this cluster and database */
	bool		upgraded;		/* ours since pg_upgrade, and not adopted yet */
	char	   *server;
	char	   *collection;
	QsKeySpec	key;
	int			ncolumns;		/* -1: a change of any column counts */
	AttrNumber *columns;		/* else: of these, as the table numbers them */
	Oid			segments[2];
	bool		paused;
	int64		resumed;
	int64		take_over;
	int64		sweep;
	bool		dropped;
	bool		drop_collection;
	int64		rebuilds;		/* is filled to take that mirror's place; 0: it serves */
	char	   *alias;			/* NULL: none */
	TimestampTz replaced;		/* dropped, since a rebuild took its place; 0: not so */
	struct QsMirrorRow *rebuild;	/* by qs_mirror_row_by_relid() only: the one that is
									 * filled to take this one's place; NULL: none */
} QsMirrorRow;

/*
 * Reads the definition from the trigger on the relation, which the caller has
 * locked (AccessShareLock is enough); with rebuild, that of the rebuild that is
 * going on.  Returns NULL where there is no trigger of ours, or no rebuild; ERROR where there is one that cannot be followed (a column that is not
 * there, a type that cannot be mirrored): the message says what to do.
 * Everything is palloc'd in the current context.
 */
extern QsDefinition *qs_definition_read(Oid relid, bool rebuild);

/* Row of the mirror that serves this relation, not dropped; NULL: none. */
extern QsMirrorRow *qs_mirror_row_by_relid(Oid relid);

/* All rows, dropped ones and those of other databases too: list of QsMirrorRow. */
extern List *qs_mirror_rows(void);

/* OIDs of ours, looked up once per process and cached; InvalidOid: no extension here. */
extern Oid	qs_internal_relation(const char *name);

/* OID of the extension; InvalidOid where this database has none. */
extern Oid	qs_extension_oid(void);

/* Segments of a mirror: made in the caller's transaction, as the extension's owner. */
extern void qs_segments_make(int64 mirror, Oid segments[2]);

/* Drops what is left of them; false: somebody holds a lock, try later.  Worker only. */
extern bool qs_segments_drop(const Oid segments[2]);

#endif							/* QS_DEFINITION_H */
