"""The main job on every version of PostgreSQL that is set up, and pgvector's type where it is there."""

import pytest

from harness import Cluster, assert_converged, new_extension_db, table_points, wait_until
from items import PAYLOAD, VECTOR, Items, WriteLoad, end_worker

pytestmark = pytest.mark.versions


def test_main_job(db, cluster):
    """Filled, written to in every way, crashed in the middle, searched."""
    items = Items(db, rows=500)
    with db.conn.cursor().copy("COPY items (id, title, embedding) FROM STDIN") as copy:
        for i in range(2000, 2100):
            copy.write_row((i, f"copied {i}", [float(i), 1.0, 0.0, 2.0]))
    items.insert(999)
    with WriteLoad(db, sessions=2) as load:
        load.wait_more(100)
        cluster.kill9()
        cluster.start()
        load.wait_more(50)
        end_worker(cluster, db)
        load.wait_more(50)
    items.converged(60)
    assert items.dead_letters() == {}
    rows = db.sql("SELECT (hit).id, (hit).title, score, rank FROM qdrant_search(NULL::items, 7, k => 3)")
    assert len(rows) == 3 and [row[3] for row in rows] == [1, 2, 3] and 7 not in [row[0] for row in rows]
    db.sql("TRUNCATE items")
    items.insert(1, 3)
    assert items.converged() == 3
    assert items.wait() is True
    items.unmirror(drop_collection=True)


def test_merge_and_returning(db):
    if db.conn.info.server_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")
    items = Items(db, rows=30)
    db.sql(f"""MERGE INTO items USING (SELECT i FROM generate_series(20, 50) i) s ON items.id = s.i
        WHEN MATCHED AND s.i % 2 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET n = n + 1
        WHEN NOT MATCHED THEN INSERT VALUES (s.i, 'merged', 0, {VECTOR.format('s.i')})""")
    items.converged()


def test_standby_is_promoted(front, pgversion):
    with Cluster(pgversion) as primary:
        db = new_extension_db(primary, front)
        items = Items(db, rows=50)
        standby = primary.standby()
        items.insert(100, 120)
        primary.wait_replayed(standby)
        primary.kill9()
        standby.promote()
        after = type(db)(standby, front, db.name)
        # Asked for, so that it does not watch first whether the old primary still lives.
        after.sql("SELECT qdrant_resume('items', take_over => true)")
        after.sql("DELETE FROM items WHERE id < 10")
        assert assert_converged(after, "items", front, items.collection, payload=PAYLOAD, timeout=60) == 62


def test_views_and_dump(db, cluster):
    Items(db, rows=5)
    for view in ("qdrant_mirrors", "qdrant_backfills", "qdrant_workers", "qdrant_requests", "qdrant_request_usage",
                 "qdrant_dead_letters"):
        db.sql(f"SELECT * FROM {view}")
    dump = cluster.dump(db.name)
    assert "CREATE EXTENSION" in dump and "qdrant_internal.capture" in dump
    assert "CREATE MATERIALIZED VIEW" not in dump and "INSERT INTO qdrant_internal" not in dump
    db.sql("SELECT qdrant_unmirror('items'); DROP EXTENSION qdrant_sync CASCADE")
    assert db.one("SELECT count(*) FROM pg_class WHERE relname LIKE 'segment%' OR relname LIKE 'operations%'") == 0


# --- pgvector ---

@pytest.fixture
def vectors(cluster, front):
    cluster.ensure_running()
    front.clear()
    db = new_extension_db(cluster, front, extensions=("vector",))
    yield db
    cluster.ensure_running()
    db.drop()


@pytest.mark.pgvector
def test_vector_of_pgvector(vectors, cluster, front):
    db = vectors
    db.sql("CREATE TABLE docs (id bigint PRIMARY KEY, title text, embedding vector(4))")
    docs = Items.of(db, "docs")
    # The type says the dimension: an empty table has its collection at once.
    docs.mirror()
    docs.wait_state("live")
    assert front.client.get_collection(docs.collection).config.params.vectors.size == 4
    db.sql(f"INSERT INTO docs SELECT i, 'doc ' || i, {VECTOR.format('i')}::vector FROM generate_series(1, 500) i")
    db.sql("UPDATE docs SET embedding = '[9,8,7,6]' WHERE id % 50 = 0")
    db.sql("DELETE FROM docs WHERE id % 7 = 0")
    docs.converged(vector="embedding::real[]", payload=("id", "title"))
    nearest = db.sql("SELECT (hit).id FROM qdrant_search(NULL::docs, '[9,8,7,6]'::vector, k => 5)")
    expected = db.sql("SELECT id FROM docs ORDER BY embedding <=> '[9,8,7,6]' LIMIT 5")
    assert {row[0] for row in nearest} <= {row[0] for row in db.sql("SELECT id FROM docs WHERE id % 50 = 0")}
    assert len(nearest) == len(expected) == 5
    assert db.sql("SELECT id FROM qdrant_query(%s, (SELECT embedding FROM docs WHERE id = 50), 1)",
                  (docs.collection,))


@pytest.mark.pgvector
def test_vector_of_pgvector_without_a_dimension(vectors, front):
    db = vectors
    db.sql("CREATE TABLE docs (id bigint PRIMARY KEY, embedding vector)")
    docs = Items.of(db, "docs", distance="Euclid")
    docs.mirror()
    docs.wait_state("creating")
    db.sql("INSERT INTO docs VALUES (1, '[1,2,3,4,5]'), (2, '[0.1,1e-30,3.4e38,0,-1]')")
    docs.converged(vector="embedding::real[]", payload=("id",), distance="Euclid")
    db.sql("INSERT INTO docs VALUES (3, '[1,2]')")
    wait_until(lambda: docs.dead_letters().keys() == {"3"}, what="the dead letter of another dimension")


@pytest.mark.pgvector
def test_extension_vector_in_a_schema_of_its_own(cluster, front):
    """The type is found by what it is, not by a search_path."""
    cluster.ensure_running()
    db = new_extension_db(cluster, front)
    try:
        db.sql("CREATE SCHEMA ext; CREATE EXTENSION vector SCHEMA ext")
        db.sql("CREATE TABLE docs (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), embedding ext.vector(3))")
        docs = Items.of(db, "docs")
        db.sql("INSERT INTO docs (embedding) SELECT ARRAY[i, 1, 2]::real[]::ext.vector FROM generate_series(1, 50) i")
        docs.mirror()
        docs.converged(vector="embedding::real[]", payload=("id",))
    finally:
        db.drop()


@pytest.mark.pgvector
def test_halfvec_is_the_only_vector_and_sparsevec_wants_a_name(vectors):
    db = vectors
    db.sql("CREATE TABLE docs (id bigint PRIMARY KEY, embedding halfvec(4))")
    db.sql("INSERT INTO docs VALUES (1, '[1,2,3,4]')")
    docs = Items.of(db, "docs")
    docs.mirror()
    docs.converged(vector="embedding::real[]", payload=("id",))
    db.sql("CREATE TABLE lexical (id bigint PRIMARY KEY, words sparsevec(4))")
    with pytest.raises(Exception, match="sparse vector words has no name") as caught:
        Items.of(db, "lexical").mirror()
    assert caught.value.sqlstate == "22023"


@pytest.mark.pgvector
def test_vector_and_array_in_one_point(vectors):
    db = vectors
    db.sql("CREATE TABLE docs (id integer PRIMARY KEY, a vector(3), b real[], c float8[])")
    db.sql("INSERT INTO docs SELECT i, ARRAY[i,1,0]::vector, ARRAY[i,2], ARRAY[i,3,4,5] FROM generate_series(1, 60) i")
    docs = Items.of(db, "docs", vector="a, b AS second, c AS third", payload="id")
    docs.mirror()
    docs.converged(vector={"a": "a::real[]", "second": "b", "third": "c"}, payload=("id",))
    assert table_points(db.conn, "docs", vector="b").keys() == docs.points().keys()
