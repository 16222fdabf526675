"""The routes from before points/query (search, recommend, discover), as the queries that they are.

Each takes the body of the old route and returns the body of points/query or points/query/groups.
"""

from __future__ import annotations

from typing import Any

from .errors import QdrantError, bad_format

COMMON = ("limit", "offset", "filter", "params", "with_payload", "with_vector", "with_vectors", "score_threshold",
          "shard_key", "using", "lookup_from", "group_by", "group_size", "with_lookup")


def _rest(parsed: Any) -> dict:
    if not isinstance(parsed, dict):
        raise bad_format("expected an object")
    rest = {key: value for key, value in parsed.items() if key in COMMON}
    if "top" in parsed:
        rest.setdefault("limit", parsed["top"])
    for name in ("limit", "group_size") if "group_by" in rest else ("limit",):
        if name not in rest:
            raise bad_format(f"missing field `{name}`")
    return rest


def search(parsed: Any) -> dict:
    body = _rest(parsed)
    vector = parsed.get("vector")
    if vector is None:
        raise bad_format("missing field `vector`")
    if isinstance(vector, dict):
        body["using"] = vector.get("name")
        vector = vector.get("vector")
    return {**body, "query": vector}


def recommend(parsed: Any) -> dict:
    body = _rest(parsed)
    given = {key: parsed[key] for key in ("positive", "negative", "strategy") if parsed.get(key) is not None}
    if not given.get("positive") and (not given.get("negative") or given.get("strategy", "average_vector") == "average_vector"):
        raise QdrantError(400, "Bad request: At least one positive vector ID required with this strategy")
    return {**body, "query": {"recommend": given}}


def discover(parsed: Any) -> dict:
    body = _rest(parsed)
    target, context = parsed.get("target"), parsed.get("context")
    if target is None and not context:
        raise QdrantError(400, "Bad request: target and/or context_pairs must be specified")
    if target is None:
        return {**body, "query": {"context": context}}
    return {**body, "query": {"discover": {"target": target, "context": context or []}}}


AS_QUERY = {"search": search, "recommend": recommend, "discover": discover}
