-- Making and dropping the extension.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS qdrant_sync CASCADE;
RESET client_min_messages;

CREATE EXTENSION qdrant_sync;
SELECT extname, extversion, extrelocatable FROM pg_extension WHERE extname = 'qdrant_sync';

-- It makes a foreign-data wrapper that holds servers, and no handler: there are no foreign tables.
SELECT fdwname, fdwhandler, fdwvalidator::regproc FROM pg_foreign_data_wrapper WHERE fdwname = 'qdrant_fdw';

-- Every public function and view says what it does.
SELECT format('%s %s', CASE d.classid WHEN 'pg_proc'::regclass THEN 'function' ELSE 'view' END,
              pg_describe_object(d.classid, d.objid, 0)) AS without_comment
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
WHERE d.deptype = 'e' AND coalesce(p.pronamespace, c.relnamespace) = 'public'::regnamespace
  AND obj_description(d.objid, d.classid::regclass::name) IS NULL
ORDER BY 1;

-- The settings, with what it takes to change them.
SELECT name, unit, setting, context FROM pg_settings WHERE name LIKE 'qdrant\_sync.%' ORDER BY context, name;
SET qdrant_sync.no_such_setting = 1;

-- A worker for this database starts by itself.
CREATE FUNCTION wait_until(condition text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	done boolean;
BEGIN
	FOR i IN 1..1500 LOOP
		EXECUTE 'SELECT ' || condition INTO done;
		EXIT WHEN done;
		PERFORM pg_sleep(0.02);
	END LOOP;
	RETURN done;
END $$;
SELECT wait_until($$ EXISTS (SELECT FROM qdrant_workers WHERE database = current_database() AND state = 'running') $$);
SELECT kind, state, pid IS NOT NULL AS has_process, note FROM qdrant_workers
WHERE kind <> 'sync' OR database = current_database() ORDER BY kind;

-- Its views are there and empty; anybody may read them.
SELECT count(*) FROM qdrant_mirrors;
SELECT count(*) FROM qdrant_backfills;
SELECT count(*) FROM qdrant_outboxes;
SELECT count(*) FROM qdrant_dead_letters;
CREATE ROLE regress_qdrant_reader;
SET ROLE regress_qdrant_reader;
SELECT count(*) FROM qdrant_mirrors;
SELECT count(*) FROM qdrant_internal.mirror;
RESET ROLE;
DROP ROLE regress_qdrant_reader;

-- Nothing of it is in a publication of all tables.
SET client_min_messages = error;
CREATE PUBLICATION everything FOR ALL TABLES;
RESET client_min_messages;
SELECT tablename FROM pg_publication_tables WHERE schemaname = 'qdrant_internal' AND tablename LIKE ANY ('{segment%,operations%}');
DROP PUBLICATION everything;

-- Dropped, it leaves nothing, and its worker leaves too.
DROP EXTENSION qdrant_sync;
SELECT count(*) FROM pg_namespace WHERE nspname = 'qdrant_internal';
SELECT wait_until($$ NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'qdrant_sync worker' AND datname = current_database()) $$);

-- And it can be made again at once.
CREATE EXTENSION qdrant_sync;
SELECT wait_until($$ EXISTS (SELECT FROM qdrant_workers WHERE database = current_database() AND state = 'running') $$);
DROP FUNCTION wait_until;
DROP EXTENSION qdrant_sync;
