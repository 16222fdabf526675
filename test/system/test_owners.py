"""A mirrored table that gets another owner: whose rights read its rows, and whose key sends them."""

import contextlib

import psycopg
import pytest

from harness import FrontHandle, new_extension_db, wait_until
from items import Items

faults = pytest.mark.faults


@pytest.fixture
def roles(cluster):
    """Two ordinary roles, which own nothing afterwards: their databases are dropped before."""
    cluster.ensure_running()
    for role in ("first_owner", "next_owner"):
        cluster.sql(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN")
    yield "first_owner", "next_owner"
    cluster.sql("DROP ROLE first_owner; DROP ROLE next_owner")


@pytest.fixture
def guarded(cluster, roles):
    """A database whose server wants a key that each role has to bring itself."""
    with FrontHandle(api_key="right") as front:
        db = new_extension_db(cluster, front)
        for role in roles:
            db.sql(f"GRANT ALL ON SCHEMA public TO {role}; GRANT USAGE ON FOREIGN SERVER qdrant TO {role}")
        db.sql("CREATE FUNCTION reader() RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT current_user::text'")
        yield db
        db.drop()


def key_of(db, role, key, how="CREATE"):
    option = "api_key" if how == "CREATE" else "SET api_key"
    db.sql(f"{how} USER MAPPING FOR {role} SERVER qdrant OPTIONS ({option} '{key}')")


def mirrored_by(db, role, **options):
    items = Items(db, rows=5, mirror=False, **options)
    db.sql(f"ALTER TABLE items OWNER TO {role}")
    with contextlib.closing(db.connect(user=role)) as conn:
        items.mirror(conn=conn, payload="id, title, n, reader() AS reader")
    assert items.wait()
    return items


def readers(items):
    return {int(id): point.payload["reader"] for id, point in items.points().items()}


@faults
@pytest.mark.parametrize("command", ["ALTER TABLE items OWNER TO next_owner", "REASSIGN OWNED BY first_owner TO next_owner"])
def test_new_owner_reads_the_rows_and_brings_the_key(guarded, roles, command):
    db, (first, after) = guarded, roles
    key_of(db, first, "right")
    key_of(db, after, "wrong")
    items = mirrored_by(db, first)
    assert set(readers(items).values()) == {first}
    db.sql(command)
    items.insert(6)
    row = items.wait_state("failed")
    assert "401" in row["last_error"] or "API key" in row["last_error"], row
    # What the old owner's key can do helps nobody; the new one's, once it is right, does.
    key_of(db, first, "wrong", "ALTER")
    key_of(db, after, "right", "ALTER")
    items.wait_state("live")
    items.insert(7)
    wait_until(lambda: {6, 7} <= readers(items).keys(), what="the rows of before and after")
    assert (readers(items)[6], readers(items)[7]) == (after, after)


def test_new_owner_without_usage_on_the_server_stops_the_mirror_until_it_is_granted(roles, db):
    first, after = roles
    db.sql("CREATE FUNCTION reader() RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT current_user::text'; "
           f"GRANT USAGE ON FOREIGN SERVER qdrant TO {first}")
    if db.front.api_key:
        key_of(db, "PUBLIC", db.front.api_key)
    items = mirrored_by(db, first)
    db.sql(f"ALTER TABLE items OWNER TO {after}")
    row = items.wait_state("failed")
    assert 'role "next_owner" may not use server "qdrant"' in row["last_error"], row
    # Its work is kept, writers are not held up, and the state is said at once to who waits.
    items.insert(6, 10)
    assert items.wait() is False
    with contextlib.closing(db.connect(user=after)) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT qdrant_unmirror('items'); SELECT qdrant_mirror('items')")
    db.sql(f"GRANT USAGE ON FOREIGN SERVER qdrant TO {after}")
    items.wait_state("live")
    wait_until(lambda: set(range(1, 11)) == readers(items).keys(), what="what was kept has arrived")
    assert {readers(items)[key] for key in range(6, 11)} == {after}
    # The old owner has nothing more to say.
    with contextlib.closing(db.connect(user=first)) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT qdrant_pause('items')")


def test_owner_of_the_server_who_drops_all_his_own_leaves_the_extension(roles, db, front):
    """Hazard 24, for the other object of a user's: the mirrors of others are named, and end with CASCADE."""
    first, _ = roles
    db.sql(f"GRANT USAGE ON FOREIGN DATA WRAPPER qdrant_fdw TO {first}")
    with contextlib.closing(db.connect(user=first)) as conn:
        conn.execute(f"CREATE SERVER his FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{front.url}')")
        if front.api_key:
            key_of(db, "PUBLIC", front.api_key)
            db.sql(f"CREATE USER MAPPING FOR PUBLIC SERVER his OPTIONS (api_key '{front.api_key}')")
        items, other = Items(db, rows=5, server="his"), Items(db, "other", rows=5, server="qdrant")
        with pytest.raises(psycopg.errors.DependentObjectsStillExist) as caught:
            conn.execute("DROP OWNED BY CURRENT_USER")
        assert caught.value.diag.message_detail == "trigger qdrant_sync on table items depends on server his"
        items.insert(6)
        items.converged()
        conn.execute("DROP OWNED BY CURRENT_USER CASCADE")
    assert db.one("SELECT count(*) FROM pg_extension WHERE extname = 'qdrant_sync'") == 1
    assert items.state() in (None, "dropping")
    items.insert(7)
    other.insert(6)
    other.converged()
    db.sql(f"CREATE SERVER his FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{front.url}')")
    if front.api_key:
        db.sql(f"CREATE USER MAPPING FOR PUBLIC SERVER his OPTIONS (api_key '{front.api_key}')")
    items.mirror(take_over=True)
    items.converged()


@pytest.mark.parametrize("command", ["DROP SCHEMA app CASCADE", "DROP OWNED BY first_owner CASCADE"])
def test_schema_that_is_dropped_or_comes_back_by_rollback(roles, db, command):
    """Done by somebody else than the owner; undone, the mirror goes on; done, its collection can be mirrored again."""
    first, _ = roles
    db.sql(f"CREATE SCHEMA app AUTHORIZATION {first}; GRANT USAGE ON FOREIGN SERVER qdrant TO {first}")
    if db.front.api_key:
        key_of(db, "PUBLIC", db.front.api_key)
    items = Items(db, "app.items", rows=5, collection=db.collection("app"), mirror=False)
    db.sql(f"ALTER TABLE app.items OWNER TO {first}")
    items.mirror()
    items.converged()
    with db.connect(autocommit=False) as conn:
        conn.execute(command)
        conn.rollback()
    items.insert(6)
    items.converged()
    db.sql(command)
    assert db.one("SELECT count(*) FROM pg_extension WHERE extname = 'qdrant_sync'") == 1
    wait_until(lambda: db.one("SELECT count(*) FROM qdrant_internal.mirror") == 0, what="the mirror's row is reaped")
    again = Items(db, rows=3, collection=items.collection, take_over=True)
    again.converged()
