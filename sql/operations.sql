-- Explicit writes: points of a collection that no mirror owns, written with the transaction.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qdrant_sync;
RESET client_min_messages;
\getenv qdrant_url QDRANT_URL
\getenv qdrant_key QDRANT_API_KEY
CREATE SERVER operations_qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url :'qdrant_url');
\if :{?qdrant_key}
CREATE USER MAPPING FOR PUBLIC SERVER operations_qdrant OPTIONS (api_key :'qdrant_key');
\endif
SET qdrant_sync.server = 'operations_qdrant';
SELECT qdrant_create_collection('qs_operations', vectors_config => '{"size": 2, "distance": "Dot"}');

-- Points are written after the commit: a rollback sends nothing, a savepoint undoes its part.
BEGIN;
SELECT qdrant_upsert('qs_operations', '[
	{"id": 1, "vector": [1, 0], "payload": {"city": "Berlin", "size": {"people": 3.9}}},
	{"id": 2, "vector": [2, 0], "payload": {"city": "Rome"}}]');
SAVEPOINT a;
SELECT qdrant_delete('qs_operations', 1);
ROLLBACK TO a;
COMMIT;
-- From a table, with qdrant_point.
SELECT qdrant_upsert('qs_operations', (SELECT jsonb_agg(qdrant_point(n, ARRAY[n, 1], jsonb_build_object('n', n)))
	FROM generate_series(3, 9) n));
SELECT qdrant_wait('30s');
SELECT id, vector, payload FROM qdrant_query('qs_operations', '[1, 0]', 10, with_vectors => true) ORDER BY id;

-- Points are named by an id, an array, JSON, or a filter, which finds them when it is sent.
SELECT qdrant_delete('qs_operations', 3);
SELECT qdrant_delete('qs_operations', ARRAY[4, 5]);
SELECT qdrant_delete('qs_operations', '[6, "5c56c793-69f3-4fbf-87e6-c4bf54c28c26"]');
SELECT qdrant_delete('qs_operations', '{"must": [{"key": "n", "range": {"gte": 9}}]}'::jsonb);

-- Parts of a point.
SELECT qdrant_set_payload('qs_operations', '{"country": "Italy"}', 2);
SELECT qdrant_set_payload('qs_operations', '{"area": 891.1}', 1, key => 'size');
SELECT qdrant_overwrite_payload('qs_operations', '{"seven": true}', 7);
SELECT qdrant_delete_payload('qs_operations', '{city}', 1);
SELECT qdrant_clear_payload('qs_operations', 8);
SELECT qdrant_update_vectors('qs_operations', '[{"id": 2, "vector": [2, 2]}]');
SELECT qdrant_delete_vectors('qs_operations', ARRAY[''], 8);

-- Several operations in their order.
SELECT qdrant_batch_update_points('qs_operations', '[
	{"upsert": {"points": [{"id": 10, "vector": [10, 0]}]}},
	{"set_payload": {"payload": {"ten": 10}, "points": [10]}},
	{"delete": {"points": [7]}}]');
SELECT qdrant_wait('30s');
SELECT id, vector, payload FROM qdrant_query('qs_operations', '[1, 0]', 10, with_vectors => true) ORDER BY id::int;

-- What is not a point is the caller's error, with its place.
SELECT qdrant_upsert('qs_operations', '[{"id": 1, "vector": [1, 2]}, {"id": 2, "vector": [1, 2, 3]}]');
SELECT qdrant_upsert('qs_operations', '[{"id": "one", "vector": [1, 2]}]');
SELECT qdrant_upsert('qs_operations', '[{"id": 1, "vector": [1, 1e40]}]');
SELECT qdrant_upsert('qs_operations', '[{"id": 1, "vectors": [1, 2]}]');
SELECT qdrant_delete('qs_operations', ARRAY[1, NULL]);
SELECT qdrant_delete('qs_operations', '{}');
SELECT qdrant_delete('qs_operations', '{"must_no": []}');
SELECT qdrant_delete('qs_operations', 0.5);
SELECT qdrant_delete('qs_operations', now());
SELECT qdrant_set_payload('qs_operations', '[1]', 1);
SELECT qdrant_batch_update_points('qs_operations', '[{"delete": {"points": [1]}}, {"drop": {}}]');
BEGIN;
SELECT qdrant_delete('qs_operations', 1);
PREPARE TRANSACTION 'never';

-- What only Qdrant can know is found later, and stops nothing.
SELECT qdrant_set_payload('qs_operations', '{"a": 1}', ARRAY[1, 404]);
SELECT qdrant_delete('qs_operations', 10);
SELECT qdrant_wait('30s');
SELECT collection, error, http_status FROM qdrant_dead_letters WHERE collection = 'qs_operations';
SELECT id FROM qdrant_query('qs_operations', '[1, 0]', 10) ORDER BY id;

DELETE FROM qdrant_internal.dead_letter WHERE collection = 'qs_operations';
RESET qdrant_sync.server;
DROP SERVER operations_qdrant CASCADE;
