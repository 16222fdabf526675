"""pg_dump, restore and copies: the definition comes along, and what comes along writes nothing until it is asked to."""

import contextlib
import json

import psycopg
import pytest
from qdrant_client.models import Distance, VectorParams

from harness import Cluster, HarnessError, new_extension_db, wait_until
from items import VECTOR, Items, end_worker, workers

faults = pytest.mark.faults


@pytest.fixture
def scratch(cluster):
    """A file that pg_dump and pg_restore may use."""
    return cluster.base / "dump"


@pytest.fixture
def copies(cluster, front):
    """Makes empty databases that are dropped after the test; its argument: with the extension and the server."""
    made = []

    def make(db, extension=False, owner=None):
        name = f"{db.name}_copy{len(made)}"
        if extension:
            copy = new_extension_db(cluster, front, name)
        else:
            cluster.createdb(name)
            copy = type(db)(cluster, front, name)
        made.append(copy)
        if owner:
            cluster.sql(f"ALTER DATABASE {name} OWNER TO {owner}")
        return copy
    yield make
    for copy in made:
        copy.drop()


def worker_has_turned(copy):
    """qdrant_wait without a table asks the worker, mirror or not."""
    wait_until(lambda: copy.one("SELECT qdrant_wait('10s')") is not None, 60, "the copy's worker answers")


def captures_nothing(copy, table="items"):
    return copy.one("SELECT count(*) FROM qdrant_internal.mirror WHERE relid = %s::regclass "
                    "AND qdrant_internal.armed_here(system_identifier, database)", (table,)) == 0


def write_to(copy, table="items"):
    """Of every kind, without an error."""
    copy.sql(f"INSERT INTO {table} VALUES (900, 'copy', 0, {VECTOR.format(900)})")
    copy.sql(f"UPDATE {table} SET n = n + 1, title = title || '.'")
    copy.sql(f"DELETE FROM {table} WHERE id = 2")


def check_restored(original, copy, table="items"):
    """The copy's table says restored, can be written to, and nothing of that goes to the original's collection."""
    twin = Items.of(copy, table, collection=original.collection)
    row = twin.row()
    assert (row["state"], row["collection"]) == ("restored", original.collection), row
    before = original.points()
    since = original.mark() if original.db.front.faults else 0
    write_to(copy, table)
    assert captures_nothing(copy, table)
    worker_has_turned(copy)
    if original.db.front.faults:
        assert original.requests(since) == []
    assert original.points() == before
    assert twin.state() == "restored"
    return twin


def check_resumed(original, twin):
    """It is told whose the points are; once the original has let go it takes over, and keeps the collection equal."""
    with pytest.raises(psycopg.errors.DuplicateObject, match="points") as caught:
        twin.resume()
    # It has no argument for another name.
    assert "take_over" in caught.value.diag.message_hint and "qdrant_unmirror" in caught.value.diag.message_hint
    original.unmirror()
    wait_until(lambda: not original.aliases(), what="the original has let go")
    twin.resume(take_over=True)
    twin.converged()
    twin.insert(901, 905)
    twin.delete("id = 900")
    twin.converged()
    assert twin.state() == "live"
    assert twin.db.sql("SELECT DISTINCT tgenabled FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal",
                       (twin.table,)) == [("A",)]


def restore(copy, scratch, *arguments):
    copy.cluster.tool("pg_restore", "--exit-on-error", "-d", copy.name, *arguments, scratch)


# --- one row of the table in each ---

def plain(cluster, db, copy, scratch):
    cluster.restore_sql(cluster.dump(db.name), copy.name)


def custom_in_parallel(cluster, db, copy, scratch):
    cluster.tool("pg_dump", "-Fc", "-f", scratch, db.name)
    restore(copy, scratch, "-j2")


def by_sections(cluster, db, copy, scratch):
    for section in ("pre-data", "data", "post-data"):
        cluster.restore_sql(cluster.dump(db.name, f"--section={section}"), copy.name)


def sections_of_one_file(cluster, db, copy, scratch):
    cluster.tool("pg_dump", "-Fc", "-f", scratch, db.name)
    for section in ("pre-data", "data", "post-data"):
        restore(copy, scratch, f"--section={section}")


def schema_then_data(cluster, db, copy, scratch):
    cluster.restore_sql(cluster.dump(db.name, "--schema-only"), copy.name)
    assert copy.one("SELECT state FROM qdrant_mirrors") == "restored"
    cluster.restore_sql(cluster.dump(db.name, "--data-only"), copy.name)


def schema_then_data_without_triggers(cluster, db, copy, scratch):
    """pg_restore turns them on again, but no longer for every session: qdrant_resume does."""
    cluster.tool("pg_dump", "-Fc", "-f", scratch, db.name)
    restore(copy, scratch, "--schema-only")
    restore(copy, scratch, "--data-only", "--disable-triggers")


def data_again(cluster, db, copy, scratch):
    plain(cluster, db, copy, scratch)
    data = cluster.dump(db.name, "--data-only")
    with pytest.raises(HarnessError, match="duplicate key"):
        cluster.restore_sql(data, copy.name)
    copy.sql("TRUNCATE items")
    cluster.restore_sql(data, copy.name)


def clean_over_a_restored_one(cluster, db, copy, scratch):
    plain(cluster, db, copy, scratch)
    cluster.restore_sql(cluster.dump(db.name, "--clean", "--if-exists"), copy.name)


@pytest.mark.parametrize("mode", [plain, custom_in_parallel, by_sections, sections_of_one_file, schema_then_data,
                                  schema_then_data_without_triggers, data_again, clean_over_a_restored_one])
def test_restored_mirror_waits_and_then_takes_over(db, cluster, copies, scratch, mode):
    items = Items(db, rows=20)
    items.wait()
    copy = copies(db)
    mode(cluster, db, copy, scratch)
    assert copy.one("SELECT count(*) FROM items") == 20
    twin = check_restored(items, copy)
    check_resumed(items, twin)


@pytest.mark.parametrize("mode", [plain, custom_in_parallel, schema_then_data_without_triggers])
def test_everything_in_a_definition_is_restored_with_it(db, cluster, copies, scratch, mode):
    """Names stay right where numbers of columns change; a partitioned table's leaves have no mirror of their own."""
    db.sql(f"""
        CREATE TABLE parts (gone integer, id text PRIMARY KEY, title text, "N" integer, embedding real[])
            PARTITION BY HASH (id);
        CREATE TABLE parts_0 (embedding real[], "N" integer, title text, id text PRIMARY KEY, gone integer);
        ALTER TABLE parts ATTACH PARTITION parts_0 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        ALTER TABLE parts DROP COLUMN gone;
        INSERT INTO parts (id, title, "N", embedding)
            SELECT 'key ' || i, 'title ' || i, i, {VECTOR.format('i')} FROM generate_series(1, 20) i""")
    collection = db.collection("parts")

    def equal(database):
        rows = dict(database.sql("""SELECT id, upper(title) || ("N" + 1) FROM parts WHERE "N" < 15"""))
        points = Items.of(database, "parts", collection=collection).points().values()
        return rows == {point.payload["id"]: point.payload["loud"] + str(point.payload["next"]) for point in points}

    items = Items.of(db, "parts", collection=collection)
    items.mirror(payload="""id, upper(title) AS loud, "N" + 1 AS next""", row_filter='"N" < 15')
    wait_until(lambda: equal(db), what="the original is filled")
    copy = copies(db)
    mode(cluster, db, copy, scratch)
    assert copy.sql("SELECT source::text, state FROM qdrant_mirrors") == [("parts", "restored")]
    copy.sql("DELETE FROM parts_0")
    copy.sql("TRUNCATE parts_1")
    worker_has_turned(copy)
    assert equal(db)
    items.unmirror()
    wait_until(lambda: not items.aliases(), what="the original has let go")
    twin = Items.of(copy, "parts", collection=collection)
    twin.resume(take_over=True)
    twin.wait_state("live")
    assert equal(copy)
    copy.sql(f"""INSERT INTO parts (id, title, "N", embedding)
                 SELECT 'key ' || i, 'copy ' || i, i, {VECTOR.format('i')} FROM generate_series(5, 25) i""")
    wait_until(lambda: equal(copy), what="the copy is kept equal")


def test_schema_alone_is_restored_and_begins_empty(db, cluster, copies):
    items = Items(db, rows=20)
    items.wait()
    copy = copies(db)
    cluster.restore_sql(cluster.dump(db.name, "--schema-only"), copy.name)
    assert copy.one("SELECT count(*) FROM items") == 0
    check_resumed(items, check_restored(items, copy))


@pytest.mark.parametrize("choice", [("-t", "app.items"), ("-n", "app")])
def test_one_table_or_schema_is_restored_with_its_mirror(db, cluster, copies, choice):
    """Into a database that has the extension: those dumps have none."""
    db.sql("CREATE SCHEMA app")
    items = Items(db, "app.items", rows=20, collection=db.collection("app"))
    items.wait()
    copy = copies(db, extension=True)
    if choice[0] == "-t":
        copy.sql("CREATE SCHEMA app")
    cluster.restore_sql(cluster.dump(db.name, *choice), copy.name)
    check_resumed(items, check_restored(items, copy, "app.items"))


def test_dump_without_a_mirrored_table_keeps_the_other_mirrors(db, cluster, copies):
    items, other = Items(db, rows=20), Items(db, "other", rows=10)
    items.wait()
    other.wait()
    copy = copies(db)
    cluster.restore_sql(cluster.dump(db.name, "-T", "items"), copy.name)
    assert copy.sql("SELECT source::text, state FROM qdrant_mirrors") == [("other", "restored")]
    check_resumed(other, check_restored(other, copy, "other"))
    items.insert(21)
    items.converged()


def test_clean_restore_over_a_live_mirror_ends_it(db, cluster, copies, front):
    """The tables are others from then on, and so the mirror waits; its collection stays as it was."""
    items = Items(db, rows=20)
    items.wait()
    copy = copies(db)
    plain(cluster, db, copy, None)
    copy.sql("SELECT qdrant_unmirror('items')")
    twin = Items.of(copy, collection=f"{items.collection}_twin")
    twin.mirror()
    twin.converged()
    cluster.restore_sql(cluster.dump(db.name, "--clean", "--if-exists"), copy.name)
    check_restored(items, copy)
    assert len(twin.points()) == 20
    assert copy.one("SELECT count(*) FROM pg_class WHERE relname LIKE 'segment%%'") == 0


@pytest.fixture
def app(cluster):
    cluster.sql("DROP ROLE IF EXISTS app_owner; CREATE ROLE app_owner LOGIN")
    yield "app_owner"
    cluster.sql("DROP OWNED BY app_owner; DROP ROLE app_owner")


def test_owner_who_is_no_superuser_dumps_and_restores(db, cluster, app, copies, scratch):
    """Everything but the extension itself, which a superuser makes, with USAGE on the foreign-data wrapper."""
    items = Items(db, rows=20, mirror=False)
    db.sql(f"ALTER TABLE items OWNER TO {app}; GRANT USAGE ON FOREIGN SERVER qdrant TO {app}")
    with contextlib.closing(db.connect(user=app)) as conn:
        items.mirror(conn=conn)
    items.converged()
    cluster.tool("pg_dump", "-U", app, "-Fc", "-f", scratch, db.name)

    copy = copies(db, owner=app)
    copy.sql(f"CREATE EXTENSION qdrant_sync; GRANT USAGE ON FOREIGN DATA WRAPPER qdrant_fdw TO {app}; "
             f"GRANT ALL ON SCHEMA public TO {app}")
    restore(copy, scratch, "-U", app, "--no-owner", "--no-comments", "--no-privileges")
    assert copy.one("SELECT srvowner::regrole::text FROM pg_foreign_server") == app
    twin = check_restored(items, copy)
    items.unmirror()
    wait_until(lambda: not items.aliases(), what="the original has let go")
    with contextlib.closing(copy.connect(user=app)) as conn:
        conn.execute("SELECT qdrant_resume('items', take_over => true)")
    twin.converged()
    for made in (copy, db):
        made.sql(f"DROP OWNED BY {app} CASCADE")


def test_pg_dumpall_into_another_cluster(front, pgversion):
    """With roles and user mappings."""
    with Cluster(pgversion) as cluster, Cluster(pgversion, name="other") as other:
        db = new_extension_db(cluster, front)
        cluster.sql("CREATE ROLE dumped LOGIN")
        db.sql("CREATE USER MAPPING FOR dumped SERVER qdrant OPTIONS (api_key 'key-of-a-role')")
        items = Items(db, rows=20)
        items.wait()
        text = cluster.tool("pg_dumpall").stdout
        # Whoever makes it is there already.
        other.psql(text.replace("CREATE ROLE postgres;", ""))
        copy = type(db)(other, front, db.name)
        assert copy.one("SELECT umoptions FROM pg_user_mappings WHERE usename = 'dumped'") == ["api_key=key-of-a-role"]
        check_resumed(items, check_restored(items, copy))


def test_restores_where_the_library_is_not_preloaded_and_no_server_answers(db, cluster, front, pgversion):
    items = Items(db, rows=20)
    items.wait()
    dump = cluster.dump(db.name).replace(front.url, "http://qdrant.invalid:6333")
    assert "qdrant.invalid" in dump
    with Cluster(pgversion, name="bare", preload=False) as bare:
        bare.createdb("bare")
        copy = type(db)(bare, front, "bare")
        bare.restore_sql(dump, "bare")
        assert copy.sql("SELECT state FROM qdrant_mirrors") == [("restored",)]
        write_to(copy)
        copy.sql("TRUNCATE items")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            copy.sql("SELECT qdrant_resume('items')")
        bare.restart(conf={"shared_preload_libraries": "qdrant_sync"})
        copy.sql(f"ALTER SERVER qdrant OPTIONS (SET url '{front.url}')")
        check_resumed(items, check_restored(items, copy))


def test_restored_table_takes_a_collection_of_its_own(db, cluster, copies):
    """The original goes on beside it."""
    items = Items(db, rows=20)
    items.wait()
    copy = copies(db)
    plain(cluster, db, copy, None)
    check_restored(items, copy)
    twin = Items.of(copy, collection=f"{items.collection}_staging")
    twin.unmirror()
    twin.mirror()
    twin.converged()
    items.insert(21)
    items.converged()
    assert {items.state(), twin.state()} == {"live"}


def test_restored_mirror_is_not_waited_for_and_not_verified(db, cluster, copies):
    """Its table has rows that nobody sends: true would be a lie, and "has no mirror" no help."""
    items = Items(db, rows=3)
    assert items.wait()
    copy = copies(db)
    plain(cluster, db, copy, None)
    told = []
    copy.conn.add_notice_handler(lambda diag: told.append(diag.message_primary))
    for call in ("qdrant_wait('30s')", "qdrant_wait('30s', 'items')"):
        told.clear()
        assert copy.one(f"SELECT {call}") is False
        assert told == ['the mirror of table "items" is restored, and is not waited for']
    for call in ("qdrant_verify('items')", "qdrant_pause('items')"):
        with pytest.raises(psycopg.errors.DuplicateObject, match="restored or copied") as caught:
            copy.sql(f"SELECT {call}")
        assert "qdrant_resume" in caught.value.diag.message_hint
    with copy.conn.transaction(force_rollback=True):
        copy.sql("CREATE TABLE other (LIKE items INCLUDING ALL)")
        Items.of(copy, "other", collection=items.collection).mirror(take_over=True)
        with pytest.raises(psycopg.errors.DuplicateObject, match="belongs to another mirror") as caught:
            copy.sql("SELECT qdrant_resume('items')")
        assert "qdrant_unmirror" in caught.value.diag.message_hint
    Items.of(copy).unmirror()
    assert copy.one("SELECT qdrant_wait('30s')") is True


@pytest.mark.parametrize("disable", [False, True], ids=["triggers", "disable-triggers"])
def test_restore_of_the_data_into_a_live_mirror(db, cluster, disable):
    items = Items(db, rows=20)
    items.wait()
    data = cluster.dump(db.name, "--data-only", "-t", "items", *(["--disable-triggers"] if disable else []))
    items.update()
    items.insert(21, 30)
    db.sql("TRUNCATE items")
    cluster.restore_sql(data, db.name)
    if disable:
        items.resume()
    assert items.converged() == 20
    items.insert(21)
    items.converged()
    assert items.state() == "live"


# --- CREATE DATABASE … TEMPLATE ---

def template_copy(db, copies, cluster):
    """Dropped with the others; it is made here because a template must have no connections."""
    copy = copies(db)
    db.conn.close()
    cluster.dropdb(copy.name)
    cluster.createdb(copy.name, template=db.name)
    return copy


def test_template_copy_takes_over_when_the_original_has_let_go(db, cluster, copies):
    items = Items(db, rows=20)
    items.wait()
    copy = template_copy(db, copies, cluster)
    check_resumed(items, check_restored(items, copy))
    assert copy.one("SELECT count(*) FROM qdrant_internal.mirror") == 1


@faults
def test_template_copy_does_not_send_the_originals_operations(db, cluster, front, copies):
    """They were enqueued once, and an older one that comes again could overwrite a newer one."""
    target = db.collection("plain")
    front.client.create_collection(target, vectors_config=VectorParams(size=2, distance=Distance.DOT))

    def upsert(database, number, word):
        database.sql("SELECT qdrant_upsert(%s, %s)", (target, json.dumps(
            [{"id": number, "vector": [1, 2], "payload": {"word": word}}])))

    def words():
        return {point.id: point.payload["word"] for point in front.client.scroll(target, limit=100)[0]}

    front.faults.down()
    upsert(db, 1, "old")
    copy = template_copy(db, copies, cluster)
    wait_until(lambda: workers(cluster, copy), what="the copy has a worker")
    front.faults.up()
    wait_until(lambda: words() == {1: "old"}, what="the original's operation")
    assert db.wait()
    upsert(db, 1, "new")
    assert db.wait()
    upsert(copy, 2, "copy's own")
    assert copy.wait()
    # Once each: what the copy had sent would have gone before its own.
    assert [entry["ids"] for entry in front.faults.log() if entry["path"].startswith(f"/collections/{target}/")
            and entry["method"] == "PUT"] == [[1], [1], [2]]
    assert words() == {1: "new", 2: "copy's own"}


def test_data_directory_with_another_identifier_waits(front, pgversion):
    """As pg_createsubscriber makes one: everything is the original's but the system identifier."""
    with Cluster(pgversion) as cluster:
        db = new_extension_db(cluster, front)
        items = Items(db, rows=5)
        items.wait()
        db.sql("UPDATE qdrant_internal.mirror SET system_identifier = 4711")
        cluster.restart()
        since = items.mark() if front.faults else 0
        assert items.state() == "restored"
        items.insert(6)
        worker_has_turned(db)
        assert captures_nothing(db)
        if front.faults:
            assert items.requests(since) == []
        assert "6" not in items.points()
        items.resume(take_over=True)
        items.converged()
