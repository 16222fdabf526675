-- What can be a vector, and how a collection is made of it.
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

CREATE TYPE mood AS ENUM ('calm', 'loud');
CREATE TABLE articles (
	id bigint PRIMARY KEY,
	title text,
	"Section" varchar(20),
	mood mood,
	price numeric,
	stars smallint[],
	published timestamptz,
	extra jsonb,
	title_emb real[],			-- one vector
	token_emb real[][],			-- a multi-vector: a row for each token
	words jsonb					-- a sparse vector
);
INSERT INTO articles VALUES
	(1, 'first', 'news', 'calm', 1.5, '{1,2}', '2026-11-23 04:00:00+00', '{"color": "red"}',
		'{3,4}', '{{1,2},{3,4}}', '{"indices": [7, 2], "values": [0.5, 2]}'),
	(2, 'second', 'sport', 'loud', 20, '{5}', '2026-11-24 04:00:00+00', '{"color": "blue"}',
		'{4,-3}', NULL, '{"indices": [], "values": []}'),
	(3, 'third', 'sport', 'loud', 20, '{5}', NULL, NULL, NULL, NULL, NULL);

-- Several vectors have names, a sparse one always has; what a type does not say, the _config arguments do.
SELECT qdrant_mirror('articles',
	vector => 'title_emb AS title, token_emb AS tokens, words AS sparse',
	payload => 'title, "Section", mood, price, stars, published, extra',
	indexes => '"Section", mood, price, stars, published, extra.color keyword, title text',
	vectors_config => '{"title": {"distance": "dot", "size": 2, "on_disk": true},
		"tokens": {"hnsw_config": {"m": 0}, "datatype": "Float16"}}',
	sparse_vectors_config => '{"sparse": {"modifier": "idf"}}',
	collection_config => '{"on_disk_payload": false, "metadata": {"team": "search"}}');
SELECT qdrant_wait('30s');
SELECT id, vector FROM qdrant_query('articles', 1::bigint, 10, vector_name => 'title', with_vectors => true);
SELECT id, payload FROM qdrant_query('articles', '{"indices": [2], "values": [1]}'::jsonb, 10, vector_name => 'sparse');
SELECT id FROM qdrant_query('articles', '[[1, 0]]'::jsonb, 10, vector_name => 'tokens');
SELECT id, score FROM qdrant_query('articles', '{3,4}'::real[], 10, vector_name => 'title');
-- A row without any vector has no point.
SELECT count(*) FROM qdrant_query('articles', '{"sample": "random"}'::jsonb, 10);
-- The definition says of the multi-vector what a dump of its column would not.
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'articles'::regclass AND tgname = 'qdrant_sync';

-- A vector that is taken away leaves the point, the last one takes it with it.
UPDATE articles SET title_emb = NULL, words = NULL WHERE id = 1;
UPDATE articles SET title_emb = NULL, words = NULL WHERE id = 2;
UPDATE articles SET token_emb = '{{0.5,1}}' WHERE id = 3;
SELECT qdrant_wait('30s');
SELECT id, payload -> 'title' AS title FROM qdrant_query('articles', '[[1, 1]]'::jsonb, 10, vector_name => 'tokens') ORDER BY id;

-- What cannot be a vector of its kind is that row's dead letter.
UPDATE articles SET words = '{"indices": [1, 1], "values": [1, 2]}' WHERE id = 1;
UPDATE articles SET words = '{"indices": [1], "values": [1, 2]}' WHERE id = 2;
UPDATE articles SET token_emb = '{{1,2,3}}' WHERE id = 3;
SELECT qdrant_wait('30s');
SELECT key, error FROM qdrant_dead_letters ORDER BY key;
SELECT qdrant_unmirror('articles', drop_collection => true);
SELECT qdrant_wait('30s');

-- The only vector may be configured without a name.
ALTER TABLE articles DROP COLUMN token_emb;
SELECT qdrant_mirror('articles', payload => 'title', indexes => 'title', collection => 'articles_unnamed',
	vectors_config => '{"distance": "Euclid", "datatype": null}');
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'articles'::regclass AND tgname = 'qdrant_sync';
SELECT qdrant_unmirror('articles', drop_collection => true);
SELECT qdrant_wait('30s');

-- Mistakes are told at once.
SELECT qdrant_mirror('articles', vector => 'words');
SELECT qdrant_mirror('articles', vector => 'title_emb AS "a/b"');
SELECT qdrant_mirror('articles', vector => 'words AS w, title_emb AS t', vectors_config => '{"x": {"on_disk": true}}');
SELECT qdrant_mirror('articles', vector => 'words AS w, title_emb AS t', vectors_config => '{"w": {"on_disk": true}}');
SELECT qdrant_mirror('articles', vector => 'words AS w, title_emb AS t', sparse_vectors_config => '{"t": {}}');
SELECT qdrant_mirror('articles', vector => 'title_emb AS t', vectors_config => '{"on_disk": true}');
SELECT qdrant_mirror('articles', vector => 'title_emb AS t', vectors_config => '{"t": true}');
SELECT qdrant_mirror('articles', vectors_config => '[]');
SELECT qdrant_mirror('articles', vectors_config => '{"ondisk": true}');
SELECT qdrant_mirror('articles', vectors_config => '{"on_disk": "yes"}');
SELECT qdrant_mirror('articles', vectors_config => '{"size": 0}');
SELECT qdrant_mirror('articles', vectors_config => '{"size": 2.5}');
SELECT qdrant_mirror('articles', vectors_config => '{"size": 65537}');
SELECT qdrant_mirror('articles', vectors_config => '{"distance": "Hamming"}');
SELECT qdrant_mirror('articles', vectors_config => '{"datatype": "float64"}');
SELECT qdrant_mirror('articles', vectors_config => '{"hnsw_config": 16}');
SELECT qdrant_mirror('articles', vector => 'words AS w', sparse_vectors_config => '{"w": {"modifier": "tf"}}');
SELECT qdrant_mirror('articles', collection_config => '{"vectors": {"size": 2}}');
SELECT qdrant_mirror('articles', collection_config => '{"hnsw": {}}');
SELECT qdrant_mirror('articles', collection_config => '{"sharding_method": "custom"}');
SELECT qdrant_mirror('articles', collection_config => '{"metadata": {"qdrant_sync": {}}}');
SELECT qdrant_mirror('articles', payload => 'title, extra', indexes => 'titel');
SELECT qdrant_mirror('articles', payload => 'title, extra', indexes => 'title.x keyword');
SELECT qdrant_mirror('articles', payload => 'title, extra', indexes => 'extra');
SELECT qdrant_mirror('articles', payload => 'title, extra', indexes => 'extra.color');
SELECT qdrant_mirror('articles', payload => 'title, extra', indexes => 'title string');
SELECT qdrant_mirror('articles', payload => 'title, extra', indexes => 'title, title text');
SELECT qdrant_mirror('articles', payload => 'title, extra', indexes => 'title,');
SELECT qdrant_mirror('articles', payload => 'title, extra', indexes => 'title keyword text');
SELECT qdrant_mirror('articles', payload => 'title, extra', indexes => '"title');
SELECT qdrant_mirror('articles', payload => 'title', indexes => '_qs_key');
SELECT qdrant_mirror('articles', payload => '', indexes => 'title');

-- A collection that exists must have the mirror's vectors and no other index.
SELECT qdrant_create_collection('qs_vectors', vectors_config => '{"a": {"size": 2, "distance": "Dot", "datatype": "float16"},
	"m": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}}}',
	sparse_vectors_config => '{"s": {}}');
SELECT qdrant_mirror('articles', vector => 'title_emb AS s', collection => 'qs_vectors');
SELECT qdrant_mirror('articles', vector => 'words AS a', collection => 'qs_vectors');
SELECT qdrant_mirror('articles', vector => 'words AS t', collection => 'qs_vectors');
SELECT qdrant_mirror('articles', vector => 'title_emb AS m', collection => 'qs_vectors');
SELECT qdrant_mirror('articles', vector => 'title_emb AS a', collection => 'qs_vectors');
SELECT qdrant_mirror('articles', vector => 'title_emb AS a', collection => 'qs_vectors', distance => 'Dot',
	vectors_config => '{"a": {"datatype": "uint8"}}');
SELECT qdrant_mirror('articles', vector => 'title_emb AS a', collection => 'qs_vectors', distance => 'Dot',
	vectors_config => '{"a": {"size": 3}}');
SELECT qdrant_mirror('articles', vector => 'words AS s', collection => 'qs_vectors',
	sparse_vectors_config => '{"s": {"modifier": "idf"}}');
-- It may have others, and what values do not depend on may differ.
SELECT qdrant_mirror('articles', vector => 'title_emb AS a, words AS s', collection => 'qs_vectors', payload => '',
	vectors_config => '{"a": {"distance": "Dot", "on_disk": true}}');
SELECT qdrant_wait('30s');
SELECT qdrant_unmirror('articles', drop_collection => true);
SELECT qdrant_wait('30s');

DROP TABLE articles;
DROP TYPE mood;
DROP EXTENSION qdrant_sync CASCADE;
