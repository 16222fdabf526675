-- Registered servers: what their options may be.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS qdrant_sync CASCADE;
CREATE EXTENSION qdrant_sync;
RESET client_min_messages;

CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw
  OPTIONS (url 'http://localhost:6333', connect_timeout '2s', timeout '30000');

-- Times take units, as settings do.
ALTER SERVER qdrant OPTIONS (SET connect_timeout '500ms', SET timeout '2min');
ALTER SERVER qdrant OPTIONS (SET connect_timeout 'soon');
ALTER SERVER qdrant OPTIONS (SET connect_timeout '0');
ALTER SERVER qdrant OPTIONS (SET timeout '11min');

-- An unknown option is refused, with a list of those there are.
ALTER SERVER qdrant OPTIONS (ADD host 'localhost');
CREATE SERVER other FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (api_key 'belongs into a user mapping');
ALTER FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (ADD url 'http://localhost');

-- URLs that can be used …
ALTER SERVER qdrant OPTIONS (SET url 'https://qdrant.example.com');
ALTER SERVER qdrant OPTIONS (SET url 'http://127.0.0.1:6333/');
ALTER SERVER qdrant OPTIONS (SET url 'http://[::1]:6333');
ALTER SERVER qdrant OPTIONS (SET url 'https://proxy.internal/search/qdrant');
-- … and those that cannot.
ALTER SERVER qdrant OPTIONS (SET url 'localhost:6333');
ALTER SERVER qdrant OPTIONS (SET url 'file:///etc/passwd');
ALTER SERVER qdrant OPTIONS (SET url 'ftp://localhost');
ALTER SERVER qdrant OPTIONS (SET url 'http://');
ALTER SERVER qdrant OPTIONS (SET url 'http://user:secret@localhost:6333');
ALTER SERVER qdrant OPTIONS (SET url 'http://localhost:6333?api_key=secret');
ALTER SERVER qdrant OPTIONS (SET url 'http://localhost:6333/#part');
ALTER SERVER qdrant OPTIONS (SET url 'http://localhost:port');
ALTER SERVER qdrant OPTIONS (SET url 'http://localhost:70000');
ALTER SERVER qdrant OPTIONS (SET url 'http://local host');
ALTER SERVER qdrant OPTIONS (SET url E'http://localhost\r\nX-Header: 1');
ALTER SERVER qdrant OPTIONS (SET url 'http://localhost\@example.com');
ALTER SERVER qdrant OPTIONS (SET url 'http://localhost/../admin');
ALTER SERVER qdrant OPTIONS (SET url 'http://lócalhost');

-- Keys are options of user mappings. A message never repeats one.
CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key 'a-key.of_some+length/42==');
ALTER USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (SET api_key '');
ALTER USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (SET api_key E'two\r\nlines');
ALTER USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (SET api_key 'with space');
ALTER USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (ADD password 'secret');

-- Who makes a mirror or searches needs USAGE on the server.
CREATE ROLE regress_qdrant_user;
GRANT CREATE ON SCHEMA public TO regress_qdrant_user;
SET ROLE regress_qdrant_user;
CREATE TABLE notes (id bigint PRIMARY KEY, embedding real[]);
SELECT qdrant_mirror('notes');
SELECT * FROM qdrant_query('notes', '[1, 0]');
RESET ROLE;
DROP TABLE notes;

-- Which server is meant: the only one, or the one that the setting or the argument names.
CREATE TABLE notes (id bigint PRIMARY KEY, embedding real[]);
SELECT qdrant_mirror('notes', server => 'elsewhere');
CREATE SERVER second FOREIGN DATA WRAPPER qdrant_fdw;
SELECT qdrant_mirror('notes');
SET qdrant_sync.server = 'elsewhere';
SELECT qdrant_mirror('notes');
SET qdrant_sync.server = 'second';
SELECT qdrant_mirror('notes');
RESET qdrant_sync.server;
DROP USER MAPPING FOR PUBLIC SERVER qdrant;
DROP SERVER qdrant;
DROP SERVER second;
SELECT qdrant_mirror('notes');

DROP TABLE notes;
REVOKE CREATE ON SCHEMA public FROM regress_qdrant_user;
DROP ROLE regress_qdrant_user;
DROP EXTENSION qdrant_sync;
