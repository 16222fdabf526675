"""python -m qdrant_front: prints where it listens, serves until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile

from aiohttp import web

from .access import Keys
from .app import Server
from .control import Control
from .engine import Engine


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="qdrant_front", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--api-key")
    parser.add_argument("--read-only-key")
    parser.add_argument("--no-alias-key", help="a key scoped to collections, without the right to manage aliases")
    parser.add_argument("--version", default="1.18.3", help="what GET / says")
    parser.add_argument("--data", help="keep everything in this directory; without it all is gone at exit")
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when standard input is closed")
    return parser.parse_args()


PREFIX = "qdrant-front-"


def scratch() -> str:
    """A directory of this process's own, in memory where there is enough of it."""
    memory = "/dev/shm"
    roomy = os.path.isdir(memory) and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 << 30
    place = memory if roomy else tempfile.gettempdir()
    sweep(place)
    return tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=place)


def sweep(place: str) -> None:
    """Removes what fronts left that were killed."""
    for name in os.listdir(place):
        owner = name.removeprefix(PREFIX).partition("-")[0]
        if name.startswith(PREFIX) and owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            shutil.rmtree(os.path.join(place, name), ignore_errors=True)


async def serve(args: argparse.Namespace) -> None:
    if args.data:
        os.makedirs(args.data, exist_ok=True)
    engine = Engine(args.data or scratch(), keep=bool(args.data))
    try:
        server = Server(engine, Keys(args.api_key, args.read_only_key, args.no_alias_key), args.version)
        await server.listen(args.port)
        runner = web.AppRunner(Control(server).application(), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", args.control_port, shutdown_timeout=0.1)
        await site.start()
        control = runner.addresses[0][1]
        print(f"listening on http://127.0.0.1:{server.port} control http://127.0.0.1:{control}", flush=True)
        await end(args.exit_with_stdin)
        server.down()
    finally:
        engine.close()


async def end(with_stdin: bool) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    if with_stdin:
        loop.add_reader(sys.stdin.fileno(), lambda: over.set() if not os.read(sys.stdin.fileno(), 4096) else None)
    await over.wait()


if __name__ == "__main__":
    asyncio.run(serve(arguments()))
