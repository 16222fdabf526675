"""A front as a child process, for pytest fixtures."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Callable


class Front:
    """Starts `python -m qdrant_front`, orders faults and reads its log through the control port.

    with Front(api_key="k") as front:
        front.fault("500", path_regex="/points$", times=2)
        ... front.url ...
        assert front.log(method="PUT")[0]["status"] == 500
    """

    def __init__(self, *, port: int = 0, api_key: str | None = None, read_only_key: str | None = None,
                 no_alias_key: str | None = None, version: str = "1.18.3", data: str | None = None,
                 python: str = sys.executable):
        self.api_key, self.read_only_key, self.no_alias_key = api_key, read_only_key, no_alias_key
        self._wanted_port = port
        self._version, self._data, self._python = version, data, python
        self._process: subprocess.Popen | None = None
        self.url = self.control_url = ""

    # ---- life

    def start(self) -> "Front":
        command = [self._python, "-m", "qdrant_front", "--port", str(self._wanted_port),
                   "--version", self._version, "--exit-with-stdin"]
        for option, value in (("--api-key", self.api_key), ("--read-only-key", self.read_only_key),
                              ("--no-alias-key", self.no_alias_key), ("--data", self._data)):
            if value is not None:
                command += [option, value]
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        paths = [package] + ([os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else [])
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
        line = self._process.stdout.readline()
        match = re.fullmatch(r"listening on (\S+) control (\S+)\n", line)
        if match is None:
            self.kill()
            raise RuntimeError(f"the front did not start: {line!r}")
        self.url, self.control_url = match.groups()
        self._wanted_port = self.port  # a restart comes back on the same port
        return self

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """As a server is stopped: SIGTERM, then wait."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a server dies."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._process = None

    def freeze(self) -> None:
        """SIGSTOP: the kernel still takes connections and bytes, nobody reads them."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> "Front":
        return self.start()

    def __exit__(self, *_: Any) -> None:
        self.stop()

    # ---- control

    def _control(self, method: str, path: str, body: Any = None, timeout: float = 60) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.control_url + path, data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from None

    def fault(self, action: str, *, times: int | None = None, method: str | list[str] | None = None,
              path_regex: str | None = None, query_regex: str | None = None, nth: int | list[int] | None = None,
              ids_any: list | None = None, **options: Any) -> dict:
        """Adds one rule behind those there are; `options` as README.md lists them."""
        match = {"method": method, "path_regex": path_regex, "query_regex": query_regex, "nth": nth,
                 "ids_any": ids_any}
        rule = {"action": action, "times": times,
                "match": {key: value for key, value in match.items() if value is not None}, **options}
        return self.faults_add([rule])[0]

    def faults_add(self, rules: list[dict]) -> list[dict]:
        return self._control("POST", "/__faults", rules)

    def faults(self) -> list[dict]:
        return self._control("GET", "/__faults")

    def clear_faults(self) -> None:
        self._control("DELETE", "/__faults")

    def log(self, *, since: int = 0, method: str | None = None, path_regex: str | None = None) -> list[dict]:
        """The requests so far (README.md lists the fields); `since` is the number of an earlier one."""
        wanted = {"since": since, "method": method, "path_regex": path_regex}
        query = urllib.parse.urlencode({key: value for key, value in wanted.items() if value is not None})
        return self._control("GET", "/__log?" + query)

    def clear_log(self) -> None:
        self._control("DELETE", "/__log")

    def held(self) -> list[dict]:
        """Requests that wait for a release, with `client_gone`."""
        return self._control("GET", "/__held")

    def release(self, *numbers: int, wait: float = 10) -> list[int]:
        """Lets held requests go (all, or those with these numbers of the log) and waits until applied."""
        body = {"wait": wait, **({"n": list(numbers)} if numbers else {})}
        return self._control("POST", "/__release", body)["released"]

    def pause_listening(self, seconds: float | None = None) -> None:
        self._control("POST", "/__down", {} if seconds is None else {"seconds": seconds})

    def resume_listening(self) -> None:
        self._control("POST", "/__up")

    down, up = pause_listening, resume_listening

    def configure(self, **settings: Any) -> None:
        """peers=N, bodies=N (bytes of each body kept in the log), version="1.17.0"."""
        self._control("POST", "/__config", settings)

    # ---- waiting

    def wait_for(self, condition: Callable[[], Any], timeout: float = 10, what: str = "the condition") -> Any:
        """The first true value of `condition`."""
        until = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > until:
                raise TimeoutError(f"waited {timeout} s for {what}")
            time.sleep(0.01)

    def wait_held(self, count: int = 1, timeout: float = 10) -> list[dict]:
        return self.wait_for(lambda: (held := self.held()) and len(held) >= count and held, timeout,
                             f"{count} held requests")

    def wait_log(self, count: int = 1, timeout: float = 10, **which: Any) -> list[dict]:
        """Until that many answered requests of that kind are in the log."""
        def enough():
            entries = [entry for entry in self.log(**which) if entry["status"] is not None]
            return len(entries) >= count and entries
        return self.wait_for(enough, timeout, f"{count} answered requests")
