"""The programs and libraries of bench/native: built when first needed, and the sink as a child process."""

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

from harness import places

NATIVE = Path(__file__).resolve().parents[1] / "native"
BUILT = places.HOME / "bench"


def pg_config(what):
    program = places.bindir(places.system_version()) / "pg_config"
    return Path(subprocess.run([program, f"--{what}"], capture_output=True, text=True, check=True).stdout.strip())


def compile(target, sources, *options):
    """Built by a bare compiler call: a module of the server, or a program."""
    target = BUILT / target
    BUILT.mkdir(parents=True, exist_ok=True)
    sources = [NATIVE / source for source in sources]
    if not target.exists() or any(s.stat().st_mtime > target.stat().st_mtime for s in sources):
        command = ["gcc", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-sign-compare",
                   "-Wno-unused-parameter", f"-I{pg_config('includedir-server')}", "-o", target, *sources, *options]
        subprocess.run(list(map(str, command)), check=True)
        target.chmod(0o755)
    return target


def module(name, *libraries):
    """A library for CREATE FUNCTION … AS, which names it by its path without .so."""
    return compile(f"{name}.so", [f"{name}.c"], "-shared", "-fPIC", *libraries).with_suffix("")


def static_library(name):
    """Debian keeps them in pkglibdir, others in libdir."""
    return next(d / name for d in (pg_config("pkglibdir"), pg_config("pkglibdir").parent / "lib", pg_config("libdir"))
                if (d / name).exists())


def float_program():
    (BUILT / "floats").unlink(missing_ok=True)
    source = next((places.ROOT / "src").rglob("float_text.c"))
    return compile("floats", ["floats.c", source], f"-I{places.ROOT / 'src'}", f"-I{source.parent}",
                   static_library("libpgcommon.a"), static_library("libpgport.a"), "-ljansson", "-lm")


class Sink:
    """A server that answers as Qdrant does and keeps nothing. It ends with the pipe to it."""

    def __enter__(self):
        program = compile("sink", ["sink.c"], "-ljansson", "-lpthread")
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        return self

    def __exit__(self, *exc):
        self.process.stdin.close()
        self.process.wait(10)

    def mode(self, **switches):
        """hold=True keeps writes waiting, count=True counts the points in them."""
        arguments = "&".join(f"{name}={int(value)}" for name, value in switches.items())
        with urllib.request.urlopen(f"{self.url}/sink/mode?{arguments}", data=b"") as answer:
            return json.load(answer)

    def stats(self):
        with urllib.request.urlopen(f"{self.url}/sink/stats") as answer:
            return json.load(answer)


def require(program):
    if shutil.which(program) is None:
        raise FileNotFoundError(f"{program} is not installed")
