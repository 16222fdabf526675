"""The tutorial that this project starts from, as a user types it (psql) and as the official client sees it."""

import pytest

ID = "5c56c793-69f3-4fbf-87e6-c4bf54c28c26"

TUTORIAL = f"""
    SELECT qdrant_create_collection('my_collection', vectors_config => '{{"size": 4, "distance": "Cosine"}}');
    SELECT qdrant_upsert('my_collection', points => '[
        {{"id": "{ID}", "payload": {{"color": "red"}}, "vector": [0.9, 0.1, 0.1, 0.5]}}]');
    SELECT qdrant_wait('10s');
    SELECT id, payload->>'color', round(score::numeric, 3)
      FROM qdrant_query_points('my_collection', query => '[0.9, 0.1, 0.1, 0.5]', "limit" => 2);
"""


@pytest.fixture(autouse=True)
def no_collection_of_that_name(front):
    """The name is the tutorial's: on a server that others use, too, it may be there."""
    front.client.delete_collection("my_collection")


@pytest.mark.versions
def test_tutorial(db, front):
    assert db.psql(TUTORIAL).splitlines() == ["t", "", "t", f"{ID}|red|1.000"]
    config = front.client.get_collection("my_collection").config.params.vectors
    assert (config.size, config.distance) == (4, "Cosine")
    point, = front.client.retrieve("my_collection", [ID], with_vectors=True)
    assert point.payload == {"color": "red"} and len(point.vector) == 4
    # The same search by the client the tutorial is written for.
    hit, = front.client.query_points("my_collection", query=[0.9, 0.1, 0.1, 0.5], limit=2).points
    assert str(hit.id) == ID and round(hit.score, 3) == 1.0


def test_tutorial_in_one_transaction_sends_the_point_after_it(db, front):
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT qdrant_create_collection('my_collection', '{\"size\": 4, \"distance\": \"Cosine\"}')")
        conn.execute("SELECT qdrant_upsert('my_collection', jsonb_build_array(qdrant_point(%s::uuid, "
                     "ARRAY[0.9, 0.1, 0.1, 0.5], '{\"color\": \"red\"}')))", (ID,))
        assert front.client.count("my_collection", exact=True).count == 0
        conn.commit()
    assert db.one("SELECT qdrant_wait('10s')") is True
    assert db.sql("SELECT id FROM qdrant_query_points('my_collection', ARRAY[0.9, 0.1, 0.1, 0.5])") == [(ID,)]


def test_tutorial_from_python_with_the_drivers_own_types(db):
    """A list of floats is float8[], a uuid is a uuid."""
    import json
    import uuid
    db.sql("SELECT qdrant_create_collection(%s, %s)", ("my_collection", json.dumps({"size": 4, "distance": "Cosine"})))
    db.sql("SELECT qdrant_upsert('my_collection', jsonb_build_array(qdrant_point(%s, %s, %s)))",
           (uuid.UUID(ID), [0.9, 0.1, 0.1, 0.5], json.dumps({"color": "red"})))
    assert db.one("SELECT qdrant_wait('10s')") is True
    assert db.sql("SELECT id, payload FROM qdrant_query_points('my_collection', %s, \"limit\" => %s)",
                  ([0.9, 0.1, 0.1, 0.5], 2)) == [(ID, {"color": "red"})]
