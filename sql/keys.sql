-- Keys of any kind, several columns, partitions, and a filter.
\getenv qdrant_url QDRANT_URL
\getenv qdrant_key QDRANT_API_KEY
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS qdrant_sync CASCADE;
CREATE EXTENSION qdrant_sync;
CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url :'qdrant_url');
\if :{?qdrant_key}
CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key :'qdrant_key');
\endif

-- A key of two columns: the point's id is a UUID made of their text, which is in the payload as _qs_key.
CREATE TABLE pages (
	site text,
	no integer,
	title text,
	visits integer DEFAULT 0,
	deleted_at timestamptz,
	embedding real[],
	PRIMARY KEY (site, no)
);
INSERT INTO pages VALUES
	('example.org', 1, 'start', 10, NULL, '{0.9,0.1,0.1,0.5}'),
	('example.org', 2, 'about "us"', 3, NULL, '{0.8,0.2,0.1,0.4}'),
	('example.net', 1, 'start', 7, '2026-11-23 12:00+01', '{0.1,0.9,0.3,0.1}');

-- Rows that match the filter, and no others.
SELECT qdrant_mirror('pages', payload => 'title', row_filter => 'deleted_at IS NULL');
SELECT qdrant_wait('30s');
SELECT id, payload FROM qdrant_query('pages', '[0.9, 0.1, 0.1, 0.5]', 10);

-- A changed key is another point. A row that stops matching leaves, one that begins to match comes.
UPDATE pages SET site = 'example.com' WHERE site = 'example.org' AND no = 1;
UPDATE pages SET deleted_at = '2026-11-24' WHERE site = 'example.org' AND no = 2;
UPDATE pages SET deleted_at = NULL WHERE site = 'example.net';
-- Nobody is told of a column that is in no point.
UPDATE pages SET visits = visits + 1;
SELECT qdrant_wait('30s');
SELECT id, payload FROM qdrant_query('pages', '[0.9, 0.1, 0.1, 0.5]', 10);
SELECT (hit).site, (hit).no, (hit).visits, rank FROM qdrant_search(NULL::pages, '[0.9, 0.1, 0.1, 0.5]');
SELECT qdrant_unmirror('pages', drop_collection => true);

-- Other columns than the primary key, if they are unique and not null.
CREATE TABLE articles (id bigint PRIMARY KEY, sku text NOT NULL UNIQUE, embedding real[]);
INSERT INTO articles VALUES (1, 'A-1', '{1,0,0,0}'), (-2, 'A-2', '{0,1,0,0}');
SELECT qdrant_mirror('articles', key => 'sku', collection => 'articles_by_sku');
SELECT qdrant_wait('30s');
SELECT id, payload FROM qdrant_query('articles_by_sku', '[1, 0, 0, 0]', 10);
SELECT qdrant_unmirror('articles', drop_collection => true);

-- A negative integer is no id: its row is a dead letter. As text it is a key as any other.
SELECT qdrant_mirror('articles', collection => 'articles_by_id');
SELECT qdrant_wait('30s');
SELECT key, error FROM qdrant_dead_letters;
SELECT qdrant_unmirror('articles', drop_collection => true);
SELECT qdrant_mirror('articles', key => 'id::text', collection => 'articles_by_text');
SELECT qdrant_wait('30s');
SELECT id, payload FROM qdrant_query('articles_by_text', '[1, 0, 0, 0]', 10);
SELECT qdrant_unmirror('articles', drop_collection => true);

-- A partitioned table is one collection.
CREATE TABLE events (id bigint, day date, title text, embedding real[], PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO events VALUES (1, '2025-12-31', 'old', '{1,0,0,0}'), (2, '2026-01-01', 'new', '{0,1,0,0}');
SELECT qdrant_mirror('events', payload => 'title');
UPDATE events SET day = '2026-06-01' WHERE id = 1;
INSERT INTO events_2026 VALUES (3, '2026-11-23', 'straight to the leaf', '{0.5,0.5,0,0}');
SELECT qdrant_wait('30s');
SELECT id, payload FROM qdrant_query('events', '[1, 0, 0, 0]', 10);
SELECT (hit).id, (hit).day, rank FROM qdrant_search(NULL::events, '[1, 0, 0, 0]');
SELECT qdrant_unmirror('events', drop_collection => true);

DROP TABLE pages, articles, events;
DROP EXTENSION qdrant_sync CASCADE;
