-- The first steps of Qdrant's Python client, in SQL: make a collection, put a point into it, find it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qdrant_sync;
RESET client_min_messages;
\getenv qdrant_url QDRANT_URL
CREATE SERVER tutorial_qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url :'qdrant_url');
SET qdrant_sync.server = 'tutorial_qdrant';

SELECT qdrant_create_collection('my_collection', vectors_config => '{"size": 4, "distance": "Cosine"}');

-- Sent after the commit, so that a rollback would send nothing.
SELECT qdrant_upsert('my_collection', points => '[{
	"id": "5c56c793-69f3-4fbf-87e6-c4bf54c28c26",
	"payload": {"color": "red"},
	"vector": [0.9, 0.1, 0.1, 0.5]}]');
SELECT qdrant_wait('30s');

SELECT id, round(score::numeric, 3) AS score, payload
  FROM qdrant_query_points('my_collection', query => ARRAY[0.9, 0.1, 0.1, 0.5], "limit" => 2);

RESET qdrant_sync.server;
