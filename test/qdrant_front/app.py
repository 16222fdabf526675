"""The server on the front's first port: HTTP around the API, with the ordered faults.

One request goes: log → faults known from the head → key → body → faults known from the body →
engine → answer, and each fault has its place on that way.  The handler is not cancelled when the
client goes: as in the server, what was read is applied.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
import time
import traceback
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from .access import Access, Keys
from .api import OPEN_PATHS, Api, Bytes, Call, Raw, Route, Text, find_route, serialise
from .engine import Engine
from .errors import QdrantError
from .faults import CANNED, IDS_SHOWN, Entry, Held, Log, Rule, Rules, Waiting, ids_in
from .validate import MAX_BODY, parse_json, unknown_members

KEEP_ALIVE = 5.0
HUGE = 64 * 1024 * 1024


class Dropped(Exception):
    """The connection is to be ended without an answer (or without the rest of it)."""


class CountingServer(web.Server):
    """Numbers the connections."""

    def __init__(self, handler):
        super().__init__(handler, keepalive_timeout=KEEP_ALIVE, lingering_time=0, access_log=None,
                         max_line_size=65536, max_field_size=65536)
        self._made = 0
        self._numbers: dict[RequestHandler, int] = {}

    def __call__(self) -> RequestHandler:
        protocol = super().__call__()
        self._made += 1
        self._numbers[protocol] = self._made
        return protocol

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self._numbers.pop(handler, None)
        super().connection_lost(handler, exc)

    def number(self, protocol: RequestHandler) -> int:
        return self._numbers.get(protocol, 0)


class Server:
    """The listening socket and the life of a request."""

    def __init__(self, engine: Engine, keys: Keys, version: str):
        self.engine = engine
        self.api = Api(engine, version)
        self.keys = keys
        self.rules = Rules()
        self.log = Log()
        self.waiting = Waiting()
        self.port = 0
        self._http: CountingServer | None = None
        self._listener: asyncio.Server | None = None
        self._later: set[asyncio.Task] = set()

    # ---- listening

    async def listen(self, port: int) -> None:
        if self._http is None:
            self._http = CountingServer(self._serve)
            logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._http, "127.0.0.1", port, backlog=512, reuse_address=True)
        self.port = self._listener.sockets[0].getsockname()[1]

    @property
    def is_up(self) -> bool:
        return self._listener is not None

    def down(self, seconds: float | None = None) -> None:
        """Refuse connections and drop the open ones; what is held stays held."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        for protocol in self._http.connections:
            if protocol.transport is not None:
                reset(protocol.transport)
        if seconds is not None:
            self._in_background(self._up_after(seconds))

    async def up(self) -> None:
        if self._listener is None:
            await self.listen(self.port)

    async def _up_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.up()

    def _in_background(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    # ---- one request

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        entry = self.log.open(
            connection=self._http.number(request.protocol), method=request.method, path=path, query=query,
            headers=[name for name in request.headers],
            api_key="api-key" in request.headers or "Authorization" in request.headers)
        held: list[Held] = []
        try:
            return await self._answer(request, entry, held)
        except Dropped:
            return web.Response(status=500)
        except ConnectionError:
            entry.client_gone = True
            return web.Response(status=500)
        finally:
            if request.transport is None or request.transport.is_closing():
                entry.client_gone = entry.client_gone or entry.status is None or bool(held)
            for one in held:
                one.done.set()

    async def _answer(self, request: web.BaseRequest, entry: Entry, held: list[Held]) -> web.StreamResponse:
        started = time.perf_counter()
        rules = self.rules.at_head(entry)
        try:
            early = await self._faults_at_head(request, entry, rules, held)
            if early is not None:
                return early
            found = find_route(entry.method, entry.path)
            access = self._access(request, entry)
            body = await self._read(request, entry)
            if found is None:
                return self._respond(entry, 404, b"", "text/plain")
            route, names = found
            parsed, broken = self._parse(route, body, entry)
            rules = rules + self._faults_for_ids(entry, parsed)
            canned = await self._faults_at_body(request, entry, rules, held)
            call = self._call(route, names, entry, rules, access, parsed)
            if canned is not None and not canned.options.get("apply"):
                return await self._send_canned(request, entry, canned)
            if broken is not None:
                raise broken
            result = self._apply(route, call, entry, rules)
            if canned is not None:
                return await self._send_canned(request, entry, canned)
            return await self._send(request, entry, rules, 200, *self._good(result, started))
        except QdrantError as error:
            return await self._send(request, entry, rules, error.status, *self._bad(error, started, entry))
        except (Dropped, ConnectionError):
            raise
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            broken = QdrantError(500, f"Service internal error: the front failed: {error!r}")
            return await self._send(request, entry, [], 500, *self._bad(broken, started, entry))

    def _access(self, request: web.BaseRequest, entry: Entry) -> Access:
        if entry.path in OPEN_PATHS:
            return Access("full")
        access = self.keys.access(request.headers.get("api-key"), request.headers.get("Authorization"))
        entry.key = access.role
        return access

    async def _read(self, request: web.BaseRequest, entry: Entry) -> bytes:
        """The whole body; one that is too large is refused unread."""
        length = request.headers.get("Content-Length")
        if length is not None and length.isdigit() and int(length) > MAX_BODY:
            raise too_large(int(length))
        if request.headers.get("Expect", "").lower() == "100-continue":
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces, size = [], 0
        while True:
            piece = await request.content.readany()
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY:
                raise too_large(size)
        entry.body_bytes, entry.body_read = size, time.time()
        return b"".join(pieces)

    def _parse(self, route: Route, body: bytes, entry: Entry) -> tuple[Any, QdrantError | None]:
        """The parsed body; an error is kept until the faults had their turn."""
        if self.log.bodies:
            entry.body = body[:self.log.bodies].decode("utf-8", "replace")
        if not route.has_body:
            return None, None
        try:
            parsed = parse_json(body)
        except QdrantError as error:
            return None, error
        ids, kinds = ids_in(parsed)
        entry.operations = kinds or [route.handler]
        entry.points, entry.ids = len(ids), ids[:IDS_SHOWN]
        return parsed, None

    def _faults_for_ids(self, entry: Entry, parsed: Any) -> list[Rule]:
        if not self.rules.want_ids:
            return []
        ids, _ = ids_in(parsed)
        return self.rules.at_body(entry, {str(one).lower() for one in ids})

    def _call(self, route: Route, names: dict, entry: Entry, rules: list[Rule], access: Access, parsed: Any) -> Call:
        call = Call(access, names, dict(parse_qsl(entry.query, keep_blank_values=True)), parsed)
        for rule in rules:
            if rule.action == "stale_alias":
                call.stale = rule.options.get("back", 1)
            elif rule.action == "acknowledge_and_drop":
                call.drop, call.status = True, "acknowledged"
            elif rule.action == "wait_timeout":
                call.drop, call.status = not rule.options.get("apply", True), "wait_timeout"
            elif rule.action == "operation_id" and "c" in names:
                name = self.engine.aliases.get(names["c"], names["c"])
                if name in self.engine.collections:
                    self.engine.collections[name].operations = rule.options.get("to", 0)
        return call

    def _apply(self, route: Route, call: Call, entry: Entry, rules: list[Rule]) -> Any:
        unknown_members.clear()
        try:
            return self.api.handle(route, call)
        finally:
            entry.unknown = sorted(set(unknown_members))
            entry.applied += call.applied
            for rule in rules:
                if rule.action == "twice":
                    self._in_background(self._apply_again(route, call, entry, rule.options.get("seconds", 0)))

    async def _apply_again(self, route: Route, call: Call, entry: Entry, seconds: float) -> None:
        await asyncio.sleep(seconds)
        again = Call(call.access, call.names, call.params, call.parsed)
        try:
            self.api.handle(route, again)
        except QdrantError as error:
            entry.error = f"second delivery: {error.message}"
        entry.applied += again.applied

    # ---- faults

    async def _faults_at_head(self, request: web.BaseRequest, entry: Entry, rules: list[Rule],
                              held: list[Held]) -> web.StreamResponse | None:
        for rule in rules:
            action, options = rule.action, rule.options
            if action == "delay" and options.get("when") == "head":
                await asyncio.sleep(options.get("seconds", 1))
            elif action == "stall":
                # Nothing is read from the socket, so that neither FIN nor RST is noticed. (The protocol's own
                # pause_reading() fails where the whole body came with the head.)
                transport = request.transport
                transport.pause_reading()
                held.append(await self.waiting.keep(entry, "stall"))
                if not transport.is_closing():
                    transport.resume_reading()
            elif action == "down":
                self.down(options.get("seconds"))
                raise Dropped
            elif action == "reset" and options.get("when", "head") in ("head", "body"):
                if options.get("when") == "body":
                    await self._read_some(request, entry, options.get("bytes"))
                self._drop(request)
            elif action in CANNED and (action == "early_400" or options.get("early")):
                return await self._send_canned(request, entry, rule)
        return None

    async def _read_some(self, request: web.BaseRequest, entry: Entry, wanted: int | None) -> None:
        if wanted is None:
            wanted = int(request.headers.get("Content-Length", 2)) // 2
        while entry.body_bytes < wanted:
            piece = await request.content.readany()
            if not piece:
                break
            entry.body_bytes += len(piece)

    async def _faults_at_body(self, request: web.BaseRequest, entry: Entry, rules: list[Rule],
                              held: list[Held]) -> Rule | None:
        """Waits as ordered; the rule of a canned answer, if there is one."""
        for rule in rules:
            action, options = rule.action, rule.options
            if action == "delay" and options.get("when", "body") == "body":
                await asyncio.sleep(options.get("seconds", 1))
            elif action == "hold" or (action == "stall" and rule.needs_body):
                keep = asyncio.ensure_future(self.waiting.keep(entry, "hold"))
                while not keep.done():
                    await asyncio.wait([keep], timeout=0.05)
                    entry.client_gone = request.transport is None or request.transport.is_closing()
                held.append(keep.result())
            elif action == "reset" and rule.needs_body and options.get("when", "head") != "after":
                self._drop(request)
            elif action == "down" and rule.needs_body:
                self.down(options.get("seconds"))
                raise Dropped
            elif action in CANNED:
                return rule
        return None

    def _drop(self, request: web.BaseRequest) -> None:
        if request.transport is not None:
            reset(request.transport)
        raise Dropped

    async def _send_canned(self, request: web.BaseRequest, entry: Entry, rule: Rule) -> web.StreamResponse:
        status, kind, headers, text = CANNED[rule.action]
        options = rule.options
        status = options.get("status", status)
        kind = options.get("content_type", kind)
        headers = {**headers, **options.get("headers", {})}
        if "retry_after" in options:
            headers["Retry-After"] = str(options["retry_after"])
        text = options.get("text", text)
        if "body" in options:
            given = options["body"]
            body = given.encode() if isinstance(given, str) else serialise(given)
            kind = "application/json" if kind == "json" else kind
        elif kind == "json":
            body, kind = envelope_error(text, 0.0), "application/json"
        else:
            body = text.encode()
        entry.error = text or None
        response = self._respond(entry, status, body, kind, headers)
        if options.get("close") or not request.content.is_eof():
            response.force_close()
        return response

    # ---- answers

    def _good(self, result: Any, started: float) -> tuple[bytes, str, dict]:
        if isinstance(result, Text):
            return result.encode(), "text/plain; charset=utf-8", {}
        if isinstance(result, Bytes):
            return bytes(result), "application/octet-stream", {}
        if isinstance(result, Raw):
            return serialise(dict(result)), "application/json", {}
        spent = time.perf_counter() - started
        return serialise({"result": result, "status": "ok", "time": spent}), "application/json", {}

    def _bad(self, error: QdrantError, started: float, entry: Entry) -> tuple[bytes, str, dict]:
        entry.error = error.message
        if error.plain:
            return error.message.encode(), "text/plain; charset=utf-8", error.headers
        spent = time.perf_counter() - started
        return envelope_error(error.message, spent), "application/json", error.headers

    def _respond(self, entry: Entry, status: int, body: bytes, kind: str,
                 headers: dict | None = None) -> web.Response:
        entry.answered, entry.status = time.time(), status
        return web.Response(status=status, body=body, headers={"Content-Type": kind, **(headers or {})})

    async def _send(self, request: web.BaseRequest, entry: Entry, rules: list[Rule], status: int, body: bytes,
                    kind: str, headers: dict) -> web.StreamResponse:
        """The engine's answer, or what the faults make of it."""
        for rule in rules:
            action, options = rule.action, rule.options
            if action == "delay" and options.get("when") == "after":
                await asyncio.sleep(options.get("seconds", 1))
            elif action == "reset" and options.get("when") == "after":
                self._drop(request)
            elif action == "garbage":
                body = options.get("body", '{"result":{"operation_id":1,"status":"comp').encode()
            elif action == "huge":
                body = b'{"result":"' + b"x" * options.get("bytes", HUGE) + b'","status":"ok","time":0.0}'
            elif action == "truncate":
                await self._send_part(request, entry, status, body, kind, options.get("bytes", len(body) // 2))
            elif action == "drip":
                return await self._drip(request, entry, status, body, kind, options.get("seconds", 0.01))
            elif action == "endless_headers":
                await self._endless_headers(request, entry, options.get("bytes", HUGE))
        return self._respond(entry, status, body, kind, headers)

    async def _send_part(self, request: web.BaseRequest, entry: Entry, status: int, body: bytes, kind: str,
                         sent: int) -> None:
        """The head promises the whole answer, the connection ends (FIN) before it."""
        entry.answered, entry.status = time.time(), status
        head = f"HTTP/1.1 {status} OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        if request.transport is not None:
            request.transport.write(head.encode() + body[:sent])
            request.transport.close()
        raise Dropped

    async def _drip(self, request: web.BaseRequest, entry: Entry, status: int, body: bytes, kind: str,
                    pause: float) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": kind})
        response.content_length = len(body)
        await response.prepare(request)
        for position in range(len(body)):
            await response.write(body[position:position + 1])
            await asyncio.sleep(pause)
        await response.write_eof()
        entry.answered, entry.status = time.time(), status
        return response

    async def _endless_headers(self, request: web.BaseRequest, entry: Entry, limit: int) -> None:
        line = b"X-Endless: " + b"x" * 1000 + b"\r\n"
        transport = request.transport
        entry.answered, entry.status = time.time(), 200
        transport.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(limit // len(line)):
            if transport.is_closing():
                raise Dropped
            transport.write(line)
            while transport.get_write_buffer_size() > 1 << 20 and not transport.is_closing():
                await asyncio.sleep(0.005)
        transport.close()
        raise Dropped


def envelope_error(text: str, spent: float) -> bytes:
    return serialise({"status": {"error": text}, "time": spent})


def too_large(size: int) -> QdrantError:
    return QdrantError(400, f"JSON payload ({size} bytes) is larger than allowed (limit: {MAX_BODY} bytes).")


def reset(transport: asyncio.Transport) -> None:
    """Ends a connection with RST."""
    raw = transport.get_extra_info("socket")
    if raw is not None:
        try:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
    transport.abort()
