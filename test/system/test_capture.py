"""What writers record, read from the outbox itself. No Qdrant is needed: the mirrors' server refuses connections."""

import contextlib
import uuid
from types import SimpleNamespace

import psycopg
import pytest

from harness import Cluster, new_extension_db
from harness.cluster import free_port
from outbox import SWEEP, Outbox, make_readable

# Images of whole pages would drown what the tests of WAL measure.
CLUSTER = {"conf": {"full_page_writes": "off", "autovacuum": "off"}}


def nowhere():
    return SimpleNamespace(url=f"http://127.0.0.1:{free_port()}", api_key=None)


@pytest.fixture
def db(cluster):
    cluster.ensure_running()
    made = new_extension_db(cluster, nowhere())
    yield made
    made.drop()


def mirrored(db, table="items", key="bigint", columns=""):
    """A mirrored table (id, n, embedding) and its outbox."""
    db.sql(f"CREATE TABLE {table} (id {key} PRIMARY KEY, n integer NOT NULL DEFAULT 0, "
           f"embedding real[] DEFAULT '{{1,2,3,4}}'{columns})")
    db.sql("SELECT qdrant_mirror(%s)", (table,))
    return Outbox(db, table)


# --- every kind of write ---

def test_insert_update_delete_record_their_key_once(db):
    outbox = mirrored(db)
    db.sql("INSERT INTO items(id) VALUES (1), (-2), (3)")
    assert outbox.chunks() == [[-2, 1, 3]]
    db.sql("UPDATE items SET n = 1 WHERE id = 3")
    assert outbox.chunks() == [[3]]
    db.sql("DELETE FROM items WHERE id = 1")
    assert outbox.chunks() == [[1]]
    db.sql("UPDATE items SET n = 1 WHERE id = 1000")
    assert outbox.chunks() == []


def test_changed_key_records_both(db):
    outbox = mirrored(db)
    db.sql("INSERT INTO items(id) VALUES (1), (2)")
    outbox.chunks()
    db.sql("UPDATE items SET id = id + 10")
    assert outbox.chunks() == [[1, 2, 11, 12]]


def test_row_updated_a_thousand_times_is_one_key(db):
    outbox = mirrored(db)
    db.sql("INSERT INTO items(id) VALUES (7)")
    outbox.chunks()
    db.sql("DO $$ BEGIN FOR i IN 1..1000 LOOP UPDATE items SET n = i WHERE id = 7; END LOOP; END $$")
    assert outbox.chunks() == [[7]]


@pytest.mark.parametrize("key, greatest", [("smallint", 2**15 - 1), ("integer", 2**31 - 1), ("bigint", 2**63 - 1)])
def test_integer_keys_of_every_width_up_to_their_ends(db, key, greatest):
    outbox = mirrored(db, key=key)
    keys = [-greatest - 1, -1, 0, 1, greatest]
    for n in keys:
        db.sql("INSERT INTO items(id) VALUES (%s)", (n,))
    assert outbox.keys() == keys
    db.sql("UPDATE items SET n = 1")
    assert outbox.chunks() == [keys]


def test_uuid_keys(db, rng):
    outbox = mirrored(db, key="uuid")
    keys = sorted(uuid.UUID(int=rng.getrandbits(128)) for _ in range(1200))
    with db.connect() as conn, conn.cursor().copy("COPY items(id) FROM STDIN") as copy:
        for key in keys:
            copy.write_row((key,))
    chunks = outbox.chunks()
    assert [key for chunk in chunks for key in chunk] == keys
    assert [len(chunk) for chunk in chunks] == [499, 499, 202]


def test_key_that_is_not_the_first_column(db):
    db.sql("CREATE TABLE items (title text, gone text, embedding real[], id integer PRIMARY KEY)")
    db.sql("ALTER TABLE items DROP COLUMN gone")
    db.sql("SELECT qdrant_mirror('items')")
    outbox = Outbox(db, "items")
    db.sql("INSERT INTO items VALUES (repeat('x', 3000), '{1,2}', 5), (NULL, '{1,2}', 6)")
    assert outbox.chunks() == [[5, 6]]


def test_on_conflict_records_what_happened_only(db):
    outbox = mirrored(db)
    db.sql("INSERT INTO items(id) VALUES (1), (2)")
    outbox.chunks()
    db.sql("INSERT INTO items(id) VALUES (1), (3) ON CONFLICT DO NOTHING")
    assert outbox.chunks() == [[3]]
    db.sql("INSERT INTO items(id) VALUES (2), (4) ON CONFLICT (id) DO UPDATE SET n = 9")
    assert outbox.chunks() == [[2, 4]]


def test_merge(db, pgversion):
    if int(pgversion) < 15:
        pytest.skip("MERGE came with PostgreSQL 15")
    outbox = mirrored(db)
    db.sql("INSERT INTO items(id) VALUES (1), (2), (3)")
    outbox.chunks()
    db.sql("MERGE INTO items USING (VALUES (1), (2), (4)) AS s(id) ON items.id = s.id "
           "WHEN MATCHED AND s.id = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET n = 5 "
           "WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)")
    assert outbox.chunks() == [[1, 2, 4]]


def test_copy_freeze(db):
    outbox = mirrored(db)
    with db.connect(autocommit=False) as conn:
        conn.execute("TRUNCATE items")
        with conn.cursor().copy("COPY items(id) FROM STDIN (FREEZE)") as copy:
            for n in range(100):
                copy.write_row((n,))
        conn.commit()
    assert outbox.keys() == [*range(100), SWEEP]


def test_before_trigger_that_changes_the_key(db):
    outbox = mirrored(db)
    db.sql("CREATE FUNCTION shift() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := NEW.id + 5000; RETURN NEW; END $$")
    db.sql("CREATE TRIGGER shift BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION shift()")
    db.sql("INSERT INTO items(id) VALUES (90)")
    assert outbox.chunks() == [[5090]]


def test_truncate_asks_for_a_sweep(db):
    outbox = mirrored(db)
    db.sql("INSERT INTO items(id) VALUES (1)")
    outbox.chunks()
    with db.connect(autocommit=False) as conn:
        conn.execute("TRUNCATE items")
        conn.execute("INSERT INTO items(id) VALUES (2)")
        conn.commit()
    assert outbox.keys() == [2, SWEEP]
    with db.connect(autocommit=False) as conn:
        conn.execute("TRUNCATE items")
        conn.rollback()
        conn.execute("SAVEPOINT s")
        conn.execute("TRUNCATE items")
        conn.execute("ROLLBACK TO s")
        conn.commit()
    assert outbox.chunks() == []


def test_replica_role_is_captured(db):
    outbox = mirrored(db)
    with db.connect() as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute("INSERT INTO items(id) VALUES (1)")
        conn.execute("TRUNCATE items")
    assert outbox.keys() == [1, SWEEP]


def test_two_mirrors_in_one_transaction(db):
    one, two = mirrored(db, "one"), mirrored(db, "two", key="uuid")
    key = uuid.UUID(int=5)
    with db.connect(autocommit=False) as conn:
        for n in range(200):
            conn.execute("INSERT INTO one(id) VALUES (%s)", (n,))
            conn.execute("INSERT INTO two(id) VALUES (%s) ON CONFLICT (id) DO UPDATE SET n = 1", (key,))
        conn.commit()
    assert one.chunks() == [[*range(200)]]
    assert two.chunks() == [[key]]


# --- how a transaction ends ---

def test_rollback_records_nothing(db):
    outbox = mirrored(db)
    with db.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO items(id) SELECT generate_series(1, 100000)")
        conn.rollback()
        conn.execute("INSERT INTO items(id) VALUES (5)")
        conn.commit()
    assert outbox.chunks() == [[5]]


def test_statement_that_fails_records_nothing(db):
    outbox = mirrored(db)
    with db.connect() as conn:
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute("INSERT INTO items(id) SELECT 1 / (50 - g) + g FROM generate_series(1, 100) g")
        conn.execute("INSERT INTO items(id) VALUES (5)")
    assert outbox.chunks() == [[5]]


def test_release_then_outer_abort_records_nothing_of_either(db):
    outbox = mirrored(db)
    with db.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO items(id) VALUES (1)")
        conn.execute("SAVEPOINT outer_one")
        conn.execute("INSERT INTO items(id) VALUES (2)")
        conn.execute("SAVEPOINT inner_one")
        conn.execute("INSERT INTO items(id) VALUES (3)")
        conn.execute("RELEASE inner_one")
        conn.execute("INSERT INTO items(id) VALUES (4)")
        conn.execute("ROLLBACK TO outer_one")
        conn.execute("INSERT INTO items(id) VALUES (5)")
        conn.commit()
    assert outbox.chunks() == [[1, 5]]


def test_key_added_again_after_its_savepoint_failed(db):
    outbox = mirrored(db)
    with db.connect(autocommit=False) as conn:
        conn.execute("SAVEPOINT s")
        conn.execute("INSERT INTO items(id) VALUES (1)")
        conn.execute("ROLLBACK TO s")
        conn.execute("INSERT INTO items(id) VALUES (1)")
        conn.commit()
    assert outbox.chunks() == [[1]]


def test_thousand_exception_blocks_half_of_them_failing(db):
    outbox = mirrored(db)
    db.sql("""DO $$ BEGIN
        FOR i IN 1..1000 LOOP
            BEGIN
                INSERT INTO items(id) VALUES (i);
                IF i % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF;
            EXCEPTION WHEN raise_exception THEN NULL;
            END;
        END LOOP; END $$""")
    assert outbox.chunks() == [[*range(1, 1001, 2)]]


class Model:
    """What a transaction with savepoints has changed; the rows are there from the start, so every key exists."""

    def __init__(self):
        self.levels = [set()]

    def undo_to(self, depth):
        del self.levels[depth:]
        self.levels.append(set())

    def release(self, depth):
        merged = set().union(*self.levels[depth:])
        del self.levels[depth:]
        self.levels[-1] |= merged

    def keys(self):
        return sorted(set().union(*self.levels))


def random_transaction(conn, rng, rows, steps):
    """Runs one and returns its model. Savepoint number d opens level d."""
    model = Model()
    for _ in range(steps):
        depth = len(model.levels)
        choice = rng.random()
        if choice < 0.25:
            conn.execute(f"SAVEPOINT s{depth}")
            model.levels.append(set())
        elif choice < 0.35 and depth > 1:
            target = rng.randrange(1, depth)
            conn.execute(f"ROLLBACK TO s{target}")
            model.undo_to(target)
        elif choice < 0.45 and depth > 1:
            target = rng.randrange(1, depth)
            conn.execute(f"RELEASE s{target}")
            model.release(target)
        else:
            first = rng.randrange(rows)
            count = rng.choice([1, 1, 2, 10, 100, 3000, rows])
            conn.execute("UPDATE items SET n = n + 1 WHERE id BETWEEN %s AND %s", (first, first + count - 1))
            model.levels[-1].update(range(first, min(first + count, rows)))
    return model


def test_random_savepoints_against_a_model(db, rng):
    rows = 12000
    outbox = mirrored(db)
    db.sql(f"INSERT INTO items(id) SELECT generate_series(0, {rows - 1})")
    outbox.chunks()
    with db.connect(autocommit=False) as conn:
        for _ in range(12):
            model = random_transaction(conn, rng, rows, 40)
            conn.commit()
            assert sorted(set(outbox.keys())) == model.keys()


@pytest.mark.parametrize("end, expected", [("COMMIT", [[1]]), ("ROLLBACK", [])])
def test_prepared_transaction(db, end, expected):
    outbox = mirrored(db)
    with db.connect() as conn:
        conn.execute("BEGIN")
        conn.execute("INSERT INTO items(id) VALUES (1)")
        conn.execute("PREPARE TRANSACTION 'p'")
        try:
            assert outbox.chunks() == []
            conn.execute("INSERT INTO items(id) VALUES (2)")
            assert outbox.chunks() == [[2]]
        finally:
            conn.execute(f"{end} PREPARED 'p'")
    assert outbox.chunks() == expected


def test_procedure_with_commit(db):
    outbox = mirrored(db)
    db.sql("""CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$ BEGIN
        FOR i IN 1..5 LOOP
            INSERT INTO items(id) VALUES (i), (i + 10);
            IF i = 3 THEN ROLLBACK; ELSE COMMIT; END IF;
        END LOOP; END $$""")
    db.sql("CALL fill()")
    assert outbox.chunks() == [[i, i + 10] for i in (1, 2, 4, 5)]


def test_deferred_constraint_trigger_that_writes_at_commit(db):
    outbox = mirrored(db)
    db.sql("CREATE TABLE parent (id bigint)")
    db.sql("CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS "
           "$$ BEGIN INSERT INTO items(id) VALUES (NEW.id); RETURN NULL; END $$")
    db.sql("CREATE CONSTRAINT TRIGGER late AFTER INSERT ON parent DEFERRABLE INITIALLY DEFERRED "
           "FOR EACH ROW EXECUTE FUNCTION late()")
    db.sql("INSERT INTO parent VALUES (8)")
    assert outbox.chunks() == [[8]]
    with db.connect() as conn:
        conn.execute("BEGIN")
        conn.execute("INSERT INTO parent VALUES (9)")
        conn.execute("PREPARE TRANSACTION 'late'")
        conn.execute("COMMIT PREPARED 'late'")
    assert outbox.chunks() == [[9]]


def test_holdable_cursor_that_writes_at_commit(db):
    outbox = mirrored(db)
    db.sql("CREATE FUNCTION put(n bigint) RETURNS bigint LANGUAGE sql AS "
           "$$ INSERT INTO items(id) VALUES (n) RETURNING id $$")
    with db.connect() as conn:
        conn.execute("BEGIN")
        conn.execute("DECLARE c CURSOR WITH HOLD FOR SELECT put(g) FROM generate_series(1, 3) g")
        conn.execute("COMMIT")
    assert outbox.chunks() == [[1, 2, 3]]


def test_mirror_armed_after_a_snapshot_was_taken(db):
    db.sql("CREATE TABLE items (id bigint PRIMARY KEY, embedding real[])")
    with db.connect(autocommit=False) as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute("SELECT 1 FROM pg_class LIMIT 1")
        db.sql("SELECT qdrant_mirror('items')")
        outbox = Outbox(db, "items")
        conn.execute("INSERT INTO items VALUES (1, '{1}')")
        conn.commit()
    assert outbox.chunks() == [[1]]


def test_serializable_writers_of_different_rows_do_not_fail(db):
    outbox = mirrored(db)
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(db.connect(autocommit=False)) for _ in range(3)]
        for number, conn in enumerate(sessions):
            conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            conn.execute("INSERT INTO items(id) VALUES (%s)", (number,))
        for conn in sessions:
            conn.commit()
    assert outbox.keys() == [0, 1, 2]


# --- not captured ---

def test_mirror_of_another_cluster_captures_nothing(db):
    outbox = mirrored(db)
    db.sql("UPDATE qdrant_internal.mirror SET system_identifier = 1")
    db.sql("INSERT INTO items(id) VALUES (1)")
    assert outbox.chunks() == []


def test_unmirror_ends_capture_in_a_session_that_knew_the_mirror(db):
    outbox = mirrored(db)
    with db.connect() as conn:
        conn.execute("INSERT INTO items(id) VALUES (1)")
        assert outbox.chunks() == [[1]]
        db.sql("SELECT qdrant_unmirror('items')")
        conn.execute("INSERT INTO items(id) VALUES (2)")
        conn.execute("BEGIN")
        conn.execute("INSERT INTO items(id) VALUES (3)")
        conn.execute("COMMIT")


def test_write_and_unmirror_in_one_transaction_commits(db):
    mirrored(db)
    with db.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO items(id) VALUES (1)")
        conn.execute("SELECT qdrant_unmirror('items')")
        conn.commit()
    assert db.one("SELECT count(*) FROM items") == 1


def test_segment_that_is_gone_does_not_fail_the_commit(db):
    outbox = mirrored(db)
    with db.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO items(id) VALUES (1)")
        for segment in outbox.segments:
            name = db.one("SELECT %s::regclass::text", (segment,))
            db.sql(f"ALTER EXTENSION qdrant_sync DROP MATERIALIZED VIEW {name}")
            db.sql(f"DROP MATERIALIZED VIEW {name}")
        conn.commit()
    assert db.one("SELECT count(*) FROM items") == 1


@pytest.mark.parametrize("form", ["BEFORE INSERT ON t FOR EACH ROW", "AFTER INSERT ON t FOR EACH STATEMENT"])
def test_capture_refuses_another_form_of_trigger(db, form):
    db.sql("CREATE TABLE t (id bigint)")
    db.sql(f"CREATE TRIGGER wrong {form} EXECUTE FUNCTION qdrant_internal.capture()")
    with pytest.raises(psycopg.errors.TriggerProtocolViolated):
        db.sql("INSERT INTO t VALUES (1)")


def test_without_preload_capture_does_nothing_and_upsert_says_so(pgversion):
    with Cluster(pgversion, preload=False) as cluster:
        cluster.sql("CREATE EXTENSION qdrant_sync")
        cluster.sql("CREATE TABLE t (id bigint)")
        cluster.sql("CREATE TRIGGER q AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION qdrant_internal.capture()")
        cluster.sql("CREATE TRIGGER r AFTER TRUNCATE ON t EXECUTE FUNCTION qdrant_internal.capture_truncate()")
        cluster.sql("INSERT INTO t VALUES (1)")
        cluster.sql("TRUNCATE t")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="qdrant_upsert"):
            cluster.sql("SELECT qdrant_upsert('c', '[]')")


# --- size ---

def key_memory(conn):
    """Bytes that the current transaction's keys take in this backend."""
    return conn.execute("SELECT coalesce(sum(total_bytes), 0)::bigint FROM pg_backend_memory_contexts "
                        "WHERE name = 'qdrant_sync changed keys'").fetchone()[0]


def temporary_files(conn):
    return conn.execute("SELECT count(*) FROM pg_ls_tmpdir()").fetchone()[0]


def test_million_keys_spill_within_a_megabyte(db):
    outbox = mirrored(db)
    with db.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO items(id) SELECT generate_series(1, 1000000)")
        assert temporary_files(conn) == 1
        assert key_memory(conn) <= 1024 * 1024
        conn.commit()
        assert temporary_files(conn) == 0
    chunks = outbox.chunks()
    assert sum(map(len, chunks)) == 1000000
    assert {key for chunk in chunks for key in chunk} == set(range(1, 1000001))
    assert len(chunks) <= 130


def test_random_keys_spill_exactly(db):
    outbox = mirrored(db)
    with db.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO items(id) SELECT (g * 2654435761) %% 1099511627776 - 500000000000 "
                     "FROM generate_series(1, 300000) AS g", ())
        assert key_memory(conn) <= 1024 * 1024
        conn.execute("SAVEPOINT s")
        conn.execute("UPDATE items SET n = 1")
        conn.execute("ROLLBACK TO s")
        conn.execute("INSERT INTO items(id) VALUES (1234567)")
        conn.commit()
    expected = {g * 2654435761 % 1099511627776 - 500000000000 for g in range(1, 300001)} | {1234567}
    assert sorted(outbox.keys()) == sorted(expected)


def test_many_updates_of_few_rows_do_not_spill(db):
    outbox = mirrored(db)
    db.sql("INSERT INTO items(id) SELECT generate_series(1, 100)")
    outbox.chunks()
    with db.connect(autocommit=False) as conn:
        conn.execute("DO $$ BEGIN FOR i IN 1..250 LOOP UPDATE items SET n = i; END LOOP; END $$")
        assert temporary_files(conn) == 0
        assert key_memory(conn) <= 64 * 1024
        conn.commit()
    assert outbox.chunks() == [[*range(1, 101)]]


def test_many_mirrors_share_the_bound(db):
    outboxes = [mirrored(db, f"t{i}") for i in range(8)]
    with db.connect(autocommit=False) as conn:
        for i in range(8):
            conn.execute(f"INSERT INTO t{i}(id) SELECT g * 1000000007 % 4294967296 FROM generate_series(1, 40000::bigint) g")
        assert key_memory(conn) <= 1024 * 1024
        conn.commit()
    for outbox in outboxes:
        assert outbox.keys() == sorted(g * 1000000007 % 4294967296 for g in range(1, 40001))


def test_full_window_then_many_savepoints_half_of_them_failing(db, minutes):
    """65,536 rows of the transaction itself, then savepoints that must not take them along, nor make a chunk each."""
    count = int(min(1000000, 400000 * max(minutes, 0.5)))
    outbox = mirrored(db)
    with db.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO items(id) SELECT generate_series(1, 65536)")
        conn.execute(f"""DO $$ BEGIN
            FOR i IN 1..{count} LOOP
                BEGIN
                    INSERT INTO items(id) VALUES (100000 + i);
                    IF i % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF;
                EXCEPTION WHEN raise_exception THEN NULL;
                END;
            END LOOP; END $$""")
        assert key_memory(conn) <= 1024 * 1024
        conn.commit()
    chunks = outbox.chunks()
    assert sorted(key for chunk in chunks for key in chunk) == \
        [*range(1, 65537), *range(100001, 100001 + count, 2)]
    assert len(chunks) <= 20 + count // 2 / 5000


def test_deeply_nested_savepoints(db):
    outbox = mirrored(db)
    with db.connect(autocommit=False) as conn:
        for depth in range(300):
            conn.execute(f"SAVEPOINT s{depth}")
            conn.execute("INSERT INTO items(id) VALUES (%s)", (depth,))
        conn.execute("INSERT INTO items(id) SELECT generate_series(1000, 40000)")
        conn.execute("ROLLBACK TO s200")
        conn.execute("RELEASE s100")
        conn.execute("INSERT INTO items(id) SELECT generate_series(50000, 90000)")
        conn.execute("ROLLBACK TO s50")
        conn.execute("INSERT INTO items(id) VALUES (77777)")
        conn.commit()
    assert outbox.keys() == [*range(50), 77777]


def test_commit_with_more_chunks_than_notices_and_a_full_ring(pgversion):
    """Nobody takes notices: there is no room for a sync worker. An error in the commit callback would be a PANIC."""
    conf = {"max_worker_processes": 2, "max_parallel_workers": 0, "max_logical_replication_workers": 0}
    with Cluster(pgversion, conf=conf) as cluster:
        db = new_extension_db(cluster, nowhere())
        outbox = mirrored(db, key="uuid")
        db.sql("CREATE PROCEDURE many() LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..1500 LOOP "
               "INSERT INTO items(id) VALUES (gen_random_uuid()); COMMIT; END LOOP; END $$")
        db.sql("CALL many()")
        assert len(outbox.chunks()) == 1500
        db.sql("INSERT INTO items(id) SELECT gen_random_uuid() FROM generate_series(1, 100000)")
        chunks = outbox.chunks()
        assert len(chunks) > 200 and sum(map(len, chunks)) == 100000
        db.sql("INSERT INTO items(id) VALUES (gen_random_uuid())")
        assert len(outbox.chunks()) == 1


# --- WAL ---

def wal_of(conn, statement):
    before = conn.execute("SELECT pg_current_wal_insert_lsn()").fetchone()[0]
    conn.execute(statement)
    return conn.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s::pg_lsn)::bigint",
                        (before,)).fetchone()[0]


def test_wal_of_one_row_transactions_and_of_bulk(db):
    mirrored(db)
    db.sql("CREATE TABLE plain (LIKE items INCLUDING ALL)")
    for table in ("items", "plain"):
        db.sql(f"CREATE PROCEDURE fill_{table}(first integer, last integer) LANGUAGE plpgsql AS $$ BEGIN "
               f"FOR i IN first..last LOOP INSERT INTO {table}(id) VALUES (i); COMMIT; END LOOP; END $$")
    with db.connect() as conn:
        wal = {table: wal_of(conn, f"CALL fill_{table}(1, 2000)") for table in ("items", "plain")}
        assert (wal["items"] - wal["plain"]) / 2000 <= 72
        wal = {table: wal_of(conn, f"INSERT INTO {table}(id) SELECT generate_series(10001, 110000)")
               for table in ("items", "plain")}
        assert (wal["items"] - wal["plain"]) / 100000 <= 1.1


# --- explicit operations ---

class Operations:
    def __init__(self, db):
        self.db = db
        for letter in "ab":
            make_readable(db, db.one(f"SELECT 'qdrant_internal.operations_{letter}'::regclass::oid"))

    def all(self):
        """(collection, body) in the order of their numbers."""
        return [(collection, body) for _, collection, body in self.db.sql(
            "SELECT number, collection, body::jsonb FROM qdrant_internal.operations_a UNION ALL "
            "SELECT number, collection, body::jsonb FROM qdrant_internal.operations_b ORDER BY number")]

    def ids(self):
        return [point["id"] for _, body in self.all() for point in body["points"]]


def point(number, **more):
    return {"id": number, "vector": [0.5, 1.5], **more}


def upsert(conn, points, collection="c"):
    conn.execute("SELECT qdrant_upsert(%s, %s)", (collection, psycopg.types.json.Jsonb(points)))


def test_upsert_is_kept_with_its_transaction(db):
    operations = Operations(db)
    with db.connect() as conn:
        conn.execute("BEGIN")
        upsert(conn, [point(1, payload={"a": [1, None, "x"]})])
        conn.execute("ROLLBACK")
        assert operations.all() == []
        conn.execute("BEGIN")
        upsert(conn, [point(2)])
        conn.execute("SAVEPOINT s")
        upsert(conn, [point(3)])
        conn.execute("ROLLBACK TO s")
        upsert(conn, [point(4), point("0c5a1c1e-1d9e-4d70-9f0b-3b8f3b0d7a11")])
        conn.execute("COMMIT")
    assert operations.all() == [
        ("c", {"points": [point(2)]}),
        ("c", {"points": [point(4), point("0c5a1c1e-1d9e-4d70-9f0b-3b8f3b0d7a11")]})]


def test_upserts_have_numbers_in_the_order_of_commits(db):
    operations = Operations(db)
    with db.connect(autocommit=False) as first, db.connect(autocommit=False) as second:
        upsert(first, [point(1)])
        upsert(second, [point(2)])
        second.commit()
        first.commit()
    assert operations.ids() == [2, 1]


def test_large_upsert_is_split_in_order(db):
    operations = Operations(db)
    points = [point(n, payload={"text": "x" * 1000}) for n in range(5000)]
    with db.connect() as conn:
        upsert(conn, points)
    bodies = operations.all()
    assert len(bodies) > 4
    assert operations.ids() == list(range(5000))
    assert db.one("SELECT max(octet_length(body)) FROM (SELECT body FROM qdrant_internal.operations_a "
                  "UNION ALL SELECT body FROM qdrant_internal.operations_b) AS o") <= 1024 * 1024 + 100


def test_prepare_with_an_upsert_is_refused(db):
    operations = Operations(db)
    with db.connect() as conn:
        conn.execute("BEGIN")
        upsert(conn, [point(1)])
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="PREPARE"):
            conn.execute("PREPARE TRANSACTION 'x'")
    assert operations.all() == []


@pytest.mark.parametrize("points, what", [
    ('{"id": 1}', "array"),
    ('[{"id": 1, "vector": [1]}, 5]', "point 2: it is not an object"),
    ('[{"vector": [1]}]', 'point 1: there is no "id"'),
    ('[{"id": -1, "vector": [1]}]', 'point 1: "id" is neither'),
    ('[{"id": 1.5, "vector": [1]}]', 'point 1: "id" is neither'),
    ('[{"id": 18446744073709551616, "vector": [1]}]', 'point 1: "id" is neither'),
    ('[{"id": "x", "vector": [1]}]', 'point 1: "id" is neither'),
    ('[{"id": 1}]', 'point 1: there is no "vector"'),
    ('[{"id": 1, "vector": 3}]', 'point 1: "vector" is neither'),
    ('[{"id": 1, "vector": []}]', "point 1: a vector .* is empty"),
    ('[{"id": 1, "vector": [1, "2"]}]', "point 1: .* not a number"),
    ('[{"id": 1, "vector": {"a": [1, null]}}]', "point 1: .* not a number"),
    ('[{"id": 1, "vector": [1e39]}]', "point 1: .* 32-bit float"),
    ('[{"id": 1, "vector": [1], "payload": 3}]', 'point 1: "payload" is neither'),
])
def test_upsert_refuses_what_is_no_point(db, points, what):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=what):
        db.sql("SELECT qdrant_upsert('c', %s::jsonb)", (points,))


def test_upsert_takes_what_qdrant_takes(db):
    operations = Operations(db)
    points = [{"id": 0, "vector": {}}, {"id": 2**64 - 1, "vector": [[1, 2], [3, 4]], "payload": None},
              {"id": "0C5A1C1E1D9E4D709F0B3B8F3B0D7A11", "vector": {"a": [1], "s": {"indices": [3], "values": [0.5]}}}]
    with db.connect() as conn:
        upsert(conn, points)
        upsert(conn, [])
        conn.execute("SELECT qdrant_upsert('c', '[{\"id\": 1, \"vector\": [1]}]', shard_key_selector => '\"k\"', "
                     "update_filter => '{\"must\": []}')")
    assert operations.all() == [("c", {"points": points}),
                                ("c", {"points": [{"id": 1, "vector": [1]}], "shard_key": "k",
                                       "update_filter": {"must": []}})]


def test_upsert_into_the_collection_of_a_mirror_is_refused(db):
    mirrored(db)
    with pytest.raises(psycopg.errors.ObjectInUse, match="belongs to a mirror"):
        db.sql("SELECT qdrant_upsert('items', '[]')")


def test_upsert_needs_usage_on_the_server(db):
    db.sql("CREATE ROLE stranger LOGIN")
    try:
        with db.connect(user="stranger") as conn:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                upsert(conn, [point(1)])
        db.sql("GRANT USAGE ON FOREIGN SERVER qdrant TO stranger")
        operations = Operations(db)
        with db.connect(user="stranger") as conn:
            upsert(conn, [point(1)])
        assert operations.ids() == [1]
        db.sql("REVOKE USAGE ON FOREIGN SERVER qdrant FROM stranger")
    finally:
        db.sql("DROP ROLE stranger")


def test_point_builds_what_upsert_takes(db):
    assert db.one("SELECT qdrant_point(1, '{1,2.5}'::real[], '{\"a\": 1}')") == \
        {"id": 1, "vector": [1, 2.5], "payload": {"a": 1}}
    assert db.one("SELECT qdrant_point('0c5a1c1e-1d9e-4d70-9f0b-3b8f3b0d7a11'::uuid, '[1, 2]')") == \
        {"id": "0c5a1c1e-1d9e-4d70-9f0b-3b8f3b0d7a11", "vector": [1, 2], "payload": None}
