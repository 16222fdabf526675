"""Certificates made for a test, TLS in front of any Qdrant, and a proxy: each notes who came."""

import contextlib
import os
import select
import socket
import ssl
import subprocess
import threading
import urllib.parse
from pathlib import Path

from .cluster import server_user


def server_file(path, content, mode=0o600):
    """A file of the user who runs PostgreSQL, put into place at once as a rotation should."""
    path = Path(path)
    new = path.with_name(path.name + ".new")
    new.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.chmod(new, mode)
    if os.getuid() == 0:
        os.chown(new, *server_user()[1:])
    os.replace(new, path)
    return str(path)


class Authority:
    """A certificate authority in a directory; issue() makes a certificate and its key, as PEM texts."""

    def __init__(self, directory, name="authority"):
        self.directory = Path(directory)
        self.name = name
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                      "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt")
        self.certificate = (self.directory / f"{name}.crt").read_text()

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)

    def issue(self, common_name, alternative="DNS:localhost,IP:127.0.0.1"):
        with (self.directory / "extensions").open("w") as f:
            f.write(f"subjectAltName={alternative}\n")
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                      f"/CN={common_name}", "-keyout", "issued.key", "-out", "issued.csr")
        self._openssl("x509", "-req", "-in", "issued.csr", "-CA", f"{self.name}.crt", "-CAkey", f"{self.name}.key",
                      "-CAcreateserial", "-days", "2", "-extfile", "extensions", "-out", "issued.crt")
        return (self.directory / "issued.crt").read_text(), (self.directory / "issued.key").read_text()


def tls_context(directory, certificate, key, client_authority=None, alpn=("http/1.1",)):
    """Of a server; with client_authority it asks for a certificate of a client."""
    pem = Path(directory) / "server.pem"
    pem.write_text(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.set_alpn_protocols(list(alpn))
    if client_authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_authority.certificate)
    return context


def pump(one, other):
    """Both ways until one of the two ends."""
    with contextlib.closing(one), contextlib.closing(other):
        while True:
            ready = [one] if isinstance(one, ssl.SSLSocket) and one.pending() else select.select([one, other], [], [])[0]
            for source in ready:
                data = source.recv(65536)
                if not data:
                    return
                (other if source is one else one).sendall(data)


class Listener:
    """A thread that accepts, and one for each connection."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._guarded, args=(client,), daemon=True).start()

    def _guarded(self, client):
        with contextlib.suppress(OSError, ValueError), client:
            self.serve(client)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        # A blocked accept ends only by this.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def endpoint(url):
    parts = urllib.parse.urlsplit(url)
    return parts.hostname, parts.port


class TlsFront(Listener):
    """https in front of an http server: `clients` are the common names of those that came, one for each connection."""

    def __init__(self, url, context):
        self.upstream = endpoint(url)
        self.context = context
        self.clients = []
        self.alpn = []
        super().__init__()
        self.url = f"https://localhost:{self.port}"

    def serve(self, client):
        with self.context.wrap_socket(client, server_side=True) as tls:
            names = dict(pair[0] for pair in (tls.getpeercert() or {}).get("subject", ()))
            self.clients.append(names.get("commonName"))
            self.alpn.append(tls.selected_alpn_protocol())
            pump(tls, socket.create_connection(self.upstream))


class Forward(Listener):
    """A proxy for http: `heads` are the heads that it was sent, those of CONNECT too."""

    def __init__(self):
        self.heads = []
        super().__init__()
        self.url = f"http://localhost:{self.port}"

    def serve(self, client):
        data = b""
        while b"\r\n\r\n" not in data:
            more = client.recv(65536)
            if not more:
                return
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        self.heads.append(head.decode())
        method, target, version = head.split(b"\r\n")[0].split()
        if method == b"CONNECT":
            upstream = socket.create_connection(endpoint("//" + target.decode()))
            client.sendall(b"HTTP/1.1 200 Connected\r\nRetry-After: 9\r\n\r\n")
            return pump(client, upstream)
        parts = urllib.parse.urlsplit(target.decode())
        path = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        upstream = socket.create_connection((parts.hostname, parts.port))
        lines = [b" ".join((method, path.encode(), version)), *head.split(b"\r\n")[1:], b"Connection: close"]
        upstream.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + rest)
        pump(client, upstream)
