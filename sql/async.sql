-- Asynchronous reads: tickets, made now and awaited later.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qdrant_sync;
RESET client_min_messages;
\getenv qdrant_url QDRANT_URL
CREATE SERVER async_qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url :'qdrant_url');
SET qdrant_sync.server = 'async_qdrant';

CREATE TABLE async_products (id bigint PRIMARY KEY, title text, embedding real[]);
INSERT INTO async_products VALUES (1, 'Red shoe', '{0.9,0.1}'), (2, 'Green hat', '{0.1,0.9}');
SELECT qdrant_mirror('async_products', distance => 'Dot');
SELECT qdrant_wait('30s', 'async_products');
CREATE TABLE async_questions (id int, v real[]);
INSERT INTO async_questions VALUES (1, '{1,0}'), (2, '{0,1}');

-- All questions side by side.
SELECT n, id, payload ->> 'title' AS title
  FROM qdrant_await_points(ARRAY(
	SELECT qdrant_query_async('async_products', v, 1) FROM async_questions ORDER BY id)) ORDER BY n;

-- A ticket outlives the transaction that made it, and is collected once.
BEGIN;
SELECT qdrant_query_points_async('async_products', '{0,1}'::real[], "limit" => 1, with_payload => false) AS ticket \gset
ROLLBACK;
SELECT qdrant_await_any(ARRAY[:ticket]) = :ticket AS same;
SELECT qdrant_is_done(:ticket);
SELECT qdrant_await(:ticket, '5s') #> '{points,0,id}' AS id;
\set VERBOSITY sqlstate
SELECT qdrant_await(:ticket);

-- An error is that of the function that waits.
SELECT qdrant_query_async('async_none', '[1,0]') AS ticket \gset
SELECT * FROM qdrant_await_points(ARRAY[:ticket]);
\set VERBOSITY default

-- Given up.
SELECT qdrant_query_async('async_products', '[1,0]') AS ticket \gset
SELECT qdrant_cancel(:ticket), qdrant_cancel(:ticket) AS again;
SELECT count(*) FROM qdrant_requests WHERE ticket IS NOT NULL;

DROP TABLE async_questions;
SELECT qdrant_unmirror('async_products', drop_collection => true);
DROP TABLE async_products;
RESET qdrant_sync.server;
SET client_min_messages = warning;
DROP SERVER async_qdrant CASCADE;
