"""Rows of qdrant_search against the official client's points: the same ones with the same scores, without those that are gone."""

import json
import os
import random
import uuid

import psycopg
import pytest
from psycopg.types.json import Jsonb
from qdrant_client import models

from items import Items

pytestmark = pytest.mark.versions

ROWS, K, SKIP = 240, 7, 4

RNG = random.Random(20261126)


def vector(size):
    return [round(RNG.gauss(0, 1), 3) for _ in range(size)]


NEAR, FAR = vector(6), vector(4)

# Each point's score says nothing of the others: without some of them, the rest is as it was.
SINGLE = {
    "vector": {"query": NEAR, "using": "near"},
    "vector, the other": {"query": FAR, "using": "far"},
    "nearest": {"query": {"nearest": NEAR}, "using": "near"},
    "id": {"query": 17, "using": "near"},
    "id, the other vector": {"query": 17, "using": "far"},
    "recommend, average": {"query": {"recommend": {"positive": [17, NEAR], "negative": [30]}}, "using": "near"},
    "recommend, best score": {"query": {"recommend": {"positive": [17, 18], "negative": [30], "strategy": "best_score"}},
                              "using": "near"},
    "recommend, sum": {"query": {"recommend": {"positive": [17, NEAR], "strategy": "sum_scores"}}, "using": "near"},
    "discover": {"query": {"discover": {"target": NEAR, "context": [{"positive": 17, "negative": 30}]}}, "using": "near"},
    "context": {"query": {"context": [{"positive": FAR, "negative": 30}]}, "using": "far"},
    "relevance feedback": {"query": {"relevance_feedback": {
        "target": NEAR, "feedback": [{"example": 17, "score": 0.9}, {"example": 30, "score": 0.1}],
        "strategy": {"naive": {"a": 1.0, "b": 1.0, "c": 1.0}}}}, "using": "near"},
    "order by": {"query": {"order_by": {"key": "n", "direction": "desc"}}},
    "order by, from": {"query": {"order_by": {"key": "n", "start_from": 100}}},
    "filter": {"query": NEAR, "using": "near", "filter": {"must": [{"key": "kind", "match": {"any": ["a", "b"]}}]}},
    "threshold": {"query": NEAR, "using": "near", "score_threshold": 0.1},
    "formula": {"query": {"formula": {"sum": ["$score", {"mult": [0.01, "n"]}]}},
                "prefetch": [{"query": NEAR, "using": "near", "limit": 1000}]},
    "second stage": {"query": FAR, "using": "far", "prefetch": [{"query": NEAR, "using": "near", "limit": 1000}]},
}

# What takes part changes how the others are ranked.
TOGETHER = {
    "rrf": {"query": {"fusion": "rrf"}, "prefetch": [{"query": NEAR, "using": "near", "limit": 40},
                                                      {"query": FAR, "using": "far", "limit": 40}]},
    "rrf, k": {"query": {"rrf": {"k": 3}}, "prefetch": [{"query": NEAR, "using": "near", "limit": 40},
                                                         {"query": FAR, "using": "far", "limit": 40}]},
    "dbsf": {"query": {"fusion": "dbsf"}, "prefetch": [{"query": NEAR, "using": "near", "limit": 40},
                                                        {"query": FAR, "using": "far", "limit": 40}]},
    "formula, few": {"query": {"formula": {"sum": ["$score", {"mult": [0.01, "n"]}]}},
                     "prefetch": [{"query": NEAR, "using": "near", "limit": 15}]},
    "second stage, few": {"query": FAR, "using": "far", "prefetch": [{"query": NEAR, "using": "near", "limit": 15}]},
    "fusion of stages": {"query": {"fusion": "rrf"}, "prefetch": [
        {"query": FAR, "using": "far", "limit": 20, "prefetch": [{"query": NEAR, "using": "near", "limit": 25}]},
        {"query": {"order_by": {"key": "n"}}, "limit": 20}]},
    "mmr": {"query": {"nearest": NEAR, "mmr": {"diversity": 0.6}}, "using": "near"},
    "mmr of many": {"query": {"nearest": NEAR, "mmr": {"diversity": 0.6, "candidates_limit": 60}}, "using": "near"},
}

ARGUMENTS = {"query": "query", "using": "vector_name", "prefetch": "prefetch", "filter": "filter",
             "score_threshold": "score_threshold"}
CASTS = {"score_threshold": "::real"}


def searched(conn, body, k=K, skip=SKIP):
    """Ids, scores and ranks of qdrant_search."""
    texts = [f"{ARGUMENTS[key]} => %s{CASTS.get(key, '')}" for key in body]
    values = [Jsonb(value) if isinstance(value, (dict, list)) else value for value in body.values()]
    return conn.execute(f"SELECT (hit).id, score, rank FROM qdrant_search(NULL::things, k => {k}, skip => {skip}, "
                        f"{', '.join(texts)}) ORDER BY rank", values).fetchall()


def asked(items, body, limit, without=()):
    """Ids and scores that the official client gets where those points are left out."""
    body = {**body, "limit": limit}
    if without:
        must = {"must": [body["filter"]]} if "filter" in body else {}
        body["filter"] = {**must, "must_not": [{"has_id": sorted(without)}]}
    request = models.QueryRequest.model_validate(body)
    points = items.db.front.client.query_batch_points(items.collection, [request])[0].points
    return [(point.id, point.score) for point in points]


def assert_same(got, expected, skip=SKIP):
    """In that order with those scores; where scores are the same, in any order."""
    expected = expected[:skip + K]
    assert [row[2] for row in got] == list(range(skip + 1, skip + len(got) + 1))
    assert [row[1] or 0 for row in got] == pytest.approx([score or 0 for _, score in expected[skip:]], rel=1e-4, abs=1e-5)
    if len({score for _, score in expected}) == len(expected):
        assert [row[0] for row in got] == [id for id, _ in expected[skip:]]


@pytest.fixture
def items(db):
    """Two vectors, fields, and a row filter."""
    db.sql("CREATE TABLE things (id int PRIMARY KEY, n int, kind text, archived boolean NOT NULL DEFAULT false, "
           "near real[], far real[])")
    rng = random.Random(7)
    numbers = rng.sample(range(1000), ROWS)
    with db.conn.cursor() as cursor, cursor.copy("COPY things (id, n, kind, near, far) FROM STDIN") as copy:
        for i in range(1, ROWS + 1):
            copy.write_row((i, numbers[i - 1], "abc"[i % 3], [rng.gauss(0, 1) for _ in range(6)],
                            [rng.gauss(0, 1) for _ in range(4)]))
    items = Items.of(db, "things", vector="near, far", indexes="n integer", row_filter="NOT archived")
    items.mirror()
    items.wait_state("live")
    assert items.wait()
    items.pause()
    return items


def lose(items, body, rng):
    """Of the points that come first, many are gone from the table or its filter; Qdrant does not know. Their ids."""
    first = [id for id, _ in asked(items, body, ROWS)]
    spared = {17, 18, 30}
    gone = {id for id in first[:40] if rng.random() < 0.6} | {id for id in first if rng.random() < 0.1}
    gone -= spared
    deleted = {id for id in gone if rng.random() < 0.5}
    items.db.sql("DELETE FROM things WHERE id = ANY(%s)", (list(deleted),))
    items.db.sql("UPDATE things SET archived = true WHERE id = ANY(%s)", (list(gone - deleted),))
    return gone


@pytest.mark.parametrize("name", SINGLE)
def test_rows_are_the_clients_points_without_those_that_are_gone(items, rng, name):
    body = SINGLE[name]
    gone = lose(items, body, rng)
    everything = [(id, score) for id, score in asked(items, body, ROWS) if id not in gone]
    assert_same(searched(items.db.conn, body), everything)
    assert_same(searched(items.db.conn, body, skip=0), everything, skip=0)


@pytest.mark.parametrize("name", [name for name in SINGLE if "prefetch" not in SINGLE[name]])
def test_rows_are_the_clients_points_without_those_that_a_policy_hides(items, rng, name):
    """Hidden, deleted and archived ones; ranks count what the reader sees."""
    body = SINGLE[name]
    reader = f"reader_{uuid.uuid4().hex[:8]}"
    items.db.sql(f"CREATE ROLE {reader}; GRANT USAGE ON FOREIGN SERVER qdrant TO {reader}; GRANT SELECT ON things TO {reader}; "
                 "ALTER TABLE things ENABLE ROW LEVEL SECURITY; CREATE POLICY seen ON things USING (n % 3 > 0 OR id IN (17, 18, 30))")
    try:
        lose(items, body, rng)
        with items.db.connect() as conn:
            conn.execute(f"SET ROLE {reader}")
            seen = {row[0] for row in conn.execute("SELECT id FROM things WHERE NOT archived")}
            everything = [(id, score) for id, score in asked(items, body, ROWS) if id in seen]
            assert_same(searched(conn, body), everything)
            assert_same(searched(conn, body, skip=0), everything, skip=0)
    finally:
        items.db.sql(f"DROP OWNED BY {reader}; DROP ROLE {reader}")


@pytest.mark.parametrize("name", TOGETHER)
def test_rows_ranked_by_one_another_are_one_answer_of_as_many_points(items, rng, name):
    """The last of the search's questions is for k + skip points, and all of its answer have rows."""
    body = TOGETHER[name]
    gone = lose(items, body, rng)
    watched = not os.environ.get("QDRANT_URL")
    for skip in (SKIP, 0):
        if watched:
            items.db.front.faults.configure(bodies=100_000)
            items.db.front.faults.clear_log()
        got = searched(items.db.conn, body, skip=skip)
        assert len({id for id, _, _ in got}) == K and not gone & {id for id, _, _ in got}
        if watched:
            log = items.db.front.faults.log(path_regex="/points/query$")
            last = json.loads(log[-1]["body"])
            assert last["limit"] == skip + K and len(log) > 1
            condition, = last["filter"]["must_not"]
            assert gone >= set(condition["has_id"])
            # Points with the same score come in any order, each time.
            answer = asked(items, body, skip + K, condition["has_id"])
            assert_same(got, answer, skip=skip)
        if not name.startswith("mmr"):
            assert [score for _, score, _ in got] == sorted((score for _, score, _ in got), reverse=True)


def test_a_sample_is_of_rows_that_are_there(items, rng):
    """Any k of them, each once; all where fewer are left."""
    body = {"query": {"sample": "random"}}
    lose(items, body, rng)
    for skip in (0, SKIP):
        got = searched(items.db.conn, body, skip=skip)
        assert [rank for _, _, rank in got] == list(range(skip + 1, skip + K + 1))
        assert len({id for id, _, _ in got}) == K
        assert items.db.one("SELECT count(*) FROM things WHERE NOT archived AND id = ANY(%s)", ([id for id, _, _ in got],)) == K
    items.db.sql("UPDATE things SET archived = true WHERE id > 5")
    left = {row[0] for row in items.db.sql("SELECT id FROM things WHERE NOT archived")}
    got = searched(items.db.conn, body, skip=0)
    assert len(got) == len(left) and {id for id, _, _ in got} == left


def test_rows_that_have_left_the_row_filter_are_no_rows_of_a_search(items):
    """Judged by the statement's snapshot, as the table's owner; and back at once."""
    db = items.db
    body = {"query": NEAR, "using": "near"}
    first = [id for id, _, _ in searched(db.conn, body, skip=0)]
    other = db.connect()
    with db.conn.transaction():
        db.sql("UPDATE things SET archived = true WHERE id = ANY(%s)", (first[:3],))
        assert [id for id, _, _ in searched(db.conn, body, skip=0)][:4] == first[3:]
        assert [id for id, _, _ in searched(other, body, skip=0)] == first
    assert [id for id, _, _ in searched(other, body, skip=0)][:4] == first[3:]
    db.sql("UPDATE things SET archived = false")
    assert [id for id, _, _ in searched(other, body, skip=0)] == first
    other.close()


def test_the_row_filter_is_evaluated_as_the_owner(db):
    """With the owner's right to its function and a pinned search_path, whoever searches."""
    owner, reader = (f"{name}_{uuid.uuid4().hex[:8]}" for name in ("owner", "reader"))
    db.sql(f"CREATE ROLE {owner}; CREATE ROLE {reader}; GRANT CREATE, USAGE ON SCHEMA public TO {owner}; "
           f"GRANT USAGE ON FOREIGN SERVER qdrant TO {owner}, {reader}")
    try:
        db.sql(f"SET ROLE {owner}")
        db.sql("CREATE TABLE things (id int PRIMARY KEY, title text, embedding real[])")
        db.sql("CREATE FUNCTION wanted(title text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS "
               "$$ BEGIN IF title = 'who' THEN RAISE 'as %', current_user; END IF; RETURN lower(title) <> 'no'; END $$; "
               "REVOKE EXECUTE ON FUNCTION wanted FROM PUBLIC")
        db.sql("INSERT INTO things SELECT i, 'yes', ARRAY[cos(i), sin(i), 0, 1] FROM generate_series(1, 5) i")
        items = Items.of(db, "things", row_filter="wanted(title)")
        items.mirror()
        items.wait_state("live")
        assert items.wait()
        items.pause()
        db.sql(f"GRANT SELECT ON things TO {reader}; UPDATE things SET title = 'NO' WHERE id = 2; RESET ROLE; "
               f"GRANT CREATE ON SCHEMA public TO {reader}; SET ROLE {reader}")
        # A lower() of the reader's, before pg_catalog's in the search_path, is not called.
        db.sql("CREATE FUNCTION public.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'no' $$; "
               "SET search_path = public, pg_catalog")
        for role in (reader, owner, "NONE"):
            db.sql(f"SET ROLE {role}")
            found = db.sql("SELECT (hit).id FROM qdrant_search(NULL::things, '[1, 0, 0, 0]')")
            assert sorted(found) == [(1,), (3,), (4,), (5,)], role
        db.sql("SET ROLE NONE; UPDATE things SET title = 'who' WHERE id = 3")
        with pytest.raises(psycopg.errors.RaiseException, match=f"as {owner}"):
            db.sql("SELECT (hit).id FROM qdrant_search(NULL::things, '[1, 0, 0, 0]')")
        assert db.one("SELECT current_user") != owner
    finally:
        db.sql("RESET ROLE; RESET search_path")
        db.sql(f"DROP OWNED BY {owner} CASCADE; DROP OWNED BY {reader} CASCADE; DROP ROLE {owner}; DROP ROLE {reader}")
