"""Reads request bodies as strictly as Qdrant does.

Shapes are checked by the models of the official client.  These refuse unknown members, which Qdrant
ignores but in filters and payload selectors: a body that has some is read once more without them.  What
the server checks beyond the shape is checked here: the form of ids, empty vectors, sparse vectors, limits,
names, depth of nesting.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError
from qdrant_client.http import models

from .errors import QdrantError, bad_format, invalid

MAX_BODY = 32 * 1024 * 1024
MAX_DEPTH = 128
MAX_ID = 2**64 - 1
NAME_MAX = 255
NAME_FORBIDDEN = set('<>:"/\\|?*\0\x1f')
VECTOR_NAME_MAX = 200
# Models for which Qdrant refuses members that it does not know.
CLOSED = (models.Filter, models.PayloadSelectorInclude, models.PayloadSelectorExclude)
# Other names that Qdrant takes for a member.
OTHER_NAMES = {"with_vectors": "with_vector", "optimizer_config": "optimizers_config", "field_type": "field_schema",
               "vectors": "vector", "top": "limit"}

_UUID = re.compile(
    r"(?:urn:uuid:)?([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})"
    r"|([0-9a-fA-F]{32})"
    r"|\{([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})\}"
)

_ADAPTERS: dict[Any, TypeAdapter] = {}
# Where the bodies read last had members that nobody knows; whoever handles a request takes them.
unknown_members: list[str] = []


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
    level = [root] if isinstance(root, (dict, list)) else []
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
    try:
        return _validated(model, parsed, quick, None)
    except ValidationError as error:
        if not any(problem["type"] == "extra_forbidden" for problem in error.errors(include_url=False)):
            raise bad_format(_wording(error)) from None
        first = error
    try:
        found = _validated(model, _usual_names(model, parsed), quick, "ignore" if quick else "allow")
    except ValidationError:
        raise bad_format(_wording(first)) from None
    if not quick:
        _drop_unknown(found)
    unknown_members.extend(".".join(map(str, problem["loc"])) for problem in first.errors(include_url=False)
                           if problem["type"] == "extra_forbidden")
    return found


def _validated(model: Any, parsed: Any, quick: bool, extra: str | None) -> Any:
    adapter = _ADAPTERS.get(model)
    if adapter is None:
        adapter = _ADAPTERS[model] = TypeAdapter(model)
    if quick:
        return adapter.validate_python(parsed, extra=extra)
    return adapter.validate_json(orjson.dumps(parsed), strict=True, extra=extra)


def _usual_names(model: Any, parsed: Any) -> Any:
    fields = getattr(model, "model_fields", {})
    if not isinstance(parsed, dict):
        return parsed
    return {OTHER_NAMES[key] if key not in fields and OTHER_NAMES.get(key) in fields else key: value
            for key, value in parsed.items()}


def _drop_unknown(value: Any) -> None:
    """Forgets the members that no model knows; an error where Qdrant does not ignore them."""
    if isinstance(value, BaseModel):
        if value.model_extra and isinstance(value, CLOSED):
            raise bad_format(f"unknown field `{next(iter(value.model_extra))}`")
        if value.model_extra:
            value.model_extra.clear()
        for name in type(value).model_fields:
            _drop_unknown(getattr(value, name))
    elif isinstance(value, dict):
        for part in value.values():
            _drop_unknown(part)
    elif isinstance(value, list) and value and not isinstance(value[0], (int, float)):
        for part in value:
            _drop_unknown(part)


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
    shown = json.dumps(value, default=str)
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
    bad = next((char for char in name if char in (NAME_FORBIDDEN if new else "/\0")), None)
    if bad is not None or (new and name in (".", "..")):
        raise invalid("name", f"collection name cannot contain {bad!r}", part="path parameters")
    return name


def vector_name_problem(name: str) -> str | None:
    bad = next((char for char in name if char in NAME_FORBIDDEN), None)
    if bad is not None:
        return f'vector name cannot contain "{bad}" char'
    if len(name.encode()) > VECTOR_NAME_MAX:
        return f"vector name must be at most {VECTOR_NAME_MAX} bytes long"
    return None


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
        batch = parsed["batch"]
        if isinstance(batch, dict) and isinstance(batch.get("payloads"), list):
            batch = {**batch, "payloads": [{} if one is None else one for one in batch["payloads"]]}
        shape(models.PointsBatch, {**parsed, "batch": batch}, quick=True)
        rows = _batch_rows(batch)
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


def empty_update() -> QdrantError:
    return QdrantError(400, "Bad request: Empty update request")


def is_sparse(vector: Any) -> bool:
    return isinstance(vector, dict) and vector.keys() >= {"indices", "values"}


def pair_as_sparse(vector: Any) -> dict | None:
    """Two rows, of which the first has whole numbers only, are indices and values to Qdrant's parser."""
    if isinstance(vector, list) and len(vector) == 2 and all(isinstance(row, list) and row for row in vector) \
            and all(type(number) is int and 0 <= number < 2**32 for number in vector[0]):
        return {"indices": vector[0], "values": vector[1]}
    return None


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
            check_vector(pair_as_sparse(part) or part, f"{where}.{name}")


def at_least(value: Any, least: float, where: str) -> None:
    """For unsigned integers: what is below 0 does not even parse."""
    if value is not None and value < 0 and isinstance(least, int):
        raise bad_format(f"invalid value: integer `{value}`, expected usize")
    if value is not None and value < least:
        raise invalid(where, f"value {value} invalid, must be {least} or larger")


def within(value: Any, least: float, most: float, where: str) -> None:
    if value is not None and not least <= value <= most:
        raise invalid(where, f"value {value} invalid, must be from {least} to {most}")


# Members of configurations that have bounds, wherever they are: (least, most).
BOUNDS = {"ef_construct": (4, None), "full_scan_threshold": (10, None), "wal_capacity_mb": (1, None),
          "max_segment_size": (1, None),
          "deleted_threshold": (0.0, 1.0), "vacuum_min_vector_number": (100, None), "quantile": (0.5, 1.0),
          "shard_number": (1, None), "replication_factor": (1, None), "write_consistency_factor": (1, None),
          "max_query_limit": (1, None), "max_timeout": (1, None), "read_rate_limit": (1, None),
          "write_rate_limit": (1, None), "max_points_count": (1, None), "max_resident_memory_percent": (1, 100),
          "max_disk_usage_percent": (1, 100)}


def check_bounds(value: Any, where: str = "") -> None:
    """Of every member of a configuration; metadata has none."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            part, place = getattr(value, name), f"{where}.{name}" if where else name
            if name == "metadata" or part is None:
                continue
            if name in BOUNDS and not isinstance(value, models.SparseIndexParams):
                least, most = BOUNDS[name]
                within(part, least, most, place) if most is not None else at_least(part, least, place)
            check_bounds(part, place)
    elif isinstance(value, dict):
        for name, part in value.items():
            check_bounds(part, f"{where}.{name}")


# ---------------------------------------------------------------- query parameters


def flag(params: dict[str, str], name: str, default: bool) -> bool:
    text = params.get(name)
    if text is None:
        return default
    if text not in ("true", "false"):
        raise QdrantError(400, f"Deserialize error in query parameters: {name}: "
                               "provided string was not `true` or `false`")
    return text == "true"


def bad_parameter(text: str) -> QdrantError:
    return QdrantError(400, f"Deserialize error in query parameters: {text}")


def check_parameters(params: dict[str, str], kind: str) -> None:
    """What the parameters of a read, of a write of points and of the management of collections have to be."""
    text = params.get("timeout")
    if text is not None and kind != "look":
        if not (text.isascii() and text.isdigit()):
            raise bad_parameter("timeout: invalid digit found in string")
        if int(text) == 0 and kind == "read":
            raise bad_parameter("invalid value: integer `0`, expected a nonzero u64")
        if int(text) == 0 and kind == "manage":
            raise invalid("timeout", "value 0 invalid, must be 1 or larger", part="query parameters")
    text = params.get("consistency")
    if text is not None and kind == "read" and text not in ("majority", "quorum", "all") \
            and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise bad_parameter(f"failed to deserialize read consistency query parameter value '{text}'")
    if kind == "write" and params.get("ordering", "weak") not in ("weak", "medium", "strong"):
        raise bad_parameter(f"unknown variant `{params['ordering']}`, expected one of `weak`, `medium`, `strong`")
