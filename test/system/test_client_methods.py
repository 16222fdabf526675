"""Each method of the official AsyncQdrantClient is a function here, with its argument names and defaults, or is said not to be."""

import inspect
import re
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

PAGE = (Path(__file__).resolve().parents[2] / "doc" / "client.md").read_text()
COROUTINES = sorted(name for name in dir(AsyncQdrantClient)
                    if not name.startswith("_") and inspect.iscoroutinefunction(getattr(AsyncQdrantClient, name)))

BY_REQUEST = "reachable by qdrant_request(method, path, query, body)"
EXCEPTIONS = {
    **dict.fromkeys([
        "cluster_collection_update", "cluster_status", "cluster_telemetry", "collection_cluster_info",
        "recover_current_peer", "remove_peer", "create_shard_key", "delete_shard_key", "list_shard_keys",
        "create_snapshot", "delete_snapshot", "list_snapshots", "recover_snapshot", "create_full_snapshot",
        "delete_full_snapshot", "list_full_snapshots", "create_shard_snapshot", "delete_shard_snapshot",
        "list_shard_snapshots", "recover_shard_snapshot", "get_optimizations"], BY_REQUEST),
    "close": "connections are the request worker's, which keeps and closes them",
    **dict.fromkeys(["list_image_models", "list_late_interaction_multimodal_models",
                     "list_late_interaction_text_models", "list_sparse_models", "list_text_models"],
                    "lists models of the Python package fastembed; no request to Qdrant"),
}

# Queued writes are sent after COMMIT, in order, one request at a time for each collection.
QUEUED = {"wait": "nothing is sent before COMMIT; qdrant_wait waits",
          "ordering": "a collection gets one request at a time",
          "timeout": "nothing is waited for"}
WRITES = ["batch_update_points", "clear_payload", "delete", "delete_payload", "delete_vectors", "overwrite_payload",
          "set_payload", "update_vectors", "upsert"]
ABSENT = {name: QUEUED for name in WRITES}

# A query that is NULL, such as a row's missing embedding, has no rows; so it has no default.
OTHER_DEFAULT = {("query_points", "query"), ("query_points_groups", "query")}


@pytest.fixture(scope="module")
def functions(cluster):
    """{name: [{argument: default}]} of the public functions; a default is SQL text, or None where there is none."""
    cluster.createdb("methods")
    with cluster.connect("methods", autocommit=True) as conn:
        conn.execute("CREATE EXTENSION qdrant_sync")
        rows = conn.execute("""
            SELECT p.proname, a.name, pg_get_function_arg_default(p.oid, a.position::int)
              FROM pg_proc p, unnest(p.proargnames) WITH ORDINALITY AS a (name, position)
             WHERE p.pronamespace = 'public'::regnamespace AND p.proname LIKE 'qdrant\\_%'
               AND a.position <= p.pronargs ORDER BY p.oid, a.position""").fetchall()
        found = {}
        for function, argument, default in rows:
            found.setdefault(function, {})[argument] = default
        yield found
    cluster.dropdb("methods")


def sql_default(value):
    if value is inspect.Parameter.empty:
        return None
    return "NULL" if value is None else str(value).lower()


def without_type(default):
    return default if default is None else default.split("::")[0]


@pytest.mark.versions
@pytest.mark.parametrize("name", COROUTINES)
def test_method_is_a_function_with_its_arguments_and_defaults(functions, name):
    if name in EXCEPTIONS:
        assert f"qdrant_{name}" not in functions, "the exception is none any more"
        return
    assert f"qdrant_{name}" in functions, f"{name} has neither a function nor a reason"
    ours = functions[f"qdrant_{name}"]
    absent = ABSENT.get(name, {})
    theirs = {p.name: p.default for p in inspect.signature(getattr(AsyncQdrantClient, name)).parameters.values()
              if p.name != "self" and p.kind is not inspect.Parameter.VAR_KEYWORD}
    assert set(theirs) - set(ours) == set(absent) & set(theirs), "arguments that are not here"
    assert set(ours) - set(theirs) <= {"server", "timeout", "payload_fields", "vector_names"}
    common = [argument for argument in theirs if argument in ours]
    assert [argument for argument in ours if argument in theirs] == common, "their order"
    for argument in common:
        if (name, argument) not in OTHER_DEFAULT:
            assert without_type(ours[argument]) == sql_default(theirs[argument]), argument


def test_every_exception_is_a_method():
    assert set(EXCEPTIONS) | set(ABSENT) <= set(COROUTINES)


@pytest.mark.parametrize("name", [*COROUTINES, "upload_points", "upload_collection", "migrate"])
def test_method_is_in_the_documentation(name):
    assert re.search(rf"`{name}[`(]", PAGE)


def test_page_names_no_function_that_is_not_there(functions):
    assert set(re.findall(r"qdrant_\w+(?=\()", PAGE)) <= set(functions)
