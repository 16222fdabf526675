"""Who is to blame for a refusal, the row or the collection (hazard 19); and what becomes of a dead letter."""

import re

import psycopg
import pytest
from qdrant_client.models import CreateAlias, CreateAliasOperation, Distance, VectorParams

from harness import FrontHandle, new_extension_db, stays, wait_until
from items import Items, end_worker, points_path

faults = pytest.mark.faults


def cosine(size):
    return VectorParams(size=size, distance=Distance.COSINE)


def exchange(items, vectors, alias=True):
    """Another collection takes the place of the mirror's, as a snapshot that is recovered does: its alias stays."""
    client = items.db.front.client
    names = items.aliases()
    client.delete_collection(items.collection)
    client.create_collection(items.collection, vectors_config=vectors)
    if alias:
        assert len(names) == 1
        client.update_collection_aliases([CreateAliasOperation(create_alias=CreateAlias(
            collection_name=items.collection, alias_name=names[0]))])


def stopped_with_its_work(items, error):
    row = items.wait_state("failed")
    assert re.search(error, row["last_error"]) and "qdrant_resume" in row["last_error"], row
    assert items.dead_letters() == {} and row["pending"] > 0
    return row


def put_right(items):
    items.db.front.client.delete_collection(items.collection)
    items.resume()
    items.converged()
    items.wait_state("live")
    assert items.dead_letters() == {} and items.row()["last_error"] is None


# --- the collection is to blame ---

def test_collection_of_another_dimension_behind_the_same_alias_makes_no_dead_letter(db):
    items = Items(db, rows=300)
    exchange(items, cosine(7))
    items.update()
    stopped_with_its_work(items, "7 elements.* 4")
    assert items.points() == {}
    put_right(items)


def test_stopped_mirror_is_not_fooled_by_a_new_worker_or_a_resume_that_mended_nothing(db, cluster):
    """What the collection was before is kept: nobody takes the wrong one for the mirror's own."""
    items = Items(db, rows=300)
    exchange(items, cosine(7))
    items.update()
    stopped_with_its_work(items, "7 elements.* 4")
    end_worker(cluster, db)
    items.update("id = 1")
    stopped_with_its_work(items, "7 elements.* 4")
    before = items.row()["last_error_at"]
    items.resume()
    wait_until(lambda: items.row()["last_error_at"] > before, what=lambda: f"a second look: {items.row()}")
    stopped_with_its_work(items, "7 elements.* 4")
    put_right(items)


def test_vector_that_is_gone_from_the_collection_makes_no_dead_letter(db):
    items = Items(db, rows=100, vector="embedding AS title, embedding AS body")
    exchange(items, {"title": cosine(4)})
    items.update()
    stopped_with_its_work(items, 'no vector named "body"')
    items.db.front.client.delete_collection(items.collection)
    items.resume()
    items.converged(vector={"title": "embedding", "body": "embedding"})
    assert items.dead_letters() == {}


def test_collection_made_anew_under_a_key_that_may_not_manage_aliases_makes_no_dead_letter(cluster):
    """Writes go to the collection's own name there, and meet the new one at once."""
    cluster.ensure_running()
    with FrontHandle(api_key="k-full", no_alias_key="k-scoped") as front:
        if front.faults is None:
            pytest.skip("a real server has its own keys")
        db = new_extension_db(cluster, front, api_key="k-scoped")
        try:
            name = db.collection()
            front.client.create_collection(name, vectors_config=cosine(4))
            items = Items(db, rows=300, collection=name)
            assert items.row()["fence"] == "time"
            exchange(items, cosine(7), alias=False)
            items.update()
            stopped_with_its_work(items, "7 elements.* 4")
            exchange(items, cosine(4), alias=False)
            items.resume()
            db.sql("SELECT qdrant_resync('items')")
            items.converged(60)
            assert items.dead_letters() == {}
        finally:
            db.drop()


def test_rows_of_a_new_dimension_ask_the_collection_before_they_are_dead_letters(db):
    """They are never sent, so no answer would say that the collection was exchanged as well."""
    items = Items(db, rows=200)
    exchange(items, cosine(5))
    items.update()
    stopped_with_its_work(items, "5 elements.* 4")
    db.sql("UPDATE items SET embedding = embedding || 0.5::real")
    items.resume()
    db.sql("SELECT qdrant_resync('items')")
    items.converged(60)
    items.wait_state("live")
    assert items.dead_letters() == {}


def test_only_rows_of_a_new_dimension_are_written_and_the_collection_has_it(db):
    items = Items(db, rows=200)
    exchange(items, cosine(5))
    db.sql("UPDATE items SET embedding = embedding || 0.5::real")
    stopped_with_its_work(items, "5 elements.* 4")
    items.resume()
    db.sql("SELECT qdrant_resync('items')")
    items.converged(60)
    assert items.dead_letters() == {}


def test_many_rows_of_a_wrong_dimension_are_dead_letters_and_the_mirror_goes_on(db):
    items = Items(db, rows=10)
    db.sql("INSERT INTO items SELECT i, 'wrong', 0, '{1,2,3}' FROM generate_series(100, 160) i")
    items.insert(200, 210)
    items.converged(where="id NOT BETWEEN 100 AND 160")
    wait_until(lambda: len(items.dead_letters()) == 61, what=lambda: f"61 dead letters: {len(items.dead_letters())}")
    assert items.state() == "live" and items.wait() is True


# --- the look ---

def looks(items, since):
    return [entry for entry in items.db.front.faults.log(since=since)
            if entry["method"] == "GET" and entry["path"] == f"/collections/{items.collection}"]


def look_path(items):
    return dict(method="GET", path_regex=f"^/collections/{items.collection}$")


@faults
def test_nothing_is_sent_until_it_is_known_who_is_to_blame(db, front):
    items = Items(db, rows=20)
    front.faults.faults_add([{"action": "poison", "ids": [7], "match": {"path_regex": points_path(items)}},
                             {"action": "hold", "match": look_path(items)}])
    items.update("id = 7")
    front.faults.wait_held(1)
    since = items.mark()
    items.update("id < 7")
    items.delete("id = 15")
    stays(lambda: items.requests(since) == [] and items.state() == "live", 0.7, "nothing is sent")
    assert items.dead_letters() == {}
    assert db.one("SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'qdrant_sync' AND xact_start IS NOT NULL") == 0
    front.faults.release()
    wait_until(lambda: items.dead_letters().keys() == {"7"}, what="the dead letter")
    front.faults.clear_faults()
    items.delete("id = 7")
    items.converged()
    wait_until(lambda: items.dead_letters() == {}, what="no dead letter")


@faults
def test_bad_rows_now_and_then_cost_few_looks(db, front):
    items = Items(db, rows=20)
    since = items.mark()
    front.faults.fault("poison", ids=list(range(100, 120)), path_regex=points_path(items))
    for key in range(100, 108):
        items.insert(key)
        items.update("id = 1")
        items.wait()
    assert items.dead_letters().keys() == {str(key) for key in range(100, 108)}
    assert 1 <= len(looks(items, since)) <= 4


@faults
@pytest.mark.parametrize("fault", ["500", "502", "reset", "garbage", "404"])
def test_look_that_fails_is_repeated_and_nobody_is_blamed_meanwhile(db, front, fault):
    items = Items(db, rows=20)
    front.faults.faults_add([{"action": "poison", "ids": [7], "match": {"path_regex": points_path(items)}},
                             {"action": fault, "match": look_path(items), "times": 2}])
    items.update("id < 10")
    wait_until(lambda: items.dead_letters().keys() == {"7"}, what=lambda: f"the dead letter: {items.row()}")
    assert items.wait() is True
    front.faults.clear_faults()
    assert db.one("SELECT qdrant_retry('items')") == 1
    items.converged()


@faults
@pytest.mark.parametrize("status", ["401", "403"])
def test_look_that_is_denied_stops_the_mirror_with_its_work(db, front, status):
    items = Items(db, rows=20)
    front.faults.faults_add([{"action": "poison", "ids": [7], "match": {"path_regex": points_path(items)}},
                             {"action": status, "match": look_path(items)}])
    items.update("id < 10")
    row = items.wait_state("failed")
    assert status in row["last_error"] and row["pending"] > 0 and items.dead_letters() == {}
    front.faults.clear_faults()
    items.resume()
    items.converged()
    assert items.dead_letters() == {}


@faults
def test_collection_that_refuses_everything_stops_the_mirror_in_the_end(db, front):
    """The look finds nothing wrong: the number of refusals in a row is the last line."""
    items = Items(db, rows=5)
    front.faults.fault("answer", path_regex=points_path(items), status=422,
                       body='{"status":{"error":"Validation error: no reason"},"time":0.001}')
    items.insert(100, 300)
    row = items.wait_state("failed")
    assert re.search("20 rows in a row.*no reason", row["last_error"])
    assert len(items.dead_letters()) < 20
    front.faults.clear_faults()
    items.resume()
    assert items.wait() is True
    # Those that were buried are tried again by hand: nobody has changed them since.
    db.sql("SELECT qdrant_retry('items')")
    items.converged()
    wait_until(lambda: items.dead_letters() == {}, what=lambda: f"no dead letters: {items.dead_letters()}")


# --- dead letters ---

BAD = "INSERT INTO items VALUES (%s, 'bad', 0, '{NaN,1,1,1}')"


@pytest.fixture
def buried(db):
    """Rows 100 to 104 are dead letters."""
    items = Items(db, rows=10)
    for key in range(100, 105):
        db.sql(BAD, (key,))
    wait_until(lambda: len(items.dead_letters()) == 5, what="five dead letters")
    return items


GONE = {
    "changed and accepted": ("UPDATE items SET embedding = '{1,2,3,4}' WHERE id = 100", "100"),
    "deleted": ("DELETE FROM items WHERE id = 100", None),
    "set to a NULL vector": ("UPDATE items SET embedding = NULL WHERE id = 100", None),
    "given another key": ("UPDATE items SET id = 900, embedding = '{1,2,3,4}' WHERE id = 100", "900"),
    "replaced in one transaction": (
        "DELETE FROM items WHERE id = 100; INSERT INTO items VALUES (100, 'new', 1, '{4,3,2,1}')", "100"),
}


@pytest.mark.parametrize("how", GONE)
def test_dead_letter_goes_when_its_row_is(buried, how):
    items = buried
    statement, point = GONE[how]
    items.db.sql(statement)
    wait_until(lambda: items.dead_letters().keys() == {"101", "102", "103", "104"},
               what=lambda: f"its letter is gone, the others are not: {items.dead_letters()}")
    items.converged(where="id NOT BETWEEN 101 AND 104 AND embedding IS NOT NULL")
    assert (items.point(int(point)) is not None) if point else items.point(100) is None


def test_dead_letter_says_table_key_error_times_and_tries(buried):
    items = buried
    items.db.sql("UPDATE items SET title = 'still bad' WHERE id = 103")
    wait_until(lambda: items.db.one("SELECT tries FROM qdrant_dead_letters WHERE key = '103'") == 2, what="a second try")
    row, = items.db.sql("SELECT source::text, collection, error, tries, first_at < last_at, last_at <= now() "
                        "FROM qdrant_dead_letters WHERE key = '103'")
    assert row[:2] == ("items", items.collection) and re.search("embedding.*NaN", row[2], re.I)
    assert row[3:] == (2, True, True)


# --- qdrant_retry ---

def poisoned(db, front, n=30):
    """Rows 100 to 100 + n - 1 are refused by Qdrant for a reason that is its own."""
    items = Items(db, rows=10)
    rule = dict(ids=list(range(100, 100 + n)), path_regex=points_path(items), text="Wrong input: not today")
    front.faults.fault("poison", **rule)
    for key in range(100, 100 + n):
        items.insert(key)
        items.update("id = 1")
        items.wait()
    wait_until(lambda: len(items.dead_letters()) == n, what=lambda: f"{n} dead letters: {items.row()}")
    return items


@faults
def test_retry_of_all_sends_every_dead_letter_again(db, front):
    items = poisoned(db, front, 30)
    # Still refused: each counts one try more, and they do not stop the mirror, many as they are.
    assert db.one("SELECT qdrant_retry('items')") == 30
    wait_until(lambda: db.one("SELECT min(tries) FROM qdrant_dead_letters") == 2, what="second tries")
    assert items.wait() is True and items.state() == "live"
    front.faults.clear_faults()
    assert db.one("SELECT qdrant_retry()") == 30
    items.converged()
    wait_until(lambda: items.dead_letters() == {}, what="no dead letters")
    assert db.one("SELECT qdrant_retry('items')") == 0


@faults
def test_retry_of_some_keys_and_its_rollback(db, front):
    items = poisoned(db, front, 5)
    front.faults.clear_faults()
    since = items.mark()
    with db.connect(autocommit=False) as conn:
        assert conn.execute("SELECT qdrant_retry('items')").fetchone()[0] == 5
        conn.rollback()
        conn.execute("SAVEPOINT a")
        conn.execute("SELECT qdrant_retry('items', '{100}')")
        conn.execute("ROLLBACK TO a")
        asked = conn.execute("SELECT qdrant_retry('items', ARRAY['101', '103', '101', '7', 'nonsense', NULL])")
        assert asked.fetchone()[0] == 2
        with pytest.raises(psycopg.errors.ActiveSqlTransaction):
            conn.execute("SELECT qdrant_wait('1s')")
        conn.rollback()
    assert items.wait() is True and items.requests(since) == []
    assert db.one("SELECT qdrant_retry('items', ARRAY['101', '103'])") == 2
    wait_until(lambda: items.dead_letters().keys() == {"100", "102", "104"},
               what=lambda: f"two are gone: {items.dead_letters()}")
    assert items.sent(since) == {"101", "103"}


RETRIED = {
    # columns and key of the table, the key's values, its text in qdrant_dead_letters
    "uuid": ("id uuid PRIMARY KEY", "'7E57AB1E-0000-4000-8000-00000000000A'", "7e57ab1e-0000-4000-8000-00000000000a"),
    "smallint": ("id smallint PRIMARY KEY", "32767", "32767"),
    "text": ("id text PRIMARY KEY", "'a \"b\" ä'", '["a \\"b\\" ä"]'),
    "two columns": ("id bigint, part date, PRIMARY KEY (id, part)", "-7, '2026-11-23'", '["-7","2026-11-23"]'),
    "partitioned": ("id bigint PRIMARY KEY) PARTITION BY RANGE (id", "5", "5"),
}


@pytest.mark.parametrize("kind", RETRIED)
def test_retry_of_a_key(db, kind):
    columns, values, text = RETRIED[kind]
    db.sql("CREATE FUNCTION picky(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 100 / $1'")
    db.sql(f"CREATE TABLE items (n integer NOT NULL, embedding real[], {columns})")
    if kind == "partitioned":
        db.sql("CREATE TABLE items_1 PARTITION OF items FOR VALUES FROM (0) TO (100)")
    items = Items.of(db, payload="n, picky(n) AS share")
    items.mirror()
    db.sql(f"INSERT INTO items VALUES (0, '{{1,2,3,4}}', {values})")
    assert wait_until(items.dead_letters, what=lambda: f"a dead letter: {items.row()}") == {
        text: "division by zero"}
    db.sql("CREATE OR REPLACE FUNCTION picky(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 7'")
    assert db.one("SELECT qdrant_retry('items', ARRAY[%s])", (text + " ",)) == 0
    assert db.one("SELECT qdrant_retry('items', ARRAY[%s])", (text,)) == 1
    wait_until(lambda: items.dead_letters() == {}, what="no dead letters")
    point, = items.points().values()
    assert point.payload["share"] == 7


def test_retry_is_the_owners(db, cluster):
    role = f"stranger_{db.name}"
    mine = Items(db, "mine", rows=3)
    db.sql(f"CREATE ROLE {role} LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO {role}; "
           f"GRANT USAGE ON FOREIGN SERVER qdrant TO {role}; GRANT ALL ON mine TO {role}")
    conn = db.connect(user=role)
    conn.execute("CREATE TABLE theirs (id bigint PRIMARY KEY, title text, n integer DEFAULT 0, embedding real[])")
    theirs = Items.of(db, "theirs")
    theirs.mirror(conn=conn)
    for table in ("mine", "theirs"):
        db.sql(f"INSERT INTO {table} VALUES (50, 'bad', 0, '{{NaN,1,1,1}}')")
    for items in (mine, theirs):
        wait_until(items.dead_letters, what="a dead letter")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="mine"):
        conn.execute("SELECT qdrant_retry('mine')")
    assert conn.execute("SELECT qdrant_retry()").fetchone()[0] == 1
    assert db.one("SELECT qdrant_retry()") == 2
    # Those of theirs are asked for twice, and may be read once for both.
    wait_until(lambda: db.one("SELECT min(tries) FROM qdrant_dead_letters") == 2 and
               db.one("SELECT tries FROM qdrant_dead_letters WHERE source = 'mine'::regclass") == 2,
               what=lambda: f"tries: {db.sql('TABLE qdrant_dead_letters')}")
    for statement, error in (("SELECT qdrant_retry('pg_class')", "42704|42501"), ("SELECT qdrant_retry('items')", "42P01"),
                             ("BEGIN READ ONLY; SELECT qdrant_retry()", "25006")):
        with pytest.raises(psycopg.Error) as caught:
            db.connect().execute(statement)
        assert re.fullmatch(error, caught.value.sqlstate), caught.value


def test_retry_that_is_prepared_is_sent_after_commit_prepared(cluster, front, pgversion):
    from harness import Cluster
    with Cluster(pgversion, conf={"max_prepared_transactions": 3}) as own:
        db = new_extension_db(own, front)
        items = Items(db, rows=3)
        db.sql(BAD, (50,))
        wait_until(items.dead_letters, what="a dead letter")
        db.sql("BEGIN; SELECT qdrant_retry('items'); PREPARE TRANSACTION 'later'")
        assert items.wait() is True
        assert db.one("SELECT tries FROM qdrant_dead_letters") == 1
        db.sql("COMMIT PREPARED 'later'")
        wait_until(lambda: db.one("SELECT tries FROM qdrant_dead_letters") == 2, what="a second try")
        items.unmirror(drop_collection=True)
