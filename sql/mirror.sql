-- Keeping a collection equal to a table.
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

CREATE TABLE products (
	id bigint PRIMARY KEY,
	title text,
	category text,
	price numeric,
	embedding real[]
);
INSERT INTO products VALUES
	(1, 'running shoe', 'shoes', 79.99, '{0.9,0.1,0.1,0.5}'),
	(2, 'walking shoe', 'shoes', 65, '{0.8,0.2,0.1,0.4}'),
	(3, 'rain coat', 'coats', 120.5, '{0.1,0.9,0.3,0.1}');

-- The only vector column, all other columns as payload.
SELECT qdrant_mirror('products');
-- True once everything committed so far has reached Qdrant.
SELECT qdrant_wait('30s');
SELECT source, server, collection, state, pending, lag_seconds, dead_letters, last_error, points_sent FROM qdrant_mirrors;
SELECT source, rows, fraction, finished IS NOT NULL AS finished FROM qdrant_backfills;
SELECT id, payload FROM qdrant_query('products', '[0.9, 0.1, 0.1, 0.5]', 3);

-- From now on, what is committed arrives.
INSERT INTO products VALUES (4, 'sandal', NULL, NULL, '{0.7,0.1,0.4,0.4}');
UPDATE products SET category = 'jackets', embedding = '{0.1,0.9,0.3,0.2}' WHERE id = 3;
DELETE FROM products WHERE id = 2;
BEGIN;
UPDATE products SET title = 'never';
ROLLBACK;
BEGIN;
INSERT INTO products VALUES (5, 'boot', 'shoes', 99, '{0.8,0.1,0.2,0.6}');
SAVEPOINT here;
INSERT INTO products VALUES (6, 'never', 'shoes', 99, '{0.8,0.1,0.2,0.6}');
ROLLBACK TO here;
COMMIT;
SELECT qdrant_wait('30s');
SELECT id, payload FROM qdrant_query('products', '[0.9, 0.1, 0.1, 0.5]', 10) ORDER BY id;

-- A transaction cannot wait for what it has not committed.
BEGIN;
INSERT INTO products VALUES (7, 'slipper', 'shoes', 9, '{0.8,0.1,0.2,0.6}');
SELECT qdrant_wait('1s');
ROLLBACK;

-- The definition is in the trigger, so pg_dump keeps it; everything in it is qualified.
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'products'::regclass AND tgname = 'qdrant_sync';
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'products'::regclass ORDER BY 1;

-- Paused, it keeps what is to be sent, and nobody waits for it.
SELECT qdrant_pause('products');
UPDATE products SET title = 'brown boot' WHERE id = 5;
SELECT qdrant_wait('30s');
SELECT state FROM qdrant_mirrors;
SELECT qdrant_resume('products');
SELECT qdrant_wait('30s', 'products');
SELECT payload -> 'title' AS title FROM qdrant_query('products', '[0.8, 0.1, 0.2, 0.6]', 1);

-- TRUNCATE, and a comparison of everything on demand.
TRUNCATE products;
SELECT qdrant_wait('30s');
SELECT count(*) FROM qdrant_query('products', '[0.9, 0.1, 0.1, 0.5]', 10);
INSERT INTO products VALUES (8, 'clog', 'shoes', 30, '{0.6,0.1,0.2,0.6}');
SELECT qdrant_resync('products');
SELECT qdrant_wait('30s');
SELECT id FROM qdrant_query('products', '[0.9, 0.1, 0.1, 0.5]', 10);

-- Making and ending mirrors is ordinary DDL.
BEGIN;
SELECT qdrant_unmirror('products');
ROLLBACK;
SELECT state FROM qdrant_mirrors;
SELECT qdrant_unmirror('products', drop_collection => true);
SELECT qdrant_wait('30s');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'products'::regclass;
BEGIN;
SELECT qdrant_mirror('products');
ROLLBACK;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'products'::regclass;

-- Named vectors, chosen columns, expressions, another name and distance.
CREATE SCHEMA helpers;
CREATE FUNCTION helpers.shout(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT upper($1) || '!' $$;
SET search_path = public, helpers;
SELECT qdrant_mirror('products',
	vector => 'embedding AS image, ARRAY[price, 1]::real[] AS cost',
	payload => $$ title, round(price, 2) AS price, coalesce(category, 'none') AS "Category", shout(title) AS loud $$,
	collection => 'products-named', distance => 'dot');
RESET search_path;
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'products'::regclass AND tgname = 'qdrant_sync';
SELECT qdrant_wait('30s');
SELECT id, payload FROM qdrant_query('products-named', '[0.9, 0.1, 0.1, 0.5]', 10, vector_name => 'image');

-- Another role sees the mirrors of tables that it may read.
CREATE ROLE regress_qdrant_reader;
SET ROLE regress_qdrant_reader;
SELECT source FROM qdrant_mirrors;
SELECT qdrant_pause('products');
RESET ROLE;
GRANT SELECT ON products TO regress_qdrant_reader;
SET ROLE regress_qdrant_reader;
SELECT source, collection FROM qdrant_mirrors WHERE state <> 'dropping';
RESET ROLE;

-- A mirror leaves with its table, and the extension stays.
DROP TABLE products CASCADE;
SELECT count(*) FROM pg_extension WHERE extname = 'qdrant_sync';

DROP ROLE regress_qdrant_reader;
DROP SCHEMA helpers CASCADE;
DROP EXTENSION qdrant_sync CASCADE;
