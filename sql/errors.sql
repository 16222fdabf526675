-- What qdrant_mirror refuses, and what it says then.
\getenv qdrant_url QDRANT_URL
\getenv qdrant_key QDRANT_API_KEY
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS qdrant_sync CASCADE;
CREATE EXTENSION qdrant_sync;
RESET client_min_messages;
CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url :'qdrant_url');
\if :{?qdrant_key}
CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key :'qdrant_key');
\endif

-- Tables.
SELECT qdrant_mirror('no_such_table');
SELECT qdrant_mirror(4294967295);
SELECT qdrant_mirror(NULL);
CREATE VIEW a_view AS SELECT 1::bigint AS id, '{1,2}'::real[] AS embedding;
SELECT qdrant_mirror('a_view');
CREATE TEMP TABLE a_temporary (id bigint PRIMARY KEY, embedding real[]);
SELECT qdrant_mirror('a_temporary');
CREATE UNLOGGED TABLE an_unlogged (id bigint PRIMARY KEY, embedding real[]);
SELECT qdrant_mirror('an_unlogged');
CREATE TABLE a_partitioned (id bigint, embedding real[]) PARTITION BY HASH (id);
CREATE TABLE a_partition PARTITION OF a_partitioned FOR VALUES WITH (MODULUS 2, REMAINDER 0);
SELECT qdrant_mirror('a_partition');
CREATE UNLOGGED TABLE an_unlogged_partition PARTITION OF a_partitioned FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT qdrant_mirror('a_partitioned');
DROP TABLE an_unlogged_partition;
CREATE FOREIGN TABLE a_foreign_partition PARTITION OF a_partitioned FOR VALUES WITH (MODULUS 2, REMAINDER 1) SERVER qdrant;
SELECT qdrant_mirror('a_partitioned');
CREATE FOREIGN TABLE a_foreign (id bigint, embedding real[]) SERVER qdrant;
SELECT qdrant_mirror('a_foreign');
CREATE TABLE a_parent (id bigint PRIMARY KEY, embedding real[]);
CREATE TABLE a_child () INHERITS (a_parent);
SELECT qdrant_mirror('a_parent');
SELECT qdrant_mirror('a_child');
CREATE TABLE a_forced (id bigint PRIMARY KEY, embedding real[]);
ALTER TABLE a_forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT qdrant_mirror('a_forced');
SELECT qdrant_mirror('pg_class');
SELECT qdrant_mirror('qdrant_internal.mirror');

-- Keys.
CREATE TABLE no_key (id bigint, embedding real[]);
SELECT qdrant_mirror('no_key');
CREATE TABLE keys (
	id bigint PRIMARY KEY,
	sku text NOT NULL,
	maybe text UNIQUE,
	in_part text NOT NULL,
	lowered text NOT NULL,
	a integer NOT NULL,
	b integer NOT NULL,
	relation regclass UNIQUE NOT NULL,
	embedding real[],
	UNIQUE (a, b)
);
CREATE UNIQUE INDEX ON keys (in_part) WHERE id > 0;
CREATE UNIQUE INDEX ON keys (lower(lowered));
SELECT qdrant_mirror('keys', key => 'sku');
SELECT qdrant_mirror('keys', key => 'maybe');
SELECT qdrant_mirror('keys', key => 'in_part');
SELECT qdrant_mirror('keys', key => 'lowered');
SELECT qdrant_mirror('keys', key => 'a');
SELECT qdrant_mirror('keys', key => 'id, a');
SELECT qdrant_mirror('keys', key => 'a, a');
SELECT qdrant_mirror('keys', key => 'idd');
SELECT qdrant_mirror('keys', key => 'lower(sku)');
SELECT qdrant_mirror('keys', key => 'id AS key');
SELECT qdrant_mirror('keys', key => 'id::numeric');
SELECT qdrant_mirror('keys', key => 'ctid');
SELECT qdrant_mirror('keys', key => '*');
SELECT qdrant_mirror('keys', key => '');
SELECT qdrant_mirror('keys', key => 'relation');
SELECT qdrant_mirror('keys', key => 'a, b, id, sku, maybe, in_part, lowered, relation, embedding');

-- Vectors.
CREATE TABLE docs (id bigint PRIMARY KEY, title text, words text[], made timestamptz, embedding real[]);
CREATE TABLE no_vector (id bigint PRIMARY KEY, title text, words text[]);
SELECT qdrant_mirror('no_vector');
CREATE TABLE two_vectors (id bigint PRIMARY KEY, a real[], b double precision[]);
SELECT qdrant_mirror('two_vectors');
SELECT qdrant_mirror('docs', vector => 'title');
SELECT qdrant_mirror('docs', vector => 'words AS title');
SELECT qdrant_mirror('docs', vector => 'no_such_column');
SELECT qdrant_mirror('docs', vector => '');
SELECT qdrant_mirror('docs', vector => 'embedding AS a, embedding AS a');

-- Lists.
SELECT qdrant_mirror('docs', payload => '{title,words}');
SELECT qdrant_mirror('docs', payload => 'title,, words');
SELECT qdrant_mirror('docs', payload => 'title; DROP TABLE docs');
SELECT qdrant_mirror('docs', payload => 'title FROM docs');
SELECT qdrant_mirror('docs', payload => 'DISTINCT title');
SELECT qdrant_mirror('docs', payload => 'title INTO stolen');
SELECT qdrant_mirror('docs', payload => 'title, *');
SELECT qdrant_mirror('docs', payload => 'upper(title)');
SELECT qdrant_mirror('docs', payload => 'title, words AS title');
SELECT qdrant_mirror('docs', payload => 'titel');
SELECT qdrant_mirror('docs', payload => 'no_such_function(title) AS t');
SELECT qdrant_mirror('docs', payload => 'count(title) AS n');
SELECT qdrant_mirror('docs', payload => 'row_number() OVER () AS n');
SELECT qdrant_mirror('docs', payload => '(SELECT max(id) FROM docs) AS n');
SELECT qdrant_mirror('docs', payload => 'unnest(words) AS word');
SELECT qdrant_mirror('docs', payload => 'title, now() AS sent');
SELECT qdrant_mirror('docs', payload => 'made::text AS made');
SELECT qdrant_mirror('docs', payload => 'xmin AS x');
SELECT qdrant_mirror('docs', payload => 'docs AS whole');
SELECT qdrant_mirror('docs', payload => 'ROW(title, id) AS pair');
SELECT qdrant_mirror('docs', payload => 'title AS "meta..title"');
SELECT qdrant_mirror('docs', payload => 'title AS meta, words AS "meta.words"');
SELECT qdrant_mirror('docs', payload => 'title AS _qs_key');
CREATE FUNCTION looks_immutable(n integer DEFAULT random()::integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT $1';
SELECT qdrant_mirror('docs', payload => 'looks_immutable() AS n');

-- Filters.
SELECT qdrant_mirror('docs', row_filter => '');
SELECT qdrant_mirror('docs', row_filter => 'title');
SELECT qdrant_mirror('docs', row_filter => 'titel IS NOT NULL');
SELECT qdrant_mirror('docs', row_filter => 'title IS NOT NULL, id > 0');
SELECT qdrant_mirror('docs', row_filter => 'title IS NOT NULL AS filter');
SELECT qdrant_mirror('docs', row_filter => 'made < now()');
SELECT qdrant_mirror('docs', row_filter => 'id IN (SELECT id FROM docs)');
SELECT qdrant_mirror('docs', row_filter => 'count(*) > 1');
SELECT qdrant_mirror('docs', row_filter => 'ctid IS NULL');

-- Collections.
SELECT qdrant_mirror('docs', distance => 'Hamming');
SELECT qdrant_mirror('docs', collection => '');
SELECT qdrant_mirror('docs', collection => 'a/b');
SELECT qdrant_mirror('docs', collection => '..');
SELECT qdrant_mirror('docs', collection => 'docs__qs_1_x');
SELECT qdrant_mirror('docs', collection => repeat('x', 201));
SELECT qdrant_create_collection('qs_errors', vectors_config => '{"size": 4, "distance": "Cosine"}');
INSERT INTO docs VALUES (1, 'one', NULL, NULL, '{1,2,3}');
SELECT qdrant_mirror('docs', collection => 'qs_errors');
SELECT qdrant_mirror('docs', collection => 'qs_errors', distance => 'Dot');
SELECT qdrant_mirror('docs', collection => 'qs_errors', vector => 'embedding AS e');
UPDATE docs SET embedding = '{1,2,3,4}';
SELECT qdrant_upsert('qs_errors', '[{"id": 7, "vector": [1, 2, 3, 4]}]');
SELECT qdrant_wait('30s');
SELECT qdrant_mirror('docs', collection => 'qs_errors');

-- With take_over the point that is no row is removed.
SELECT qdrant_mirror('docs', collection => 'qs_errors', payload => '', take_over => true);
SELECT qdrant_wait('30s');
SELECT id, payload FROM qdrant_query('qs_errors', '[1, 2, 3, 4]', 10);

-- One table, one mirror; one collection, one mirror.
SELECT qdrant_mirror('docs');
SELECT qdrant_mirror('no_vector', vector => 'ARRAY[id]::real[]', collection => 'qs_errors');
SELECT qdrant_upsert('qs_errors', '[{"id": 7, "vector": [1, 2, 3, 4]}]');
SELECT qdrant_unmirror('docs', drop_collection => true);
SELECT qdrant_wait('30s');

-- Those that need a mirror.
SELECT qdrant_unmirror('docs');
SELECT qdrant_pause('docs');
SELECT qdrant_resume('docs');
SELECT qdrant_resync('docs');
SELECT qdrant_wait('1s', 'docs');
SELECT qdrant_wait('-1s');

-- Rights.
CREATE ROLE regress_qdrant_other;
SET ROLE regress_qdrant_other;
SELECT qdrant_mirror('docs');
SELECT qdrant_unmirror('docs');
SELECT qdrant_wait('1s', 'docs');
RESET ROLE;
DROP ROLE regress_qdrant_other;

-- A trigger by hand makes no mirror.
CREATE TRIGGER by_hand AFTER INSERT ON docs FOR EACH ROW EXECUTE FUNCTION qdrant_internal.capture('collection', 'other');
INSERT INTO docs VALUES (2, 'two', NULL, NULL, '{1,2,3,4}');
SELECT qdrant_resume('docs');
DROP TRIGGER by_hand ON docs;

DROP VIEW a_view;
DROP FOREIGN TABLE a_foreign;
DROP TABLE an_unlogged, a_partitioned, a_parent, a_child, a_forced, no_key, keys, docs, no_vector, two_vectors;
DROP FUNCTION looks_immutable;
DROP EXTENSION qdrant_sync CASCADE;
