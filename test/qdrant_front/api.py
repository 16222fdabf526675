"""Qdrant's routes: each a method that takes a Call and returns the `result` of the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable
from urllib.parse import unquote

import orjson
from qdrant_client.http import models

from .access import Access
from .engine import Collection, Engine, check_size
from .errors import QdrantError, bad_format, invalid, not_found
from .older import AS_QUERY
from .snapshots import FULL, Snapshots
from .validate import check_parameters, collection_name, flag, path_point_id, shape, vector_name_problem


@dataclass
class Call:
    """One request, read and parsed, on its way into the engine."""

    access: Access
    names: dict[str, str]
    params: dict[str, str]
    parsed: Any = None
    stale: int = 0
    # Faults: do not apply; what the status of an applied write is called instead.
    drop: bool = False
    status: str | None = None
    operation_id: int | None = None
    applied: int = field(default=0)


class Text(str):
    """An answer that is text, not JSON in an envelope."""


class Bytes(bytes):
    """An answer that is a file."""


class Raw(dict):
    """An answer that is JSON without an envelope."""


@dataclass(frozen=True)
class Route:
    method: str
    pattern: re.Pattern
    handler: str
    has_body: bool
    write: bool

    @property
    def kind(self) -> str:
        """Which parameters it takes: read, write, manage or look."""
        if self.write:
            return "write"
        if self.handler in ("create_collection", "update_collection", "delete_collection", "change_aliases"):
            return "manage"
        return "read" if self.has_body or self.handler == "point" else "look"


def _route(method: str, path: str, handler: str, *, body: bool = False, write: bool = False) -> Route:
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
    return Route(method, re.compile(pattern), handler, body, write)


C = "/collections/{c}"
OLD = "/points/(?P<old>search|recommend|discover)"
ROUTES = [
    _route("GET", "/", "version"),
    _route("GET", "/healthz", "health"),
    _route("GET", "/livez", "health"),
    _route("GET", "/readyz", "ready"),
    _route("GET", "/cluster", "cluster"),
    _route("GET", "/aliases", "aliases"),
    _route("GET", "/collections", "collections"),
    _route("POST", "/collections/aliases", "change_aliases", body=True),
    _route("GET", C, "get_collection"),
    _route("PUT", C, "create_collection", body=True),
    _route("PATCH", C, "update_collection", body=True),
    _route("DELETE", C, "delete_collection"),
    _route("GET", C + "/exists", "exists"),
    _route("GET", C + "/aliases", "collection_aliases"),
    _route("GET", C + "/cluster", "collection_cluster"),
    _route("PUT", C + "/index", "create_index", body=True, write=True),
    _route("DELETE", C + "/index/{field}", "delete_index", write=True),
    _route("PUT", C + "/vectors/{vector}", "create_vector", body=True, write=True),
    _route("DELETE", C + "/vectors/{vector}", "delete_vector", write=True),
    _route("PUT", C + "/points", "upsert", body=True, write=True),
    _route("POST", C + "/points/delete", "delete", body=True, write=True),
    _route("POST", C + "/points/payload", "set_payload", body=True, write=True),
    _route("PUT", C + "/points/payload", "overwrite_payload", body=True, write=True),
    _route("POST", C + "/points/payload/delete", "delete_payload", body=True, write=True),
    _route("POST", C + "/points/payload/clear", "clear_payload", body=True, write=True),
    _route("PUT", C + "/points/vectors", "update_vectors", body=True, write=True),
    _route("POST", C + "/points/vectors/delete", "delete_vectors", body=True, write=True),
    _route("POST", C + "/points/batch", "batch", body=True, write=True),
    _route("POST", C + "/points", "points", body=True),
    _route("GET", C + "/points/{id}", "point"),
    _route("POST", C + "/points/scroll", "scroll", body=True),
    _route("POST", C + "/points/count", "count", body=True),
    _route("POST", C + "/points/query", "query", body=True),
    _route("POST", C + "/points/query/batch", "query_batch", body=True),
    _route("POST", C + "/points/query/groups", "query_groups", body=True),
    _route("POST", C + "/points/search/matrix/pairs", "matrix_pairs", body=True),
    _route("POST", C + "/points/search/matrix/offsets", "matrix_offsets", body=True),
    _route("POST", C + "/facet", "facet", body=True),
    _route("POST", C + OLD, "old_query", body=True),
    _route("POST", C + OLD + "/batch", "old_batch", body=True),
    _route("POST", C + OLD + "/groups", "old_groups", body=True),
    _route("GET", C + "/snapshots", "list_snapshots"),
    _route("POST", C + "/snapshots", "make_snapshot"),
    _route("PUT", C + "/snapshots/recover", "recover_snapshot", body=True),
    _route("GET", C + "/snapshots/{snapshot}", "read_snapshot"),
    _route("DELETE", C + "/snapshots/{snapshot}", "delete_snapshot"),
    _route("GET", C + "/shards/0/snapshots", "list_snapshots"),
    _route("POST", C + "/shards/0/snapshots", "make_snapshot"),
    _route("PUT", C + "/shards/0/snapshots/recover", "recover_snapshot", body=True),
    _route("GET", C + "/shards/0/snapshots/{snapshot}", "read_snapshot"),
    _route("DELETE", C + "/shards/0/snapshots/{snapshot}", "delete_snapshot"),
    _route("GET", "/snapshots", "list_snapshots"),
    _route("POST", "/snapshots", "make_snapshot"),
    _route("GET", "/snapshots/{snapshot}", "read_snapshot"),
    _route("DELETE", "/snapshots/{snapshot}", "delete_snapshot"),
    _route("GET", "/metrics", "metrics"),
    _route("GET", "/telemetry", "telemetry"),
    _route("GET", "/issues", "issues"),
    _route("DELETE", "/issues", "clear_issues"),
    _route("GET", C + "/optimizations", "optimizations"),
    _route("GET", C + "/shards", "shard_keys"),
    _route("PUT", C + "/shards", "not_distributed", body=True),
    _route("POST", C + "/shards/delete", "not_distributed", body=True),
    _route("POST", C + "/cluster", "not_distributed", body=True),
    _route("DELETE", "/cluster/peer/{peer}", "not_distributed"),
    _route("POST", "/cluster/recover", "standalone"),
    _route("GET", "/cluster/metadata/keys", "standalone"),
]

OPEN_PATHS = {"/", "/healthz", "/livez", "/readyz"}


def find_route(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    path = re.sub("/+", "/", path)
    path = path.rstrip("/") or "/"
    for route in ROUTES:
        if route.method == method:
            match = route.pattern.fullmatch(path)
            if match:
                return route, {name: unquote(text) for name, text in match.groupdict().items()}
    return None


class Api:
    """The handlers; the reads and writes themselves are the engine's."""

    def __init__(self, engine: Engine, version: str):
        self.engine = engine
        self.version_text = version
        self.snapshots = Snapshots(engine)
        self.peers = 1

    def handle(self, route: Route, call: Call) -> Any:
        check_parameters(call.params, route.kind)
        if "c" in call.names and route.handler != "create_collection":
            collection_name(call.names["c"])
        try:
            return getattr(self, route.handler)(call)
        except QdrantError:
            raise
        except (ValueError, OverflowError) as error:
            # Edge's constructors: JSON paths, dates, geo points, numbers out of range.
            raise bad_format(str(error)) from None
        except TypeError as error:
            if not str(error).startswith("failed to extract"):
                raise
            raise bad_format(str(error).partition("\n")[0]) from None

    # ---- service

    def version(self, call: Call) -> Any:
        return Raw(title="qdrant - vector search engine", version=self.version_text, commit="0" * 40)

    def health(self, call: Call) -> Any:
        return Text("healthz check passed")

    def ready(self, call: Call) -> Any:
        return Text("all shards are ready")

    def cluster(self, call: Call) -> Any:
        call.access.over_all()
        if self.peers < 2:
            return {"status": "disabled"}
        peers = {str(number): {"uri": f"http://127.0.0.1:{6300 + number}/"} for number in range(1, self.peers + 1)}
        return {"status": "enabled", "peer_id": 1, "peers": peers,
                "raft_info": {"term": 1, "commit": 1, "pending_operations": 0, "leader": 1, "role": "Leader",
                              "is_voter": True},
                "consensus_thread_status": {"consensus_thread_status": "working", "last_update": "2026-01-01T00:00:00Z"},
                "message_send_failures": {}}

    def metrics(self, call: Call) -> Any:
        return Text('# HELP app_info information about qdrant server\n# TYPE app_info gauge\n'
                    f'app_info{{name="qdrant",version="{self.version_text}"}} 1\n'
                    "# HELP collections_total number of collections\n# TYPE collections_total gauge\n"
                    f"collections_total {len(self.engine.collections)}\n")

    def telemetry(self, call: Call) -> Any:
        call.access.over_all()
        return {"id": "00000000-0000-0000-0000-000000000000",
                "app": {"name": "qdrant", "version": self.version_text},
                "collections": {"number_of_collections": len(self.engine.collections)},
                "cluster": {"enabled": False}, "requests": {}}

    def issues(self, call: Call) -> Any:
        return {"issues": []}

    def clear_issues(self, call: Call) -> Any:
        return True

    def not_distributed(self, call: Call) -> Any:
        raise QdrantError(400, "Bad request: Distributed mode disabled")

    def standalone(self, call: Call) -> Any:
        raise QdrantError(500, "Service internal error: Qdrant is running in standalone mode")

    # ---- snapshots

    def _snapshot_owner(self, call: Call, write: bool = False) -> tuple[str, Collection | None]:
        if "c" not in call.names:
            call.access.over_all(manage=write)
            return FULL, None
        target = (self._write if write else self._read)(call)
        return target.name, target

    def list_snapshots(self, call: Call) -> Any:
        return self.snapshots.list(self._snapshot_owner(call)[0])

    def make_snapshot(self, call: Call) -> Any:
        return self.snapshots.make(*self._snapshot_owner(call, write=True))

    def read_snapshot(self, call: Call) -> Any:
        return Bytes(self.snapshots.read(self._snapshot_owner(call)[0], call.names["snapshot"]))

    def delete_snapshot(self, call: Call) -> Any:
        return self.snapshots.remove(self._snapshot_owner(call, write=True)[0], call.names["snapshot"])

    def recover_snapshot(self, call: Call) -> Any:
        call.access.over_all(manage=True)
        return self._counted(call, self.snapshots.recover, call.names["c"], call.parsed)

    def optimizations(self, call: Call) -> Any:
        self._read(call)
        return {"summary": {"queued_optimizations": 0, "queued_segments": 0, "queued_points": 0, "idle_segments": 1},
                "running": []}

    def shard_keys(self, call: Call) -> Any:
        self._read(call)
        return {}

    # ---- collections and aliases

    def collections(self, call: Call) -> Any:
        return {"collections": [{"name": name} for name in self.engine.collections]}

    def _read(self, call: Call) -> Collection:
        call.access.over(call.names["c"], self.engine.aliases)
        found = self.engine.find(call.names["c"], call.stale)
        no_shard_key(call.parsed, "Bad request")
        return found

    def _write(self, call: Call) -> Collection:
        call.access.over(call.names["c"], self.engine.aliases, write=True)
        return self.engine.find(call.names["c"], call.stale)

    def get_collection(self, call: Call) -> Any:
        return self._read(call).info()

    def exists(self, call: Call) -> Any:
        call.access.over(call.names["c"], self.engine.aliases)
        name = call.names["c"]
        return {"exists": self.engine.aliases.get(name, name) in self.engine.collections}

    def create_collection(self, call: Call) -> Any:
        call.access.over_all(manage=True)
        return True if call.drop else self._counted(call, self.engine.create, call.names["c"], call.parsed)

    def update_collection(self, call: Call) -> Any:
        call.access.over(call.names["c"], self.engine.aliases, write=True, manage=True)
        return True if call.drop else self._counted(call, self.engine.update, call.names["c"], call.parsed)

    def delete_collection(self, call: Call) -> Any:
        call.access.over(call.names["c"], self.engine.aliases, write=True, manage=True)
        return True if call.drop else self._counted(call, self.engine.delete, call.names["c"])

    @staticmethod
    def _counted(call: Call, function: Callable, *args: Any) -> Any:
        result = function(*args)
        call.applied += 1
        return result

    def aliases(self, call: Call) -> Any:
        return {"aliases": self.engine.list_aliases() if call.access.sees_aliases else []}

    def collection_aliases(self, call: Call) -> Any:
        call.access.over(call.names["c"], self.engine.aliases)
        return {"aliases": self.engine.list_aliases(call.names["c"]) if call.access.sees_aliases else []}

    def change_aliases(self, call: Call) -> Any:
        call.access.over_all(manage=True)
        return True if call.drop else self._counted(call, self.engine.change_aliases, call.parsed)

    def collection_cluster(self, call: Call) -> Any:
        points = self._read(call).shard.info().points_count
        return {"peer_id": 1, "shard_count": 1, "remote_shards": [], "shard_transfers": [],
                "local_shards": [{"shard_id": 0, "points_count": points, "state": "Active"}]}

    # ---- writes

    def _update(self, call: Call, target: Collection, apply: Callable[[], None]) -> dict:
        """One logged operation: with wait=false a failure after the log is known to nobody."""
        wait = flag(call.params, "wait", False)
        number = target.next_operation()
        if not call.drop:
            try:
                apply()
                call.applied += 1
            except QdrantError:
                if wait:
                    raise
            finally:
                if target.durable:
                    self.engine.save()
        return {"operation_id": number if call.operation_id is None else call.operation_id,
                "status": call.status or ("completed" if wait else "acknowledged")}

    def _prepared(self, call: Call, prepare: Callable) -> dict:
        """The name is resolved once the body was read, parsed and found to be well-formed (hazard 1)."""
        check = prepare(call.parsed)
        target = self._write(call)
        no_shard_key(call.parsed)
        return self._update(call, target, check(target))

    def upsert(self, call: Call) -> Any:
        return self._prepared(call, self.engine.prepare_upsert)

    def delete(self, call: Call) -> Any:
        return self._prepared(call, self.engine.prepare_delete)

    def set_payload(self, call: Call) -> Any:
        return self._prepared(call, self.engine.prepare_set_payload)

    def overwrite_payload(self, call: Call) -> Any:
        return self._prepared(call, self.engine.prepare_overwrite_payload)

    def delete_payload(self, call: Call) -> Any:
        return self._prepared(call, self.engine.prepare_delete_payload)

    def clear_payload(self, call: Call) -> Any:
        return self._prepared(call, self.engine.prepare_clear_payload)

    def update_vectors(self, call: Call) -> Any:
        return self._prepared(call, self.engine.prepare_update_vectors)

    def delete_vectors(self, call: Call) -> Any:
        return self._prepared(call, self.engine.prepare_delete_vectors)

    def batch(self, call: Call) -> Any:
        """Operation by operation until the first error; the earlier ones stay."""
        prepared = self.engine.prepare_batch(call.parsed)
        target = self._write(call)
        for operation in call.parsed["operations"]:
            for body in operation.values():
                no_shard_key(body)
        return [self._update(call, target, check(target)) for check in prepared]

    def create_index(self, call: Call) -> Any:
        body = shape(models.CreateFieldIndex, call.parsed)
        target = self._write(call)
        return self._update(call, target, lambda: self.engine.create_index(target, body))

    def delete_index(self, call: Call) -> Any:
        target = self._write(call)
        return self._update(call, target, lambda: self.engine.delete_index(target, call.names["field"]))

    def create_vector(self, call: Call) -> Any:
        problem = vector_name_problem(call.names["vector"])
        if problem:
            raise invalid("vector_name", problem, part="path parameters")
        body = shape(models.VectorNameConfig, call.parsed)
        if isinstance(body, models.DenseVectorNameConfig):
            check_size(body.dense.size, "dense.size")
        target = self._write(call)
        return self._update(call, target, lambda: self.engine.create_vector(target, call.names["vector"], body))

    def delete_vector(self, call: Call) -> Any:
        target = self._write(call)
        return self._update(call, target, lambda: self.engine.delete_vector(target, call.names["vector"]))

    # ---- reads

    def points(self, call: Call) -> Any:
        return self.engine.points(lambda: self._read(call), call.parsed)

    def point(self, call: Call) -> Any:
        target = self._read(call)
        identifier = path_point_id(call.names["id"])
        found = self.engine.retrieve(target, [identifier], True, True)
        if not found:
            raise not_found(f"Point with id {identifier} does not exists!")
        return found[0]

    def scroll(self, call: Call) -> Any:
        return self.engine.scroll(lambda: self._read(call), call.parsed)

    def count(self, call: Call) -> Any:
        return self.engine.count(lambda: self._read(call), call.parsed)

    def facet(self, call: Call) -> Any:
        return self.engine.facet(lambda: self._read(call), call.parsed)

    def query(self, call: Call) -> Any:
        return self.engine.query(lambda: self._read(call), call.parsed)

    def query_batch(self, call: Call) -> Any:
        return self.engine.query_batch(lambda: self._read(call), call.parsed)

    def query_groups(self, call: Call) -> Any:
        return self.engine.query_groups(lambda: self._read(call), call.parsed)

    def old_query(self, call: Call) -> Any:
        return self.engine.query(lambda: self._read(call), AS_QUERY[call.names["old"]](call.parsed))["points"]

    def old_batch(self, call: Call) -> Any:
        kind = AS_QUERY[call.names["old"]]
        if not isinstance(call.parsed, dict) or not isinstance(call.parsed.get("searches"), list):
            raise bad_format("missing field `searches`")
        found = self.engine.query_batch(lambda: self._read(call), {
            "searches": [kind(one) for one in call.parsed["searches"]]})
        return [one["points"] for one in found]

    def old_groups(self, call: Call) -> Any:
        return self.engine.query_groups(lambda: self._read(call), AS_QUERY[call.names["old"]](call.parsed))

    def matrix_pairs(self, call: Call) -> Any:
        pairs = self.engine.matrix(lambda: self._read(call), call.parsed)
        return {"pairs": [{"a": a, "b": b, "score": score} for a, b, score in pairs]}

    def matrix_offsets(self, call: Call) -> Any:
        pairs = self.engine.matrix(lambda: self._read(call), call.parsed)
        ids = list(dict.fromkeys(a for a, _, _ in pairs))
        kept = [(ids.index(a), ids.index(b), score) for a, b, score in pairs if b in ids]
        return {"offsets_row": [row for row, _, _ in kept], "offsets_col": [col for _, col, _ in kept],
                "scores": [score for _, _, score in kept], "ids": ids}


def no_shard_key(body: Any, prefix: str = "Wrong input") -> None:
    """A single node cannot make any."""
    key = body.get("shard_key") if isinstance(body, dict) else None
    if key is not None and key != []:
        first = key[0] if isinstance(key, list) else key
        raise QdrantError(400, f"{prefix}: Shard key {orjson.dumps(first).decode()} not found")


def serialise(value: Any) -> bytes:
    """Shortest floats for single precision, null for what is not finite."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
