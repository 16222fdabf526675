-- Searching: qdrant_search joins to rows, qdrant_query reads a collection.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qdrant_sync;
RESET client_min_messages;
\getenv qdrant_url QDRANT_URL
CREATE SERVER search_qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url :'qdrant_url');
SET qdrant_sync.server = 'search_qdrant';

CREATE TABLE search_products (id bigint PRIMARY KEY, title text, category text, price numeric, embedding real[]);
INSERT INTO search_products VALUES
	(1, 'Red shoe', 'shoes', 40, '{0.9,0.1,0.1,0.5}'),
	(2, 'Blue shoe', 'shoes', 60, '{0.8,0.3,0.1,0.4}'),
	(3, 'Green hat', 'hats', 25, '{0.1,0.9,0.2,0.1}'),
	(4, 'Black hat', 'hats', 30, '{0.2,0.8,0.4,0.1}'),
	(5, 'Umbrella', NULL, 20, '{0.1,0.1,0.9,0.3}');
SELECT qdrant_mirror('search_products', distance => 'Dot');
SELECT qdrant_wait('30s', 'search_products');

-- The nearest rows, best first.
SELECT (hit).id, (hit).title, round(score::numeric, 3) AS score, rank
  FROM qdrant_search(NULL::search_products, '[0.9, 0.1, 0.1, 0.5]', k => 3);
-- A filter in Qdrant's own JSON, over the payload.
SELECT (hit).*, rank
  FROM qdrant_search(NULL::search_products, '[0.9, 0.1, 0.1, 0.5]',
	filter => '{"must": [{"key": "category", "match": {"value": "hats"}}]}');
SELECT (hit).title FROM qdrant_search(NULL::search_products, '[0.9, 0.1, 0.1, 0.5]', score_threshold => 0.9);
SELECT (hit).title FROM qdrant_search(NULL::search_products, '[0.9, 0.1, 0.1, 0.5]', k => 1,
	params => '{"exact": true}', "timeout" => '5s');
-- What is like row 3?  The row itself is left out.
SELECT (hit).title FROM qdrant_search(NULL::search_products, 3, k => 2);
SELECT (hit).title, rank FROM qdrant_search(NULL::search_products, like_key => '3', k => 2, skip => 1);
-- The same filter, written by functions.
SELECT (hit).title FROM qdrant_search(NULL::search_products, '[0.9, 0.1, 0.1, 0.5]',
	filter => qdrant_filter(must => ARRAY[qdrant_match('category', 'hats'), qdrant_range('price', lt => 30)]));
-- Joined, and for each of several rows.
SELECT p.title, (s.hit).title AS nearest
  FROM search_products p, LATERAL qdrant_search(NULL::search_products, p.embedding, k => 1) s ORDER BY p.id;

-- A query in each of the usual ways finds the same row.
CREATE DOMAIN search_vector AS real[];
SELECT 'text', (hit).id FROM qdrant_search(NULL::search_products, '[0.1,0.9,0.2,0.1]', 1)
UNION ALL SELECT 'text, spaced', (hit).id FROM qdrant_search(NULL::search_products, '  [ 1e-1 , .9, +0.2,0.1 ] '::varchar, 1)
UNION ALL SELECT 'array literal', (hit).id FROM qdrant_search(NULL::search_products, '{0.1,0.9,0.2,0.1}', 1)
UNION ALL SELECT 'array literal, quoted', (hit).id FROM qdrant_search(NULL::search_products, '{"0.1","0.9","0.2","0.1"}'::text, 1)
UNION ALL SELECT 'array literal, bounds', (hit).id FROM qdrant_search(NULL::search_products, '[0:3]={0.1,0.9,0.2,0.1}', 1)
UNION ALL SELECT 'numeric[]', (hit).id FROM qdrant_search(NULL::search_products, ARRAY[0.1,0.9,0.2,0.1], 1)
UNION ALL SELECT 'real[]', (hit).id FROM qdrant_search(NULL::search_products, '{0.1,0.9,0.2,0.1}'::real[], 1)
UNION ALL SELECT 'float8[]', (hit).id FROM qdrant_search(NULL::search_products, '[5:8]={0.1,0.9,0.2,0.1}'::float8[], 1)
UNION ALL SELECT 'int[]', (hit).id FROM qdrant_search(NULL::search_products, ARRAY[0,1,0,0], 1)
UNION ALL SELECT 'bigint[]', (hit).id FROM qdrant_search(NULL::search_products, ARRAY[0,1,0,0]::bigint[], 1)
UNION ALL SELECT 'smallint[]', (hit).id FROM qdrant_search(NULL::search_products, ARRAY[0,1,0,0]::smallint[], 1)
UNION ALL SELECT 'domain', (hit).id FROM qdrant_search(NULL::search_products, '{0.1,0.9,0.2,0.1}'::search_vector, 1)
UNION ALL SELECT 'jsonb vector', (hit).id FROM qdrant_search(NULL::search_products, '[0.1,0.9,0.2,0.1]'::jsonb, 1)
UNION ALL SELECT 'json vector', (hit).id FROM qdrant_search(NULL::search_products, '[0.1,0.9,0.2,0.1]'::json, 1)
UNION ALL SELECT 'jsonb object', (hit).id FROM qdrant_search(NULL::search_products, '{"nearest": [0.1,0.9,0.2,0.1]}'::jsonb, 1)
UNION ALL SELECT 'object as text', (hit).id FROM qdrant_search(NULL::search_products, '{ "nearest": [0.1,0.9,0.2,0.1]}', 1)
UNION ALL SELECT 'int: near row 4', (hit).id FROM qdrant_search(NULL::search_products, 4, 1)
UNION ALL SELECT 'bigint', (hit).id FROM qdrant_search(NULL::search_products, 4::bigint, 1)
UNION ALL SELECT 'smallint', (hit).id FROM qdrant_search(NULL::search_products, 4::smallint, 1)
UNION ALL SELECT 'jsonb id', (hit).id FROM qdrant_search(NULL::search_products, '4'::jsonb, 1)
UNION ALL SELECT 'NULL', (hit).id FROM qdrant_search(NULL::search_products, NULL, 1)
UNION ALL SELECT 'NULL real[]', (hit).id FROM qdrant_search(NULL::search_products, NULL::real[], 1);
PREPARE untyped AS SELECT (hit).id FROM qdrant_search(NULL::search_products, $1, 1);
EXECUTE untyped('[0.1,0.9,0.2,0.1]');
DEALLOCATE untyped;

-- Rows are the table's own, as this statement sees them: deleted ones are passed over, and k are found.
BEGIN;
DELETE FROM search_products WHERE category = 'shoes';
UPDATE search_products SET title = 'Grey hat' WHERE id = 4;
SELECT (hit).title, rank FROM qdrant_search(NULL::search_products, '[0.9, 0.1, 0.1, 0.5]', k => 2);
ROLLBACK;

-- The collection itself.
SELECT id, round(score::numeric, 3) AS score, payload, vector
  FROM qdrant_query('search_products', '[0.9, 0.1, 0.1, 0.5]', 2, with_vectors => true);
SELECT id, payload FROM qdrant_query_points('search_products', 1, "limit" => 1, "offset" => 1,
	payload_fields => '{title,price}', query_filter => '{"must_not": [{"key": "category", "match": {"value": "none"}}]}');
SELECT id, payload FROM qdrant_query('search_products', '{"recommend": {"positive": [3], "negative": [1]}}', 1, with_payload => false);
SELECT p.title FROM qdrant_query('search_products', '[0.9, 0.1, 0.1, 0.5]', 2) q JOIN search_products p ON p.id = q.id::bigint
 ORDER BY q.score DESC;

-- Errors say what was wrong.
SELECT * FROM qdrant_search(NULL::search_products, ARRAY[0.1, NULL, 0.2, 0.1]);
SELECT * FROM qdrant_search(NULL::search_products, '{0.1,0.2,NaN,0.1}'::float8[]);
SELECT * FROM qdrant_search(NULL::search_products, '[0.1, 0.2, NaN, 0.1]');
SELECT * FROM qdrant_search(NULL::search_products, '[0.1, null, 0.2, 0.1]');
SELECT * FROM qdrant_search(NULL::search_products, '{0.1,0.2,0.3,-Infinity}'::real[]);
SELECT * FROM qdrant_search(NULL::search_products, '{0.1,1e39,0.3,0.4}'::float8[]);
SELECT * FROM qdrant_search(NULL::search_products, '[0.1, "x"]'::jsonb);
SELECT * FROM qdrant_search(NULL::search_products, '{}'::real[]);
SELECT * FROM qdrant_search(NULL::search_products, '[]');
SELECT * FROM qdrant_search(NULL::search_products, '{}');
SELECT * FROM qdrant_search(NULL::search_products, '{}'::jsonb);
SELECT * FROM qdrant_search(NULL::search_products, 'true'::jsonb);
SELECT * FROM qdrant_search(NULL::search_products, '-1'::jsonb);
SELECT * FROM qdrant_search(NULL::search_products, -1);
SELECT * FROM qdrant_search(NULL::search_products, 0.5);
SELECT * FROM qdrant_search(NULL::search_products, 0.5::real);
SELECT * FROM qdrant_search(NULL::search_products, true);
SELECT * FROM qdrant_search(NULL::search_products, ROW(1, 2));
SELECT * FROM qdrant_search(NULL::search_products, '{a,b}'::text[]);
SELECT * FROM qdrant_search(NULL::search_products, 'red shoes');
SELECT * FROM qdrant_search(NULL::search_products, '[0.1, 0.2');
SELECT * FROM qdrant_search(NULL::search_products, '{1:0.5,5:1}/4');
SELECT * FROM qdrant_search(NULL::search_products, '{1:0.5,2}/4');
SELECT * FROM qdrant_search(NULL::search_products, '[0.1, 0.2, 0.3]');
SELECT * FROM qdrant_search(NULL::search_products, 6);
SELECT * FROM qdrant_search(NULL::search_products, '5c56c793-69f3-4fbf-87e6-c4bf54c28c26'::uuid);
SELECT * FROM qdrant_search(NULL::search_products, '[1,0,0,0]', k => 0);
SELECT * FROM qdrant_search(NULL::search_products, '[1,0,0,0]', "timeout" => '-1s');
SELECT * FROM qdrant_search(NULL::text, '[1,0,0,0]');
SELECT * FROM qdrant_search(ROW(1), '[1,0,0,0]');
CREATE TABLE search_unmirrored (id int);
SELECT * FROM qdrant_search(NULL::search_unmirrored, '[1,0,0,0]');
CREATE VIEW search_view AS SELECT * FROM search_products;
SELECT * FROM qdrant_search(NULL::search_view, '[1,0,0,0]');
SELECT * FROM qdrant_query('no_such_collection', '[1,0,0,0]');
SELECT * FROM qdrant_query('a/../b', '[1,0,0,0]');
SELECT * FROM qdrant_query('..', '[1,0,0,0]');
SELECT * FROM qdrant_query(NULL, '[1,0,0,0]');
SELECT * FROM qdrant_query('search_products', '[1,0,0,0]', server => 'no_such_server');
SELECT * FROM qdrant_query_points('search_products', 1, consistency => 'some');
SELECT qdrant_create_collection('search_products', '{"size": 4, "distance": "Dot"}');

-- Privileges are the table's.
CREATE ROLE search_reader;
GRANT USAGE ON FOREIGN SERVER search_qdrant TO search_reader;
SET ROLE search_reader;
SELECT * FROM qdrant_search(NULL::search_products, '[1,0,0,0]');
SELECT * FROM qdrant_query('search_products', '[1,0,0,0]');
RESET ROLE;
GRANT SELECT (id, title) ON search_products TO search_reader;
SET ROLE search_reader;
SELECT * FROM qdrant_search(NULL::search_products, '[1,0,0,0]');
SELECT * FROM qdrant_query('search_products', '[1,0,0,0]');
RESET ROLE;
GRANT SELECT ON search_products TO search_reader;
SET ROLE search_reader;
SELECT (hit).title FROM qdrant_search(NULL::search_products, '[0.9,0.1,0.1,0.5]', 2);
SELECT payload->>'title' FROM qdrant_query('search_products', '[0.9,0.1,0.1,0.5]', 2);
RESET ROLE;
-- Row security: hidden rows are passed over; the collection, which has them all, is refused.
ALTER TABLE search_products ENABLE ROW LEVEL SECURITY;
CREATE POLICY cheap ON search_products USING (price < 40);
SET ROLE search_reader;
SELECT (hit).title, rank FROM qdrant_search(NULL::search_products, '[0.9,0.1,0.1,0.5]', 2);
SELECT (hit).title FROM qdrant_search(NULL::search_products, 3, 1);
SELECT (hit).title FROM qdrant_search(NULL::search_products, 1, 1);
SELECT (hit).title FROM qdrant_search(NULL::search_products, '{"nearest": 1}', 1);
SELECT * FROM qdrant_query('search_products', '[1,0,0,0]');
SELECT * FROM qdrant_query('search_products__qs_1_x', '[1,0,0,0]');
SELECT * FROM qdrant_query_points('other', 1, lookup_from => '{"collection": "search_products"}');
SELECT * FROM qdrant_query_points('other', '{"fusion": "rrf"}',
	prefetch => '[{"query": 1, "lookup_from": {"vector": "", "collection": "search_products"}}]');
RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER search_qdrant FROM search_reader;
SET ROLE search_reader;
SELECT * FROM qdrant_search(NULL::search_products, '[1,0,0,0]');
RESET ROLE;

-- A statement that was prepared before its table was dropped and made anew.
CREATE TABLE search_again (id int PRIMARY KEY, v real[]);
PREPARE again AS SELECT (hit).id FROM qdrant_search(NULL::search_again, '[1]', 1);
DROP TABLE search_again;
CREATE TABLE search_again (id int PRIMARY KEY, v real[]);
EXECUTE again;
EXECUTE again;
DEALLOCATE again;

DROP VIEW search_view;
DROP TABLE search_unmirrored, search_again;
SELECT qdrant_unmirror('search_products', drop_collection => true);
DROP TABLE search_products;
DROP DOMAIN search_vector;
DROP ROLE search_reader;
RESET qdrant_sync.server;
