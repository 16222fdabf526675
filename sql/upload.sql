-- The rows of a query as points: qdrant_upload.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qdrant_sync;
RESET client_min_messages;
\getenv qdrant_url QDRANT_URL
\getenv qdrant_key QDRANT_API_KEY
CREATE SERVER upload_qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url :'qdrant_url');
\if :{?qdrant_key}
CREATE USER MAPPING FOR PUBLIC SERVER upload_qdrant OPTIONS (api_key :'qdrant_key');
\endif
SET qdrant_sync.server = 'upload_qdrant';
SELECT qdrant_create_collection('qs_upload', vectors_config => '{"size": 2, "distance": "Dot"}');
CREATE TABLE products (id int PRIMARY KEY, title text, price numeric(10,2), added date, emb real[]);
INSERT INTO products SELECT n, 'product ' || n, n * 1.5, '2026-11-23', ARRAY[n, 1] FROM generate_series(1, 4) n;
INSERT INTO products VALUES (5, 'without', NULL, NULL, NULL);

-- id and vector are known by their names, every other column is a field of the payload.
SELECT qdrant_upload('qs_upload', 'SELECT id, emb AS vector, title, price, added FROM products WHERE id < 3');
SELECT qdrant_wait('30s');
SELECT id, vector, payload FROM qdrant_query('qs_upload', '[1, 0]', 10, with_vectors => true) ORDER BY id;

-- payload is the whole one: JSON, or a row.
SELECT qdrant_upload('qs_upload', $$
	SELECT id, emb AS vector, jsonb_build_object('shop', jsonb_build_object('title', title)) AS payload
	FROM products WHERE id = 3
	UNION ALL SELECT 4, '{4, 1}', NULL$$);
SELECT qdrant_upload('qs_upload', 'SELECT gen_random_uuid() AS id, ARRAY[0.5, 2] AS vector, p AS payload FROM products p WHERE id = 4');
SELECT qdrant_wait('30s');
SELECT CASE WHEN length(id) = 36 THEN 'a uuid' ELSE id END AS id, payload
  FROM qdrant_query('qs_upload', '[1, 0]', 10) ORDER BY score;

-- Columns of vector types are named vectors where there is no column vector; a NULL is left out.
SELECT qdrant_create_collection('qs_upload_named', vectors_config => '{"title": {"size": 2, "distance": "Dot"}, "rows":
	{"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}}}',
	sparse_vectors_config => '{"words": {}}');
SELECT qdrant_upload('qs_upload_named', $$
	VALUES (1, '{1, 2}'::real[], '{{1, 2}, {3, 4}}'::float8[], 'one'), (2, NULL, NULL, 'two')$$);
SELECT qdrant_upload('qs_upload_named', $$
	SELECT v.n AS id, v.title, v.rows, v.name
	  FROM (VALUES (1, '{1, 2}'::real[], '{{1, 2}, {3, 4}}'::float8[], 'one'), (2, NULL, NULL, 'two')) v(n, title, rows, name)$$);
SELECT qdrant_upload('qs_upload_named', $$
	SELECT '3' AS id, '{"words": {"indices": [3, 7], "values": [0.5, 1]}, "title": [3, 3]}'::jsonb AS vector$$);
SELECT qdrant_wait('30s');
SELECT id, vector, payload FROM qdrant_query('qs_upload_named', '{"sample": "random"}'::jsonb, 10, with_vectors => true)
  ORDER BY id;

-- With the transaction: it sees what was done, and nothing is sent of what is undone.
BEGIN;
UPDATE products SET title = 'new' WHERE id = 1;
SELECT qdrant_upload('qs_upload', 'SELECT id, emb AS vector, title FROM products WHERE id = 1');
SAVEPOINT a;
SELECT qdrant_upload('qs_upload', 'SELECT id, emb AS vector FROM products WHERE id = 2');
ROLLBACK TO a;
COMMIT;
SELECT qdrant_wait('30s');
SELECT id, payload FROM qdrant_query('qs_upload', '[1, 0]', 10) WHERE id IN ('1', '2') ORDER BY id;

-- What is no point is refused, with its row.
SELECT qdrant_upload('qs_upload', 'SELECT id, emb FROM products WHERE false');
SELECT qdrant_upload('qs_upload', 'SELECT emb AS vector FROM products');
SELECT qdrant_upload('qs_upload', 'SELECT added AS id, emb AS vector FROM products');
SELECT qdrant_upload('qs_upload', 'SELECT 1 AS id, 2 AS id');
SELECT qdrant_upload('qs_upload', 'SELECT id - 2 AS id, emb AS vector FROM products ORDER BY products.id DESC');
SELECT qdrant_upload('qs_upload', 'SELECT NULL::int AS id, emb AS vector FROM products');
SELECT qdrant_upload('qs_upload', $$SELECT 'one' AS id, emb AS vector FROM products$$);
SELECT qdrant_upload('qs_upload', $$SELECT n AS id, CASE n WHEN 3 THEN '{1}' ELSE '{1, 2}'::real[] END AS vector FROM generate_series(1, 5) n$$);
SELECT qdrant_upload('qs_upload', $$SELECT 1 AS id, '{1, NaN}'::real[] AS vector$$);
SELECT qdrant_upload('qs_upload', $$SELECT 1 AS id, '[1, "a"]' AS vector$$);
SELECT qdrant_upload('qs_upload', 'SELECT 1 AS id, 5 AS vector');
SELECT qdrant_upload('qs_upload', $$SELECT 1 AS id, '[1, 2]' AS vector, '[]'::jsonb AS payload$$);
SELECT qdrant_upload('qs_upload', $$SELECT 1 AS id, '[1, 2]' AS vector, '{}'::jsonb AS payload, 1 AS more$$);
SELECT qdrant_upload('qs_upload', 'SELECT 1 / 0 AS id');
SELECT qdrant_upload('qs_upload', 'VACUUM products');
SELECT qdrant_upload('qs_upload', 'SELECT 1; SELECT 2');
SELECT qdrant_upload('qs_upload', NULL);
SELECT qdrant_upload('qs_upload', 'SELECT 1 AS id', batch_size => 0);

DROP TABLE products;
RESET qdrant_sync.server;
DROP SERVER upload_qdrant CASCADE;
