/*
 * qdrant_json.h
 *		Qdrant's own JSON documents: built and inspected with jansson.
 *
 * qdrant_json.c is the only file that includes jansson.h, and includes no
 * header of PostgreSQL: every postgres binary exports a function json_object of
 * its own (hazard R1).  Plain C: malloc'd results (freed by the caller with
 * free()), no ereport.  NULL or false means "not such a document" or no memory.
 */
#ifndef QS_QDRANT_JSON_H
#define QS_QDRANT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The envelope of any answer. */
typedef struct QsEnvelope
{
	bool		valid;			/* an object with "status", "time" as Qdrant's */
	bool		ok;				/* "status": "ok" (or "accepted") */
	char		error[512];		/* status.error, cut to fit, "" if none */
	char		update_status[16];	/* result.status of a write: completed,
									 * acknowledged, wait_timeout, clock_rejected; "" */
	int64_t		operation_id;	/* result.operation_id; -1: none */
	bool		result_true;	/* "result": true */
} QsEnvelope;

extern void qs_json_envelope(const char *text, size_t length, QsEnvelope *envelope);

/* GET / : "1.18.3" into version; false if it is not Qdrant's. */
extern bool qs_json_version(const char *text, size_t length, char *version, size_t size);

/* GET /cluster: number of peers; 0: standalone; -1: not such an answer. */
extern int	qs_json_peers(const char *text, size_t length);

/* A vector of a collection's configuration. */
typedef struct QsVectorConfig
{
	char		name[201];		/* "": the unnamed one */
	bool		sparse;
	bool		multi;
	int			size;			/* 0: sparse */
	char		distance[16];	/* "": sparse */
	char		datatype[16];	/* float32 where it is not said; of a sparse one its index's */
	char		modifier[16];	/* of a sparse one; none where it is not said */
} QsVectorConfig;

typedef struct QsCollectionInfo
{
	bool		valid;
	int64_t		points;			/* points_count; -1: not said */
	int			replicas;		/* replication_factor, at least 1 */
	int			shards;
	int			vector_count;	/* dense and sparse ones */
	QsVectorConfig vectors[48];	/* the first 48 */
} QsCollectionInfo;

/* GET /collections/{c} */
extern void qs_json_collection_info(const char *text, size_t length, QsCollectionInfo *info);

/*
 * Type of the payload index on that field, from the same document; false: it has
 * none.
 */
extern bool qs_json_index_type(const char *text, size_t length, const char *field,
							   char *type, size_t size);

/* Vector of that name ("": the unnamed one) among the first 48; NULL: none. */
extern const QsVectorConfig *qs_json_find_vector(const QsCollectionInfo *info, const char *name);

/*
 * Who writes a collection, as its metadata says (GET /collections/{c}): an opaque
 * identity and a beat that changes while it lives.  Both "" where nobody said so.
 */
typedef struct QsWriter
{
	char		owner[65];
	char		beat[33];
} QsWriter;

extern void qs_json_writer(const char *text, size_t length, QsWriter *writer);

/* Body of PATCH /collections/{c} that says so; other metadata is kept. */
extern char *qs_json_set_writer(const QsWriter *writer);

/* GET .../aliases: malloc'd array of malloc'd names of aliases of that collection
 * (collection NULL: all), -1: not such an answer. */
extern int	qs_json_aliases(const char *text, size_t length, const char *collection,
							char ***names);
extern void qs_json_free_names(char **names, int n);

/* GET /aliases: collection that this alias means, malloc'd; NULL: no such alias. */
extern char *qs_json_alias_target(const char *text, size_t length, const char *alias);

/*
 * Can the text be part of a body?  A JSON object, not nested too deep, with integers
 * of 64 bits and numbers that a double holds.
 */
extern bool qs_json_is_object(const char *text);

/* A vector of a collection to be made. */
typedef struct QsNewVector
{
	const char *name;			/* "": the unnamed one, which is then the only dense one */
	bool		sparse;
	bool		multi;
	int			size;			/* of a dense one */
	const char *distance;		/* of a dense one */
	const char *config;			/* JSON object with what else Qdrant is told; NULL: nothing */
} QsNewVector;

/*
 * Body of PUT /collections/{c}.  config: JSON object of what is no vector's; NULL:
 * nothing.
 */
extern char *qs_json_create_collection(const QsNewVector *vectors, int n, const char *config);

/* Body of PUT /collections/{c}/index. */
extern char *qs_json_create_index(const char *field, const char *type);

/* Bodies of POST /collections/aliases. */
extern char *qs_json_create_alias(const char *collection, const char *alias);
extern char *qs_json_rename_alias(const char *old_alias, const char *new_alias);
extern char *qs_json_delete_alias(const char *alias);

/*
 * Body of POST .../points/scroll for ids and that field of the payload, a plain
 * name (NULL: none); offset: JSON text of an id or NULL.
 */
extern char *qs_json_scroll(int limit, const char *field, const char *offset);

/* A page of ids: each as JSON text ("17" or "\"uuid\"" without the quotes).
 * keys: of each point, its payload's only field as compact JSON text, or NULL.
 * next: malloc'd JSON text of next_page_offset, NULL: the last page. */
typedef struct QsIdPage
{
	bool		valid;
	int			n;
	char	  **ids;			/* malloc'd texts: digits or a uuid */
	char	  **keys;			/* malloc'd texts */
	char	   *next;
} QsIdPage;

extern void qs_json_id_page(const char *text, size_t length, QsIdPage *page);
extern void qs_json_free_id_page(QsIdPage *page);

#endif							/* QS_QDRANT_JSON_H */
