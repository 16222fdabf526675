"""What a mirror may never do to others: hold them up (contract 6), act with rights that are not its owner's, or show a
secret (contract 9)."""

import contextlib
import re
import threading

import psycopg
import pytest

from harness import FrontHandle, new_extension_db, stays, wait_until
from items import VECTOR, Items, end_worker, points_path, workers

CLUSTER = {"conf": {"qdrant_sync.row_timeout": "1s"}}

faults = pytest.mark.faults


def own_traces(db):
    """What a sync worker or a request worker has open in any database: snapshots, transactions, locks."""
    return db.sql("""
        SELECT a.backend_type, a.backend_xmin, a.backend_xid, a.xact_start, l.locktype, l.mode, l.relation::regclass
        FROM pg_stat_activity a LEFT JOIN pg_locks l ON l.pid = a.pid
        WHERE a.backend_type ~ 'qdrant_sync' AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL
            OR a.xact_start IS NOT NULL OR l.pid IS NOT NULL)""")


STALLS = {
    "rows are sent": dict(path_regex="/points(/delete)?$"),
    "the collection is looked at": dict(method="GET", path_regex="^/collections/[^/]+$"),
    "the collection is made": dict(method="PUT", path_regex="^/collections/[^/]+$"),
    "the alias is claimed": dict(method="POST", path_regex="^/collections/aliases$"),
    "ids are scrolled": dict(path_regex="/points/scroll$"),
}


# --- contract 6: nothing is held while the network is waited for ---

@faults
@pytest.mark.parametrize("stage", STALLS)
def test_worker_holds_nothing_while_qdrant_stalls(db, front, stage):
    items = Items(db, rows=500, mirror=False)
    if stage == "ids are scrolled":
        items.mirror()
        items.wait_state("live")
    if stage != "the collection is looked at":
        front.faults.fault("hold", **STALLS[stage])
        if stage == "ids are scrolled":
            db.sql("SELECT qdrant_resync('items')")
        else:
            items.mirror()
    else:
        # The look of qdrant_mirror itself has gone by when the worker looks.
        front.faults.fault("hold", nth=list(range(2, 20)), **STALLS[stage])
        items.mirror()
    front.faults.wait_held(1)
    wait_until(lambda: own_traces(db) == [], 5, what=lambda: f"nothing is held: {own_traces(db)}")
    stays(lambda: own_traces(db) == [], 1.0, "no snapshot, transaction or lock during the wait")
    conn = db.connect()
    conn.execute("SET lock_timeout = '1s'; SET statement_timeout = '10s'")
    conn.execute("ALTER TABLE items ADD COLUMN more integer DEFAULT 7")
    conn.execute("ALTER TABLE items DROP COLUMN more")
    front.faults.clear_faults()
    front.faults.release()
    items.converged()


@faults
def test_vacuum_removes_dead_rows_while_qdrant_stalls(db, front):
    items = Items(db, rows=2000)
    front.faults.fault("stall", path_regex=points_path(items))
    items.update("id <= 500")
    front.faults.wait_held(1)
    # These rows were alive when the worker last read.
    db.sql("DELETE FROM items WHERE id > 500")
    wait_until(lambda: own_traces(db) == [], 5)
    conn = db.connect()
    said = []
    conn.add_notice_handler(lambda notice: said.append(notice.message_primary + (notice.message_detail or "")))
    conn.execute("VACUUM (VERBOSE) items")
    text = "\n".join(said)
    kept = re.search(r"(\d+) (?:are dead but not yet removable|dead row versions cannot be removed yet)", text)
    assert kept and kept[1] == "0", text


@faults
def test_drop_database_is_immediate_while_qdrant_stalls(cluster, front):
    cluster.ensure_running()
    front.clear()
    db = new_extension_db(cluster, front)
    items = Items(db, rows=100)
    front.faults.fault("stall", path_regex=points_path(items))
    items.update()
    front.faults.wait_held(1)
    db.conn.close()
    with contextlib.closing(cluster.connect()) as conn:
        conn.execute("SET statement_timeout = '4s'")
        conn.execute(f'DROP DATABASE "{db.name}"')
    front.clear()


# --- hazard 20: making a mirror stalls nobody ---

@faults
def test_writers_go_on_while_qdrant_mirror_waits_for_a_stalled_qdrant(db, front):
    items = Items(db, rows=10, mirror=False)
    front.faults.fault("stall", path_regex=".")
    maker = threading.Thread(target=lambda: items.mirror(conn=db.connect()))
    maker.start()
    try:
        front.faults.wait_held(1)
        conn = db.connect()
        conn.execute("SET lock_timeout = '500ms'")
        items.insert(20, conn=conn)
        items.update(conn=conn)
    finally:
        front.faults.clear_faults()
        front.faults.release()
        maker.join(60)
    items.converged()


def test_idle_writer_makes_qdrant_mirror_give_up_and_is_named(db):
    items = Items(db, rows=10, mirror=False)
    idle = db.connect(autocommit=False)
    items.update("id = 1", conn=idle)
    other = db.connect()
    other.execute("SET lock_timeout = '20s'")
    failed = []

    def make():
        try:
            items.mirror(conn=db.connect())
        except psycopg.Error as e:
            failed.append(e)
    maker = threading.Thread(target=make)
    maker.start()
    while maker.is_alive():
        # A writer behind the waiting DDL waits a short while at the most.
        items.update("id = 2", conn=other)
    maker.join()
    assert failed and failed[0].sqlstate == "55P03", failed
    shown = str(failed[0]) + (failed[0].diag.message_detail or "") + (failed[0].diag.message_hint or "")
    assert str(idle.info.backend_pid) in shown, shown
    idle.commit()
    items.mirror()
    items.converged()


# --- contract 8: nobody's table stops another's mirror (hazards 6, 12) ---

def test_endless_expression_of_one_owner_stops_only_itself(db):
    good = Items(db, "good", rows=10)
    bad = Items(db, "bad", mirror=False)
    db.sql("""CREATE FUNCTION endless(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS
              $$ BEGIN IF $1 = 13 THEN LOOP NULL; END LOOP; END IF; RETURN $1; END $$""")
    bad.mirror(payload="id, title, n, endless(n) AS slow")
    db.sql(f"INSERT INTO bad SELECT i, 'x', CASE i WHEN 3 THEN 13 ELSE 1 END, {VECTOR.format('i')} "
           "FROM generate_series(1, 5) i")
    good.insert(20, 40)
    good.converged()
    wait_until(lambda: "3" in bad.dead_letters(), 30, lambda: f"the row is named: {bad.dead_letters()}")
    bad.converged(where="id <> 3", payload={"id": "id", "title": "title", "n": "n", "slow": "n"})
    db.sql("UPDATE bad SET n = 1 WHERE id = 3")
    bad.converged(payload={"id": "id", "title": "title", "n": "n", "slow": "n"})


def test_cancel_ends_a_read_and_no_worker(cluster, db):
    """pg_cancel_backend of a process of ours: the read of a row is ended, as by its time limit; else nothing happens."""
    items = Items(db, mirror=False)
    db.sql("""CREATE FUNCTION endless(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS
              $$ BEGIN WHILE $1 = 13 LOOP PERFORM pg_catalog.pg_sleep(0.01); END LOOP; RETURN $1; END $$""")
    items.mirror(payload="id, title, n, endless(n) AS slow")
    items.insert(1, 5)
    items.converged(payload={"id": "id", "title": "title", "n": "n", "slow": "n"})
    ours = "SELECT kind, pid FROM qdrant_workers WHERE database IS NULL OR database = current_database() ORDER BY kind"
    before = db.sql(ours)
    assert [kind for kind, _ in before] == ["launcher", "request", "sync"]
    pid = before[2][1]
    for _ in range(3):
        db.sql(f"SELECT pg_cancel_backend(pid) FROM ({ours}) w")
        assert db.one("SELECT qdrant_info()")["title"]
        items.insert(db.one("SELECT max(id) + 1 FROM items"))
        assert items.wait()
    cluster.reload({"qdrant_sync.row_timeout": "0"})
    try:
        # The launcher has had its turn when it has started the worker of another database.
        other = new_extension_db(cluster, db.front)
        wait_until(lambda: db.sql("SELECT 1 FROM qdrant_workers WHERE database = %s AND pid IS NOT NULL", (other.name,)), 30)
        other.drop()
        db.sql("UPDATE items SET n = 13 WHERE id = 3")
        wait_until(lambda: db.one("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", (pid,)) == "PgSleep", 30,
                   "the row is being read")
        wait_until(lambda: db.one("SELECT pg_cancel_backend(%s)", (pid,)) and "3" in items.dead_letters(), 30,
                   lambda: f"the row is named: {items.dead_letters()}")
    finally:
        cluster.reload({"qdrant_sync.row_timeout": "1s"})
    db.sql("UPDATE items SET n = 1 WHERE id = 3")
    items.converged(payload={"id": "id", "title": "title", "n": "n", "slow": "n"})
    assert db.sql(ours) == before


def test_row_that_divides_by_zero_is_its_own_dead_letter(db):
    items = Items(db, mirror=False, payload="id, title, n, 100 / (n - 5) AS share")
    db.sql(f"INSERT INTO items SELECT i, 'x', CASE i WHEN 7 THEN 5 ELSE 3 END, {VECTOR.format('i')} "
           "FROM generate_series(1, 50) i")
    items.mirror()
    items.converged(where="id <> 7", payload={"id": "id", "title": "title", "n": "n", "share": "100 / (n - 5)"})
    letters = wait_until(items.dead_letters, what="a dead letter")
    assert letters.keys() == {"7"} and "division by zero" in letters["7"]


def test_forced_row_security_stops_the_mirror_and_empties_nothing(db, cluster):
    role = make_role(cluster, db, "forced")
    items = owned_items(db, role, rows=10)
    db.sql("ALTER TABLE items ENABLE ROW LEVEL SECURITY; ALTER TABLE items FORCE ROW LEVEL SECURITY")
    items.update("id < 5")
    row = items.wait_state("failed")
    assert re.search("(?i)row.level security", row["last_error"])
    assert len(items.points()) == 10
    db.sql("ALTER TABLE items NO FORCE ROW LEVEL SECURITY")
    items.resume()
    items.converged()


SETTINGS = {
    "DateStyle": "SQL, DMY", "IntervalStyle": "sql_standard", "TimeZone": "Asia/Kathmandu", "extra_float_digits": "-10",
    "bytea_output": "escape", "xmlbinary": "hex", "search_path": "nowhere", "lc_monetary": "C",
    "default_transaction_isolation": "serializable", "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on", "statement_timeout": "1ms", "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms", "synchronous_commit": "off", "row_security": "on",
    "session_replication_role": "replica", "array_nulls": "off", "transform_null_equals": "on",
    "standard_conforming_strings": "off", "enable_indexscan": "off", "work_mem": "64kB", "jit_above_cost": "0",
}

TYPED = {"d": "'2026-11-23'::date", "t": "'2026-11-23 04:05:06.789+00'::timestamptz", "i": "'1 day 02:00'::interval",
         "f": "0.1::float8 + 0.2", "b": "'\\x00ff'::bytea", "a": "ARRAY[1, NULL]::integer[]"}


def make_typed(db, table):
    columns = ", ".join(f"{name} {value.rpartition('::')[2].split()[0]}" for name, value in TYPED.items())
    db.sql(f"CREATE TABLE {table} (id bigint PRIMARY KEY, {columns}, embedding real[])")
    return Items.of(db, table)


def fill_typed(conn, table, key):
    conn.execute(f"INSERT INTO public.{table} SELECT {key}, {', '.join(TYPED.values())}, '{{1,2,3,4}}'")


@pytest.mark.parametrize("of", ["database", "role", "role in this database"])
def test_settings_of_a_role_or_database_change_no_byte_and_stop_nothing(db, cluster, of):
    """Hazard 12: the worker's session inherits what ALTER DATABASE and ALTER ROLE set, and pins what it depends on."""
    plain = make_typed(db, "plain")
    plain.mirror()
    fill_typed(db.conn, "plain", 1)
    before = wait_until(lambda: plain.point(1), what="the point")
    other = make_typed(db, "other")
    whose = {"database": f'DATABASE "{db.name}"', "role": "ROLE postgres",
             "role in this database": f'ROLE postgres IN DATABASE "{db.name}"'}[of]
    conn = db.connect()
    try:
        # Of the role everywhere, timeouts would end the test's own statements as well.
        for name, value in SETTINGS.items():
            if of == "role" and value == "1ms":
                continue
            conn.execute(f"ALTER {whose} SET {name} = '{value}'")
        end_worker(cluster, db)
        other.mirror(conn=conn)
        for key in (2, 3):
            fill_typed(conn, "plain", key)
            fill_typed(conn, "other", key)
        conn.execute("DELETE FROM plain WHERE id = 3")
        for items in (plain, other):
            point = wait_until(lambda: items.point(2), what=lambda: f"the point: {conn.execute('TABLE qdrant_mirrors').fetchall()}")
            assert point.payload | {"id": 1} == before.payload and point.vector == before.vector
        wait_until(lambda: len(plain.points()) == 2, what=lambda: f"the third is gone: {plain.points().keys()}")
    finally:
        conn.execute(f"ALTER {whose} RESET ALL")


# --- contract 9: privileges ---

def make_role(cluster, db, name):
    """An ordinary role of its own for this database, with the usual rights; gone with the cluster."""
    role = f"{name}_{db.name}"
    db.sql(f"CREATE ROLE {role} LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO {role}; "
           f"GRANT USAGE ON FOREIGN SERVER qdrant TO {role}")
    return role


def owned_items(db, role, table="items", rows=0, **options):
    conn = db.connect(user=role)
    conn.execute(f"CREATE TABLE {table} (id bigint PRIMARY KEY, title text, n integer DEFAULT 0, embedding real[])")
    items = Items.of(db, table, **options)
    if rows:
        items.insert(1, rows, conn=conn)
    items.mirror(conn=conn)
    if rows:
        items.wait_state("live")
    return items


ATTACK = """
    CREATE TABLE loot (who text, session text, what text);
    CREATE FUNCTION try_it(text) RETURNS text LANGUAGE plpgsql VOLATILE AS $f$
    DECLARE
        attempt text;
        outcome text := current_user;
    BEGIN
        FOREACH attempt IN ARRAY ARRAY[
            'ALTER ROLE {role} SUPERUSER', 'CREATE ROLE {role}_2 SUPERUSER', 'RESET SESSION AUTHORIZATION',
            'SET SESSION AUTHORIZATION postgres', 'RESET ROLE', 'SET ROLE postgres', 'SET ROLE NONE',
            'COPY (SELECT 1) TO PROGRAM ''true''', 'SELECT pg_read_file(''PG_VERSION'')',
            'SELECT count(*) FROM public.secret', 'UPDATE qdrant_internal.mirror SET server = server',
            'DELETE FROM qdrant_internal.dead_letter', 'CREATE TABLE pg_temp.trap (x int)',
            'SET session_replication_role = replica']
        LOOP
            BEGIN
                EXECUTE attempt;
                outcome := outcome || ' | done: ' || attempt || ' as ' || current_user;
                -- A role change that worked is used at once.
                EXECUTE 'ALTER ROLE {role} SUPERUSER';
                outcome := outcome || ' | promoted';
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
        END LOOP;
        RETURN outcome;
    END $f$;
    CREATE FUNCTION note(text) RETURNS void LANGUAGE sql VOLATILE AS
        'INSERT INTO public.loot VALUES (current_user, session_user, $1)';
    CREATE FUNCTION pure(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN RETURN public.try_it($1); END $f$;
"""


def check_attack(db, role, value):
    """The function ran as the owner, and nothing that it tried has worked but what the owner may do anyway."""
    assert value.startswith(role), value
    assert "promoted" not in value, value
    allowed = ("RESET ROLE", "SET ROLE NONE")
    done = re.findall(r"done: (.*?) as (\S+)", value)
    assert all(attempt in allowed and user == role for attempt, user in done), value
    assert db.sql("SELECT rolname FROM pg_roles WHERE rolsuper") == [("postgres",)]
    assert db.one(f"SELECT count(*) FROM pg_roles WHERE rolname = '{role}_2'") == 0


def prepare_attack(db, cluster):
    role = make_role(cluster, db, "mallory")
    db.sql("CREATE TABLE secret (x int); REVOKE ALL ON secret FROM PUBLIC")
    conn = db.connect(user=role)
    conn.execute(ATTACK.format(role=role))
    return role, conn


def test_expression_that_tries_to_act_as_superuser_runs_as_the_owner(db, cluster):
    role, conn = prepare_attack(db, cluster)
    items = owned_items(db, role, payload="id, pure(title) AS tried")
    items.insert(1, conn=conn)
    point = wait_until(lambda: items.point(1), what="the point")
    check_attack(db, role, point.payload["tried"])


def test_function_replaced_after_the_mirror_was_made_runs_as_the_owner(db, cluster):
    role, conn = prepare_attack(db, cluster)
    conn.execute("CREATE FUNCTION harmless(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1'")
    items = owned_items(db, role, payload="id, harmless(title) AS tried")
    conn.execute("CREATE OR REPLACE FUNCTION harmless(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT public.pure($1)'")
    items.insert(1, conn=conn)
    point = wait_until(lambda: items.point(1), what="the point")
    check_attack(db, role, point.payload["tried"])


def test_cast_of_the_owners_type_to_json_runs_as_the_owner(db, cluster):
    role, conn = prepare_attack(db, cluster)
    conn.execute("""CREATE TYPE pair AS (a text, b text);
        CREATE FUNCTION pair_json(pair) RETURNS json LANGUAGE plpgsql IMMUTABLE AS
            $f$ BEGIN RETURN to_json(public.pure($1.a)); END $f$;
        CREATE CAST (pair AS json) WITH FUNCTION pair_json(pair)""")
    conn.execute("CREATE TABLE items (id bigint PRIMARY KEY, title pair, n integer DEFAULT 0, embedding real[])")
    items = Items.of(db)
    try:
        items.mirror(conn=conn)
    except psycopg.Error as e:
        # A type that is not mirrored yet is refused by name, and nothing of it has run.
        assert "title" in str(e) and e.sqlstate != "XX000"
        return
    conn.execute("INSERT INTO items VALUES (1, ROW('x', 'y'), 0, '{1,2,3,4}')")
    wait_until(lambda: items.point(1) or items.dead_letters(), what="the point or its dead letter")
    assert db.sql("SELECT rolname FROM pg_roles WHERE rolsuper") == [("postgres",)]
    point = items.point(1)
    if point and role in str(point.payload["title"]):
        check_attack(db, role, point.payload["title"])


def test_domain_whose_check_tries_to_act_as_superuser_runs_as_the_owner(db, cluster):
    role, conn = prepare_attack(db, cluster)
    conn.execute("""CREATE FUNCTION checked(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
        $f$ BEGIN RAISE 'it saw: %', public.try_it($1); END $f$;
        CREATE DOMAIN watched AS text CHECK (checked(VALUE))""")
    items = owned_items(db, role, payload="id, title::watched AS title")
    items.insert(1, conn=conn)
    letters = wait_until(items.dead_letters, what="a dead letter with what the check says")
    check_attack(db, role, letters["1"].removeprefix("it saw: "))


def test_expression_that_writes_is_refused_row_by_row(db, cluster):
    """A row is read in a read-only transaction, as often as it pleases the worker."""
    role, conn = prepare_attack(db, cluster)
    conn.execute("""CREATE FUNCTION writes(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
        $f$ BEGIN IF $1 = 3 THEN PERFORM public.note('written'); END IF; RETURN $1; END $f$""")
    items = owned_items(db, role, payload="id, writes(id) AS wrote")
    items.insert(1, 5, conn=conn)
    items.converged(where="id <> 3", payload={"id": "id", "wrote": "id"})
    letters = wait_until(items.dead_letters, what="a dead letter")
    assert letters.keys() == {"3"} and "read-only" in letters["3"]
    assert db.sql("SELECT * FROM public.loot") == []


@pytest.mark.parametrize("code", ["MY001", "P0001", "22012", "25006", "XX000", "0A000", "57014"])
def test_error_of_an_expression_is_one_rows_whatever_its_code(db, code):
    items = Items(db, mirror=False, payload="id, picky(id) AS picked")
    db.sql(f"""CREATE FUNCTION picky(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
        $f$ BEGIN IF $1 = 3 THEN RAISE 'not the third' USING ERRCODE = '{code}'; END IF; RETURN $1; END $f$""")
    items.mirror()
    items.insert(1, 20)
    items.converged(where="id <> 3", payload={"id": "id", "picked": "id"})
    assert wait_until(items.dead_letters, what="a dead letter") == {"3": "not the third"}


def test_operator_and_function_in_the_owners_schema_shadow_nothing_for_the_worker(db, cluster):
    """ALTER DATABASE … SET search_path cannot put them before PostgreSQL's own."""
    role, conn = prepare_attack(db, cluster)
    db.sql(f'GRANT CREATE ON DATABASE "{db.name}" TO {role}')
    conn.execute("""CREATE SCHEMA trap;
        CREATE FUNCTION trap.fooled(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS
            $f$ BEGIN INSERT INTO public.loot VALUES (current_user, session_user, 'operator'); RETURN $1 OPERATOR(pg_catalog.=) $2;
            END $f$;
        CREATE OPERATOR trap.= (FUNCTION = trap.fooled, LEFTARG = bigint, RIGHTARG = bigint);
        GRANT USAGE ON SCHEMA trap TO PUBLIC""")
    items = owned_items(db, role)
    db.sql(f'ALTER DATABASE "{db.name}" SET search_path = trap, pg_catalog, public')
    end_worker(cluster, db)
    items.insert(1, 5, conn=conn)
    items.delete("id = 2", conn=conn)
    items.converged()
    assert db.sql("SELECT * FROM public.loot") == []


def test_index_expression_and_policy_of_the_owner_run_as_nobody_else(db, cluster):
    role, conn = prepare_attack(db, cluster)
    conn.execute("""CREATE FUNCTION indexed(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
        $f$ BEGIN PERFORM public.note('index'); RETURN $1; END $f$""")
    items = owned_items(db, role)
    conn.execute("CREATE INDEX ON items (indexed(title))")
    items.insert(1, 20, conn=conn)
    items.converged()
    assert {who for who, in db.sql("SELECT DISTINCT who FROM public.loot")} == {role}


def test_table_of_another_is_not_mirrored(db, cluster):
    owner = make_role(cluster, db, "owner")
    thief = make_role(cluster, db, "thief")
    items = owned_items(db, owner, rows=3)
    db.sql(f"GRANT ALL ON items TO {thief}")
    conn = db.connect(user=thief)
    for call in ("qdrant_mirror('items', collection => 'stolen')", "qdrant_unmirror('items')", "qdrant_pause('items')",
                 "qdrant_resume('items')", "qdrant_resync('items')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="items"):
            conn.execute(f"SELECT {call}")
    assert items.state() == "live"


def test_server_without_usage_is_not_used(db, cluster):
    role = f"nobody_{db.name}"
    db.sql(f"CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}")
    conn = db.connect(user=role)
    conn.execute("CREATE TABLE items (id bigint PRIMARY KEY, title text, n integer DEFAULT 0, embedding real[])")
    items = Items.of(db)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="qdrant"):
        items.mirror(conn=conn)
    # Taken away later, the mirror stops; given back, it goes on.
    db.sql(f"GRANT USAGE ON FOREIGN SERVER qdrant TO {role}")
    items.mirror(conn=conn)
    items.insert(1, 5, conn=conn)
    items.converged()
    db.sql(f"REVOKE USAGE ON FOREIGN SERVER qdrant FROM {role}")
    items.insert(6, 9, conn=conn)
    assert re.search("may not use server", items.wait_state("failed")["last_error"])
    db.sql(f"GRANT USAGE ON FOREIGN SERVER qdrant TO {role}")
    items.resume()
    items.converged()


def test_ordinary_role_sees_no_row_of_ours_and_no_error_of_anothers_rows(db, cluster):
    """Hazard 22: an error may quote a row."""
    owner = make_role(cluster, db, "owner")
    other = make_role(cluster, db, "other")
    items = owned_items(db, owner)
    items.insert(1, conn=db.connect(user=owner))
    items.converged()
    db.sql("INSERT INTO items VALUES (2, 'secret', 0, '{1,NaN}')")
    wait_until(items.dead_letters, what="a dead letter")
    conn = db.connect(user=other)
    assert conn.execute("SELECT * FROM qdrant_dead_letters").fetchall() == []
    assert len(db.connect(user=owner).execute("SELECT * FROM qdrant_dead_letters").fetchall()) == 1
    for table in ("mirror", "progress", "dead_letter", "operation_progress", "operations_a"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(f"SELECT * FROM qdrant_internal.{table}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(f"DELETE FROM qdrant_internal.{table}")


@faults
def test_trigger_made_by_hand_captures_nothing_and_does_no_harm(db, cluster):
    """Hazard 22: EXECUTE on the function is everybody's, so it must not believe its arguments."""
    items = Items(db, rows=3)
    thief = make_role(cluster, db, "thief")
    conn = db.connect(user=thief)
    since = items.mark()
    conn.execute("CREATE TABLE mine (id bigint PRIMARY KEY, title text, n integer DEFAULT 0, embedding real[])")
    conn.execute(f"""CREATE TRIGGER forged AFTER INSERT OR UPDATE OR DELETE ON mine FOR EACH ROW EXECUTE FUNCTION
        qdrant_internal.capture('version', '1', 'server', 'qdrant', 'collection', '{items.collection}', 'key', 'id',
            'vector', 'embedding', 'payload', '*', 'distance', 'Cosine')""")
    conn.execute("INSERT INTO mine VALUES (900, 'forged', 0, '{1,2,3,4}')")
    conn.execute("CREATE TRIGGER early BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION qdrant_internal.capture()")
    conn.execute("CREATE TRIGGER whole AFTER INSERT ON mine EXECUTE FUNCTION qdrant_internal.capture()")
    for statement in ("INSERT INTO mine VALUES (901, 'forged', 0, '{1,2,3,4}')", "TRUNCATE mine"):
        with contextlib.suppress(psycopg.Error):
            conn.execute(statement)
    with pytest.raises(psycopg.Error):
        conn.execute("SELECT qdrant_internal.capture()")
    with contextlib.suppress(psycopg.Error):
        conn.execute("SELECT qdrant_resume('mine')")
    items.insert(4)
    items.converged()
    stays(lambda: not {"900", "901"} & items.sent(since), 1, "nothing of the forged trigger is sent")


@pytest.mark.parametrize("command", ["DROP TABLE items CASCADE", "DROP OWNED BY CURRENT_USER CASCADE",
                                     "DROP SCHEMA mine CASCADE"])
def test_owner_who_drops_his_own_leaves_the_extension(db, cluster, command):
    """Hazard 24: no path of dependencies leads from a user's object to one of ours."""
    role = make_role(cluster, db, "dropper")
    db.sql(f"CREATE SCHEMA mine AUTHORIZATION {role}; ALTER ROLE {role} SET search_path = mine, public")
    conn = db.connect(user=role)
    conn.execute("CREATE TABLE mine.items (id bigint PRIMARY KEY, title text, n integer DEFAULT 0, embedding real[])")
    other = Items(db, "other", rows=3)
    items = Items.of(db, "mine.items", collection=db.collection())
    items.mirror(conn=conn)
    items.insert(1, 5, conn=conn)
    items.converged()
    mark = cluster.log_mark()
    conn.execute(command)
    assert db.one("SELECT count(*) FROM pg_extension WHERE extname = 'qdrant_sync'") == 1
    assert db.one("SELECT to_regclass('mine.items')") is None
    other.insert(10)
    other.converged()
    wait_until(lambda: db.one("SELECT count(*) FROM qdrant_internal.mirror") == 1, what="the mirror's row is reaped")
    segments = "SELECT count(*) FROM pg_class WHERE relkind = 'm' AND relnamespace = 'qdrant_internal'::regnamespace"
    wait_until(lambda: db.one(segments) == 4, what=lambda: f"its segments are reaped: {db.one(segments)}")
    assert "has stopped" not in cluster.log_text(mark), cluster.log_tail()


@faults
def test_api_key_is_in_no_log_view_outbox_or_answer(cluster, pgversion):
    """It is shown where postgres_fdw would show it, to those who may see it, and nowhere else."""
    key = "sesame-open-0451"
    cluster.ensure_running()
    with FrontHandle(api_key=key) as front:
        db = new_extension_db(cluster, front)
        role = make_role(cluster, db, "looker")
        mark = cluster.log_mark()
        try:
            cluster.reload({"log_statement": "all", "log_min_messages": "debug1", "log_min_error_statement": "debug1"})
            items = Items(db, rows=20)
            end_worker(cluster, db)
            front.faults.fault("hold", path_regex=points_path(items), times=1)
            items.update()
            front.faults.wait_held(1)
            shown = db.sql("SELECT * FROM pg_stat_activity") + db.sql("SELECT * FROM qdrant_workers")
            front.faults.release()
            front.faults.fault("500", path_regex=points_path(items), times=2)
            front.faults.fault("reset", path_regex=points_path(items), when="after", times=2)
            items.update()
            items.converged()
            db.sql("SELECT * FROM qdrant_query(%s, '[1,2,3,4]', 3)", (items.collection,))
            front.faults.fault("401", path_regex=points_path(items))
            items.update()
            items.wait_state("failed")
            shown += db.sql("SELECT * FROM qdrant_mirrors") + db.sql("SELECT * FROM qdrant_internal.progress")
            with contextlib.suppress(psycopg.Error):
                db.sql("SELECT * FROM qdrant_query(%s, '[1,2]', 3)", (items.collection,))
            assert key not in repr(shown)
            looker = db.connect(user=role)
            assert key not in repr(looker.execute("SELECT * FROM pg_user_mappings").fetchall())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                looker.execute("SELECT * FROM pg_user_mapping")
            assert key not in repr(looker.execute("SELECT * FROM qdrant_mirrors").fetchall())
            cluster.sql("CHECKPOINT")
            assert files_with(cluster, db, key) == ["pg_user_mapping"]
            assert key not in cluster.log_text(mark)
        finally:
            cluster.reload({"log_statement": "none", "log_min_messages": "warning", "log_min_error_statement": "error"})
            db.drop()


def files_with(cluster, db, key):
    """Relations of the database whose files hold these bytes."""
    oid = db.one("SELECT oid FROM pg_database WHERE datname = current_database()")
    files = [path for path in (cluster.datadir / "base" / str(oid)).iterdir() if key.encode() in path.read_bytes()]
    return sorted(db.one("SELECT pg_filenode_relation(0, %s)::regclass::text", (int(re.match(r"\d+", f.name)[0]),))
                  for f in files)
