"""The front's second port: faults, log, releases, down and up.  Never mixed with Qdrant's paths."""

from __future__ import annotations

import asyncio
import re

import orjson
from aiohttp import web

from .app import Server


def answer(value) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


class Control:
    """One handler a path; bodies and answers are JSON."""

    def __init__(self, server: Server):
        self.server = server

    def application(self) -> web.Application:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/__faults", self.add_faults)
        app.router.add_get("/__faults", self.get_faults)
        app.router.add_delete("/__faults", self.clear_faults)
        app.router.add_get("/__log", self.get_log)
        app.router.add_delete("/__log", self.clear_log)
        app.router.add_get("/__held", self.get_held)
        app.router.add_post("/__release", self.release)
        app.router.add_post("/__down", self.down)
        app.router.add_post("/__up", self.up)
        app.router.add_post("/__config", self.config)
        return app

    async def add_faults(self, request: web.Request) -> web.Response:
        given = orjson.loads(await request.read())
        try:
            return answer(self.server.rules.add([given] if isinstance(given, dict) else given))
        except (ValueError, TypeError) as error:
            return web.Response(status=400, text=str(error))

    async def get_faults(self, request: web.Request) -> web.Response:
        return answer(self.server.rules.shown())

    async def clear_faults(self, request: web.Request) -> web.Response:
        """Rules go; what is held by them stays held until it is released."""
        self.server.rules.clear()
        return answer(True)

    async def get_log(self, request: web.Request) -> web.Response:
        """?since=N&method=PUT&path_regex=…; the newest last."""
        wanted = request.query
        since, method = int(wanted.get("since", 0)), wanted.get("method")
        path = re.compile(wanted.get("path_regex", ""))
        return answer([entry.shown() for entry in self.server.log.entries
                       if entry.n > since and method in (None, entry.method) and path.search(entry.path)])

    async def clear_log(self, request: web.Request) -> web.Response:
        self.server.log.clear()
        return answer(True)

    async def get_held(self, request: web.Request) -> web.Response:
        return answer([held.shown() for held in self.server.waiting.held])

    async def release(self, request: web.Request) -> web.Response:
        """{"n": [numbers]} or nothing for all; answers when they were applied (at most `wait` seconds)."""
        body = await request.read()
        given = orjson.loads(body) if body else {}
        return answer({"released": await self.server.waiting.release(given.get("n"), given.get("wait", 10))})

    async def down(self, request: web.Request) -> web.Response:
        body = await request.read()
        given = orjson.loads(body) if body else {}
        self.server.down(given.get("seconds"))
        await asyncio.sleep(0)
        return answer(True)

    async def up(self, request: web.Request) -> web.Response:
        await self.server.up()
        return answer(True)

    async def config(self, request: web.Request) -> web.Response:
        """{"peers": N}: GET /cluster tells of N peers; {"bodies": N}: the log keeps N bytes of each body;
        {"version": "1.17.0"}: what GET / says."""
        given = orjson.loads(await request.read())
        self.server.api.peers = given.get("peers", self.server.api.peers)
        self.server.log.bodies = given.get("bodies", self.server.log.bodies)
        self.server.api.version_text = given.get("version", self.server.api.version_text)
        return answer(True)
