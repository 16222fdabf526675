"""Misbehaviour to order: rules, the requests that are held, and the log of every request.

A rule is {"match": {...}, "times": N or null, "action": name, option: value, ...}.  Rules are asked in
order; delays and other quiet actions add up, the first other action that matches decides.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Iterable

# Actions that change something and let the request go on to the next rule.
QUIET = {"delay", "stale_alias", "operation_id"}

# Actions that answer instead of Qdrant: status, content type, headers, body.
CANNED: dict[str, tuple[int, str, dict[str, str], str]] = {
    "401": (401, "text/plain; charset=utf-8", {}, "Invalid API key or JWT"),
    "403": (403, "json", {}, "Forbidden: Global manage access is required"),
    "404": (404, "json", {}, "Not found: Collection `x` doesn't exist!"),
    "408": (408, "json", {}, "Timeout: Operation timed out"),
    "429": (429, "json", {"Retry-After": "1"}, "Rate limiting exceeded: Write rate limit exceeded: "
            "Operation requires 1 tokens but only 0 were available. Retry after 1s"),
    "429_no_retry": (429, "json", {}, "Rate limiting exceeded: Write rate limit exceeded, request larger than "
                     "rate limiter capacity, please try to split your request"),
    "500": (500, "json", {}, "Service internal error: made to fail"),
    "502": (502, "text/html", {}, "<html><head><title>502 Bad Gateway</title></head>"
            "<body><center><h1>502 Bad Gateway</h1></center></body></html>"),
    "503": (503, "json", {}, "Shard temporarily unavailable: made to fail"),
    "504": (504, "text/html", {}, "<html><head><title>504 Gateway Time-out</title></head>"
            "<body><center><h1>504 Gateway Time-out</h1></center></body></html>"),
    "507": (507, "json", {}, "Insufficient storage: made to fail"),
    "early_400": (400, "json", {}, "JSON payload (33554433 bytes) is larger than allowed "
                  "(limit: 33554432 bytes)."),
    "poison": (400, "json", {}, "Wrong input: this point is refused"),
    "answer": (200, "json", {}, ""),
}

ACTIONS = QUIET | set(CANNED) | {
    "stall", "hold", "reset", "truncate", "drip", "wait_timeout", "acknowledge_and_drop", "twice",
    "garbage", "huge", "endless_headers", "down"}

MATCH_KEYS = {"method", "path_regex", "nth", "ids_any", "query_regex"}
OPTIONS = {"seconds", "when", "apply", "status", "headers", "body", "content_type", "early", "bytes", "to",
           "ids", "text", "retry_after", "close", "back"}


@dataclass
class Rule:
    """One rule with its counters."""

    number: int
    action: str
    match: dict[str, Any]
    times: int | None
    options: dict[str, Any]
    probability: float = 1.0
    seed: int = 0
    seen: int = 0
    fired: int = 0

    def __post_init__(self):
        self._path = re.compile(self.match.get("path_regex", ""))
        self._query = re.compile(self.match.get("query_regex", ""))
        ids = self.match.get("ids_any")
        self._ids = None if ids is None else {str(one).lower() for one in ids}
        nth = self.match.get("nth")
        self._nth = None if nth is None else set(nth if isinstance(nth, list) else [nth])
        self._random = random.Random(self.seed)

    @property
    def needs_body(self) -> bool:
        return self._ids is not None

    def takes(self, method: str, path: str, query: str, ids: set[str] | None) -> bool:
        """Whether this request is the rule's; counts it."""
        if self.times is not None and self.fired >= self.times:
            return False
        wanted = self.match.get("method")
        if wanted and method not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
        if not self._path.search(path) or not self._query.search(query):
            return False
        if self._ids is not None and not (ids and self._ids & ids):
            return False
        self.seen += 1
        if self._nth is not None and self.seen not in self._nth:
            return False
        if self.probability < 1.0 and self._random.random() >= self.probability:
            return False
        self.fired += 1
        return True

    def shown(self) -> dict:
        return {"number": self.number, "action": self.action, "match": self.match, "times": self.times,
                "seen": self.seen, "fired": self.fired, **self.options}


def make_rule(number: int, given: dict) -> Rule:
    given = dict(given)
    action = given.pop("action", None)
    match = dict(given.pop("match", None) or {})
    times = given.pop("times", None)
    probability, seed = given.pop("probability", 1.0), given.pop("seed", 0)
    if str(action) not in ACTIONS:
        raise ValueError(f"unknown action {action!r}; known: {', '.join(sorted(ACTIONS))}")
    unknown = (set(match) - MATCH_KEYS) | (set(given) - OPTIONS)
    if unknown:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    if action == "poison":
        match.setdefault("ids_any", given.get("ids", []))
        match.setdefault("method", ["PUT", "POST"])
    return Rule(number, str(action), match, times, given, probability, seed)


class Rules:
    """The rules in force."""

    def __init__(self):
        self._rules: list[Rule] = []
        self._made = 0

    def add(self, given: Iterable[dict]) -> list[dict]:
        made = []
        for one in given:
            made.append(make_rule(self._made + len(made), one))
        self._made += len(made)
        self._rules += made
        return [rule.shown() for rule in made]

    def clear(self) -> None:
        self._rules = []

    def shown(self) -> list[dict]:
        return [rule.shown() for rule in self._rules]

    def at_head(self, entry: "Entry") -> list[Rule]:
        """What applies before the body is known."""
        return self._choose(entry, None, [rule for rule in self._rules if not rule.needs_body])

    def at_body(self, entry: "Entry", ids: set[str]) -> list[Rule]:
        """What applies to requests that carry certain ids."""
        return self._choose(entry, ids, [rule for rule in self._rules if rule.needs_body])

    @property
    def want_ids(self) -> bool:
        return any(rule.needs_body for rule in self._rules)

    @staticmethod
    def _choose(entry: "Entry", ids: set[str] | None, rules: list[Rule]) -> list[Rule]:
        chosen = []
        for rule in rules:
            if rule.takes(entry.method, entry.path, entry.query, ids):
                chosen.append(rule)
                entry.faults.append(rule.action)
                if rule.action not in QUIET:
                    break
        return chosen


# ---------------------------------------------------------------- the log


@dataclass
class Entry:
    """One request, as GET /__log shows it; times are seconds of the Unix clock."""

    n: int
    connection: int
    method: str
    path: str
    query: str
    headers: list[str]
    api_key: bool
    received: float
    key: str | None = None
    body_bytes: int = 0
    body_read: float | None = None
    points: int = 0
    ids: list = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    applied: int = 0
    answered: float | None = None
    status: int | None = None
    error: str | None = None
    # Members of the body that Qdrant does not know, and ignores.
    unknown: list[str] = field(default_factory=list)
    client_gone: bool = False
    faults: list[str] = field(default_factory=list)
    body: str | None = None

    def shown(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "body" or value is not None}


IDS_SHOWN = 1000


def ids_in(parsed: Any) -> tuple[list, list[str]]:
    """All point ids that a body of a points request names, and the kinds of its batched operations."""
    if isinstance(parsed, dict) and isinstance(parsed.get("operations"), list):
        ids, kinds = [], []
        for operation in parsed["operations"]:
            for kind, body in (operation.items() if isinstance(operation, dict) else ()):
                kinds.append(kind)
                ids += _ids_of(body)
        return ids, kinds
    return _ids_of(parsed), []


def _ids_of(body: Any) -> list:
    if not isinstance(body, dict):
        return []
    points = body.get("points", body.get("ids"))
    if isinstance(body.get("batch"), dict):
        points = body["batch"].get("ids")
    if not isinstance(points, list):
        return []
    return [one.get("id") if isinstance(one, dict) else one for one in points]


KEPT = 20_000


class Log:
    """Every request since the last clearing, the last 20,000 of them."""

    def __init__(self):
        self.entries: deque[Entry] = deque(maxlen=KEPT)
        self.bodies = 0
        self._count = 0

    def open(self, **known: Any) -> Entry:
        self._count += 1
        entry = Entry(n=self._count, received=time.time(), **known)
        self.entries.append(entry)
        return entry

    def clear(self) -> None:
        self.entries.clear()


# ---------------------------------------------------------------- requests that wait for a release


@dataclass
class Held:
    """A request that a stall or hold keeps from going on."""

    entry: Entry
    kind: str
    go: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def shown(self) -> dict:
        return {"n": self.entry.n, "kind": self.kind, "method": self.entry.method, "path": self.entry.path,
                "ids": self.entry.ids, "client_gone": self.entry.client_gone}


class Waiting:
    """All held requests, in the order of their arrival."""

    def __init__(self):
        self.held: list[Held] = []

    async def keep(self, entry: Entry, kind: str) -> Held:
        held = Held(entry, kind)
        self.held.append(held)
        await held.go.wait()
        return held

    async def release(self, numbers: list[int] | None, wait: float) -> list[int]:
        """Lets requests go one after the other, each until it was answered or applied."""
        chosen = [held for held in self.held if numbers is None or held.entry.n in numbers]
        for held in chosen:
            self.held.remove(held)
            held.go.set()
            try:
                await asyncio.wait_for(held.done.wait(), wait)
            except asyncio.TimeoutError:
                pass
        return [held.entry.n for held in chosen]
