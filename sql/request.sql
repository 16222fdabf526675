-- qdrant_request: what has no function of its own.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qdrant_sync;
RESET client_min_messages;
\getenv qdrant_url QDRANT_URL
CREATE SERVER request_qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url :'qdrant_url');
SET qdrant_sync.server = 'request_qdrant';

-- Method, path, and a body in Qdrant's own JSON; the whole answer comes back.
SELECT qdrant_request('PUT', '/collections/request_example', body => '{"vectors": {"size": 2, "distance": "Dot"}}') -> 'result' AS made;
-- What follows a "?" in Qdrant's documentation is the argument query.
SELECT qdrant_request('PUT', '/collections/request_example/points', query => '{"wait": true}',
	body => '{"points": [{"id": 1, "vector": [1, 0], "payload": {"color": "red"}}]}') #> '{result,status}' AS status;
SELECT qdrant_request('POST', '/collections/request_example/points/count', body => '{"exact": true}') -> 'result' AS counted;
SELECT qdrant_request('GET', '/collections/request_example/exists') -> 'result' AS answer;
SELECT qdrant_request('DELETE', '/collections/request_example') -> 'result' AS dropped;
\set VERBOSITY terse
SELECT qdrant_request('POST', '/collections/request_example/points/count', body => '{}');

-- A path is a path, and nothing that a proxy or a server could take for another one.
SELECT qdrant_request('GET', 'http://localhost:6333/collections');
SELECT qdrant_request('GET', '/collections/../metrics');
SELECT qdrant_request('GET', '/collections/%2e%2e/metrics');
SELECT qdrant_request('GET', '/collections?timeout=1');
SELECT qdrant_request('HEAD', '/collections');
SELECT qdrant_request('GET', '/collections', query => '{"timeout": [1]}');

-- Nobody may use it at first.
CREATE ROLE regress_qdrant_raw;
GRANT USAGE ON FOREIGN SERVER request_qdrant TO regress_qdrant_raw;
SET ROLE regress_qdrant_raw;
SELECT qdrant_request('GET', '/collections/request_example/exists');
RESET ROLE;
GRANT EXECUTE ON FUNCTION qdrant_request TO regress_qdrant_raw;
SET ROLE regress_qdrant_raw;
SELECT qdrant_request('GET', '/collections/request_example/exists') -> 'result' AS answer;
RESET ROLE;

DROP OWNED BY regress_qdrant_raw;
DROP ROLE regress_qdrant_raw;
RESET qdrant_sync.server;
DROP SERVER request_qdrant;
