-- The methods of Qdrant's client: administration is immediate, reads are rows.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qdrant_sync;
RESET client_min_messages;
\getenv qdrant_url QDRANT_URL
CREATE SERVER client_qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url :'qdrant_url');
SET qdrant_sync.server = 'client_qdrant';

SELECT qdrant_create_collection('client_docs', '{"size": 2, "distance": "Dot"}');
SELECT qdrant_create_payload_index('client_docs', 'category', 'keyword') ->> 'status' AS status;
SELECT qdrant_create_payload_index('client_docs', 'price', '{"type": "float"}') ->> 'status' AS status;
SELECT qdrant_upsert('client_docs', '[
	{"id": 1, "vector": [1, 0], "payload": {"category": "shoes", "price": 40}},
	{"id": 2, "vector": [2, 0], "payload": {"category": "shoes", "price": 60}},
	{"id": 3, "vector": [0, 1], "payload": {"category": "hats", "price": 25}}]');
SELECT qdrant_wait('30s');

SELECT qdrant_collection_exists('client_docs'), qdrant_count('client_docs');
SELECT qdrant_get_collection('client_docs') -> 'points_count' AS points;
SELECT id, payload FROM qdrant_retrieve('client_docs', ARRAY[3, 1, 99]) ORDER BY id;
SELECT id, next_page_offset FROM qdrant_scroll('client_docs', "limit" => 2);
SELECT id, next_page_offset FROM qdrant_scroll('client_docs', "limit" => 2, "offset" => 3);
SELECT id, order_value FROM qdrant_scroll('client_docs', order_by => 'price');
SELECT * FROM qdrant_facet('client_docs', 'category', exact => true);
SELECT n, id, score FROM qdrant_query_batch_points('client_docs', '[{"query": [1, 0], "limit": 2}, {"query": [0, 1], "limit": 1}]');
SELECT group_id, id, score FROM qdrant_query_points_groups('client_docs', 'category', '[1, 0]', group_size => 1);

-- A query with a prefetch, in Qdrant's own form.
SELECT id, payload FROM qdrant_query_points('client_docs', '{"fusion": "rrf"}'::jsonb,
	prefetch => '[{"query": [1, 0], "limit": 1}, {"query": [1, 0.1], "limit": 1}]', payload_fields => '{price}');

SELECT qdrant_update_collection_aliases('[{"create_alias": {"collection_name": "client_docs", "alias_name": "client_alias"}}]');
SELECT * FROM qdrant_get_collection_aliases('client_docs');
SELECT qdrant_count('client_alias');

-- Refused before anything is sent.
SELECT qdrant_delete_payload_index('client_docs', '..');
SELECT * FROM qdrant_scroll('client_docs', "limit" => 0);
SELECT * FROM qdrant_retrieve('client_docs', '{"must": []}'::jsonb);

SELECT qdrant_delete_payload_index('client_docs', 'price') ->> 'status' AS status;
SELECT qdrant_delete_collection('client_docs');
SELECT qdrant_delete_collection('client_docs');
SELECT qdrant_count('client_docs');
DROP SERVER client_qdrant CASCADE;
