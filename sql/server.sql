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
ALTER SERVER qdrant OPTIONS (ADD request_timeout '20min');
ALTER SERVER qdrant OPTIONS (SET request_timeout '0');
ALTER SERVER qdrant OPTIONS (SET request_timeout '25d');
ALTER SERVER qdrant OPTIONS (DROP request_timeout);
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

-- TLS and a proxy. Only a superuser may name files or switch verification off.
ALTER SERVER qdrant OPTIONS (SET url 'https://qdrant.example.com', ADD ca_file '/etc/ssl/qdrant-ca.pem',
  ADD cert_file '/etc/ssl/client.pem', ADD key_file '/etc/ssl/client.key', ADD proxy 'http://proxy.internal:3128',
  ADD http2 'off', ADD verify 'on');
ALTER SERVER qdrant OPTIONS (SET ca_file 'qdrant-ca.pem');
ALTER SERVER qdrant OPTIONS (SET proxy 'socks5://proxy.internal');
ALTER SERVER qdrant OPTIONS (SET verify 'perhaps');
ALTER SERVER qdrant OPTIONS (DROP cert_file);
CREATE ROLE regress_qdrant_owner;
GRANT USAGE ON FOREIGN DATA WRAPPER qdrant_fdw TO regress_qdrant_owner;
SET ROLE regress_qdrant_owner;
CREATE SERVER other FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'https://localhost', verify 'off');
CREATE SERVER other FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'https://localhost', ca_file '/etc/passwd');
CREATE SERVER other FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'https://localhost', verify 'on');
CREATE USER MAPPING FOR regress_qdrant_owner SERVER other OPTIONS (api_key_file '/etc/passwd');
DROP SERVER other;
RESET ROLE;
DROP OWNED BY regress_qdrant_owner;
DROP ROLE regress_qdrant_owner;
ALTER SERVER qdrant OPTIONS (DROP ca_file, DROP cert_file, DROP key_file, DROP proxy, DROP http2, DROP verify);

-- Keys are options of user mappings. A message never repeats one.
CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key 'a-key.of_some+length/42==');
ALTER USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (SET api_key '');
ALTER USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (SET api_key E'two\r\nlines');
ALTER USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (SET api_key 'with space');
ALTER USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (ADD password 'secret');
ALTER USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (ADD api_key_file '/etc/qdrant/key');
ALTER USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (DROP api_key, ADD api_key_file '/etc/qdrant/key');

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
CREATE SERVER second FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'http://localhost:1');
ALTER SERVER second OPTIONS (DROP url);
SELECT qdrant_mirror('notes');
SET qdrant_sync.server = 'elsewhere';
SELECT qdrant_mirror('notes');
SET qdrant_sync.server = 'second';
BEGIN;
SET LOCAL client_min_messages = warning;
SELECT qdrant_mirror('notes');
SELECT server FROM qdrant_mirrors;
ROLLBACK;
RESET qdrant_sync.server;
DROP USER MAPPING FOR PUBLIC SERVER qdrant;
DROP SERVER qdrant;
DROP SERVER second;
SELECT qdrant_mirror('notes');

DROP TABLE notes;
REVOKE CREATE ON SCHEMA public FROM regress_qdrant_user;
DROP ROLE regress_qdrant_user;
DROP EXTENSION qdrant_sync;
