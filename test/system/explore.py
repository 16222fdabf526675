import sys, time
sys.path.insert(0, 'test'); sys.path.insert(0,'test/system')
from harness import Cluster, FrontHandle, new_extension_db
def show(db, q, p=None, conn=None):
    print('>', q)
    try:
        cur = (conn or db.conn).execute(q, p)
        for r in (cur.fetchall() if cur.description else []): print('   ', r)
    except Exception as e:
        print('   !', getattr(e,'sqlstate',None), e)
with FrontHandle() as front, Cluster() as c:
    db = new_extension_db(c, front)
    db.conn.add_notice_handler(lambda d: print('    NOTICE', d.message_primary))
    S=lambda q,p=None,conn=None: show(db,q,p,conn)
    W=lambda: S("SELECT qdrant_wait('10s')")
    S('CREATE SCHEMA "App"'); S('CREATE TABLE "App"."Docs" (id bigint PRIMARY KEY, title text, body text, deleted boolean default false, v real[])')
    S("""INSERT INTO "App"."Docs" SELECT i, 'T'||i, 'B'||i, i%4=0, ARRAY[i, 1]::real[] FROM generate_series(1,20) i""")
    S("""SELECT qdrant_mirror('"App"."Docs"', collection=>'docs', row_filter => 'NOT deleted', payload => 'title, lower(body) AS "meta.body"', indexes => 'title keyword, meta.body keyword')"""); W()
    S("""SELECT qdrant_mirror('"App"."Docs"')""")
    S("SELECT count(*) FROM qdrant_query('docs','[1,0]',50)"); 
    print(front.client.get_collection('docs').payload_schema)
    S("SELECT id,payload FROM qdrant_query('docs','[1,0]',1)")
    S("""UPDATE "App"."Docs" SET deleted = NOT deleted WHERE id < 5"""); W()
    S("SELECT count(*) FROM qdrant_query('docs','[1,0]',50)")
    S("""SELECT * FROM qdrant_verify('"App"."Docs"')""")
    S("""ALTER SCHEMA "App" RENAME TO app2; ALTER TABLE app2."Docs" RENAME TO d""")
    S("""ALTER TABLE app2.d ADD extra text; ALTER TABLE app2.d RENAME COLUMN body TO content"""); S("UPDATE app2.d SET content='X' WHERE id=1"); W()
    S("SELECT id,payload FROM qdrant_query('docs', '[0,1]', 3, filter => '{\"must\":[{\"has_id\":[1]}]}')")
    S("SELECT source, state, last_error FROM qdrant_mirrors")
    S("SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname='qdrant_sync'")
    S("SELECT qdrant_rebuild('app2.d', distance => 'Dot', payload=>'*', indexes => '', row_filter => '')")
    for _ in range(100):
        if db.one("SELECT count(*) FROM qdrant_mirrors WHERE collection='docs_r1' AND state='live'"): break
        time.sleep(.1)
    S("SELECT source, collection, state, last_error FROM qdrant_mirrors"); S("SELECT id,payload FROM qdrant_query('docs_r1','[1,0]',1)"); S("SELECT (hit).id, score FROM qdrant_search(NULL::app2.d, '[1,0]', 2)")
    S("SELECT (hit).id, score FROM qdrant_search(NULL::app2.d, 3, 2)")
    S("TRUNCATE app2.d"); W(); S("SELECT count(*) FROM qdrant_query('docs_r1','[1,0]',50)")
    # partitions
    S("CREATE TABLE m (ts timestamptz, dev text, v real[], n int, PRIMARY KEY (ts, dev)) PARTITION BY RANGE (ts)")
    S("CREATE TABLE m1 PARTITION OF m FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')"); S("SELECT qdrant_mirror('m', payload => 'n')")
    S("INSERT INTO m VALUES ('2026-01-05 10:00+02', 'a', '{1,2}', 1)"); W(); S("SELECT id, payload FROM qdrant_query('m','[1,0]',5)")
    S("SELECT source, state, last_error FROM qdrant_mirrors WHERE collection='m'")
    S("CREATE TABLE m2 PARTITION OF m FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')"); S("INSERT INTO m2 VALUES ('2026-02-05', 'b', '{2,2}', 1)"); S("UPDATE m SET ts = ts + interval '1 month' WHERE dev='a'"); W()
    S("SELECT id, payload FROM qdrant_query('m','[1,0]',5)"); S("ALTER TABLE m DETACH PARTITION m2"); W(); S("SELECT id, payload FROM qdrant_query('m','[1,0]',5)")
    S("SELECT qdrant_mirror('m2', collection => 'm2')"); W(); S("ALTER TABLE m ATTACH PARTITION m2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')"); W(); time.sleep(1)
    S("SELECT source, collection, state, last_error FROM qdrant_mirrors"); S("SELECT id, payload FROM qdrant_query('m','[1,0]',5)"); S("UPDATE m SET n = 77"); W(); S("SELECT id, payload FROM qdrant_query('m','[1,0]',5)")
    S("DROP TABLE m"); W(); time.sleep(.5); S("SELECT source, collection, state, last_error FROM qdrant_mirrors")
    S("CREATE ROLE bob LOGIN"); S("GRANT USAGE ON FOREIGN SERVER qdrant TO bob"); S("GRANT CREATE ON SCHEMA public TO bob")
    with db.connect(user='bob') as b:
        S("CREATE TABLE bt (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), v real[])", conn=b); S("SELECT qdrant_mirror('bt')", conn=b); S("INSERT INTO bt (v) VALUES ('{1,2,3}')", conn=b); b.commit(); S("SELECT qdrant_wait('10s', 'bt')", conn=b)
        S("SELECT source, state FROM qdrant_mirrors", conn=b); b.rollback(); S("SELECT * FROM qdrant_query('docs_r1','[1,2]')", conn=b); b.rollback(); S("SELECT count(*) FROM qdrant_query('bt','[1,2,3]')", conn=b); S("SELECT qdrant_pause('app2.d')", conn=b); b.rollback(); S("SELECT * FROM qdrant_internal.progress", conn=b); b.rollback()
        S("SELECT qdrant_resync('bt')", conn=b); b.commit(); S("SELECT qdrant_wait('10s', 'bt')", conn=b); S("SELECT kind, points FROM qdrant_verify('bt')", conn=b)
    S("SELECT qdrant_mirror('bt', collection => 'x')"); S("DROP OWNED BY bob"); S("DROP ROLE bob"); time.sleep(.5); S("SELECT source, collection, state, last_error FROM qdrant_mirrors")
    S("DROP EXTENSION qdrant_sync"); S("DROP EXTENSION qdrant_sync CASCADE"); S("INSERT INTO app2.d VALUES (1)")
    S("SELECT tgname FROM pg_trigger WHERE tgrelid='app2.d'::regclass"); S("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'qdrant%'")
