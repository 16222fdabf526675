"""DROP SERVER under mirrors: refused like any drop of what is needed, or the end of the mirrors with CASCADE."""

import psycopg
import pytest

from harness import FrontHandle, wait_until
from items import Items


def url_of(db, server="qdrant"):
    return db.one("SELECT option_value FROM pg_foreign_server, pg_options_to_table(srvoptions) "
                  "WHERE srvname = %s AND option_name = 'url'", (server,))


def again(db, server="qdrant", url=None):
    """The server is made again."""
    db.sql(f"CREATE SERVER {server} FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{url}')")


def triggers(db):
    return db.one("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'qdrant_sync%%'")


def all_is_gone(db):
    """Triggers at once, what the worker keeps soon."""
    assert triggers(db) == 0
    assert db.sql("SELECT * FROM qdrant_mirrors WHERE state <> 'dropping'") == []
    wait_until(lambda: db.one("SELECT count(*) FROM qdrant_internal.mirror") == 0, what="the mirrors are forgotten")
    assert db.one("SELECT count(*) FROM pg_class WHERE relnamespace = 'qdrant_internal'::regnamespace AND relkind = 'r' "
                  "AND relname LIKE 'segment%%'") == 0


def refused(db, statement="DROP SERVER qdrant"):
    with pytest.raises(psycopg.errors.DependentObjectsStillExist) as caught:
        db.sql(statement)
    return caught.value.diag.message_detail


def test_dropped_server_of_live_mirrors_is_refused_and_they_are_named(db):
    items, others = Items(db, rows=3), Items(db, "others", rows=2)
    detail = refused(db)
    assert "trigger qdrant_sync on table items depends on server qdrant" in detail
    assert "trigger qdrant_sync on table others depends on server qdrant" in detail
    items.insert(4, 6)
    others.insert(3)
    items.converged()
    others.converged()
    others.unmirror()
    assert "others" not in refused(db)
    items.unmirror()
    db.sql("DROP SERVER qdrant")


def test_server_dropped_with_cascade_ends_its_mirrors_and_no_others(db):
    url = url_of(db)
    db.sql(f"CREATE SERVER second FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{url}')")
    items, others = Items(db, rows=3, server="qdrant"), Items(db, "others", rows=2, server="second")
    items.wait()
    db.sql("DROP SERVER qdrant CASCADE")
    assert items.state() in (None, "dropping") and triggers(db) == 2
    items.insert(4, 6)
    assert len(items.points()) == 3
    others.insert(3)
    others.converged()
    wait_until(lambda: db.one("SELECT count(*) FROM qdrant_internal.mirror") == 1, what="the mirror is forgotten")
    again(db, url=url)
    items.mirror(take_over=True)
    items.converged()
    assert "table items" in refused(db) and "table others" in refused(db, "DROP SERVER second")


def test_rolled_back_drop_leaves_the_mirror_as_it_was(db):
    items = Items(db, rows=3)
    with db.connect(autocommit=False) as conn:
        conn.execute("DROP SERVER qdrant CASCADE")
        assert conn.execute("SELECT count(*) FROM qdrant_mirrors WHERE state <> 'dropping'").fetchone()[0] == 0
        conn.rollback()
        conn.execute("SAVEPOINT s")
        conn.execute("DROP SERVER qdrant CASCADE")
        conn.execute("ROLLBACK TO s")
        items.insert(4, conn=conn)
        conn.commit()
    items.converged()
    assert triggers(db) == 2
    refused(db)


def test_server_dropped_and_made_again_in_one_transaction_ends_the_mirror(db):
    items = Items(db, rows=3)
    url = url_of(db)
    with db.conn.transaction():
        db.sql("DROP SERVER qdrant CASCADE")
        again(db, url=url)
        items.insert(4)
        items.mirror(take_over=True)
    items.converged()


def test_partitions_lose_their_triggers_too_whoever_owns_them(db, cluster):
    cluster.sql("DROP ROLE IF EXISTS keeper; CREATE ROLE keeper; DROP ROLE IF EXISTS other; CREATE ROLE other")
    db.sql("""CREATE TABLE parts (id int PRIMARY KEY, title text, n int, embedding real[]) PARTITION BY RANGE (id);
              CREATE TABLE parts_0 PARTITION OF parts FOR VALUES FROM (0) TO (10);
              CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (10) TO (20)""")
    items = Items.of(db, "parts")
    items.insert(5, 15)
    items.mirror()
    items.converged()
    db.sql("ALTER TABLE parts OWNER TO other; ALTER SERVER qdrant OWNER TO keeper")
    db.sql("GRANT USAGE ON FOREIGN SERVER qdrant TO other")
    items.insert(16)
    items.converged()
    try:
        with db.connect() as conn:
            conn.execute("SET ROLE keeper")
            with pytest.raises(psycopg.errors.DependentObjectsStillExist):
                conn.execute("DROP SERVER qdrant")
            conn.execute("DROP SERVER qdrant CASCADE")
        all_is_gone(db)
    finally:
        db.sql("DROP OWNED BY other, keeper CASCADE; DROP ROLE other; DROP ROLE keeper")


@pytest.mark.parametrize("everything", [False, True])
def test_drop_owned_takes_server_and_mirror(db, cluster, everything):
    cluster.sql("DROP ROLE IF EXISTS keeper; CREATE ROLE keeper")
    items = Items(db, rows=3)
    db.sql("GRANT USAGE ON FOREIGN SERVER qdrant TO PUBLIC")
    db.sql("ALTER SERVER qdrant OWNER TO keeper")
    if everything:
        db.sql("ALTER TABLE items OWNER TO keeper")
        db.sql("DROP OWNED BY keeper")
    else:
        assert "trigger qdrant_sync on table items" in refused(db, "DROP OWNED BY keeper")
        db.sql("DROP OWNED BY keeper CASCADE")
        assert db.one("SELECT count(*) FROM items") == 3
    db.sql("DROP ROLE keeper")
    all_is_gone(db)


def test_drop_extension_says_what_it_takes_and_takes_it(db):
    Items(db, rows=3)
    assert "trigger qdrant_sync on table items" in refused(db, "DROP EXTENSION qdrant_sync")
    db.sql("DROP EXTENSION qdrant_sync CASCADE")
    assert triggers(db) == 0 and db.one("SELECT count(*) FROM pg_foreign_server") == 0
    assert db.one("SELECT count(*) FROM items") == 3


def test_renamed_server_and_another_owner_change_nothing_for_its_mirrors(db, cluster):
    cluster.sql("DROP ROLE IF EXISTS keeper; CREATE ROLE keeper")
    items = Items(db, rows=3)
    items.wait()
    db.sql("ALTER SERVER qdrant RENAME TO vectors")
    items.insert(4)
    items.converged()
    assert "trigger qdrant_sync on table items depends on server vectors" in refused(db, "DROP SERVER vectors")
    db.sql("ALTER SERVER vectors OWNER TO keeper")
    items.insert(5)
    items.converged()
    assert items.state() == "live" and items.row()["server"] == "vectors"
    refused(db, "DROP SERVER vectors")
    db.sql("ALTER SERVER vectors OWNER TO CURRENT_USER; DROP ROLE keeper")
    items.unmirror()
    db.sql("DROP SERVER vectors")


def test_rebuild_on_another_server_needs_both_until_it_has_moved(db):
    url = url_of(db)
    db.sql(f"CREATE SERVER second FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{url}')")
    items = Items(db, rows=3, server="qdrant")
    items.wait()
    items.pause()
    db.sql("SELECT qdrant_rebuild('items', server => 'second', collection => %s)", (db.collection("moved"),))
    refused(db)
    refused(db, "DROP SERVER second")
    db.sql("SELECT qdrant_abandon('items')")
    db.sql("DROP SERVER second")
    again(db, "second", url)
    db.sql("SELECT qdrant_rebuild('items', server => 'second', collection => %s)", (db.collection("moved_again"),))
    items.resume()
    wait_until(lambda: items.row()["server"] == "second", 60, lambda: f"the rebuild is done: {items.row()}")
    refused(db, "DROP SERVER second")
    db.sql("DROP SERVER qdrant")


def test_server_that_a_rebuild_goes_to_ends_the_mirror_with_cascade(db):
    url = url_of(db)
    db.sql(f"CREATE SERVER second FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{url}')")
    items = Items(db, rows=3, server="qdrant")
    items.wait()
    items.pause()
    db.sql("SELECT qdrant_rebuild('items', server => 'second', collection => %s)", (db.collection("moved"),))
    db.sql("DROP SERVER second CASCADE")
    all_is_gone(db)
    items.mirror(take_over=True, server="qdrant")
    items.converged()


@pytest.mark.faults
def test_drop_of_a_server_that_is_down_does_not_wait_for_it(db, front):
    with FrontHandle() as other:
        again(db, "second", other.url)
        items = Items(db, rows=3, server="second")
        items.wait()
        other.faults.down()
        items.insert(4)
        db.sql("DROP SERVER second CASCADE")
        all_is_gone(db)
        other.faults.up()


def test_restored_table_needs_the_server_once_it_is_resumed(db, cluster):
    """pg_depend is not dumped, and needs no place in the dump's order."""
    items = Items(db, rows=3)
    items.wait()
    dump = cluster.dump(db.name, "--clean", "--if-exists", "--no-comments")
    assert dump.index("DROP TRIGGER IF EXISTS qdrant_sync ") < dump.index("DROP SERVER IF EXISTS qdrant")
    items.unmirror()
    db.sql("DROP TABLE items")
    cluster.restore_sql(cluster_without_extension(dump), db.name)
    assert items.state() == "restored"
    items.resume(take_over=True)
    items.converged()
    assert "table items" in refused(db)


def cluster_without_extension(dump):
    """The extension stays, and so does the server that needs it."""
    return "\n".join(line for line in dump.splitlines() if "EXTENSION" not in line and "SCHEMA" not in line)
