"""src/net/http.c before bad servers: what each of them does to a request, and that nothing is sent twice, hangs or leaks."""

import os
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.places import bindir, system_version

HERE = Path(__file__).resolve().parent
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
NEVER = 0


# --- a server whose every connection is handled by one function -------------------------------------------------------

class Server:
    """Listens on loopback; handle(connection, number) runs in a thread of its own for each connection."""

    def __init__(self, handle, family=socket.AF_INET):
        self.handle = handle
        self.accepted = 0
        self.requests = []
        self.bodies = []
        self.open = 0
        self.most_open = 0
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                number = self.accepted
                self.accepted += 1
                self.open += 1
                self.most_open = max(self.most_open, self.open)
            threading.Thread(target=self.serve, args=(connection, number), daemon=True).start()

    def serve(self, connection, number):
        try:
            with connection:
                self.handle(self, Stream(connection), number)
        except OSError:
            pass
        finally:
            with self.lock:
                self.open -= 1

    def close(self):
        self.ending.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Stream:
    """The server's side of a connection."""

    def __init__(self, connection):
        self.connection = connection
        self.buffer = b""

    def head(self):
        """The next request's head, or None at the connection's end."""
        while b"\r\n\r\n" not in self.buffer:
            more = self.connection.recv(65536)
            if not more:
                return None
            self.buffer += more
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head.decode("latin-1")

    def body(self, length):
        while len(self.buffer) < length:
            more = self.connection.recv(1 << 20)
            if not more:
                break
            self.buffer += more
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return body

    def request(self, server):
        """One whole request, noted at the server; None at the end."""
        head = self.head()
        if head is None:
            return None
        length = next((int(line.split(":")[1]) for line in head.split("\r\n")
                       if line.lower().startswith("content-length:")), 0)
        with server.lock:
            server.requests.append(head)
        body = self.body(length)
        with server.lock:
            server.bodies.append(body)
        return head

    def send(self, data):
        self.connection.sendall(data)

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def hold(self, server, seconds=30):
        """Neither reads nor answers, until the test or the client ends."""
        server.ending.wait(seconds)


def always(answer):
    def handle(server, stream, number):
        while stream.request(server) is not None:
            stream.send(answer)
    return handle


@pytest.fixture
def serve():
    servers = []

    def start(handle):
        servers.append(Server(handle))
        return servers[-1]
    yield start
    for server in servers:
        server.close()


# --- the client -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("http") / "driver"
    env = {**os.environ, "PG_CONFIG": str(bindir(system_version()) / "pg_config")}
    subprocess.run([HERE / "build", HERE / "http_driver.c", path], check=True, env=env)
    return path


@pytest.fixture(scope="session")
def plain_program(tmp_path_factory):
    """Without sanitizers, which do not let LD_PRELOAD libraries come before them."""
    path = tmp_path_factory.mktemp("http") / "driver"
    env = {**os.environ, "PG_CONFIG": str(bindir(system_version()) / "pg_config"), "UNIT_CFLAGS": "-fno-sanitize=all"}
    subprocess.run([HERE / "build", HERE / "http_driver.c", path], check=True, env=env)
    return path


@pytest.fixture(scope="session")
def rebuilding_program(tmp_path_factory):
    """As on systems without epoll: the wait event set is made anew when the sockets change."""
    path = tmp_path_factory.mktemp("http") / "driver"
    env = {**os.environ, "PG_CONFIG": str(bindir(system_version()) / "pg_config"),
           "UNIT_CFLAGS": "-DQS_WITHOUT_EPOLL"}
    subprocess.run([HERE / "build", HERE / "http_driver.c", path], check=True, env=env)
    return path


@pytest.fixture(scope="session")
def preload(tmp_path_factory):
    """A library of test/unit/faults, by name, for LD_PRELOAD."""
    directory = tmp_path_factory.mktemp("preload")

    def compiled(name):
        library = directory / f"{name}.so"
        if not library.exists():
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "faults" / f"{name}.c", "-ldl"],
                           check=True)
        return library
    return compiled


class Outcome:
    def __init__(self, line):
        fields = line.split("\t")
        self.id, self.status, self.sent, self.resent, self.retry_after, self.json, self.length = map(int, fields[1:8])
        self.error, self.answer = fields[8], fields[9]

    def __repr__(self):
        return str(vars(self))


class Driver:
    def __init__(self, program, connections=4, env=None):
        self.process = subprocess.Popen([program, str(connections)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env={**os.environ, **(env or {})})
        self.buffer = b""
        self.outcomes = {}
        self.others = []
        self.next_id = 0
        assert self.line(20) == "ready"
        self.idle_sockets = self.sockets()      # libcurl's own

    def line(self, timeout):
        """The next line, or None after timeout seconds."""
        until = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                return None
            more = os.read(self.process.stdout.fileno(), 65536)
            assert more, f"the driver ended with {self.process.wait()}"
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode("utf-8", "replace")

    def command(self, *fields):
        self.process.stdin.write(("\t".join(map(str, fields)) + "\n").encode())
        self.process.stdin.flush()

    def submit(self, method, url, body=0, read=False, connect_ms=5000, ms=20000, most=1 << 20, key="-", sink=0):
        self.next_id += 1
        self.command("submit", self.next_id, method, url, body, int(read), connect_ms, ms, most, key, sink or "-")
        return self.next_id

    def outcome(self, number, timeout=20):
        until = time.monotonic() + timeout
        while number not in self.outcomes:
            line = self.line(max(0, until - time.monotonic()))
            assert line is not None, f"no outcome of request {number} within {timeout} s"
            if line.startswith("ended\t"):
                ended = Outcome(line)
                assert ended.id not in self.outcomes, "an outcome came twice"
                self.outcomes[ended.id] = ended
            else:
                self.others.append(line)
        return self.outcomes[number]

    def call(self, *args, timeout=20, **kwargs):
        return self.outcome(self.submit(*args, **kwargs), timeout)

    def cancel(self, number):
        """Seconds until the request was gone."""
        started = time.monotonic()
        self.command("cancel", number)
        self.answer(f"cancelled {number}")
        return time.monotonic() - started

    def running(self):
        self.command("running")
        return int(self.answer("running ").split()[1])

    def answer(self, start, timeout=20):
        until = time.monotonic() + timeout
        while True:
            for line in self.others:
                if line.startswith(start):
                    self.others.remove(line)
                    return line
            line = self.line(max(0, until - time.monotonic()))
            assert line is not None, f"no line {start}"
            if line.startswith("ended\t"):
                ended = Outcome(line)
                self.outcomes[ended.id] = ended
            else:
                self.others.append(line)

    def sockets(self):
        directory = f"/proc/{self.process.pid}/fd"
        count = 0
        for name in os.listdir(directory):
            try:
                count += os.readlink(f"{directory}/{name}").startswith("socket:")
            except FileNotFoundError:
                pass
        return count

    def threads(self):
        return os.listdir(f"/proc/{self.process.pid}/task")

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self):
        with open(f"/proc/{self.process.pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def end(self):
        """Closes; the sanitizers have their say in the exit code."""
        self.process.stdin.close()
        self.process.stdout.read()
        return self.process.wait(20)

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        self.process.stdout.close()


@contextmanager
def driving(program, connections=4, env=None):
    made = Driver(program, connections, env)
    try:
        yield made
        assert made.end() == 0
    finally:
        made.kill()


@pytest.fixture
def driver(program):
    with driving(program) as made:
        yield made


def wait_until(condition, timeout, what):
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.01)


# --- what is sent -----------------------------------------------------------------------------------------------------

def headers(head):
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)}


def test_a_write_says_what_it_must_and_no_more(serve, driver):
    server = serve(always(OK))
    outcome = driver.call("PUT", server.url + "/collections/a%2Fb/points?wait=true", body=300000, key="secret")
    assert (outcome.status, outcome.sent, outcome.resent, outcome.json, outcome.answer) == (200, 1, 0, 1, "{}")
    head = server.requests[0]
    assert head.startswith("PUT /collections/a%2Fb/points?wait=true HTTP/1.1\r\n")
    assert headers(head) == {"host": f"127.0.0.1:{server.port}", "user-agent": "qdrant_sync",
                             "accept": "application/json", "content-type": "application/json", "api-key": "secret",
                             "content-length": "300000"}
    assert server.bodies == [b"x" * 300000]


@pytest.mark.parametrize("method,read,body,length", [
    ("GET", True, 0, None), ("POST", True, 5, "5"), ("POST", True, 2000000, "2000000"), ("PUT", False, 5, "5"),
    ("POST", False, 0, "0"), ("DELETE", False, 0, None), ("PATCH", False, 7, "7"), ("DELETE", False, 9, "9")])
def test_every_method_with_and_without_a_body(serve, driver, method, read, body, length):
    server = serve(always(OK))
    for _ in range(2):
        assert driver.call(method, server.url + "/x", body=body, read=read).status == 200
    for head in server.requests:
        assert head.startswith(method + " /x HTTP/1.1")
        assert headers(head).get("content-length") == length
        assert "expect" not in headers(head) and "accept-encoding" not in headers(head)
    assert server.bodies == [b"x" * body] * 2


def test_a_path_is_sent_as_it_is(serve, driver):
    server = serve(always(OK))
    driver.call("GET", server.url + "/collections/../aliases/./%2e%2e", read=True)
    assert server.requests[0].startswith("GET /collections/../aliases/./%2e%2e HTTP/1.1")


@pytest.mark.parametrize("key", ["a\\r\\nX-Evil: 1", "a b", "\\n", "ä"])
def test_a_key_cannot_add_a_header(serve, driver, key):
    server = serve(always(OK))
    outcome = driver.call("GET", server.url + "/", read=True, key=key)
    assert outcome.status == 0 and not outcome.sent and "api_key" in outcome.error
    assert server.accepted == 0


@pytest.mark.parametrize("method", ["GET / HTTP/1.1\\r\\nX-Evil: 1\\r\\n", "get", "G ET"])
def test_a_method_cannot_add_a_header(serve, driver, method):
    server = serve(always(OK))
    outcome = driver.call(method, server.url + "/", read=True)
    assert outcome.status == 0 and not outcome.sent and server.accepted == 0


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1:1/x", "nonsense://x",
                                 "http://127.0.0.1:99999/", "http://a b/", "http://127.0.0.1/\\r\\nX: 1"])
def test_urls_that_are_refused(driver, url):
    outcome = driver.call("GET", url, read=True)
    assert outcome.status == 0 and not outcome.sent and outcome.error


def test_a_redirect_is_not_followed(serve, driver):
    target = serve(always(OK))
    server = serve(always(f"HTTP/1.1 307 Go\r\nLocation: {target.url}/x\r\nContent-Length: 0\r\n\r\n".encode()))
    assert driver.call("GET", server.url, read=True, key="secret").status == 307
    assert target.accepted == 0


def test_the_environment_names_no_proxy_and_no_key_log(serve, program, tmp_path):
    server, proxy = serve(always(OK)), serve(always(OK))
    env = {name: proxy.url for name in ("http_proxy", "all_proxy", "ALL_PROXY", "HTTP_PROXY")}
    with driving(program, env={**env, "SSLKEYLOGFILE": str(tmp_path / "keys")}) as driver:
        assert driver.call("GET", server.url, read=True).status == 200
    assert proxy.accepted == 0 and not (tmp_path / "keys").exists()


# --- nothing arrives --------------------------------------------------------------------------------------------------

def test_refused_and_unknown_hosts_were_not_sent_to(driver):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/", "http://no-such-host.invalid/"):
        outcome = driver.call("PUT", url, body=1000)
        assert outcome.status == 0 and not outcome.sent and not outcome.resent and outcome.error


def test_a_connection_that_is_not_answered_ends_at_its_own_timeout(driver):
    # A full backlog: the kernel drops further SYNs.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        started = time.monotonic()
        outcome = driver.call("PUT", f"http://127.0.0.1:{listener.getsockname()[1]}/", body=10, connect_ms=300)
        assert outcome.status == 0 and not outcome.sent and "no connection within 300 ms" in outcome.error
        assert time.monotonic() - started < 2
        for filler in fillers:
            filler.close()


# --- half answers and worse -------------------------------------------------------------------------------------------

def test_reset_in_the_middle_of_a_body_is_in_doubt(serve, driver):
    def handle(server, stream, number):
        stream.head()
        stream.body(100000)
        stream.reset()
    outcome = driver.call("PUT", serve(handle).url, body=20_000_000)
    assert outcome.status == 0 and outcome.sent and outcome.error


@pytest.mark.parametrize("answer", [
    b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", b"SSH-2.0-x\r\n"])
def test_half_an_answer_is_in_doubt(serve, driver, answer):
    def handle(server, stream, number):
        stream.request(server)
        stream.send(answer)
    server = serve(handle)
    outcome = driver.call("PUT", server.url, body=1000)
    assert outcome.status == 0 and outcome.sent and not outcome.resent and outcome.error
    assert len(server.bodies) == 1


def test_an_answer_in_drips_arrives_whole(serve, driver):
    def handle(server, stream, number):
        stream.request(server)
        for byte in OK:
            stream.send(bytes([byte]))
            time.sleep(0.002)
    outcome = driver.call("PUT", serve(handle).url, body=1000)
    assert (outcome.status, outcome.answer) == (200, "{}")


def test_an_endless_drip_ends_at_the_timeout(serve, driver):
    def handle(server, stream, number):
        stream.request(server)
        stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while not server.ending.wait(0.01):
            stream.send(b"x")
    started = time.monotonic()
    outcome = driver.call("PUT", serve(handle).url, body=1000, ms=500)
    assert outcome.status == 0 and outcome.sent and "no answer within 500 ms" in outcome.error
    assert 0.45 < time.monotonic() - started < 2


def test_an_endless_answer_is_bounded(serve, driver):
    def handle(server, stream, number):
        stream.request(server)
        stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            stream.send(b"x" * 65536)
    before = driver.resident()
    outcome = driver.call("POST", serve(handle).url, body=5, read=True, most=1_000_000)
    assert outcome.status == 0 and "larger" in outcome.error and outcome.length <= 1_000_000
    assert driver.resident() - before < 50_000_000


def test_an_answer_may_be_as_large_as_allowed(serve, driver):
    server = serve(always(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"y" * 100000))
    assert driver.call("GET", server.url, read=True, most=100000).length == 100000
    assert driver.call("GET", server.url, read=True, most=99999).status == 0


def test_a_first_header_that_begins_with_a_space_reads_no_freed_memory(serve, driver):
    """libcurl 7.83 to 8.1.0 appends it to the last header of the handle's transfer before."""
    folded = b"HTTP/1.1 200 OK\r\n fold: x\r\nContent-Length: 2\r\n\r\n{}"
    server = serve(always(folded))
    for _ in range(3):
        assert driver.call("PUT", server.url, body=5, ms=5000).status in (0, 200)
    assert driver.call("GET", serve(always(OK)).url, read=True, ms=5000).status == 200


def test_a_status_of_two_digits_is_none(serve, driver):
    server = serve(always(b"HTTP/1.1 20x OK\r\nContent-Length: 2\r\n\r\n{}"))
    assert driver.call("PUT", server.url, body=5, ms=5000).status == 0


@pytest.mark.parametrize("head", [b"X-Long: " + b"x" * 200, b"X-A: 1"])
def test_an_endless_head_is_bounded(serve, driver, head):
    def handle(server, stream, number):
        stream.request(server)
        stream.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            stream.send((head + b"\r\n") * 100)
    assert "head" in driver.call("GET", serve(handle).url, read=True).error


def test_endless_interim_answers_are_bounded(serve, driver):
    def handle(server, stream, number):
        stream.request(server)
        while True:
            stream.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
    assert driver.call("GET", serve(handle).url, read=True).status == 0


def test_an_early_400_while_the_body_is_sent_does_not_hang(serve, driver):
    """The server answers after the head, reads no more, and keeps the connection open."""
    def handle(server, stream, number):
        stream.head()
        stream.send(b"HTTP/1.1 400 Bad\r\nContent-Length: 3\r\n\r\nbad")
        stream.hold(server)
    started = time.monotonic()
    outcome = driver.call("PUT", serve(handle).url, body=30_000_000)
    assert (outcome.status, outcome.answer) == (400, "bad")
    assert time.monotonic() - started < 2


def test_an_early_success_is_no_answer_to_the_whole_body(serve, driver):
    def handle(server, stream, number):
        stream.head()
        stream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
        stream.hold(server, 1)
    outcome = driver.call("PUT", serve(handle).url, body=30_000_000)
    assert outcome.status == 0 and outcome.sent


def test_a_server_that_reads_nothing_ends_at_the_timeout(serve, driver):
    outcome = driver.call("PUT", serve(lambda server, stream, number: stream.hold(server)).url, body=30_000_000, ms=400)
    assert outcome.status == 0 and outcome.sent


def test_a_silent_server_is_waited_for_without_a_timeout(serve, driver):
    def handle(server, stream, number):
        stream.request(server)
        time.sleep(1)
        stream.send(OK)
    assert driver.call("PUT", serve(handle).url, body=10, ms=NEVER, connect_ms=100).status == 200


def test_a_sink_that_is_full_ends_the_transfer(serve, driver):
    server = serve(always(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"y" * 100000))
    outcome = driver.call("GET", server.url, read=True, sink=50000)
    assert outcome.status == 0 and "no room" in outcome.error
    outcome = driver.call("GET", server.url, read=True, sink=100000)
    assert outcome.status == 200 and outcome.length == 100000 and outcome.answer == ""


@pytest.mark.parametrize("header,seconds", [("Retry-After: 7", 7), ("retry-after:0", 0), ("X: 1", -1),
                                            ("Retry-After: soon", 0)])
def test_retry_after(serve, driver, header, seconds):
    server = serve(always(f"HTTP/1.1 429 Slow\r\n{header}\r\nContent-Length: 0\r\n\r\n".encode()))
    outcome = driver.call("PUT", server.url, body=5)
    assert (outcome.status, outcome.retry_after) == (429, seconds)
    assert driver.call("PUT", server.url, body=5).retry_after == seconds


# --- hazard 1: never twice --------------------------------------------------------------------------------------------

def closes_kept_connection_after_reading(server, stream, number):
    """Answers the first request of a connection, reads the second whole, and closes without a word."""
    stream.request(server)
    stream.send(OK)
    stream.request(server)


def test_a_write_that_a_kept_connection_swallowed_is_not_sent_again(serve, driver):
    server = serve(closes_kept_connection_after_reading)
    assert driver.call("PUT", server.url + "/first", body=10).status == 200
    outcome = driver.call("PUT", server.url + "/second", body=50000)
    assert outcome.status == 0 and outcome.sent and "without an answer" in outcome.error
    assert [head.split()[1] for head in server.requests] == ["/first", "/second"]


def test_nor_where_the_handle_was_used_for_a_read_before(serve, driver):
    """libcurl rewinds a body of POSTFIELDS without asking, and a handle remembers them."""
    server = serve(closes_kept_connection_after_reading)
    assert driver.call("POST", server.url + "/first", body=10, read=True).status == 200
    outcome = driver.call("PUT", server.url + "/second", body=50000)
    assert outcome.status == 0 and outcome.sent
    assert [head.split()[1] for head in server.requests] == ["/first", "/second"]


def test_nor_where_it_was_reset_after_the_head(serve, driver):
    def handle(server, stream, number):
        if stream.request(server):
            stream.send(OK)
        if stream.head():
            with server.lock:
                server.requests.append("half")
            stream.body(1)
            stream.reset()
    server = serve(handle)
    assert driver.call("PUT", server.url, body=10).status == 200
    outcome = driver.call("PUT", server.url, body=5_000_000)
    assert outcome.status == 0 and outcome.sent
    assert len(server.requests) == 2


def test_a_write_without_a_body_is_not_sent_again_either(serve, driver):
    server = serve(closes_kept_connection_after_reading)
    assert driver.call("GET", server.url + "/first", read=True).status == 200
    for path in ("/second", "/third"):
        outcome = driver.call("DELETE", server.url + path)
        assert outcome.status == 200
    assert [head.split()[1] for head in server.requests] == ["/first", "/second", "/third"]
    assert server.accepted == 3


def test_a_read_is_repeated_once_where_a_kept_connection_was_closed(serve, driver):
    server = serve(closes_kept_connection_after_reading)
    for path in ("/first", "/second"):
        assert driver.call("POST", server.url + path, body=50, read=True).status == 200
    assert [head.split()[1] for head in server.requests] == ["/first", "/second", "/second"]


def test_connections_are_kept_and_those_that_were_closed_are_noticed(serve, driver):
    """The ordinary end of an idle connection: seen before the next request, which loses nothing."""
    def handle(server, stream, number):
        stream.request(server)
        stream.send(OK)
        if number == 0:
            stream.request(server)
            stream.send(OK)
    server = serve(handle)
    assert driver.call("PUT", server.url, body=10).status == 200
    assert driver.call("PUT", server.url, body=10).status == 200
    assert server.accepted == 1
    wait_until(lambda: server.open == 0, 5, "the server closed")
    assert driver.call("PUT", server.url, body=10).status == 200
    assert len(server.bodies) == 3


# --- many, and cancelled ----------------------------------------------------------------------------------------------

def test_many_requests_share_a_few_connections(serve, driver):
    server = serve(always(OK))
    numbers = [driver.submit("PUT" if i % 2 else "POST", server.url, body=2000, read=not i % 2) for i in range(600)]
    assert {driver.outcome(n).status for n in numbers} == {200}
    assert server.most_open <= 4 and len(server.bodies) == 600
    assert driver.running() == 0


def test_waiting_for_a_connection_is_not_connecting(serve, driver):
    def handle(server, stream, number):
        while stream.request(server):
            time.sleep(0.4)
            stream.send(OK)
    server = serve(handle)
    numbers = [driver.submit("PUT", server.url, body=20, connect_ms=300) for _ in range(12)]
    assert {driver.outcome(n).status for n in numbers} == {200}


def test_one_bad_server_does_not_stop_another(serve, driver):
    bad, good = serve(lambda server, stream, number: stream.hold(server)), serve(always(OK))
    stuck = [driver.submit("PUT", bad.url, body=1_000_000, ms=NEVER) for _ in range(50)]
    started = time.monotonic()
    for _ in range(20):
        assert driver.call("PUT", good.url, body=1000).status == 200
    assert time.monotonic() - started < 3
    for number in stuck:
        driver.cancel(number)


def test_a_cancel_closes_the_connection_and_frees_everything(serve, driver):
    server = serve(lambda server, stream, number: (stream.request(server), stream.connection.recv(1)))
    for _ in range(100):
        numbers = [driver.submit("PUT", server.url, body=1000, ms=NEVER) for _ in range(4)]
        for number in numbers:
            assert driver.cancel(number) < 1
    wait_until(lambda: server.open == 0, 5, "the connections of cancelled requests are closed")
    assert driver.sockets() == driver.idle_sockets and driver.running() == 0
    server.handle = always(OK)
    assert driver.call("PUT", server.url, body=10).status == 200


def test_idle_connections_are_closed(serve, driver):
    server = serve(always(OK))
    assert driver.call("PUT", server.url, body=10).status == 200
    assert server.open == 1
    wait_until(lambda: server.open == 0, 8, "the idle connection is closed")
    assert driver.sockets() == driver.idle_sockets
    assert driver.call("PUT", server.url, body=10).status == 200


def test_a_connection_that_the_server_is_about_to_close_is_not_used_again(serve, driver):
    """Hazard R11: Qdrant closes after 5 s of idleness, and libcurl counts whole seconds only."""
    server, busy = serve(always(OK)), serve(lambda server, stream, number: stream.hold(server))
    number = driver.submit("POST", busy.url, body=10, ms=NEVER)    # while something runs, idle ones are not closed
    for _ in range(2):
        assert driver.call("POST", server.url, body=10, read=True).status == 200
    assert server.accepted == 1
    time.sleep(4.1)
    assert server.open == 1
    assert driver.call("POST", server.url, body=10, read=True).status == 200
    assert server.accepted == 2
    driver.cancel(number)


def test_waiting_costs_nothing(serve, driver):
    server = serve(lambda server, stream, number: stream.hold(server))
    number = driver.submit("PUT", server.url, body=10, ms=NEVER)
    wait_until(lambda: server.open == 1, 5, "connected")
    time.sleep(0.2)
    before = driver.cpu()
    time.sleep(1.5)
    assert driver.cpu() - before < 0.1
    driver.cancel(number)


def test_memory_is_flat(serve, plain_program):
    server = serve(always(OK))
    with driving(plain_program) as driver:
        def some():
            for _ in range(250):
                numbers = [driver.submit("PUT", server.url, body=3000) for _ in range(8)]
                assert {driver.outcome(n).status for n in numbers} == {200}
        some()
        before = driver.resident()
        some()
        some()
        assert driver.resident() - before < 500_000


def test_without_epoll(serve, rebuilding_program):
    server, bad = serve(always(OK)), serve(lambda server, stream, number: stream.hold(server))
    with driving(rebuilding_program) as driver:
        numbers = [driver.submit("PUT", server.url, body=20000) for _ in range(200)]
        assert {driver.outcome(n).status for n in numbers} == {200}
        assert driver.call("PUT", bad.url, body=10_000_000, ms=300).sent
        number = driver.submit("PUT", bad.url, body=10, ms=NEVER)
        assert driver.cancel(number) < 1
        assert driver.call("PUT", server.url, body=10).status == 200


# --- slow name look-ups (R2, R15) -------------------------------------------------------------------------------------

LOOKUP_SECONDS = 4


@pytest.fixture
def slow_dns(plain_program, preload):
    """Names that end in .slow take LOOKUP_SECONDS and then are 127.0.0.1."""
    env = {"LD_PRELOAD": str(preload("slow_lookup")), "SLOW_LOOKUP_SECONDS": str(LOOKUP_SECONDS)}
    with driving(plain_program, env=env) as made:
        yield made


def test_a_slow_name_lookup_holds_nobody_up(serve, slow_dns):
    server = serve(always(OK))
    number = slow_dns.submit("PUT", f"http://a.slow:{server.port}/", body=10)
    wait_until(lambda: len(slow_dns.threads()) == 2, 5, "a resolver thread")
    assert slow_dns.call("PUT", server.url, body=10, timeout=1).status == 200
    assert slow_dns.cancel(number) < 0.1
    assert slow_dns.call("PUT", server.url, body=10, timeout=1).status == 200

    # When the look-up ends at last, nothing is sent for the one that was cancelled.
    wait_until(lambda: len(slow_dns.threads()) == 1, LOOKUP_SECONDS + 5, "the resolver thread ends")
    assert slow_dns.call("PUT", server.url, body=10).status == 200
    assert len(server.bodies) == 3


def test_a_slow_name_lookup_ends_at_the_connect_timeout(serve, slow_dns):
    server = serve(always(OK))
    started = time.monotonic()
    outcome = slow_dns.call("PUT", f"http://b.slow:{server.port}/", body=10, connect_ms=300)
    assert time.monotonic() - started < 1
    assert outcome.status == 0 and not outcome.sent and "name" in outcome.error


def test_a_slow_name_lookup_is_waited_for(serve, slow_dns):
    server = serve(always(OK))
    assert slow_dns.call("PUT", f"http://c.slow:{server.port}/", body=10, connect_ms=10000).status == 200


def test_resolver_threads_run_no_handler_of_ours(slow_dns):
    slow_dns.submit("PUT", "http://d.slow:1/", body=10, connect_ms=1000)
    wait_until(lambda: len(slow_dns.threads()) == 2, 5, "a resolver thread")
    main = str(slow_dns.process.pid)
    for thread in slow_dns.threads():
        status = Path(f"/proc/{main}/task/{thread}/status").read_text()
        blocked = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")), 16)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM):
            assert bool(blocked >> (number - 1) & 1) == (thread != main), (thread, number)


def test_resolver_threads_are_bounded(slow_dns):
    for _ in range(40):
        number = slow_dns.submit("PUT", "http://e.slow:1/", body=10)
        assert slow_dns.cancel(number) < 0.1
    time.sleep(0.2)
    assert len(slow_dns.threads()) <= 1 + 4
    started = time.monotonic()
    assert slow_dns.end() == 0
    assert time.monotonic() - started < 1


# --- libcurl itself fails ---------------------------------------------------------------------------------------------

def test_an_error_of_the_multi_fails_what_runs_and_starts_over(serve, plain_program, preload):
    server = serve(lambda server, stream, number: stream.hold(server))
    env = {"LD_PRELOAD": str(preload("failing_multi"))}
    with driving(plain_program, env=env) as driver:
        numbers = [driver.submit("PUT", server.url, body=10) for _ in range(3)]
        wait_until(lambda: server.accepted == 3, 5, "connected")
        driver.process.send_signal(signal.SIGUSR2)		# the next socket action fails
        numbers.append(driver.submit("PUT", server.url, body=10))
        for number in numbers:
            outcome = driver.outcome(number)
            assert outcome.status == 0 and outcome.sent and "libcurl failed" in outcome.error
        assert driver.running() == 0
        server.handle = always(OK)
        assert driver.call("PUT", server.url, body=10).status == 200
