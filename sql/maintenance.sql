-- Dead letters, comparison and repair, another definition without an interruption.
\getenv qdrant_url QDRANT_URL
\getenv qdrant_key QDRANT_API_KEY
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS qdrant_sync CASCADE;
CREATE EXTENSION qdrant_sync;
CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url :'qdrant_url');
\if :{?qdrant_key}
CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key :'qdrant_key');
\endif

CREATE TABLE products (id bigint PRIMARY KEY, title text, category text, embedding real[]);
INSERT INTO products VALUES
	(1, 'running shoe', 'shoes', '{0.9,0.1,0.1,0.5}'),
	(2, 'walking shoe', 'shoes', '{0.8,0.2,0.1,0.4}'),
	(3, 'rain coat', 'coats', '{0.1,0.9,0.3,0.1}');
SELECT qdrant_mirror('products', payload => 'title', collection => 'catalogue');
SELECT qdrant_wait('30s');

-- A row that no point can be made of stops nobody; it is kept with its error until it is mended.
INSERT INTO products VALUES (4, 'sandal', 'shoes', '{0.7,0.1}'), (5, 'boot', 'shoes', '{0.8,0.1,0.2,0.6}');
SELECT qdrant_wait('30s');
SELECT source, key, error, tries FROM qdrant_dead_letters;
SELECT qdrant_retry('products', '{4}');
SELECT qdrant_wait('30s');
SELECT key, tries FROM qdrant_dead_letters;
UPDATE products SET embedding = '{0.7,0.1,0.4,0.4}' WHERE id = 4;
SELECT qdrant_wait('30s');
SELECT count(*) FROM qdrant_dead_letters;

-- Table and collection, point by point.
SELECT * FROM qdrant_verify('products');
-- While a trigger is disabled nothing is recorded; qdrant_resume mends the triggers and compares all rows.
ALTER TABLE products DISABLE TRIGGER qdrant_sync;
UPDATE products SET title = title || '!' WHERE id = 1;
SELECT qdrant_resume('products');
SELECT qdrant_wait('30s');
SELECT kind, points FROM qdrant_verify('products', repair => true) WHERE kind IN ('equal', 'stale');

-- A collection with another definition is filled beside the present one and takes its place.
SELECT qdrant_rebuild('products', payload => 'title, category', distance => 'Dot', alias => 'catalogue_live');
DO $$
BEGIN
	FOR i IN 1..600 LOOP
		EXIT WHEN EXISTS (SELECT FROM qdrant_mirrors WHERE collection = 'catalogue_r1' AND state = 'live');
		PERFORM pg_sleep(0.05);
	END LOOP;
END $$;
SELECT source, collection FROM qdrant_mirrors WHERE state = 'live';
SELECT id, score, payload FROM qdrant_query('catalogue_live', '[1, 0, 0, 0]', 1);
SELECT (hit).title, rank FROM qdrant_search(NULL::products, '[1, 0, 0, 0]', 1);
-- Thought better of.
SELECT qdrant_rebuild('products', payload => 'title');
SELECT qdrant_abandon('products');
SELECT source, collection FROM qdrant_mirrors WHERE state = 'live';

SELECT qdrant_unmirror('products', drop_collection => true);
DROP TABLE products;
DROP EXTENSION qdrant_sync CASCADE;
