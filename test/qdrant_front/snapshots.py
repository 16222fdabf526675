"""Snapshots of collections: kept in memory, in a form of the front's own, gone with its process.

A snapshot is recovered by the end of its place (…/COLLECTION/snapshots/NAME, …/COLLECTION/NAME): nothing is
fetched and no file is read.
"""

from __future__ import annotations

import datetime
import hashlib
from typing import Any
from urllib.parse import unquote

import orjson
import qdrant_edge as edge

from .engine import Collection, Engine, run, shown_record
from .errors import QdrantError, bad_format, not_found

FULL = ""


class Snapshots:
    """By the real name of a collection; under FULL those of the whole storage."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self._kept: dict[str, dict[str, tuple[dict, bytes]]] = {}

    def list(self, owner: str) -> list[dict]:
        return [info for info, _ in self._kept.get(owner, {}).values()]

    def make(self, owner: str, target: Collection | None) -> dict:
        now = datetime.datetime.now(datetime.timezone.utc)
        stem = f"{owner}-1" if owner != FULL else "full-snapshot"
        name = f"{stem}-{now:%Y-%m-%d-%H-%M-%S}-{sum(map(len, self._kept.values()))}.snapshot"
        content = _content(target)
        info = {"name": name, "creation_time": f"{now:%Y-%m-%dT%H:%M:%S}", "size": len(content),
                "checksum": hashlib.sha256(content).hexdigest()}
        self._kept.setdefault(owner, {})[name] = (info, content)
        return info

    def _find(self, owner: str, name: str) -> tuple[dict, bytes]:
        found = self._kept.get(owner, {}).get(name)
        if found is None:
            raise not_found(f"Snapshot {name} not found")
        return found

    def read(self, owner: str, name: str) -> bytes:
        return self._find(owner, name)[1]

    def remove(self, owner: str, name: str) -> bool:
        self._find(owner, name)
        del self._kept[owner][name]
        return True

    def recover(self, name: str, parsed: Any) -> bool:
        """Makes the collection, or gives it what the snapshot has instead of its own; aliases stay."""
        if not isinstance(parsed, dict) or not isinstance(parsed.get("location"), str):
            raise bad_format("missing field `location`")
        segments = [unquote(segment) for segment in parsed["location"].split("/")]
        owner = segments[-3] if segments[-2:-1] == ["snapshots"] else segments[-2] if len(segments) > 1 else FULL
        kept = self._kept.get(owner, {}).get(segments[-1])
        if kept is None or kept[1][:2] != MARK:
            raise QdrantError(400, "Bad request: Failed to download snapshot")
        state = orjson.loads(kept[1][2:])
        real = self.engine.aliases.get(name, name)
        aliases = dict(self.engine.aliases)
        self.engine.delete(real)
        self.engine.create(real, state["config"])
        self.engine.restore_aliases(aliases)
        target = self.engine.find(real)
        for first in range(0, len(state["points"]), 500):
            points = state["points"][first:first + 500]
            self.engine.prepare_upsert({"points": points})(target)()
        return True


# What is no text, as the server's archives are none.
MARK = b"\0\xff"


def _content(target: Collection | None) -> bytes:
    if target is None:
        return MARK + b"{}"
    count = max(1, run(target.shard.count, edge.CountRequest()))
    records, _ = run(target.shard.scroll, edge.ScrollRequest(limit=count, with_payload=True, with_vector=True))
    points = [shown_record(one, True, True) for one in records]
    return MARK + orjson.dumps({"config": target.saved()["config"], "points": points},
                               option=orjson.OPT_SERIALIZE_NUMPY)
