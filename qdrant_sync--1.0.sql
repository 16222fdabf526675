/* qdrant_sync--1.0.sql: everything that CREATE EXTENSION qdrant_sync makes. */

\echo Use "CREATE EXTENSION qdrant_sync" to load this file. \quit

/*
 * Our own tables and trigger functions.  Public functions and views are in the
 * schema that CREATE EXTENSION was given.
 */
CREATE SCHEMA qdrant_internal;
GRANT USAGE ON SCHEMA qdrant_internal TO PUBLIC;

/* ---- servers ---------------------------------------------------------- */

CREATE FUNCTION qdrant_internal.fdw_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'qs_fdw_validator';

CREATE FOREIGN DATA WRAPPER qdrant_fdw NO HANDLER VALIDATOR qdrant_internal.fdw_validator;

/* ---- the outbox ------------------------------------------------------- */

/*
 * A chunk of packed keys.  Like bytea, but never compressed or moved out of
 * line, so that a segment has no TOAST relation.
 */
CREATE TYPE qdrant_internal.chunk;
CREATE FUNCTION qdrant_internal.chunk_in(cstring) RETURNS qdrant_internal.chunk
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_chunk_in';
CREATE FUNCTION qdrant_internal.chunk_out(qdrant_internal.chunk) RETURNS cstring
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_chunk_out';
CREATE TYPE qdrant_internal.chunk (
	INPUT = qdrant_internal.chunk_in, OUTPUT = qdrant_internal.chunk_out,
	INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = plain);

/*
 * Explicit operations (qdrant_upsert), in two segments that take turns.  They
 * are materialized views, since those are in no publication and in no dump.
 */
CREATE SEQUENCE qdrant_internal.operation_number;
CREATE MATERIALIZED VIEW qdrant_internal.operations_a WITH (autovacuum_enabled = off) AS
SELECT 0::bigint AS number, 0::oid AS owner, ''::text AS server, ''::text AS collection, ''::text AS operation, ''::text AS body
WITH NO DATA;
CREATE MATERIALIZED VIEW qdrant_internal.operations_b WITH (autovacuum_enabled = off) AS
SELECT 0::bigint AS number, 0::oid AS owner, ''::text AS server, ''::text AS collection, ''::text AS operation, ''::text AS body
WITH NO DATA;

/* ---- mirrors ---------------------------------------------------------- */

CREATE SEQUENCE qdrant_internal.mirror_id;

/*
 * What sessions decide about a mirror.  The definition itself is in the
 * arguments of the trigger on the table; this is not dumped.  Only sessions
 * write here, only the sync worker writes to progress, so neither waits for the
 * other's row lock.
 */
CREATE TABLE qdrant_internal.mirror (
	id bigint PRIMARY KEY DEFAULT nextval('qdrant_internal.mirror_id'),
	relid oid NOT NULL,
	system_identifier bigint NOT NULL,	-- of the cluster that armed it
	database oid NOT NULL,				-- of the database that armed it
	server text NOT NULL,
	collection text NOT NULL,
	key_attnum smallint NOT NULL,
	key_type oid NOT NULL,
	segment_a oid NOT NULL,
	segment_b oid NOT NULL,
	paused boolean NOT NULL DEFAULT false,
	resumed bigint NOT NULL DEFAULT 0,	-- counts qdrant_resume
	take_over bigint NOT NULL DEFAULT 0,	-- counts permissions to take the collection
	sweep bigint NOT NULL DEFAULT 1,	-- counts wishes to compare everything; 1 is the first filling
	dropped boolean NOT NULL DEFAULT false,	-- the worker cleans up and deletes the row
	drop_collection boolean NOT NULL DEFAULT false,
	made_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX mirror_relid ON qdrant_internal.mirror (relid);
CREATE UNIQUE INDEX mirror_collection ON qdrant_internal.mirror (server, collection)
	WHERE NOT dropped;

/* What the sync worker knows about a mirror. */
CREATE TABLE qdrant_internal.progress (
	mirror bigint PRIMARY KEY,
	owner oid,							-- of the table, when the collection was last claimed
	phase text NOT NULL DEFAULT 'creating',	-- creating, claiming, sweeping, live, failed
	error text,
	error_at timestamptz,
	resumed bigint NOT NULL DEFAULT 0,	-- highest mirror.resumed that was acted on
	taken_over bigint NOT NULL DEFAULT 0,
	epoch bigint NOT NULL DEFAULT 0,
	nonce text,							-- of the alias that we write through
	next_nonce text,					-- of a claim under way, at epoch + 1
	fence text NOT NULL DEFAULT 'alias',	-- alias or time
	collection_made boolean NOT NULL DEFAULT false,	-- by us, for this mirror
	timeline integer NOT NULL DEFAULT 0,
	segment_files oid[],				-- relfilenodes of the segments: another one means that chunks were lost
	sweep_wanted bigint NOT NULL DEFAULT 0,	-- the worker's own wishes, added to mirror.sweep
	sweep_done bigint NOT NULL DEFAULT 0,	-- of mirror.sweep + sweep_wanted
	scroll_offset text,					-- next page of ids; NULL: not begun
	scroll_done boolean NOT NULL DEFAULT false,
	backfill_relfilenode oid,
	backfill_next bigint,				-- first block that is not known to be done
	backfill_end bigint,
	backfill_rows bigint NOT NULL DEFAULT 0,
	backfill_started timestamptz,
	backfill_finished timestamptz
);

/* Rows and operations that Qdrant refused for good. */
CREATE TABLE qdrant_internal.dead_letter (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	mirror bigint,						-- NULL: an explicit operation
	server text NOT NULL,
	collection text NOT NULL,
	key text NOT NULL,					-- key of the row, or number of the operation
	error text NOT NULL,
	http_status integer,				-- NULL: refused before it was sent
	body text,							-- of an explicit operation
	tries integer NOT NULL DEFAULT 1,
	first_at timestamptz NOT NULL DEFAULT now(),
	last_at timestamptz NOT NULL DEFAULT now(),
	UNIQUE (mirror, key)
);

/* Everything of a segment up to this number was acknowledged (hazard 7). */
CREATE TABLE qdrant_internal.operation_progress (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	low_water bigint NOT NULL DEFAULT 0
);
INSERT INTO qdrant_internal.operation_progress DEFAULT VALUES;

CREATE FUNCTION qdrant_internal.capture() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'qs_capture';
CREATE FUNCTION qdrant_internal.capture_truncate() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'qs_capture_truncate';

CREATE FUNCTION qdrant_mirror(source regclass, vector text DEFAULT NULL, payload text DEFAULT '*',
	row_filter text DEFAULT NULL, collection text DEFAULT NULL, key text DEFAULT NULL,
	distance text DEFAULT 'Cosine', indexes text DEFAULT NULL, vectors_config jsonb DEFAULT NULL,
	sparse_vectors_config jsonb DEFAULT NULL, collection_config jsonb DEFAULT NULL,
	server text DEFAULT NULL, take_over boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_mirror';

CREATE FUNCTION qdrant_unmirror(source regclass, drop_collection boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_unmirror';

CREATE FUNCTION qdrant_pause(source regclass) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_pause';

CREATE FUNCTION qdrant_resume(source regclass, take_over boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_resume';

CREATE FUNCTION qdrant_resync(source regclass) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_resync';

CREATE FUNCTION qdrant_wait("timeout" interval DEFAULT NULL, source regclass DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_wait';

/* -- begin: views (src/mirror/status.c) -- */
/* -- end: views -- */

/* ---- client ----------------------------------------------------------- */

/* -- begin: client (src/client/) -- */
CREATE FUNCTION qdrant_query(collection text, query anycompatible, k integer DEFAULT 10,
	filter jsonb DEFAULT NULL, score_threshold real DEFAULT NULL, vector_name text DEFAULT NULL,
	with_payload boolean DEFAULT true, with_vectors boolean DEFAULT false, params jsonb DEFAULT NULL,
	server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS TABLE (id text, score real, payload jsonb, vector jsonb, version bigint, order_value jsonb, shard_key jsonb)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 AS 'MODULE_PATHNAME', 'qs_query';

COMMENT ON FUNCTION qdrant_query(text, anycompatible, integer, jsonb, real, text, boolean, boolean, jsonb, text, interval) IS
'The k points of a collection that are nearest to query, best first. query: a vector as text ([0.1, 0.2]; {1:0.5}/4 is sparse), array of numbers or type of pgvector; a query object of Qdrant''s as jsonb; an integer or uuid, which means nearest to that point. NULL gives no rows. filter and params are in Qdrant''s own JSON. Needs USAGE on the server; for the collection of a mirror also SELECT on its table, and no row security that applies to the caller (qdrant_search is for that). timeout: default qdrant_sync.request_timeout. Errors: 42704 no such collection, 22023 refused by Qdrant, 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_query_points(collection_name text, query anycompatible, "using" text DEFAULT NULL,
	prefetch jsonb DEFAULT NULL, query_filter jsonb DEFAULT NULL, search_params jsonb DEFAULT NULL,
	"limit" integer DEFAULT 10, "offset" integer DEFAULT NULL, with_payload boolean DEFAULT true,
	with_vectors boolean DEFAULT false, score_threshold real DEFAULT NULL, lookup_from jsonb DEFAULT NULL,
	consistency text DEFAULT NULL, shard_key_selector jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL,
	server text DEFAULT NULL, payload_fields text[] DEFAULT NULL, vector_names text[] DEFAULT NULL)
RETURNS TABLE (id text, score real, payload jsonb, vector jsonb, version bigint, order_value jsonb, shard_key jsonb)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 AS 'MODULE_PATHNAME', 'qs_query_points';

COMMENT ON FUNCTION qdrant_query_points(text, anycompatible, text, jsonb, jsonb, jsonb, integer, integer, boolean, boolean, real, jsonb, text, jsonb, interval, text, text[], text[]) IS
'query_points of Qdrant''s Python client, with its argument names and defaults; models are jsonb in Qdrant''s own form. "using", "limit" and "offset" need their quotes. payload_fields and vector_names choose some of the payload and of the vectors. query, rights and errors are those of qdrant_query; a NULL query gives no rows.';

CREATE FUNCTION qdrant_internal.search_support(internal) RETURNS internal
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'qs_search_support';
CREATE FUNCTION qdrant_internal.of_table(anyelement, regclass) RETURNS anyelement
LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_of_table';

CREATE FUNCTION qdrant_search(source anyelement, query anycompatible, k integer DEFAULT 10,
	filter jsonb DEFAULT NULL, score_threshold real DEFAULT NULL, vector_name text DEFAULT NULL,
	params jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS TABLE (hit anyelement, score real, rank integer)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 SUPPORT qdrant_internal.search_support
AS 'MODULE_PATHNAME', 'qs_search';

COMMENT ON FUNCTION qdrant_search(anyelement, anycompatible, integer, jsonb, real, text, jsonb, interval) IS
'The k rows of a mirrored table that are nearest to query, best first (rank 1): SELECT (hit).*, score FROM qdrant_search(NULL::products, ...). Rows are read under the caller''s snapshot, privileges and row security; points whose row is gone or hidden are passed over, and more are asked for until k rows are found (at most 10,000 points more than k, with a NOTICE). query as in qdrant_query; an integer or uuid is the key of a row that the caller can see, which is not itself returned. Needs SELECT on the table and USAGE on its server.';

CREATE FUNCTION qdrant_create_collection(collection_name text, vectors_config jsonb DEFAULT NULL,
	sparse_vectors_config jsonb DEFAULT NULL, shard_number integer DEFAULT NULL, sharding_method text DEFAULT NULL,
	replication_factor integer DEFAULT NULL, write_consistency_factor integer DEFAULT NULL,
	on_disk_payload boolean DEFAULT NULL, hnsw_config jsonb DEFAULT NULL, optimizers_config jsonb DEFAULT NULL,
	wal_config jsonb DEFAULT NULL, quantization_config jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL,
	strict_mode_config jsonb DEFAULT NULL, metadata jsonb DEFAULT NULL, payload jsonb DEFAULT NULL,
	id_tracker jsonb DEFAULT NULL, server text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'qs_create_collection';

COMMENT ON FUNCTION qdrant_create_collection(text, jsonb, jsonb, integer, text, integer, integer, boolean, jsonb, jsonb, jsonb, jsonb, interval, jsonb, jsonb, jsonb, jsonb, text) IS
'create_collection of Qdrant''s Python client, with its argument names; models are jsonb in Qdrant''s own form, such as vectors_config => ''{"size": 4, "distance": "Cosine"}''. Immediate: ROLLBACK does not undo it, and it overtakes queued writes. Returns true; ERROR 42710 where the collection exists.';

CREATE FUNCTION qdrant_internal.requests(OUT pid integer, OUT database name, OUT server text, OUT method text,
	OUT state text, OUT submitted_at timestamptz) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'qs_requests';

CREATE VIEW qdrant_requests AS
SELECT r.pid, r.database, r.server, r.method, r.state, r.submitted_at FROM qdrant_internal.requests() AS r;
GRANT SELECT ON qdrant_requests TO PUBLIC;

COMMENT ON VIEW qdrant_requests IS
'Requests of SQL calls in all databases that are not finished: pid of the session, database, server, HTTP method, state (queued, running, done: not fetched yet, abandoned: being cleaned up), when it was submitted. server and method are NULL for requests of other roles, except to members of pg_read_all_stats.';
/* -- end: client -- */

/* -- begin: operations (src/capture/operations.c) -- */
/* -- end: operations -- */
