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

/* ---- whose state this is ---------------------------------------------- */

/*
 * Says whether pg_upgrade has made this cluster, and of which (src/mirror/identity.c).
 * Its text is written with the identifier of the cluster that writes it, and read
 * with that of the one that reads.  So nothing but a view made anew from the text
 * of its definition changes, and pg_upgrade alone does that to an extension.
 */
CREATE TYPE qdrant_internal.cluster_identity;
CREATE FUNCTION qdrant_internal.cluster_in(cstring) RETURNS qdrant_internal.cluster_identity
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_cluster_in';
CREATE FUNCTION qdrant_internal.cluster_out(qdrant_internal.cluster_identity) RETURNS cstring
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_cluster_out';
CREATE TYPE qdrant_internal.cluster_identity (
	INPUT = qdrant_internal.cluster_in, OUTPUT = qdrant_internal.cluster_out,
	INTERNALLENGTH = 16, ALIGNMENT = double);
CREATE VIEW qdrant_internal.cluster AS SELECT '0'::qdrant_internal.cluster_identity AS identity;

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
 * Explicit operations (qdrant_upsert and its like), in two segments that take
 * turns.  They are materialized views, since those are in no publication and in
 * no dump.  transaction is the first number of the operation's transaction;
 * database tells a copy of this one that they are not its own.
 */
CREATE SEQUENCE qdrant_internal.operation_number;
CREATE MATERIALIZED VIEW qdrant_internal.operations_a WITH (autovacuum_enabled = off) AS
SELECT 0::bigint AS number, 0::bigint AS transaction, 0::oid AS database, 0::oid AS owner, ''::text AS server, ''::text AS collection, ''::text AS operation, ''::text AS body
WITH NO DATA;
CREATE MATERIALIZED VIEW qdrant_internal.operations_b WITH (autovacuum_enabled = off) AS
SELECT 0::bigint AS number, 0::bigint AS transaction, 0::oid AS database, 0::oid AS owner, ''::text AS server, ''::text AS collection, ''::text AS operation, ''::text AS body
WITH NO DATA;

/* ---- mirrors ---------------------------------------------------------- */

CREATE SEQUENCE qdrant_internal.mirror_id;

/*
 * What sessions decide about a mirror.  The definition itself is in the
 * arguments of the trigger on the table; this is not dumped.  Only sessions
 * write here, only the sync worker writes to progress, so neither waits for the
 * other's row lock.  The one exception is the end of a rebuild, for which the
 * worker takes row locks that nobody holds, or tries again later.
 */
CREATE TABLE qdrant_internal.mirror (
	id bigint PRIMARY KEY DEFAULT nextval('qdrant_internal.mirror_id'),
	relid oid NOT NULL,
	system_identifier bigint NOT NULL,	-- of the cluster that armed it
	database oid NOT NULL,				-- of the database that armed it
	server text NOT NULL,
	collection text NOT NULL,
	key_rule "char" NOT NULL,			-- i: integer, u: uuid, h: UUIDv5 of the key's text
	key_attnums smallint[] NOT NULL,
	key_types oid[] NOT NULL,
	columns smallint[],					-- whose change counts; NULL: any column's
	segment_a oid NOT NULL,
	segment_b oid NOT NULL,
	paused boolean NOT NULL DEFAULT false,
	resumed bigint NOT NULL DEFAULT 0,	-- counts qdrant_resume
	take_over bigint NOT NULL DEFAULT 0,	-- counts permissions to take the collection
	sweep bigint NOT NULL DEFAULT 1,	-- counts wishes to compare everything; 1 is the first filling
	dropped boolean NOT NULL DEFAULT false,	-- the worker cleans up and deletes the row
	drop_collection boolean NOT NULL DEFAULT false,
	rebuilds bigint,					-- is filled to take that mirror's place; NULL: it serves
	keep_old boolean NOT NULL DEFAULT false,	-- ... whose collection stays then
	alias text,							-- for other clients; moved to the collection when it serves
	replaced timestamptz,				-- dropped, since a rebuild took its place
	made_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX mirror_relid ON qdrant_internal.mirror (relid);
CREATE UNIQUE INDEX mirror_collection ON qdrant_internal.mirror (server, collection)
	WHERE NOT dropped;
CREATE INDEX mirror_alias ON qdrant_internal.mirror (server, alias)
	WHERE alias IS NOT NULL AND NOT dropped;

/* What the sync worker knows about a mirror. */
CREATE TABLE qdrant_internal.progress (
	mirror bigint PRIMARY KEY,
	owner oid,							-- of the table, when the collection was last claimed
	phase text NOT NULL DEFAULT 'creating',	-- creating, claiming, sweeping, live, switching, failed
	error text,
	error_at timestamptz,
	resumed bigint NOT NULL DEFAULT 0,	-- highest mirror.resumed that was acted on
	taken_over bigint NOT NULL DEFAULT 0,
	epoch bigint NOT NULL DEFAULT 0,
	nonce text,							-- of the alias that we write through
	next_nonce text,					-- of a claim under way, at epoch + 1
	last_nonce text,					-- of the alias before, at epoch - 1
	fence text NOT NULL DEFAULT 'alias',	-- alias or time
	collection_made boolean NOT NULL DEFAULT false,	-- by us, for this mirror
	timeline integer NOT NULL DEFAULT 0,
	segment_files oid[],				-- relfilenodes of the segments: another one means that chunks were lost
	skipping boolean NOT NULL DEFAULT false,	-- the outbox was at its limit: keys were not recorded
	sweep_wanted bigint NOT NULL DEFAULT 0,	-- the worker's own wishes, added to mirror.sweep
	sweep_done bigint NOT NULL DEFAULT 0,	-- of mirror.sweep + sweep_wanted
	scroll_offset text,					-- next page of ids; NULL: not begun
	scroll_done boolean NOT NULL DEFAULT false,
	backfill_leaf oid,					-- partition under way, or the table
	backfill_after oid,					-- last partition that is done, in the order of OIDs
	backfill_relfilenode oid,
	backfill_next bigint,				-- first block that is not known to be done
	backfill_end bigint,
	backfill_base bigint NOT NULL DEFAULT 0,	-- blocks of the partitions that are done
	backfill_total bigint NOT NULL DEFAULT 0,	-- blocks of all
	backfill_rows bigint NOT NULL DEFAULT 0,
	backfill_started timestamptz,
	backfill_finished timestamptz,
	dimensions integer[]				-- of the collection's vectors, as the definition orders them
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
	owner oid,							-- of an explicit operation: who asked for it
	operation text,						-- the same: which one
	body text,							-- the same: its request
	tries integer NOT NULL DEFAULT 1,
	first_at timestamptz NOT NULL DEFAULT now(),
	last_at timestamptz NOT NULL DEFAULT now(),
	UNIQUE (mirror, key)
);

/*
 * Operations up to low_water were acknowledged (hazard 7), and those in done:
 * first and last number of each range.
 */
CREATE TABLE qdrant_internal.operation_progress (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	low_water bigint NOT NULL DEFAULT 0,
	done bigint[] NOT NULL DEFAULT '{}',
	sending boolean NOT NULL DEFAULT false	-- a request may be under way
);
INSERT INTO qdrant_internal.operation_progress DEFAULT VALUES;

/*
 * A publication FOR ALL TABLES has these tables in it, and what a publisher knows of
 * its mirrors is none of the subscriber's (hazard 16).
 */
CREATE FUNCTION qdrant_internal.ignore_replicated() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'qs_ignore_replicated';
CREATE TRIGGER ignore_replicated BEFORE INSERT OR UPDATE OR DELETE ON qdrant_internal.mirror
	FOR EACH ROW EXECUTE FUNCTION qdrant_internal.ignore_replicated();
CREATE TRIGGER ignore_replicated BEFORE INSERT OR UPDATE OR DELETE ON qdrant_internal.progress
	FOR EACH ROW EXECUTE FUNCTION qdrant_internal.ignore_replicated();
CREATE TRIGGER ignore_replicated BEFORE INSERT OR UPDATE OR DELETE ON qdrant_internal.dead_letter
	FOR EACH ROW EXECUTE FUNCTION qdrant_internal.ignore_replicated();
CREATE TRIGGER ignore_replicated BEFORE INSERT OR UPDATE OR DELETE ON qdrant_internal.operation_progress
	FOR EACH ROW EXECUTE FUNCTION qdrant_internal.ignore_replicated();
ALTER TABLE qdrant_internal.mirror ENABLE REPLICA TRIGGER ignore_replicated;
ALTER TABLE qdrant_internal.progress ENABLE REPLICA TRIGGER ignore_replicated;
ALTER TABLE qdrant_internal.dead_letter ENABLE REPLICA TRIGGER ignore_replicated;
ALTER TABLE qdrant_internal.operation_progress ENABLE REPLICA TRIGGER ignore_replicated;

CREATE FUNCTION qdrant_internal.capture() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'qs_capture';
CREATE FUNCTION qdrant_internal.capture_truncate() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'qs_capture_truncate';

CREATE FUNCTION qdrant_mirror(source regclass, vector text DEFAULT NULL, payload text DEFAULT '*',
	row_filter text DEFAULT NULL, collection text DEFAULT NULL, key text DEFAULT NULL,
	distance text DEFAULT 'Cosine', indexes text DEFAULT NULL, vectors_config jsonb DEFAULT NULL,
	sparse_vectors_config jsonb DEFAULT NULL, collection_config jsonb DEFAULT NULL,
	server text DEFAULT NULL, take_over boolean DEFAULT false, omit_nulls boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_mirror';

CREATE FUNCTION qdrant_unmirror(source regclass, drop_collection boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_unmirror';

CREATE FUNCTION qdrant_pause(source regclass) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_pause';

CREATE FUNCTION qdrant_resume(source regclass, take_over boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_resume';

CREATE FUNCTION qdrant_resync(source regclass) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_resync';

CREATE FUNCTION qdrant_retry(source regclass DEFAULT NULL, keys text[] DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_retry';

CREATE FUNCTION qdrant_verify(source regclass, repair boolean DEFAULT false, "timeout" interval DEFAULT '1 min')
RETURNS TABLE (kind text, points bigint, examples text[])
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 1000 ROWS 6 AS 'MODULE_PATHNAME', 'qs_verify';

/* -- begin: rebuild (src/mirror/rebuild.c) -- */
CREATE FUNCTION qdrant_rebuild(source regclass, vector text DEFAULT NULL, payload text DEFAULT NULL,
	row_filter text DEFAULT NULL, collection text DEFAULT NULL, key text DEFAULT NULL,
	distance text DEFAULT NULL, indexes text DEFAULT NULL, vectors_config jsonb DEFAULT NULL,
	sparse_vectors_config jsonb DEFAULT NULL, collection_config jsonb DEFAULT NULL,
	server text DEFAULT NULL, take_over boolean DEFAULT false, omit_nulls boolean DEFAULT NULL,
	alias text DEFAULT NULL, keep_old boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_rebuild';

CREATE FUNCTION qdrant_abandon(source regclass) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_abandon';

COMMENT ON FUNCTION qdrant_rebuild(regclass, text, text, text, text, text, text, text, jsonb, jsonb, jsonb, text, boolean, boolean, text, boolean) IS
'Gives a mirrored table a new collection with a new definition: transactional DDL, which its owner may call. After COMMIT the new collection is made and filled beside the old one, which is served and kept equal meanwhile; once it has caught up it takes the old one''s place by itself, for qdrant_search at once, for other clients by their alias. NULL arguments keep what the present definition says; '''' means none, for key the primary key, for vector the only vector column. collection NULL: the present name with _r1, _r2 and so on. take_over: the new collection may hold points, which are removed. alias: name in Qdrant that is moved to the new collection in one step; NULL: the one of the rebuild before. keep_old: the old collection is not deleted. Progress is in qdrant_mirrors and qdrant_backfills; qdrant_abandon ends it. Errors: those of qdrant_mirror; 42704 where the table has no mirror, 42710 where a rebuild is going on or the alias is in use, 55000 where triggers were altered.';
COMMENT ON FUNCTION qdrant_abandon(regclass) IS
'Ends a rebuild that qdrant_rebuild began and that has not taken the old mirror''s place yet: transactional; the new collection is deleted after COMMIT, unless it was there before, and the present mirror goes on untouched. Returns NULL for a NULL argument. ERROR 42704 where no rebuild of the table is going on.';
/* -- end: rebuild -- */

CREATE FUNCTION qdrant_wait("timeout" interval DEFAULT NULL, source regclass DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_wait';

/* -- begin: views (src/mirror/status.c) -- */
CREATE FUNCTION qdrant_internal.armed_here(system_identifier bigint, database oid) RETURNS boolean
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_armed_here';
CREATE FUNCTION qdrant_internal.trigger_argument(arguments bytea, name text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_trigger_argument';
CREATE FUNCTION qdrant_internal.trigger_argument(arguments bytea, object text, name text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_trigger_argument';
CREATE FUNCTION qdrant_internal.mirror_slots(OUT mirror bigint, OUT pending bigint, OUT pending_is_bound boolean,
	OUT oldest timestamptz, OUT points_sent bigint, OUT requests bigint, OUT retries bigint, OUT stopped boolean)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'qs_mirror_slots_show';
CREATE FUNCTION qdrant_internal.worker_slots(OUT kind text, OUT database oid, OUT pid integer, OUT state text,
	OUT started_at timestamptz, OUT last_turn timestamptz, OUT failures integer, OUT note text)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'qs_worker_slots_show';

/* Mirrors that have a state row, and triggers that came out of a dump without one. */
CREATE VIEW qdrant_mirrors WITH (security_barrier) AS
SELECT m.relid::regclass AS source, m.server, m.collection,
	CASE WHEN m.dropped THEN 'dropping'
		WHEN NOT qdrant_internal.armed_here(m.system_identifier, m.database) THEN 'restored'
		WHEN m.paused THEN 'paused'
		WHEN m.rebuilds IS NOT NULL AND coalesce(p.phase, '') NOT IN ('switching', 'failed') THEN 'rebuilding'
		WHEN p.phase IS NULL THEN 'creating'
		WHEN p.phase = 'sweeping' AND p.sweep_done = 0 THEN 'backfill'
		ELSE p.phase END AS state,
	s.pending,
	CASE WHEN s.oldest IS NOT NULL THEN greatest(extract(epoch FROM clock_timestamp() - s.oldest)::double precision, 0)
		WHEN s.pending = 0 THEN 0::double precision END AS lag_seconds,
	(SELECT count(*) FROM qdrant_internal.dead_letter d WHERE d.mirror = m.id) AS dead_letters,
	CASE WHEN NOT pg_catalog.row_security_active(m.relid) THEN p.error END AS last_error, p.error_at AS last_error_at,
	p.epoch, p.fence,
	s.points_sent, s.requests, s.retries, m.made_at
FROM qdrant_internal.mirror m
LEFT JOIN qdrant_internal.progress p ON p.mirror = m.id
LEFT JOIN qdrant_internal.mirror_slots() s ON s.mirror = m.id
WHERE coalesce(pg_catalog.has_table_privilege(m.relid, 'SELECT'), m.dropped AND pg_catalog.pg_has_role('pg_monitor', 'USAGE'))
UNION ALL
SELECT t.tgrelid::regclass,
	qdrant_internal.trigger_argument(t.tgargs, 'server'), qdrant_internal.trigger_argument(t.tgargs, 'collection'),
	'restored', NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM pg_catalog.pg_trigger t
WHERE t.tgfoid = 'qdrant_internal.capture'::regproc::oid AND NOT t.tgisinternal AND t.tgparentid = 0::oid
	AND NOT EXISTS (SELECT FROM qdrant_internal.mirror m WHERE m.relid = t.tgrelid AND NOT m.dropped)
	AND pg_catalog.has_table_privilege(t.tgrelid, 'SELECT')
UNION ALL
-- ... and the rebuild that was going on when the dump was made.
SELECT t.tgrelid::regclass, r.server, qdrant_internal.trigger_argument(t.tgargs, 'rebuild', 'collection'),
	'restored', NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM pg_catalog.pg_trigger t,
	LATERAL (SELECT qdrant_internal.trigger_argument(t.tgargs, 'rebuild', 'server') AS server) r
WHERE t.tgfoid = 'qdrant_internal.capture'::regproc::oid AND NOT t.tgisinternal AND r.server IS NOT NULL
	AND NOT EXISTS (SELECT FROM qdrant_internal.mirror m WHERE m.relid = t.tgrelid AND NOT m.dropped)
	AND pg_catalog.has_table_privilege(t.tgrelid, 'SELECT');
GRANT SELECT ON qdrant_mirrors TO PUBLIC;

CREATE VIEW qdrant_backfills WITH (security_barrier) AS
SELECT m.relid::regclass AS source, m.collection,
	CASE WHEN p.backfill_finished IS NOT NULL THEN p.backfill_total
		ELSE least(p.backfill_base + coalesce(p.backfill_next, 0), p.backfill_total) END AS blocks_done,
	p.backfill_total AS blocks_total,
	p.backfill_rows AS rows, p.backfill_started AS started, p.backfill_finished AS finished,
	CASE WHEN p.backfill_finished IS NOT NULL OR p.backfill_total = 0 THEN 1::double precision
		ELSE least(p.backfill_base + coalesce(p.backfill_next, 0), p.backfill_total)::double precision / p.backfill_total::double precision
		END AS fraction
FROM qdrant_internal.mirror m
JOIN qdrant_internal.progress p ON p.mirror = m.id
WHERE p.backfill_started IS NOT NULL AND NOT m.dropped
	AND qdrant_internal.armed_here(m.system_identifier, m.database)
	AND pg_catalog.has_table_privilege(m.relid, 'SELECT');
GRANT SELECT ON qdrant_backfills TO PUBLIC;

-- Of a prepared transaction only its own lock on its number leads from a lock to its name.
CREATE VIEW qdrant_outboxes WITH (security_barrier) AS
SELECT m.relid::regclass AS source, m.collection,
	coalesce(pg_catalog.pg_relation_size(m.segment_a), 0) + coalesce(pg_catalog.pg_relation_size(m.segment_b), 0) AS bytes,
	held.pid AS held_by_pid, held.gid AS held_by_prepared, held.since AS held_since
FROM qdrant_internal.mirror m
LEFT JOIN LATERAL (
	SELECT l.pid, x.gid, coalesce(x.prepared, a.xact_start) AS since
	FROM pg_catalog.pg_locks l
	LEFT JOIN pg_catalog.pg_locks t ON l.pid IS NULL AND t.pid IS NULL AND t.locktype = 'transactionid'
		AND t.virtualtransaction = l.virtualtransaction
	LEFT JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = t.transactionid
	LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
	WHERE l.locktype = 'relation' AND l.database = m.database AND l.relation IN (m.segment_a, m.segment_b)
		AND l.mode = 'RowExclusiveLock' AND l.granted
	ORDER BY since LIMIT 1) held ON true
WHERE NOT m.dropped AND qdrant_internal.armed_here(m.system_identifier, m.database)
	AND pg_catalog.has_table_privilege(m.relid, 'SELECT');
GRANT SELECT ON qdrant_outboxes TO PUBLIC;

CREATE FUNCTION qdrant_internal.verifications(OUT relid oid, OUT pid integer, OUT phase text, OUT done bigint,
	OUT total bigint, OUT started timestamptz) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'qs_verifications';

CREATE VIEW qdrant_verifications AS
SELECT v.relid::regclass AS source, v.pid, v.phase, v.done, v.total, v.started
FROM qdrant_internal.verifications() v;
GRANT SELECT ON qdrant_verifications TO PUBLIC;

CREATE VIEW qdrant_dead_letters WITH (security_barrier) AS
SELECT m.relid::regclass AS source, d.collection, d.key, d.operation, d.error, d.http_status, d.tries, d.first_at, d.last_at
FROM qdrant_internal.dead_letter d
LEFT JOIN qdrant_internal.mirror m ON m.id = d.mirror
WHERE CASE WHEN m.id IS NULL THEN pg_catalog.pg_has_role('pg_monitor', 'USAGE')
		OR coalesce(pg_catalog.pg_has_role(d.owner, 'USAGE'), false)
	ELSE coalesce(pg_catalog.has_table_privilege(m.relid, 'SELECT'), false)
		AND NOT pg_catalog.row_security_active(m.relid) END;
GRANT SELECT ON qdrant_dead_letters TO PUBLIC;

CREATE VIEW qdrant_workers AS
SELECT w.kind, d.datname AS database, w.pid, w.state, w.started_at, w.last_turn, w.failures, w.note
FROM qdrant_internal.worker_slots() w
LEFT JOIN pg_catalog.pg_database d ON d.oid = w.database;
GRANT SELECT ON qdrant_workers TO PUBLIC;

COMMENT ON SCHEMA qdrant_internal IS
'Tables, outbox segments and functions that qdrant_sync uses itself. Look at the views qdrant_mirrors, qdrant_backfills, qdrant_dead_letters and qdrant_workers instead.';
COMMENT ON FOREIGN DATA WRAPPER qdrant_fdw IS
'Holds the registered Qdrant servers; it has no foreign tables. Options of a server: url (needed; http or https, no user name, query or fragment), connect_timeout (ms or with a unit; default 5s), timeout (what Qdrant may take for a write; default 60s), request_timeout (what a call may take that gives no timeout; default the setting qdrant_sync.request_timeout), ca_file, cert_file, key_file (absolute paths of PEM files, set by superusers only), verify (boolean, default on; only a superuser may switch it off), proxy (http://host[:port]; default none), http2 (boolean, default on: where TLS offers it and libcurl is 8.10 or newer). Options of a user mapping, one of: api_key, api_key_file (absolute path of a file whose only line is the key, set by superusers only).';
COMMENT ON FUNCTION qdrant_mirror(regclass, text, text, text, text, text, text, text, jsonb, jsonb, jsonb, text, boolean, boolean) IS
'Keeps a Qdrant collection equal to the table: transactional DDL, which its owner may call; the collection is made and filled after COMMIT. vector, payload: SELECT lists over the row''s columns. vector NULL: the only column that is a vector; one without AS is the unnamed vector. Dense: real[], double precision[], pgvector''s vector and halfvec; multi: arrays declared with two dimensions and arrays of vector; sparse, which needs a name: pgvector''s sparsevec, and jsonb {"indices": [...], "values": [...]}. A NULL vector is left out of its point; a row without any vector has no point. payload ''*'': every column that is not a vector; '''' or NULL: none; a dot in a name given with AS makes an object: ''author AS "metadata.author"''. omit_nulls: a column that is NULL is no field of the payload; else (false or NULL) it is null. collection NULL: named as the table. distance: Cosine, Dot, Euclid or Manhattan. server NULL: the setting qdrant_sync.server, or the only registered one. take_over: the collection may hold points, and those that are no rows of the table are removed. key: the columns that name the point, unique and not null; NULL: the primary key. row_filter: a condition over the row''s own columns; rows for which it is not true have no point; NULL: all rows. indexes: payload indexes, ''field type, ...'', made before the collection is filled; the type (keyword, integer, float, bool, geo, datetime, text or uuid) may be left out where the column''s type says it. vectors_config: {"name": {...}} with size, distance, datatype (float32, float16, uint8), on_disk, hnsw_config, quantization_config and multivector_config of each dense vector, or that object itself for the unnamed one; sparse_vectors_config: {"name": {...}} with index and modifier; collection_config: what else PUT /collections takes; NULL: Qdrant''s defaults. They are for a collection that is to be made, and an existing one must not contradict them. Errors: 42809 and 0A000 for a table that cannot be mirrored, 42710 where table or collection has a mirror or the collection has points, 22023 for a collection of another shape and for configurations and indexes that are not understood, 42701 and 42602 for names in payload that exclude each other or have an empty part, 55P03 where the table stays locked for 3 s (names the holder), 42501, 42704.';
COMMENT ON FUNCTION qdrant_unmirror(regclass, boolean) IS
'Ends the mirror of a table, with what it had still to send; transactional. drop_collection: the collection is deleted after COMMIT. Returns NULL for a NULL argument. ERROR 42704 where the table has no mirror.';
COMMENT ON FUNCTION qdrant_pause(regclass) IS
'Stops sending the changes of a mirrored table after COMMIT; they are kept. ERROR 42704 where the table has no mirror.';
COMMENT ON FUNCTION qdrant_resume(regclass, boolean) IS
'Goes on with a mirror that was paused, has failed, or came with a dump or a copy of its database, which then starts with a comparison of all rows; mends triggers that were altered. take_over: the collection may be taken from another mirror, or hold points of others, which are removed. ERROR 42704 where the table has no mirror.';
COMMENT ON FUNCTION qdrant_resync(regclass) IS
'Has every row and every point of a mirror compared after COMMIT. ERROR 42704 where the table has no mirror.';
COMMENT ON FUNCTION qdrant_retry(regclass, text[]) IS
'Tries dead letters again after COMMIT, and returns how many: of a mirrored table, or with source NULL of all that the caller owns. keys as qdrant_dead_letters shows them; NULL: all; those without a dead letter are passed over. A dead letter goes when its row is accepted; a row that is refused again counts its tries. With source NULL, keys are numbers of explicit operations, which are enqueued again, behind what is queued now; without keys they are left alone. ERROR 42704 where the table has no mirror, 42501 where the caller does not own it, or is no member of the role that asked for the operation.';

COMMENT ON FUNCTION qdrant_verify(regclass, boolean, interval) IS
'Compares a mirrored table with its collection, both read in pages: id, payload, and vectors as Qdrant stores them. One row for each kind, with how many and up to ten examples: equal, missing (a row without a point), stale (its point has another payload or vector), left over (a point without a row), refused (a row with a dead letter, or that cannot be read; see qdrant_dead_letters), unclear (changed too often, or is too large, to be compared). What is committed and not sent yet is waited for, at most "timeout" each time, and is no difference; writes may go on. repair: missing and stale rows are sent again and points left over removed, by the mirror itself after COMMIT (a point whose id or payload does not lead to a key needs a comparison of everything, as qdrant_resync makes it). For the owner of the table. The view qdrant_verifications shows how far it is. No rows for a NULL argument. Errors: 42501, 42704 without a mirror, 25001 in a transaction that has changes to send or above READ COMMITTED, 55000 where the mirror is paused, has stopped or lags by more than "timeout", 55P03 where the table stays locked, and those of qdrant_query where Qdrant does not answer.';
COMMENT ON FUNCTION qdrant_wait(interval, regclass) IS
'Waits until everything that was committed before the call has reached Qdrant: true; false when "timeout" (NULL: none) has passed. A mirror that is paused, failed or restored is not waited for: a NOTICE says so, and the answer is false, after all that can still arrive has. source NULL: all mirrors of this database and explicit operations; else this table, on which SELECT is needed. ERROR 25001 in a transaction that itself has changes to send.';
COMMENT ON VIEW qdrant_mirrors IS
'Mirrors of the tables that the caller may read. state: creating, claiming, backfill (first filling), sweeping (comparing everything), live, paused, failed (see last_error, then qdrant_resume), restored (of another database; qdrant_resume takes it up), dropping. last_error may quote values of rows, and is NULL where row security of the table applies to the caller. pending: keys that are known and not yet acknowledged; lag_seconds: age of the oldest of them; both NULL where no worker has looked yet. epoch: number of the write alias. fence: alias, or time where the key may not manage aliases. points_sent, requests, retries: since the server was started.';
COMMENT ON VIEW qdrant_backfills IS
'Progress of the last pass over each mirrored table that the caller may read, in blocks of the table. fraction is from 0 to 1; finished is NULL while it runs.';
COMMENT ON VIEW qdrant_outboxes IS
'Outboxes of the mirrors of tables that the caller may read: bytes of both segments, and the oldest transaction that has written to them and has not ended: the session or the name of the prepared transaction, and since when it runs or is prepared (NULL where the caller may not see it). What was sent is thrown away when no transaction holds a segment any more; nothing else waits for it.';
COMMENT ON VIEW qdrant_verifications IS
'Sessions that run qdrant_verify now, on tables that the caller may read: pid, phase, and done of about total points or rows of that phase (total is NULL where it is not known). Of several sessions that verify one table, one is shown.';
COMMENT ON VIEW qdrant_dead_letters IS
'Rows that Qdrant refused for good, or that cannot become a point, with the error; of tables that the caller may read and whose row security does not apply to the caller, since key and error have values of rows. http_status is NULL where the row was refused before it was sent. They leave when the row changes, or is tried again with qdrant_retry, and is accepted or gone. first_at and last_at: its first and last refusal, tries: how many. source is NULL for an explicit operation, whose key is its number and which is shown to members of the role that asked for it and of pg_monitor.';
COMMENT ON VIEW qdrant_workers IS
'Processes of qdrant_sync in this server: kind launcher, request (serves searches) and sync (one for each database that has the extension). state: running, starting, absent, ended (started again with a back-off), no slot, no extension. failures: ends in a row. note says what to do. No rows where the library is not in shared_preload_libraries.';
/* -- end: views -- */

/* ---- client ----------------------------------------------------------- */

/* -- begin: client (src/client/) -- */
CREATE FUNCTION qdrant_internal.rows_support(internal) RETURNS internal
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'qs_rows_support';

CREATE FUNCTION qdrant_query(collection text, query anycompatible, k bigint DEFAULT 10,
	filter jsonb DEFAULT NULL, score_threshold double precision DEFAULT NULL, vector_name text DEFAULT NULL,
	with_payload boolean DEFAULT true, with_vectors boolean DEFAULT false, params jsonb DEFAULT NULL,
	server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS TABLE (id text, score real, payload jsonb, vector jsonb, version bigint, order_value jsonb, shard_key jsonb)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 SUPPORT qdrant_internal.rows_support
AS 'MODULE_PATHNAME', 'qs_query';

COMMENT ON FUNCTION qdrant_query(text, anycompatible, bigint, jsonb, double precision, text, boolean, boolean, jsonb, text, interval) IS
'The k points of a collection that are nearest to query, best first. query: a vector as text ([0.1, 0.2]; {1:0.5}/4 is sparse), array of numbers or type of pgvector; a query object of Qdrant''s as jsonb; an integer or uuid, which means nearest to that point. NULL gives no rows. filter and params are in Qdrant''s own JSON. Needs USAGE on the server; for the collection of a mirror also SELECT on its table, and no row security that applies to the caller (qdrant_search is for that). timeout: default the server''s request_timeout, else qdrant_sync.request_timeout. Errors: 42704 no such collection, 22023 refused by Qdrant, 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_query_points(collection_name text, query anycompatible, "using" text DEFAULT NULL,
	prefetch jsonb DEFAULT NULL, query_filter jsonb DEFAULT NULL, search_params jsonb DEFAULT NULL,
	"limit" bigint DEFAULT 10, "offset" bigint DEFAULT NULL, with_payload boolean DEFAULT true,
	with_vectors boolean DEFAULT false, score_threshold double precision DEFAULT NULL, lookup_from jsonb DEFAULT NULL,
	consistency text DEFAULT NULL, shard_key_selector jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL,
	server text DEFAULT NULL, payload_fields text[] DEFAULT NULL, vector_names text[] DEFAULT NULL)
RETURNS TABLE (id text, score real, payload jsonb, vector jsonb, version bigint, order_value jsonb, shard_key jsonb)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 SUPPORT qdrant_internal.rows_support
AS 'MODULE_PATHNAME', 'qs_query_points';

COMMENT ON FUNCTION qdrant_query_points(text, anycompatible, text, jsonb, jsonb, jsonb, bigint, bigint, boolean, boolean, double precision, jsonb, text, jsonb, interval, text, text[], text[]) IS
'query_points of Qdrant''s Python client, with its argument names and defaults; models are jsonb in Qdrant''s own form. "using", "limit" and "offset" need their quotes. payload_fields and vector_names choose some of the payload and of the vectors. query, rights and errors are those of qdrant_query; a NULL query gives no rows.';

CREATE FUNCTION qdrant_internal.search_support(internal) RETURNS internal
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'qs_search_support';
CREATE FUNCTION qdrant_internal.of_table(anyelement, regclass) RETURNS anyelement
LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_of_table';

CREATE FUNCTION qdrant_search(source anyelement, query anycompatible DEFAULT NULL::text, k bigint DEFAULT 10,
	filter jsonb DEFAULT NULL, score_threshold double precision DEFAULT NULL, vector_name text DEFAULT NULL,
	params jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL, skip bigint DEFAULT 0,
	prefetch jsonb DEFAULT NULL, lookup_from jsonb DEFAULT NULL, like_key text DEFAULT NULL)
RETURNS TABLE (hit anyelement, score real, rank integer)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 SUPPORT qdrant_internal.search_support
AS 'MODULE_PATHNAME', 'qs_search';

COMMENT ON FUNCTION qdrant_search(anyelement, anycompatible, bigint, jsonb, double precision, text, jsonb, interval, bigint, jsonb, jsonb, text) IS
'The k rows of a mirrored table that are nearest to query, best first (rank 1): SELECT (hit).*, score FROM qdrant_search(NULL::products, ...). source is written first, also where arguments are named, and is not the only one: else PostgreSQL does not know the type of hit. Rows are read under the caller''s snapshot, privileges and row security; points whose row is gone, hidden or out of the mirror''s row_filter are passed over, and more are asked for until k rows are found (at most 10,000 points more than k, with a NOTICE). query as in qdrant_query; an integer or uuid is the key of a row that the caller can see, which is not itself returned. like_key, in the place of query: the same by the text of a key of any type, for a key of several columns a JSON array (''["example.org", 1]''). NULL for both gives no rows, and so does a mirror that has not made its collection yet; one that was deleted is ERROR 42704. skip: so many rows are left out first; rank counts them. vector_name: default the unnamed vector, or the only one. filter, params, prefetch and lookup_from are in Qdrant''s own JSON. Needs SELECT on all columns of the table and USAGE on its server. Errors: 42501 no privilege, or row security applies and hidden rows could change the answer (prefetch, mmr), or the key has a type whose text is read for the owner alone (composite, around a domain); 22023 no such row; 55000 not mirrored; 42809 a view, a partition or a system catalog; those of qdrant_query.';

CREATE FUNCTION qdrant_create_collection(collection_name text, vectors_config jsonb DEFAULT NULL,
	sparse_vectors_config jsonb DEFAULT NULL, shard_number bigint DEFAULT NULL, sharding_method text DEFAULT NULL,
	replication_factor bigint DEFAULT NULL, write_consistency_factor bigint DEFAULT NULL,
	on_disk_payload boolean DEFAULT NULL, hnsw_config jsonb DEFAULT NULL, optimizers_config jsonb DEFAULT NULL,
	wal_config jsonb DEFAULT NULL, quantization_config jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL,
	strict_mode_config jsonb DEFAULT NULL, metadata jsonb DEFAULT NULL, payload jsonb DEFAULT NULL,
	id_tracker jsonb DEFAULT NULL, server text DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'qs_create_collection';

COMMENT ON FUNCTION qdrant_create_collection(text, jsonb, jsonb, bigint, text, bigint, bigint, boolean, jsonb, jsonb, jsonb, jsonb, interval, jsonb, jsonb, jsonb, jsonb, text) IS
'create_collection of Qdrant''s Python client, with its argument names; models are jsonb in Qdrant''s own form, such as vectors_config => ''{"size": 4, "distance": "Cosine"}''. Immediate: ROLLBACK does not undo it, and it overtakes queued writes. Needs USAGE on the server. Returns true; ERROR 42710 where the collection exists, 42809 where a mirror of this database owns it; 25006 in a read-only transaction and on a standby; 22023 where Qdrant refuses it.';

CREATE FUNCTION qdrant_internal.requests(OUT pid integer, OUT database name, OUT server text, OUT method text,
	OUT state text, OUT submitted_at timestamptz, OUT ticket bigint) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'qs_requests';

CREATE VIEW qdrant_requests AS
SELECT r.pid, r.database, r.server, r.method, r.state, r.submitted_at, r.ticket FROM qdrant_internal.requests() AS r;
GRANT SELECT ON qdrant_requests TO PUBLIC;

COMMENT ON VIEW qdrant_requests IS
'Requests of SQL calls in all databases that are not finished: pid of the session, database, server, HTTP method, state (queued, running, done: not fetched yet, abandoned: being cleaned up), when it was submitted, and in the session itself its ticket, for qdrant_await and qdrant_cancel. server and method are NULL for requests of other roles, except to members of pg_read_all_stats.';

CREATE FUNCTION qdrant_internal.request_usage(OUT tickets integer, OUT max_tickets integer, OUT waiting integer,
	OUT request_bytes bigint, OUT request_memory bigint, OUT answer_bytes bigint, OUT answer_memory bigint) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'qs_request_usage';

CREATE VIEW qdrant_request_usage AS
SELECT u.tickets, u.max_tickets, u.waiting, u.request_bytes, u.request_memory, u.answer_bytes, u.answer_memory
FROM qdrant_internal.request_usage() AS u;
GRANT SELECT ON qdrant_request_usage TO PUBLIC;

COMMENT ON VIEW qdrant_request_usage IS
'One row: how much of the limits for requests of SQL calls the sessions of all databases use now. tickets of max_tickets (qdrant_sync.max_tickets); waiting: sessions that wait for a ticket or for room for a request, as qdrant_sync.limit_wait lets them; request_bytes of request_memory and answer_bytes of answer_memory: bytes of shared memory that requests and answers have (both memories together are qdrant_sync.answer_memory).';
/* -- end: client -- */

/* -- begin: request (src/client/raw_request.c) -- */
CREATE FUNCTION qdrant_request(method text, path text, query jsonb DEFAULT NULL, body jsonb DEFAULT NULL,
	server text DEFAULT NULL, "timeout" interval DEFAULT NULL) RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'qs_raw_request';
REVOKE EXECUTE ON FUNCTION qdrant_request(text, text, jsonb, jsonb, text, interval) FROM PUBLIC;

COMMENT ON FUNCTION qdrant_request(text, text, jsonb, jsonb, text, interval) IS
'Any request to a registered server, sent at once: ROLLBACK does not undo it. method: GET, POST, PUT, PATCH, DELETE. path: such as /collections/products/points/count, percent-encoded where need be, with no query string. query: a JSON object of texts, numbers and booleans that becomes the query string; NULL members are left out. body: sent as it is; GET takes none. server NULL: the setting qdrant_sync.server, else the only registered server; USAGE on it is needed. timeout: default the server''s request_timeout, else qdrant_sync.request_timeout. Returns the whole answer ({"result", "status", "time"}), or what is not JSON, as of /metrics, as a JSON string. EXECUTE is granted to nobody at first: with USAGE on a server it allows whatever the api_key allows there, snapshots and cluster operations included. Refused are changes of a collection that a mirror of this database owns (42809), and reads of it by who may not read the whole table (42501), as far as path and body name it. What does not only read is refused in a read-only transaction and on a standby (25006). ERROR 22004 for NULL in method or path, 22023 for a path, query or method that cannot be used, 54001 for an answer nested too deep; else as qdrant_query.';
/* -- end: request -- */

/* -- begin: upload (src/capture/upload.c) -- */
CREATE FUNCTION qdrant_upload(collection_name text, query text, batch_size bigint DEFAULT 64,
	shard_key_selector jsonb DEFAULT NULL, update_filter jsonb DEFAULT NULL, update_mode text DEFAULT NULL,
	server text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_upload';

CREATE FUNCTION qdrant_internal.uploads(OUT pid integer, OUT points bigint, OUT started timestamptz)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'qs_uploads';

CREATE VIEW qdrant_uploads AS
SELECT u.pid, u.points, u.started FROM qdrant_internal.uploads() u;
GRANT SELECT ON qdrant_uploads TO PUBLIC;

CREATE VIEW qdrant_operations AS
SELECT s.pending, s.pending_is_bound AS more,
	CASE WHEN s.oldest IS NOT NULL THEN greatest(extract(epoch FROM clock_timestamp() - s.oldest)::double precision, 0)
		WHEN s.pending = 0 AND NOT s.pending_is_bound THEN 0::double precision END AS lag_seconds,
	(SELECT count(*) FROM qdrant_internal.dead_letter d WHERE d.mirror IS NULL) AS dead_letters
FROM qdrant_internal.mirror_slots() s
WHERE s.mirror = 0;
GRANT SELECT ON qdrant_operations TO PUBLIC;

COMMENT ON FUNCTION qdrant_upload(text, text, bigint, jsonb, jsonb, text, text) IS
'Writes the rows of a query as points to a collection that no mirror owns, after COMMIT, as qdrant_upsert does, and returns how many there were. The query runs once, as the caller, and sees what the transaction has done; it is read by a cursor, a few rows in memory at a time. Columns: id (an integer, numeric, a uuid, or text of either). vector (real[] or double precision[], of two dimensions for a multi-vector; pgvector''s vector, halfvec and arrays of them; or an array, json, jsonb or text in Qdrant''s own form, also an object of named vectors); without it, every column of a vector type is a named vector, called as the column. payload (json, jsonb, or a type written as an object, such as a row); without it, every other column is a field of the payload, written as a mirror writes it. A vector that is NULL is left out; a payload that is NULL is none. batch_size: points in one request, which has at most about a megabyte (NULL: 64). shard_key_selector, update_filter, update_mode and server as qdrant_upsert. ERROR 42703 without a column id, 42701 for two of one name, 42804 for an id of another type, 22004 for a NULL collection_name, query or id, 22023 names the point (row) that Qdrant could not take, or a column that has no place; else as qdrant_upsert, and those of the query. The view qdrant_uploads shows how far it is, qdrant_operations what waits to be sent.';
COMMENT ON FUNCTION qdrant_internal.uploads() IS
'Sessions in qdrant_upload of this database, of roles that the caller is a member of, or all for pg_monitor; for qdrant_uploads.';
COMMENT ON VIEW qdrant_uploads IS
'Sessions of this database that read the query of qdrant_upload now: pid, points read so far, and since when. Shown to members of the role that asked for it and of pg_monitor; at most 64 of the server, and the outer one where they are nested. Nothing of them is sent before their COMMIT; then they are in qdrant_operations.';
COMMENT ON VIEW qdrant_operations IS
'Explicit writes (qdrant_upsert, qdrant_upload and their like) of this database that were committed and are not acknowledged yet. pending: requests that the worker has in memory; more: there are others in the outbox behind them. lag_seconds: age of the oldest of them in the worker; NULL where it is not known. dead_letters: how many were refused. No row where no worker has run yet.';
/* -- end: upload -- */

/* -- begin: async (src/client/async.c) -- */
CREATE FUNCTION qdrant_query_async(collection text, query anycompatible, k bigint DEFAULT 10,
	filter jsonb DEFAULT NULL, score_threshold double precision DEFAULT NULL, vector_name text DEFAULT NULL,
	with_payload boolean DEFAULT true, with_vectors boolean DEFAULT false, params jsonb DEFAULT NULL,
	server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_query_async';

COMMENT ON FUNCTION qdrant_query_async(text, anycompatible, bigint, jsonb, double precision, text, boolean, boolean, jsonb, text, interval) IS
'qdrant_query that does not wait: returns a ticket for qdrant_await_points or qdrant_await. NULL for a NULL query. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, and those of the answer by who awaits it.';

CREATE FUNCTION qdrant_query_points_async(collection_name text, query anycompatible, "using" text DEFAULT NULL,
	prefetch jsonb DEFAULT NULL, query_filter jsonb DEFAULT NULL, search_params jsonb DEFAULT NULL,
	"limit" bigint DEFAULT 10, "offset" bigint DEFAULT NULL, with_payload boolean DEFAULT true,
	with_vectors boolean DEFAULT false, score_threshold double precision DEFAULT NULL, lookup_from jsonb DEFAULT NULL,
	consistency text DEFAULT NULL, shard_key_selector jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL,
	server text DEFAULT NULL, payload_fields text[] DEFAULT NULL, vector_names text[] DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_query_points_async';

COMMENT ON FUNCTION qdrant_query_points_async(text, anycompatible, text, jsonb, jsonb, jsonb, bigint, bigint, boolean, boolean, double precision, jsonb, text, jsonb, interval, text, text[], text[]) IS
'qdrant_query_points that does not wait: returns a ticket for qdrant_await_points or qdrant_await. NULL for a NULL query. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, and those of the answer by who awaits it.';

CREATE FUNCTION qdrant_await(ticket bigint, "timeout" interval DEFAULT NULL) RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_await';

COMMENT ON FUNCTION qdrant_await(bigint, interval) IS
'Waits for a ticket of this session: the member result of Qdrant''s answer, such as {"points": [...]}. The ticket is gone then, also where its request failed, which is an ERROR as of the function that waits. "timeout": how long this call waits (NULL: until the ticket''s own timeout); after it ERROR 55000, and the ticket stays, as it does where the wait is cancelled or there is no request worker (57P03). NULL for a NULL ticket. ERROR 42704 for one that is not this session''s, or was awaited or cancelled before; 42501 for one of a role of which the caller is no member.';

CREATE FUNCTION qdrant_await_points(tickets bigint[], "timeout" interval DEFAULT NULL)
RETURNS TABLE (n integer, ticket bigint, id text, score real, payload jsonb, vector jsonb, version bigint, order_value jsonb, shard_key jsonb)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 100 COST 1000 AS 'MODULE_PATHNAME', 'qs_await_points';

COMMENT ON FUNCTION qdrant_await_points(bigint[], interval) IS
'Waits for all tickets and returns their points; n is the place of the ticket in the array, from 1. FROM qdrant_await_points(ARRAY(SELECT qdrant_query_async(...) FROM ...)) runs them side by side. NULL elements, a NULL array and tickets without points give no rows. The tickets are gone then. Where one fails, its error is raised, naming it in CONTEXT, that ticket alone is gone, and all others can be awaited. "timeout" and errors as for qdrant_await, of which 42809 is for a ticket whose answer is not one list of points (those of qdrant_query_batch_points_async and qdrant_query_points_groups_async are several), and which stays. score is NULL for points of qdrant_retrieve_async and qdrant_scroll_async.';

CREATE FUNCTION qdrant_await_any(tickets bigint[], "timeout" interval DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_await_any';

COMMENT ON FUNCTION qdrant_await_any(bigint[], interval) IS
'Waits until one of the tickets is done, well or not, and returns it; it stays until it is awaited. Of several the first in the array. NULL after "timeout" (NULL: none), and where the array is NULL or has no other elements than NULL. Errors 42704, 42501 and 57P03 as for qdrant_await.';

CREATE FUNCTION qdrant_is_done(ticket bigint) RETURNS boolean
LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'qs_is_done';

COMMENT ON FUNCTION qdrant_is_done(bigint) IS
'Whether qdrant_await would return or fail at once. NULL for NULL; errors 42704 and 42501 as for qdrant_await.';

CREATE FUNCTION qdrant_cancel(ticket bigint) RETURNS boolean
LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'qs_cancel';

COMMENT ON FUNCTION qdrant_cancel(bigint) IS
'Gives up a ticket of this session in any state: true, and false where there is none (awaited or cancelled before, or another session''s). A request that is under way is ended. NULL for NULL; ERROR 42501 for a ticket of a role of which the caller is no member.';
/* -- end: async -- */

/* -- begin: filter (src/client/filter.c) -- */
CREATE FUNCTION qdrant_filter(must "any" DEFAULT NULL::jsonb, should "any" DEFAULT NULL::jsonb,
	must_not "any" DEFAULT NULL::jsonb, min_should "any" DEFAULT NULL::jsonb, min_count bigint DEFAULT NULL)
RETURNS jsonb LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_filter';
CREATE FUNCTION qdrant_match(key text, value anycompatible) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_filter_match';
CREATE FUNCTION qdrant_match_text(key text, words text) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_filter_match_text';
CREATE FUNCTION qdrant_range(key text, gte anycompatible DEFAULT NULL, gt anycompatible DEFAULT NULL,
	lte anycompatible DEFAULT NULL, lt anycompatible DEFAULT NULL) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_filter_range';
CREATE FUNCTION qdrant_has_id(ids anycompatible) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_filter_has_id';
CREATE FUNCTION qdrant_is_null(key text) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_filter_is_null';
CREATE FUNCTION qdrant_is_empty(key text) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'qs_filter_is_empty';

COMMENT ON FUNCTION qdrant_filter("any", "any", "any", "any", bigint) IS
'A filter of Qdrant''s: all of must, at least one of should, none of must_not, and min_count or more of min_should. Each is a condition (qdrant_match, qdrant_range, ..., another filter, or Qdrant''s own JSON), an array of conditions (ARRAY[...]) or a JSON array of them. NULL for a list leaves it out; without any the filter is {}, which every point passes. A should without a condition in it is passed by no point, an empty must or must_not by all. ERROR 22023 for a NULL within an array and for what is no JSON object, 42804 for another type.';
COMMENT ON FUNCTION qdrant_match(text, anycompatible) IS
'Condition: the field key of the payload is this value (text, integer, boolean, uuid), or has it among its elements; an array: any of these values. key may be a path (a.b, a[].b). ERROR 22004 for NULL, also within the array; 42804 for other types: qdrant_range takes other numbers.';
COMMENT ON FUNCTION qdrant_match_text(text, text) IS
'Condition: the text in the field key has all these words; without a full-text index on the field, has them as a substring. ERROR 22004 for NULL.';
COMMENT ON FUNCTION qdrant_range(text, anycompatible, anycompatible, anycompatible, anycompatible) IS
'Condition: the field key is at least gte, above gt, at most lte, below lt: numbers, dates or timestamps (a text is read by Qdrant as a date and time, and must begin with a date such as 2026-11-23; a timestamp without time zone is in UTC). A bound that is NULL is none. ERROR 22004 without any bound, 22023 for any other text, also that of a number, for NaN, infinity and years before 1 or after 9999, 42804 for other types.';
COMMENT ON FUNCTION qdrant_has_id(anycompatible) IS
'Condition: the point has this id, or one of an array: integers from 0 on, uuids, or either as text. ERROR 22004 for NULL, 22023 or 22P02 for what is no id, 42804 for other types.';
COMMENT ON FUNCTION qdrant_is_null(text) IS
'Condition: the field key is there and null. Fields that are missing: qdrant_is_empty. ERROR 22004 for NULL.';
COMMENT ON FUNCTION qdrant_is_empty(text) IS
'Condition: the field key is missing, null or an empty array. ERROR 22004 for NULL.';
/* -- end: filter -- */

/* -- begin: methods (src/client/reads.c, src/client/collection.c) -- */
CREATE FUNCTION qdrant_info(server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_info';

COMMENT ON FUNCTION qdrant_info(text, interval) IS
'info of Qdrant''s Python client, with its argument names and defaults: {"title", "version", "commit"} of a server. The ping. Needs USAGE on the server. Errors: 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_get_collections(server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS TABLE (name text)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 AS 'MODULE_PATHNAME', 'qs_get_collections';

COMMENT ON FUNCTION qdrant_get_collections(text, interval) IS
'get_collections of Qdrant''s Python client, with its argument names and defaults: names of all collections of a server, also of those that mirrors own. Needs USAGE on the server. Errors: 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_get_collection(collection_name text, server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_get_collection';

COMMENT ON FUNCTION qdrant_get_collection(text, text, interval) IS
'get_collection of Qdrant''s Python client, with its argument names and defaults: Qdrant''s description of a collection: status, counts, config, payload_schema. Needs USAGE on the server; for the collection of a mirror also SELECT on its table, and no row security that applies to the caller. timeout: default the server''s request_timeout, else qdrant_sync.request_timeout. Errors: 42704 no such collection, 22023 refused by Qdrant, 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_collection_exists(collection_name text, server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_collection_exists';

COMMENT ON FUNCTION qdrant_collection_exists(text, text, interval) IS
'collection_exists of Qdrant''s Python client, with its argument names and defaults: true for an alias, too. Needs USAGE on the server. Errors: 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_get_aliases(server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS TABLE (alias_name text, collection_name text)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 AS 'MODULE_PATHNAME', 'qs_get_aliases';

COMMENT ON FUNCTION qdrant_get_aliases(text, interval) IS
'get_aliases of Qdrant''s Python client, with its argument names and defaults: all aliases of a server. Needs USAGE on the server. Errors: 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_get_collection_aliases(collection_name text, server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS TABLE (alias_name text, collection_name text)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 AS 'MODULE_PATHNAME', 'qs_get_collection_aliases';

COMMENT ON FUNCTION qdrant_get_collection_aliases(text, text, interval) IS
'get_collection_aliases of Qdrant''s Python client, with its argument names and defaults: aliases of one collection. Needs USAGE on the server. Errors: 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_retrieve(collection_name text, ids anycompatible, with_payload boolean DEFAULT true,
	with_vectors boolean DEFAULT false, consistency text DEFAULT NULL,
	shard_key_selector jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL, server text DEFAULT NULL,
	payload_fields text[] DEFAULT NULL, vector_names text[] DEFAULT NULL)
RETURNS TABLE (id text, score real, payload jsonb, vector jsonb, version bigint, order_value jsonb, shard_key jsonb)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 AS 'MODULE_PATHNAME', 'qs_retrieve';

COMMENT ON FUNCTION qdrant_retrieve(text, anycompatible, boolean, boolean, text, jsonb, interval, text, text[], text[]) IS
'retrieve of Qdrant''s Python client, with its argument names and defaults: the points of these ids. ids: an integer or uuid, an array of them, text or JSON of either. Ids that are not there give no row; order and duplicates are Qdrant''s. score and version are NULL. payload_fields and vector_names choose some of the payload and of the vectors. Needs USAGE on the server; for the collection of a mirror also SELECT on its table, and no row security that applies to the caller. timeout: default the server''s request_timeout, else qdrant_sync.request_timeout. Errors: 42704 no such collection, 22023 refused by Qdrant, 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_scroll(collection_name text, scroll_filter jsonb DEFAULT NULL, "limit" bigint DEFAULT 10,
	order_by text DEFAULT NULL, "offset" anycompatible DEFAULT NULL, with_payload boolean DEFAULT true,
	with_vectors boolean DEFAULT false, consistency text DEFAULT NULL,
	shard_key_selector jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL, server text DEFAULT NULL,
	payload_fields text[] DEFAULT NULL, vector_names text[] DEFAULT NULL)
RETURNS TABLE (id text, score real, payload jsonb, vector jsonb, version bigint, order_value jsonb, shard_key jsonb, next_page_offset text)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 SUPPORT qdrant_internal.rows_support
AS 'MODULE_PATHNAME', 'qs_scroll';

COMMENT ON FUNCTION qdrant_scroll(text, jsonb, bigint, text, anycompatible, boolean, boolean, text, jsonb, interval, text, text[], text[]) IS
'scroll of Qdrant''s Python client, with its argument names and defaults: a page of points in the order of their ids, or of order_by: the name of a field, or {"key", "direction", "start_from"} as text. next_page_offset, the same in every row, is the "offset" of the next page and NULL in the last one; a page without rows has none after it. score and version are NULL. payload_fields and vector_names choose some of the payload and of the vectors. Needs USAGE on the server; for the collection of a mirror also SELECT on its table, and no row security that applies to the caller. timeout: default the server''s request_timeout, else qdrant_sync.request_timeout. Errors: 42704 no such collection, 22023 refused by Qdrant, 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_count(collection_name text, count_filter jsonb DEFAULT NULL, exact boolean DEFAULT true,
	shard_key_selector jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL, server text DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_count';

COMMENT ON FUNCTION qdrant_count(text, jsonb, boolean, jsonb, interval, text) IS
'count of Qdrant''s Python client, with its argument names and defaults: number of points that the filter lets through. Needs USAGE on the server; for the collection of a mirror also SELECT on its table, and no row security that applies to the caller. timeout: default the server''s request_timeout, else qdrant_sync.request_timeout. Errors: 42704 no such collection, 22023 refused by Qdrant, 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_facet(collection_name text, key text, facet_filter jsonb DEFAULT NULL, "limit" bigint DEFAULT 10,
	exact boolean DEFAULT false, consistency text DEFAULT NULL, "timeout" interval DEFAULT NULL,
	shard_key_selector jsonb DEFAULT NULL, server text DEFAULT NULL)
RETURNS TABLE (value jsonb, count bigint)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 SUPPORT qdrant_internal.rows_support
AS 'MODULE_PATHNAME', 'qs_facet';

COMMENT ON FUNCTION qdrant_facet(text, text, jsonb, bigint, boolean, text, interval, jsonb, text) IS
'facet of Qdrant''s Python client, with its argument names and defaults: the most frequent values of a field of the payload, which needs an index, with how many points have them. Needs USAGE on the server; for the collection of a mirror also SELECT on its table, and no row security that applies to the caller. timeout: default the server''s request_timeout, else qdrant_sync.request_timeout. Errors: 42704 no such collection, 22023 refused by Qdrant, 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_query_batch_points(collection_name text, requests jsonb, consistency text DEFAULT NULL, "timeout" interval DEFAULT NULL,
	server text DEFAULT NULL)
RETURNS TABLE (n integer, id text, score real, payload jsonb, vector jsonb, version bigint, order_value jsonb, shard_key jsonb)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 AS 'MODULE_PATHNAME', 'qs_query_batch_points';

COMMENT ON FUNCTION qdrant_query_batch_points(text, jsonb, text, interval, text) IS
'query_batch_points of Qdrant''s Python client, with its argument names and defaults: several queries in one request. requests: a JSON array of Qdrant''s own query requests, whose defaults are those of REST ("with_payload" is false). n: place of the query, from 1; a query without hits has no rows. Needs USAGE on the server; for the collection of a mirror also SELECT on its table, and no row security that applies to the caller. timeout: default the server''s request_timeout, else qdrant_sync.request_timeout. Errors: 42704 no such collection, 22023 refused by Qdrant, 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_query_points_groups(collection_name text, group_by text, query anycompatible, "using" text DEFAULT NULL,
	prefetch jsonb DEFAULT NULL, query_filter jsonb DEFAULT NULL, search_params jsonb DEFAULT NULL,
	"limit" bigint DEFAULT 10, group_size bigint DEFAULT 3, with_payload boolean DEFAULT true,
	with_vectors boolean DEFAULT false, score_threshold double precision DEFAULT NULL, with_lookup text DEFAULT NULL,
	lookup_from jsonb DEFAULT NULL, consistency text DEFAULT NULL, shard_key_selector jsonb DEFAULT NULL,
	"timeout" interval DEFAULT NULL, server text DEFAULT NULL, payload_fields text[] DEFAULT NULL,
	vector_names text[] DEFAULT NULL)
RETURNS TABLE (group_id jsonb, id text, score real, payload jsonb, vector jsonb, version bigint, order_value jsonb, shard_key jsonb, lookup jsonb)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 AS 'MODULE_PATHNAME', 'qs_query_points_groups';

COMMENT ON FUNCTION qdrant_query_points_groups(text, text, anycompatible, text, jsonb, jsonb, jsonb, bigint, bigint, boolean, boolean, double precision, text, jsonb, text, jsonb, interval, text, text[], text[]) IS
'query_points_groups of Qdrant''s Python client, with its argument names and defaults: hits in groups that have the same value of the field group_by, one row for each hit, groups in Qdrant''s order. "limit": number of groups. with_lookup: name of a collection whose point of that id is lookup, or {"collection", ...} as text; it is read under the same rights. query as in qdrant_query; NULL gives no rows. payload_fields and vector_names choose some of the payload and of the vectors. Needs USAGE on the server; for the collection of a mirror also SELECT on its table, and no row security that applies to the caller. timeout: default the server''s request_timeout, else qdrant_sync.request_timeout. Errors: 42704 no such collection, 22023 refused by Qdrant, 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_search_matrix_pairs(collection_name text, query_filter jsonb DEFAULT NULL, "limit" bigint DEFAULT 3,
	sample bigint DEFAULT 10, "using" text DEFAULT NULL, consistency text DEFAULT NULL,
	"timeout" interval DEFAULT NULL, shard_key_selector jsonb DEFAULT NULL, server text DEFAULT NULL)
RETURNS TABLE (a text, b text, score real)
LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 COST 1000 AS 'MODULE_PATHNAME', 'qs_search_matrix_pairs';

COMMENT ON FUNCTION qdrant_search_matrix_pairs(text, jsonb, bigint, bigint, text, text, interval, jsonb, text) IS
'search_matrix_pairs of Qdrant''s Python client, with its argument names and defaults: pairs of near points among a random sample. "limit": nearest ones of each point. Needs USAGE on the server; for the collection of a mirror also SELECT on its table, and no row security that applies to the caller. timeout: default the server''s request_timeout, else qdrant_sync.request_timeout. Errors: 42704 no such collection, 22023 refused by Qdrant, 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_search_matrix_offsets(collection_name text, query_filter jsonb DEFAULT NULL, "limit" bigint DEFAULT 3,
	sample bigint DEFAULT 10, "using" text DEFAULT NULL, consistency text DEFAULT NULL,
	"timeout" interval DEFAULT NULL, shard_key_selector jsonb DEFAULT NULL, server text DEFAULT NULL)
RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_search_matrix_offsets';

COMMENT ON FUNCTION qdrant_search_matrix_offsets(text, jsonb, bigint, bigint, text, text, interval, jsonb, text) IS
'search_matrix_offsets of Qdrant''s Python client, with its argument names and defaults: distances among a random sample as a sparse matrix, {"offsets_row", "offsets_col", "scores", "ids"}. "limit": nearest ones of each point. Needs USAGE on the server; for the collection of a mirror also SELECT on its table, and no row security that applies to the caller. timeout: default the server''s request_timeout, else qdrant_sync.request_timeout. Errors: 42704 no such collection, 22023 refused by Qdrant, 08006 no answer in time, 57P03 try again.';

CREATE FUNCTION qdrant_recreate_collection(collection_name text, vectors_config jsonb DEFAULT NULL, sparse_vectors_config jsonb DEFAULT NULL,
	shard_number bigint DEFAULT NULL, sharding_method text DEFAULT NULL,
	replication_factor bigint DEFAULT NULL, write_consistency_factor bigint DEFAULT NULL,
	on_disk_payload boolean DEFAULT NULL, hnsw_config jsonb DEFAULT NULL,
	optimizers_config jsonb DEFAULT NULL, wal_config jsonb DEFAULT NULL,
	quantization_config jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL,
	strict_mode_config jsonb DEFAULT NULL, metadata jsonb DEFAULT NULL, payload jsonb DEFAULT NULL,
	id_tracker jsonb DEFAULT NULL, server text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_recreate_collection';

COMMENT ON FUNCTION qdrant_recreate_collection(text, jsonb, jsonb, bigint, text, bigint, bigint, boolean, jsonb, jsonb, jsonb, jsonb, interval, jsonb, jsonb, jsonb, jsonb, text) IS
'recreate_collection of Qdrant''s Python client, with its argument names and defaults: qdrant_delete_collection, if it is there, and qdrant_create_collection. Between the two there is no collection. Immediate: ROLLBACK does not undo it, and it overtakes queued writes. Needs USAGE on the server. ERROR 42809 for a collection that a mirror of this database owns; 25006 in a read-only transaction and on a standby; 22023 where Qdrant refuses it.';

CREATE FUNCTION qdrant_update_collection(collection_name text, optimizers_config jsonb DEFAULT NULL, collection_params jsonb DEFAULT NULL,
	vectors_config jsonb DEFAULT NULL, hnsw_config jsonb DEFAULT NULL,
	quantization_config jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL,
	sparse_vectors_config jsonb DEFAULT NULL, strict_mode_config jsonb DEFAULT NULL,
	metadata jsonb DEFAULT NULL, server text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_update_collection';

COMMENT ON FUNCTION qdrant_update_collection(text, jsonb, jsonb, jsonb, jsonb, jsonb, interval, jsonb, jsonb, jsonb, text) IS
'update_collection of Qdrant''s Python client, with its argument names and defaults; models are jsonb in Qdrant''s own form. Immediate: ROLLBACK does not undo it, and it overtakes queued writes. Needs USAGE on the server. ERROR 42809 for a collection that a mirror of this database owns; 25006 in a read-only transaction and on a standby; 42704 where the collection is not there, 22023 where Qdrant refuses it.';

CREATE FUNCTION qdrant_delete_collection(collection_name text, "timeout" interval DEFAULT NULL, server text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_delete_collection';

COMMENT ON FUNCTION qdrant_delete_collection(text, interval, text) IS
'delete_collection of Qdrant''s Python client, with its argument names and defaults: false where there was none. Immediate: ROLLBACK does not undo it, and it overtakes queued writes. Needs USAGE on the server. ERROR 42809 for a collection that a mirror of this database owns; 25006 in a read-only transaction and on a standby; 22023 where Qdrant refuses it.';

CREATE FUNCTION qdrant_update_collection_aliases(change_aliases_operations jsonb, "timeout" interval DEFAULT NULL, server text DEFAULT NULL)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_update_collection_aliases';

COMMENT ON FUNCTION qdrant_update_collection_aliases(jsonb, interval, text) IS
'update_collection_aliases of Qdrant''s Python client, with its argument names and defaults: an array of {"create_alias": {"collection_name", "alias_name"}}, {"delete_alias": {"alias_name"}} and {"rename_alias": {"old_alias_name", "new_alias_name"}}, done in their order, and seen by others all at once; where one is refused, those before it stay done. An alias of a mirror''s collection is refused: it would pass by the rights on the table. Immediate: ROLLBACK does not undo it, and it overtakes queued writes. Needs USAGE on the server. ERROR 42809 for a collection that a mirror of this database owns; 25006 in a read-only transaction and on a standby; 42704 where the collection is not there, 22023 where Qdrant refuses it.';

CREATE FUNCTION qdrant_create_payload_index(collection_name text, field_name text, field_schema text DEFAULT NULL, field_type text DEFAULT NULL,
	wait boolean DEFAULT true, ordering text DEFAULT NULL, "timeout" interval DEFAULT NULL,
	server text DEFAULT NULL)
RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_create_payload_index';

COMMENT ON FUNCTION qdrant_create_payload_index(text, text, text, text, boolean, text, interval, text) IS
'create_payload_index of Qdrant''s Python client, with its argument names and defaults. field_schema: a type (keyword, integer, float, bool, geo, datetime, text, uuid), or parameters such as {"type": "text", "lowercase": true} as text; field_type is its old name. Returns Qdrant''s update result, {"operation_id", "status"}. wait false: returns before it is done. ordering: weak, medium or strong. Immediate: ROLLBACK does not undo it, and it overtakes queued writes. Needs USAGE on the server. ERROR 42809 for a collection that a mirror of this database owns; 25006 in a read-only transaction and on a standby; 42704 where the collection is not there, 22023 where Qdrant refuses it.';

CREATE FUNCTION qdrant_delete_payload_index(collection_name text, field_name text, wait boolean DEFAULT true, ordering text DEFAULT NULL,
	"timeout" interval DEFAULT NULL, server text DEFAULT NULL)
RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_delete_payload_index';

COMMENT ON FUNCTION qdrant_delete_payload_index(text, text, boolean, text, interval, text) IS
'delete_payload_index of Qdrant''s Python client, with its argument names and defaults. Returns Qdrant''s update result, {"operation_id", "status"}. wait false: returns before it is done. ordering: weak, medium or strong. Immediate: ROLLBACK does not undo it, and it overtakes queued writes. Needs USAGE on the server. ERROR 42809 for a collection that a mirror of this database owns; 25006 in a read-only transaction and on a standby; 42704 where the collection is not there, 22023 where Qdrant refuses it.';

CREATE FUNCTION qdrant_create_vector_name(collection_name text, vector_name text, vector_name_config jsonb, wait boolean DEFAULT true,
	ordering text DEFAULT NULL, "timeout" interval DEFAULT NULL, server text DEFAULT NULL)
RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_create_vector_name';

COMMENT ON FUNCTION qdrant_create_vector_name(text, text, jsonb, boolean, text, interval, text) IS
'create_vector_name of Qdrant''s Python client, with its argument names and defaults (Qdrant 1.18): {"dense": {"size", "distance"}} or {"sparse": {}}. Returns Qdrant''s update result, {"operation_id", "status"}. wait false: returns before it is done. ordering: weak, medium or strong. Immediate: ROLLBACK does not undo it, and it overtakes queued writes. Needs USAGE on the server. ERROR 42809 for a collection that a mirror of this database owns; 25006 in a read-only transaction and on a standby; 42704 where the collection is not there, 22023 where Qdrant refuses it.';

CREATE FUNCTION qdrant_delete_vector_name(collection_name text, vector_name text, wait boolean DEFAULT true, ordering text DEFAULT NULL,
	"timeout" interval DEFAULT NULL, server text DEFAULT NULL)
RETURNS jsonb
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 1000 AS 'MODULE_PATHNAME', 'qs_delete_vector_name';

COMMENT ON FUNCTION qdrant_delete_vector_name(text, text, boolean, text, interval, text) IS
'delete_vector_name of Qdrant''s Python client, with its argument names and defaults (Qdrant 1.18). Returns Qdrant''s update result, {"operation_id", "status"}. wait false: returns before it is done. ordering: weak, medium or strong. Immediate: ROLLBACK does not undo it, and it overtakes queued writes. Needs USAGE on the server. ERROR 42809 for a collection that a mirror of this database owns; 25006 in a read-only transaction and on a standby; 42704 where the collection is not there, 22023 where Qdrant refuses it.';
/* -- end: methods -- */

/* -- begin: twins (src/client/reads.c) -- */
CREATE FUNCTION qdrant_info_async(server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_info_async';

COMMENT ON FUNCTION qdrant_info_async(text, interval) IS
'qdrant_info that does not wait: returns a ticket. qdrant_await of it gives Qdrant''s own result: {"title", "version", "commit"}. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, others by who awaits.';

CREATE FUNCTION qdrant_get_collections_async(server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_get_collections_async';

COMMENT ON FUNCTION qdrant_get_collections_async(text, interval) IS
'qdrant_get_collections that does not wait: returns a ticket. qdrant_await of it gives Qdrant''s own result: {"collections": [{"name"}]}. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, others by who awaits.';

CREATE FUNCTION qdrant_get_collection_async(collection_name text, server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_get_collection_async';

COMMENT ON FUNCTION qdrant_get_collection_async(text, text, interval) IS
'qdrant_get_collection that does not wait: returns a ticket. qdrant_await of it gives Qdrant''s own result: the description. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, others by who awaits.';

CREATE FUNCTION qdrant_collection_exists_async(collection_name text, server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_collection_exists_async';

COMMENT ON FUNCTION qdrant_collection_exists_async(text, text, interval) IS
'qdrant_collection_exists that does not wait: returns a ticket. qdrant_await of it gives Qdrant''s own result: {"exists"}. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, others by who awaits.';

CREATE FUNCTION qdrant_get_aliases_async(server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_get_aliases_async';

COMMENT ON FUNCTION qdrant_get_aliases_async(text, interval) IS
'qdrant_get_aliases that does not wait: returns a ticket. qdrant_await of it gives Qdrant''s own result: {"aliases": [{"alias_name", "collection_name"}]}. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, others by who awaits.';

CREATE FUNCTION qdrant_get_collection_aliases_async(collection_name text, server text DEFAULT NULL, "timeout" interval DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_get_collection_aliases_async';

COMMENT ON FUNCTION qdrant_get_collection_aliases_async(text, text, interval) IS
'qdrant_get_collection_aliases that does not wait: returns a ticket. qdrant_await of it gives Qdrant''s own result: {"aliases": [{"alias_name", "collection_name"}]}. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, others by who awaits.';

CREATE FUNCTION qdrant_retrieve_async(collection_name text, ids anycompatible, with_payload boolean DEFAULT true,
	with_vectors boolean DEFAULT false, consistency text DEFAULT NULL,
	shard_key_selector jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL, server text DEFAULT NULL,
	payload_fields text[] DEFAULT NULL, vector_names text[] DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_retrieve_async';

COMMENT ON FUNCTION qdrant_retrieve_async(text, anycompatible, boolean, boolean, text, jsonb, interval, text, text[], text[]) IS
'qdrant_retrieve that does not wait: returns a ticket. qdrant_await of it gives Qdrant''s own result: an array of points; qdrant_await_points gives them as rows. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, others by who awaits.';

CREATE FUNCTION qdrant_scroll_async(collection_name text, scroll_filter jsonb DEFAULT NULL, "limit" bigint DEFAULT 10,
	order_by text DEFAULT NULL, "offset" anycompatible DEFAULT NULL, with_payload boolean DEFAULT true,
	with_vectors boolean DEFAULT false, consistency text DEFAULT NULL,
	shard_key_selector jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL, server text DEFAULT NULL,
	payload_fields text[] DEFAULT NULL, vector_names text[] DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_scroll_async';

COMMENT ON FUNCTION qdrant_scroll_async(text, jsonb, bigint, text, anycompatible, boolean, boolean, text, jsonb, interval, text, text[], text[]) IS
'qdrant_scroll that does not wait: returns a ticket. qdrant_await of it gives Qdrant''s own result: {"points": [...], "next_page_offset"}; qdrant_await_points gives the points as rows. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, others by who awaits.';

CREATE FUNCTION qdrant_count_async(collection_name text, count_filter jsonb DEFAULT NULL, exact boolean DEFAULT true,
	shard_key_selector jsonb DEFAULT NULL, "timeout" interval DEFAULT NULL, server text DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_count_async';

COMMENT ON FUNCTION qdrant_count_async(text, jsonb, boolean, jsonb, interval, text) IS
'qdrant_count that does not wait: returns a ticket. qdrant_await of it gives Qdrant''s own result: {"count"}. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, others by who awaits.';

CREATE FUNCTION qdrant_facet_async(collection_name text, key text, facet_filter jsonb DEFAULT NULL, "limit" bigint DEFAULT 10,
	exact boolean DEFAULT false, consistency text DEFAULT NULL, "timeout" interval DEFAULT NULL,
	shard_key_selector jsonb DEFAULT NULL, server text DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_facet_async';

COMMENT ON FUNCTION qdrant_facet_async(text, text, jsonb, bigint, boolean, text, interval, jsonb, text) IS
'qdrant_facet that does not wait: returns a ticket. qdrant_await of it gives Qdrant''s own result: {"hits": [{"value", "count"}]}. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, others by who awaits.';

CREATE FUNCTION qdrant_query_batch_points_async(collection_name text, requests jsonb, consistency text DEFAULT NULL, "timeout" interval DEFAULT NULL,
	server text DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_query_batch_points_async';

COMMENT ON FUNCTION qdrant_query_batch_points_async(text, jsonb, text, interval, text) IS
'qdrant_query_batch_points that does not wait: returns a ticket. qdrant_await of it gives Qdrant''s own result: an array of {"points": [...]}, one for each query. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, others by who awaits.';

CREATE FUNCTION qdrant_query_points_groups_async(collection_name text, group_by text, query anycompatible, "using" text DEFAULT NULL,
	prefetch jsonb DEFAULT NULL, query_filter jsonb DEFAULT NULL, search_params jsonb DEFAULT NULL,
	"limit" bigint DEFAULT 10, group_size bigint DEFAULT 3, with_payload boolean DEFAULT true,
	with_vectors boolean DEFAULT false, score_threshold double precision DEFAULT NULL, with_lookup text DEFAULT NULL,
	lookup_from jsonb DEFAULT NULL, consistency text DEFAULT NULL, shard_key_selector jsonb DEFAULT NULL,
	"timeout" interval DEFAULT NULL, server text DEFAULT NULL, payload_fields text[] DEFAULT NULL,
	vector_names text[] DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_query_points_groups_async';

COMMENT ON FUNCTION qdrant_query_points_groups_async(text, text, anycompatible, text, jsonb, jsonb, jsonb, bigint, bigint, boolean, boolean, double precision, text, jsonb, text, jsonb, interval, text, text[], text[]) IS
'qdrant_query_points_groups that does not wait: returns a ticket. qdrant_await of it gives Qdrant''s own result: {"groups": [{"id", "hits", "lookup"}]}. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, others by who awaits.';

CREATE FUNCTION qdrant_search_matrix_pairs_async(collection_name text, query_filter jsonb DEFAULT NULL, "limit" bigint DEFAULT 3,
	sample bigint DEFAULT 10, "using" text DEFAULT NULL, consistency text DEFAULT NULL,
	"timeout" interval DEFAULT NULL, shard_key_selector jsonb DEFAULT NULL, server text DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_search_matrix_pairs_async';

COMMENT ON FUNCTION qdrant_search_matrix_pairs_async(text, jsonb, bigint, bigint, text, text, interval, jsonb, text) IS
'qdrant_search_matrix_pairs that does not wait: returns a ticket. qdrant_await of it gives Qdrant''s own result: {"pairs": [{"a", "b", "score"}]}. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, others by who awaits.';

CREATE FUNCTION qdrant_search_matrix_offsets_async(collection_name text, query_filter jsonb DEFAULT NULL, "limit" bigint DEFAULT 3,
	sample bigint DEFAULT 10, "using" text DEFAULT NULL, consistency text DEFAULT NULL,
	"timeout" interval DEFAULT NULL, shard_key_selector jsonb DEFAULT NULL, server text DEFAULT NULL)
RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED COST 100 AS 'MODULE_PATHNAME', 'qs_search_matrix_offsets_async';

COMMENT ON FUNCTION qdrant_search_matrix_offsets_async(text, jsonb, bigint, bigint, text, text, interval, jsonb, text) IS
'qdrant_search_matrix_offsets that does not wait: returns a ticket. qdrant_await of it gives Qdrant''s own result: {"offsets_row", "offsets_col", "scores", "ids"}. "timeout" counts from this call; errors of arguments and rights, and 53400 or 53200 at a limit, are raised here, others by who awaits.';

/* -- end: twins -- */

/* -- begin: operations (src/capture/operation_calls.c) -- */
CREATE FUNCTION qdrant_upsert(collection_name text, points jsonb, shard_key_selector jsonb DEFAULT NULL,
	update_filter jsonb DEFAULT NULL, update_mode text DEFAULT NULL, server text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_upsert';

CREATE FUNCTION qdrant_delete(collection_name text, points_selector anycompatible,
	shard_key_selector jsonb DEFAULT NULL, server text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_delete';

CREATE FUNCTION qdrant_update_vectors(collection_name text, points jsonb, shard_key_selector jsonb DEFAULT NULL,
	update_filter jsonb DEFAULT NULL, server text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_update_vectors';

CREATE FUNCTION qdrant_delete_vectors(collection_name text, vectors text[], points anycompatible,
	shard_key_selector jsonb DEFAULT NULL, server text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_delete_vectors';

CREATE FUNCTION qdrant_set_payload(collection_name text, payload jsonb, points anycompatible,
	key text DEFAULT NULL, shard_key_selector jsonb DEFAULT NULL, server text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_set_payload';

CREATE FUNCTION qdrant_overwrite_payload(collection_name text, payload jsonb, points anycompatible,
	shard_key_selector jsonb DEFAULT NULL, server text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_overwrite_payload';

CREATE FUNCTION qdrant_delete_payload(collection_name text, keys text[], points anycompatible,
	shard_key_selector jsonb DEFAULT NULL, server text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_delete_payload';

CREATE FUNCTION qdrant_clear_payload(collection_name text, points_selector anycompatible,
	shard_key_selector jsonb DEFAULT NULL, server text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_clear_payload';

CREATE FUNCTION qdrant_batch_update_points(collection_name text, update_operations jsonb,
	server text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_batch_update_points';

/*
 * Dead letters of explicit operations, by qdrant_internal.dead_letter.id, back
 * into the outbox; returns how many.
 */
CREATE FUNCTION qdrant_internal.retry_operations(ids bigint[]) RETURNS bigint
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'qs_retry_operations';

/*
 * A type without a cast to json of its own, such as pgvector's vector, arrives
 * as the text of a JSON array.
 */
CREATE FUNCTION qdrant_point(id anyelement, vector anycompatible, payload jsonb DEFAULT NULL) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT pg_catalog.jsonb_build_object('id', $1, 'vector',
	CASE WHEN pg_catalog.jsonb_typeof(v) OPERATOR(pg_catalog.=) 'string' THEN (v OPERATOR(pg_catalog.#>>) '{}')::pg_catalog.jsonb ELSE v END,
	'payload', $3)
  FROM pg_catalog.to_jsonb($2) AS v
$$;

/* The same for an id that is a literal or a driver's parameter without a type, which anyelement cannot be. */
CREATE FUNCTION qdrant_point(id text, vector anycompatible, payload jsonb DEFAULT NULL) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT pg_catalog.jsonb_build_object('id',
	CASE WHEN $1 OPERATOR(pg_catalog.~) '^[0-9]+$' THEN pg_catalog.to_jsonb($1::pg_catalog.numeric) ELSE pg_catalog.to_jsonb($1::pg_catalog.uuid) END,
	'vector',
	CASE WHEN pg_catalog.jsonb_typeof(v) OPERATOR(pg_catalog.=) 'string' THEN (v OPERATOR(pg_catalog.#>>) '{}')::pg_catalog.jsonb ELSE v END,
	'payload', $3)
  FROM pg_catalog.to_jsonb($2) AS v
$$;

COMMENT ON FUNCTION qdrant_upsert(text, jsonb, jsonb, jsonb, text, text) IS
'Writes points to a collection that no mirror owns, after the transaction has committed and in the order of commits: each replaces the whole point of its id. points: a JSON array of {"id", "vector", "payload"}; an empty one does nothing. There is no wait: nothing is sent before COMMIT (qdrant_wait waits). There is no ordering: a collection gets one request at a time. shard_key_selector, update_filter and update_mode (upsert, insert_only, update_only) as in Qdrant. server NULL: the setting qdrant_sync.server, else the only registered server; USAGE on it is needed. ERROR 22023 names the first point that Qdrant could not take; 54000 one of more than 32 MiB; 22004 for NULL points; 55006 for a collection of a mirror; 53400 while the outbox is full; PREPARE TRANSACTION is refused (0A000). What Qdrant refuses later is in qdrant_dead_letters.';
COMMENT ON FUNCTION qdrant_delete(text, anycompatible, jsonb, text) IS
'Deletes points after COMMIT, in order with all other writes to the collection. points_selector: an id (integer, uuid), an array of ids, text or JSON of either, a filter as JSON object, {"points": [...]} or {"filter": {...}}. A filter finds its points when it is sent. An empty array does nothing; {} alone is refused, and {"filter": {}} is every point. Ids that are not there are no error. ERROR 22004 for NULL, 42804 for a type that names no points, 22023 names the element that is no id; else as qdrant_upsert.';
COMMENT ON FUNCTION qdrant_update_vectors(text, jsonb, jsonb, jsonb, text) IS
'Replaces the vectors that are named, of points that exist, after COMMIT; others and the payload stay. points: a JSON array of {"id", "vector"}. A point that is not there makes the request a dead letter. update_filter as in Qdrant. Errors as qdrant_upsert.';
COMMENT ON FUNCTION qdrant_delete_vectors(text, text[], anycompatible, jsonb, text) IS
'Deletes these vectors (the unnamed one is '''') of points, after COMMIT. points as points_selector of qdrant_delete. Errors as qdrant_delete; 22023 also where vectors is empty.';
COMMENT ON FUNCTION qdrant_set_payload(text, jsonb, anycompatible, text, jsonb, text) IS
'Sets these keys of the payload of points, after COMMIT; other keys stay. payload: a JSON object. points as points_selector of qdrant_delete. key: path of an object in the payload to set them in; NULL: at the top; ERROR 22023 where it is no path. A number of the payload that no double holds is an ERROR 22023. A point that is not there makes the request a dead letter, after those that are there were changed. Errors as qdrant_delete.';
COMMENT ON FUNCTION qdrant_overwrite_payload(text, jsonb, anycompatible, jsonb, text) IS
'Replaces the whole payload of points, after COMMIT. There is no key, which Qdrant ignores here. Otherwise as qdrant_set_payload.';
COMMENT ON FUNCTION qdrant_delete_payload(text, text[], anycompatible, jsonb, text) IS
'Deletes these keys (or paths, such as a.b) of the payload of points, after COMMIT. Otherwise as qdrant_set_payload.';
COMMENT ON FUNCTION qdrant_clear_payload(text, anycompatible, jsonb, text) IS
'Deletes the whole payload of points, after COMMIT. points_selector and errors as qdrant_delete.';
COMMENT ON FUNCTION qdrant_batch_update_points(text, jsonb, text) IS
'Does several operations in their order, after COMMIT. update_operations: a JSON array of objects with one name each: upsert, delete, set_payload, overwrite_payload, delete_payload, clear_payload, update_vectors, delete_vectors; what they hold is in Qdrant''s own form. Goes in requests of about a megabyte, split between operations. It is not atomic in Qdrant: an operation that is refused ends its request, which becomes a dead letter as a whole; what came before it in that request is done. Errors as qdrant_upsert; 22023 names the operation and the point.';
COMMENT ON FUNCTION qdrant_internal.retry_operations(bigint[]) IS
'Enqueues dead letters of explicit operations again and deletes them; for qdrant_retry. Returns how many there were; NULL for NULL. ERROR 42501 where the caller is no member of the role that asked for one; 55006 and 53400 as qdrant_upsert.';
COMMENT ON FUNCTION qdrant_point(anyelement, anycompatible, jsonb) IS
'A point for qdrant_upsert: id is an integer or a uuid; vector an array of numbers, a pgvector value, JSON, or text that holds JSON; payload a JSON object or NULL.';
COMMENT ON FUNCTION qdrant_point(text, anycompatible, jsonb) IS
'A point for qdrant_upsert whose id is text: a uuid, or the digits of an integer; ERROR 22P02 for other text. Otherwise as qdrant_point(anyelement, anycompatible, jsonb).';
/* -- end: operations -- */
