"""The outcome, from outside: a table read by psycopg and a collection read by the official client, point by point."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from psycopg import sql

from .wait import wait_until


@dataclass
class Point:
    id: str
    vector: Any = None  # a list of floats, None, or {name: list}
    payload: dict = field(default_factory=dict)


def table_points(conn, table, key="id", vector="embedding", payload=(), where="true"):
    """What the table says its points are: {id as text: Point}.

    `vector` and the values of a dict `payload` are SQL expressions over the row; names in a sequence are columns.
    `vector` may be a dict of named ones. `table`, `key` and `where` are SQL, too (quote them if they need it).
    """
    columns = payload if isinstance(payload, dict) else {name: f'"{name}"' for name in payload}
    vectors = vector if isinstance(vector, dict) else {"": vector}
    exprs = [f"({key})::text"]
    exprs += [f"({expr})::real[]" for expr in vectors.values()]
    exprs += [f"to_jsonb({expr})" for expr in columns.values()]
    points = {}
    with conn.cursor() as cursor:
        cursor.execute(sql.SQL(f"SELECT {', '.join(exprs)} FROM {table} WHERE {where}"))
        for row in cursor:
            named = dict(zip(vectors, row[1:1 + len(vectors)]))
            points[row[0]] = Point(
                id=row[0],
                vector=named if isinstance(vector, dict) else named[""],
                payload=dict(zip(columns, row[1 + len(vectors):])))
    return points


def collection_points(front, collection):
    """What the collection holds, in the same shape. `front` is a FrontHandle or a url."""
    client = front.client if hasattr(front, "client") else make_client(front)
    points, offset = {}, None
    while True:
        page, offset = client.scroll(collection, limit=1000, offset=offset, with_payload=True, with_vectors=True)
        for record in page:
            vector = record.vector
            points[str(record.id)] = Point(str(record.id), vector or None, record.payload or {})
        if offset is None:
            return points


def make_client(url, api_key=None):
    from qdrant_client import QdrantClient
    return QdrantClient(url=url, api_key=api_key, prefer_grpc=False, check_compatibility=False, timeout=30)


def compare_points(table_side, collection_side, distance="Cosine", tolerance=1e-5):
    """Every difference, one readable line each. A null in the payload and an absent key are the same."""
    differences = []
    for point_id in table_side.keys() - collection_side.keys():
        differences.append(f"{point_id}: in the table, not in the collection")
    for point_id in collection_side.keys() - table_side.keys():
        differences.append(f"{point_id}: in the collection, not in the table")
    for point_id in table_side.keys() & collection_side.keys():
        ours, theirs = table_side[point_id], collection_side[point_id]
        differences += [f"{point_id}: {text}" for text in (
            *vector_differences(ours.vector, theirs.vector, distance, tolerance),
            *payload_differences(ours.payload, theirs.payload))]
    return sorted(differences, key=natural)


def natural(line):
    head = line.partition(":")[0]
    return (0, int(head), line) if head.isdigit() else (1, 0, line)


def vector_differences(ours, theirs, distance, tolerance, name="vector"):
    if isinstance(ours, dict):
        theirs = theirs if isinstance(theirs, dict) else {}
        for key in sorted(ours.keys() | theirs.keys()):
            yield from vector_differences(ours.get(key), theirs.get(key), distance, tolerance, f"vector {key}")
        return
    if ours is None or theirs is None:
        if ours is not theirs:
            yield f"{name}: {short(ours)} in the table, {short(theirs)} in the collection"
        return
    a, b = np.asarray(ours, dtype=np.float32), np.asarray(theirs, dtype=np.float32)
    if a.shape != b.shape:
        yield f"{name}: of shape {a.shape} in the table, {b.shape} in the collection"
        return
    if distance == "Cosine":
        # Qdrant keeps the normalised vector, and a zero one as it is.
        norm = np.linalg.norm(a, axis=-1, keepdims=True)
        a = a / np.where(norm > 0, norm, 1)
        equal = np.allclose(a, b, rtol=0, atol=tolerance)
    else:
        equal = np.array_equal(a, b)
    if not equal:
        yield f"{name}: {short(a.tolist())} in the table, {short(b.tolist())} in the collection"


def payload_differences(ours, theirs):
    for key in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(key), theirs.get(key)
        if not same_json(a, b):
            yield f"payload {key}: {short(a)} in the table, {short(b)} in the collection"


def same_json(a, b):
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_json, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_json(a[k], b[k]) for k in a)
    return a == b


def short(value, limit=100):
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


def assert_converged(db, table, front, collection, key="id", vector="embedding", payload=(), distance="Cosine",
                     where="true", timeout=30, tolerance=1e-5):
    """Waits until the collection holds exactly the table's rows, else fails with the first differences."""
    conn = getattr(db, "conn", db)
    state = {}

    def equal():
        # The table first: while others write, a later row must not look like a surplus for ever.
        ours = table_points(conn, table, key, vector, payload, where)
        try:
            if front.client.count(collection, exact=True).count != len(ours) and not state.get("last"):
                return False
            theirs = collection_points(front, collection)
        except Exception as e:  # noqa: BLE001 - the collection may not be there yet
            state["differences"] = [f"collection {collection}: {e}"]
            return False
        state["differences"] = compare_points(ours, theirs, distance, tolerance)
        state["points"] = len(ours)
        return not state["differences"]

    try:
        wait_until(equal, timeout, f"{table} and {collection} equal", interval=0.1)
    except TimeoutError:
        state["last"] = True
        if not equal():
            found = state["differences"]
            more = [f"… and {len(found) - 10} more"] if len(found) > 10 else []
            raise AssertionError("\n".join([
                f"table {table} and collection {collection} differ in {len(found)} places after {timeout} s:",
                *found[:10], *more])) from None
    return state["points"]
