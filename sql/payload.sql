-- What is in a point's payload: doc/mapping.md has the table of types.
\getenv qdrant_url QDRANT_URL
\getenv qdrant_key QDRANT_API_KEY
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS qdrant_sync CASCADE;
CREATE EXTENSION qdrant_sync;
CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url :'qdrant_url');
\if :{?qdrant_key}
CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key :'qdrant_key');
\endif

CREATE TYPE mood AS ENUM ('sad', 'well');
CREATE TYPE address AS (street text, at point);
CREATE TABLE people (
	id bigint PRIMARY KEY,
	name varchar(20),
	code char(4),
	balance numeric,
	born date,
	seen timestamptz,
	every interval,
	feels mood,
	tags text[],
	home address,
	photo bytea,
	more jsonb,
	span int4range,
	"metadata.raw" integer,
	embedding real[]
);
INSERT INTO people VALUES
	(1, 'Ana', 'a', 12.50, '1990-05-01', '2026-11-23 04:00:00.5+02', '1 day 2 hours', 'well', '{x,NULL}',
		ROW('Main', '(13.4,52.5)'), '\x00ff', '{"k": [1, 2.5]}', '[1,5]', 7, '{1,0,0,0}'),
	(2, NULL, NULL, 'NaN', 'infinity', '-infinity', NULL, NULL, '{}', NULL, NULL, 'null', NULL, NULL, '{0,1,0,0}');

-- Every type has one form, whatever is set; NULL is null.
SELECT qdrant_mirror('people');
SELECT qdrant_wait('30s');
SELECT one.key, one.value AS "Ana", two.value AS "nobody"
  FROM qdrant_query('people', '[1,0,0,0]', 1) AS a, jsonb_each(a.payload) AS one,
       qdrant_query('people', '[0,1,0,0]', 1) AS b, jsonb_each(b.payload) AS two
 WHERE one.key = two.key ORDER BY 1;
SELECT qdrant_unmirror('people', drop_collection => true);

-- A dot in a name given with AS makes an object, not one in a column's own name.  NULL is no field.
SELECT qdrant_mirror('people', collection => 'people_nested', omit_nulls => true,
	payload => $$ name AS page_content, born AS "metadata.born", extract(year FROM born) AS "metadata.years.born",
		feels, "metadata.raw", more AS "metadata.more" $$);
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'people'::regclass AND tgname = 'qdrant_sync';
SELECT qdrant_wait('30s');
SELECT id, payload FROM qdrant_query('people_nested', '[1,0,0,0]', 2) ORDER BY id;
SELECT id FROM qdrant_query('people_nested', '[1,0,0,0]', filter => '{"must": [{"key": "metadata.born", "range": {"gt": "1990-01-01"}}]}');
SELECT id FROM qdrant_query('people_nested', '[1,0,0,0]', filter => '{"must": [{"key": "\"metadata.raw\"", "match": {"value": 7}}]}');
SELECT id FROM qdrant_query('people_nested', '[1,0,0,0]', filter => '{"must": [{"is_empty": {"key": "feels"}}]}');
SELECT id FROM qdrant_query('people_nested', '[1,0,0,0]', filter => '{"must": [{"is_null": {"key": "feels"}}]}');

-- A row for which an expression fails is kept with its error, the others arrive.
SELECT qdrant_unmirror('people', drop_collection => true);
SELECT qdrant_mirror('people', collection => 'people_shares', payload => '7 / ("metadata.raw" - 7) AS share');
SELECT qdrant_wait('30s');
SELECT key, error FROM qdrant_dead_letters;
SELECT id, payload FROM qdrant_query('people_shares', '[1,0,0,0]', 2);
-- Mended, it arrives.
UPDATE people SET "metadata.raw" = 8;
SELECT qdrant_wait('30s');
SELECT id, payload FROM qdrant_query('people_shares', '[1,0,0,0]', 2);


SELECT qdrant_unmirror('people', drop_collection => true);
DROP TABLE people;
DROP TYPE address, mood;
DROP EXTENSION qdrant_sync CASCADE;
