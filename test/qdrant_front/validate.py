"""Reads request bodies as strictly as Qdrant does, or more so.

Shapes are checked by the models of the official client (which refuse unknown keys; Qdrant itself
ignores some of those).  What the server checks beyond the shape is checked here: the form of ids,
empty vectors, sparse vectors, limits, names, depth of nesting.
"""

from __future__ import annotations

import math
import re
from typing import Any
from uuid import UUID

import orjson
from pydantic import TypeAdapter, ValidationError
from qdrant_client.http import models

from .errors import QdrantError, bad_format, invalid

MAX_BODY = 32 * 1024 * 1024
MAX_DEPTH = 128
MAX_ID = 2**64 - 1
NAME_MAX = 255
NAME_FORBIDDEN = set('<>:"/\\|?*\0\x1f')

_UUID = re.compile(
    r"(?:urn:uuid:)?([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})"
    r"|([0-9a-fA-F]{32})"
    r"|\{([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})\}"
)

_ADAPTERS: dict[Any, TypeAdapter] = {}


def parse_json(body: bytes) -> Any:
    if not body:
        raise bad_format("EOF while parsing a value at line 1 column 0")
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_format(str(error)) from None
    _check_depth(parsed)
    return parsed


def _check_depth(root: Any) -> None:
    """serde_json stops at 128 levels; lists of numbers are told by their first element."""
    level = [root]
    for _ in range(MAX_DEPTH):
        deeper = []
        for node in level:
            children = node.values() if isinstance(node, dict) else node
            if isinstance(node, list) and node and isinstance(node[0], (int, float)):
                continue
            deeper.extend(child for child in children if isinstance(child, (dict, list)))
        if not deeper:
            return
        level = [node for node in deeper if node]
    raise bad_format("recursion limit exceeded")


def shape(model: Any, parsed: Any, *, quick: bool = False) -> Any:
    """The body as an instance of the client's model, or Qdrant's 400.

    Strict mode, so that "5" is no number; `quick` is for models whose fields are strict themselves.
    """
    adapter = _ADAPTERS.get(model)
    if adapter is None:
        adapter = _ADAPTERS[model] = TypeAdapter(model)
    try:
        if quick:
            return adapter.validate_python(parsed)
        return adapter.validate_json(orjson.dumps(parsed), strict=True)
    except ValidationError as error:
        raise bad_format(_wording(error)) from None


def _wording(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False)
    # Of the variants of a union, the one that got furthest explains best.
    worst = max(problems, key=lambda problem: len(problem["loc"]))
    where = ".".join(str(part) for part in worst["loc"])
    if worst["type"] == "missing":
        return f"missing field `{worst['loc'][-1]}` ({where})"
    if worst["type"] == "extra_forbidden":
        return f"unknown field `{worst['loc'][-1]}` ({where})"
    return f"{worst['msg']} ({where})"


# ---------------------------------------------------------------- ids and names


def point_id(value: Any) -> int | str:
    """An id in its canonical form: an integer, or a lower-case UUID with hyphens."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ID:
        return value
    if isinstance(value, str):
        match = _UUID.fullmatch(value)
        if match:
            return str(UUID(match[1] or match[2] or match[3]))
    shown = orjson.dumps(value, default=str).decode()
    raise bad_format(
        f"value {shown} is not a valid point ID, "
        "valid values are either an unsigned integer or a UUID"
    )


def path_point_id(text: str) -> int | str:
    try:
        return point_id(int(text) if text.isascii() and text.isdigit() else text)
    except QdrantError:
        raise QdrantError(400, f'Wrong input: Can not recognize "{text}" as point id') from None


def collection_name(name: str, *, new: bool = False) -> str:
    if not 1 <= len(name.encode()) <= NAME_MAX:
        raise invalid("name", f"length is {len(name.encode())}, must be from 1 to {NAME_MAX} characters",
                      part="path parameters")
    if new:
        bad = next((char for char in name if char in NAME_FORBIDDEN), None)
        if bad is not None or name in (".", ".."):
            raise invalid("name", f"collection name cannot contain {bad!r}", part="path parameters")
    return name


# ---------------------------------------------------------------- points


def upsert_points(parsed: Any) -> list[tuple[int | str, Any, dict | None]]:
    """The points of an upsert as (id, vector as sent, payload); a repeated id keeps its last form."""
    if not isinstance(parsed, dict):
        raise bad_format("expected an object")
    if "points" in parsed:
        _early_ids(parsed["points"])
        shape(models.PointsList, parsed, quick=True)
        rows = [(p["id"], p["vector"], p.get("payload")) for p in parsed["points"]]
    elif "batch" in parsed:
        shape(models.PointsBatch, parsed, quick=True)
        rows = _batch_rows(parsed["batch"])
    else:
        raise bad_format("data did not match any variant of untagged enum PointInsertOperations")
    last: dict[int | str, tuple] = {}
    for number, (identifier, vector, payload) in enumerate(rows):
        canonical = point_id(identifier)
        check_vector(vector, f"points[{number}].vector")
        last[canonical] = (canonical, vector, payload)
    return list(last.values())


def _early_ids(points: Any) -> None:
    if isinstance(points, list):
        for point in points:
            if isinstance(point, dict) and "id" in point:
                point_id(point["id"])


def _batch_rows(batch: dict) -> list[tuple]:
    ids, vectors, payloads = batch["ids"], batch["vectors"], batch.get("payloads")
    if isinstance(vectors, dict):
        columns = vectors
        if any(len(column) != len(ids) for column in columns.values()):
            raise invalid("batch", "number of ids and vectors must be equal")
        vectors = [{name: column[n] for name, column in columns.items()} for n in range(len(ids))]
    elif len(vectors) != len(ids):
        raise invalid("batch", "number of ids and vectors must be equal")
    if payloads is None:
        payloads = [None] * len(ids)
    elif len(payloads) != len(ids):
        raise invalid("batch", "number of ids and payloads must be equal")
    return list(zip(ids, vectors, payloads))


def is_sparse(vector: Any) -> bool:
    return isinstance(vector, dict) and vector.keys() == {"indices", "values"}


def is_inference(vector: Any) -> bool:
    return isinstance(vector, dict) and isinstance(vector.get("model"), str) and (
        {"text", "image", "object"} & vector.keys() != set())


def check_vector(vector: Any, where: str) -> None:
    """What the server validates in a vector beyond its shape."""
    if isinstance(vector, list):
        if not vector:
            raise invalid(where, "must not be empty")
        if isinstance(vector[0], list):
            if not vector[0] or any(len(row) != len(vector[0]) for row in vector):
                raise invalid(where, "all vectors must have the same dimension and not be empty")
        elif not math.isfinite(sum(vector)) and not all(map(math.isfinite, vector)):
            raise bad_format("number out of range")
    elif is_sparse(vector):
        if len(vector["indices"]) != len(vector["values"]):
            raise invalid(where, "must be the same length as indices")
        if len(set(vector["indices"])) != len(vector["indices"]):
            raise invalid(where, "must be unique")
        if any(not 0 <= index < 2**32 for index in vector["indices"]):
            raise bad_format("invalid value: integer, expected u32")
    elif isinstance(vector, dict) and not is_inference(vector):
        for name, part in vector.items():
            check_vector(part, f"{where}.{name}")


def at_least(value: Any, least: int, where: str) -> None:
    if value is not None and value < least:
        raise invalid(where, f"value {value} invalid, must be {least} or larger")


# ---------------------------------------------------------------- query parameters


def flag(params: dict[str, str], name: str, default: bool) -> bool:
    text = params.get(name)
    if text is None:
        return default
    if text not in ("true", "false"):
        raise QdrantError(400, f"Deserialize error in query parameters: {name}: "
                               "provided string was not `true` or `false`")
    return text == "true"


def timeout(params: dict[str, str], least: int = 1) -> int | None:
    text = params.get("timeout")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise QdrantError(400, "Deserialize error in query parameters: timeout: invalid digit found in string")
    if int(text) < least:
        raise invalid("timeout", f"value {text} invalid, must be {least} or larger", part="query parameters")
    return int(text)
