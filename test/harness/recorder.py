"""A small HTTP server that notes every request and answers what it was told: for what no Qdrant would answer."""

import http.server
import json
import threading
from dataclasses import dataclass

QDRANT = {"title": "qdrant - vector search engine", "version": "1.18.3"}


@dataclass
class Noted:
    method: str
    path: str
    headers: dict
    body: bytes
    connection: tuple
    alpn: str | None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        alpn = self.connection.selected_alpn_protocol() if hasattr(self.connection, "selected_alpn_protocol") else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        noted = Noted(self.command, self.path, headers, body, self.client_address, alpn)
        self.server.recorder.requests.append(noted)
        status, kind, content, more = self.server.recorder.answer_to(noted)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in more.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer


class Recorder:
    """with Recorder() as r: r.url, r.requests; r.answer(...) for what comes next, or answer_to of your own."""

    def __init__(self, ssl_context=None):
        self.requests = []
        self.answer(body={"result": True, "status": "ok", "time": 0.0})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.recorder = self
        self._server.daemon_threads = True
        self._server.handle_error = lambda *args: None
        if ssl_context is not None:
            self._server.socket = ssl_context.wrap_socket(self._server.socket, server_side=True,
                                                          do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if ssl_context else 'http'}://localhost:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def answer(self, status=200, body=b"", kind="application/json", headers=None):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answer_to = lambda noted: (status, kind, content, headers or {})

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._server.server_close()
