"""What the servers that stand in for shared folders on the web have in common: files, requests, faults."""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

_BLOCK = 1 << 20


class Content:
    """Bytes of one stored file, on disk, with what the products say of them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / uuid4().hex
        self._path.touch()
        self.size = 0
        self._digests: dict[tuple[str, int], str] = {}

    def append(self, data: bytes) -> Content:
        with self._path.open("ab") as file:
            file.write(data)
        self.size += len(data)
        return self

    def read(self, start: int = 0, end: int | None = None) -> bytes:
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read() if end is None else file.read(end - start)

    def spoil(self) -> None:
        """Change a byte on the disk, as bad disks do."""
        data = self.read()
        self._path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    def digest(self, name: str, how: Callable[[BinaryIO], str]) -> str:
        """Return a digest of it, reckoned once."""
        if (name, self.size) not in self._digests:
            with self._path.open("rb") as file:
                self._digests[name, self.size] = how(file)
        return self._digests[name, self.size]


@dataclass
class Request:
    """One request, read."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True  #: False when the connection broke in the middle of the body

    def json(self) -> Any:
        return json.loads(self.body or b"null")


@dataclass
class Reply:
    """One answer."""

    status: int
    body: bytes = b""
    type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, status: int, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
        return cls(status, json.dumps(value).encode(), headers=headers or {})


@dataclass
class Fault:
    """Something that goes wrong with the next `times` requests whose "METHOD path?query" holds `on`."""

    on: str = ""
    times: int = 1
    reply: Reply | None = None  #: answer this instead of doing it
    lose: bool = False  #: do it, then break the connection instead of answering
    cut: int | None = None  #: break the connection after so many bytes of the request's body
    cut_reply: int | None = None  #: break the connection after so many bytes of the answer's body
    skip: int = 0  #: let so many pass first


class FakeServer(ThreadingHTTPServer):
    """A server on this machine that answers as a product does, and fails on demand."""

    daemon_threads = True
    request_queue_size = 128
    chatty = False

    def __init__(self, port: int = 0, tls: Path | None = None) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.tls = tls
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate(tls))
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._bytes = tempfile.TemporaryDirectory(prefix="fake-")
        self.lock = threading.RLock()
        self.faults: list[Fault] = []
        self.fault_rate = 0.0  #: share of requests that meet an accident
        self.random = random.Random(0)
        self.calls: Counter[str] = Counter()
        self.wrong: list[str] = []  #: requests that no client should send
        self.received = 0  #: bytes of bodies
        self.lag_s = 0.0  #: what is younger than this is not in lists yet

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def content(self, data: bytes = b"") -> Content:
        return Content(Path(self._bytes.name)).append(data)

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._bytes.cleanup()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if self.chatty:
            super().handle_error(request, client_address)

    def fault(self, line: str) -> Fault | None:
        """Take the fault that the next request is to meet, if any."""
        with self.lock:
            for fault in self.faults:
                if fault.on in line:
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    if fault.times <= 0:
                        self.faults.remove(fault)
                    return fault
            if self.random.random() < self.fault_rate:
                return self.random.choice(self.accidents(line))
        return None

    def accidents(self, line: str) -> Sequence[Fault]:
        """List what goes wrong at random with a request."""
        return [Fault(reply=self.busy(0)), Fault(reply=Reply(503, b"no", "text/plain")), Fault(lose=True), Fault(cut=0)]

    def busy(self, seconds: int) -> Reply:
        """Return the answer to callers that are too fast."""
        raise NotImplementedError

    def answer(self, request: Request) -> Reply:
        """Do what the request asks."""
        raise NotImplementedError


class Handler(BaseHTTPRequestHandler):
    """Reads requests, meets faults, writes answers."""

    protocol_version = "HTTP/1.1"
    server: FakeServer
    timeout = 30

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *_: Any) -> None:
        """Be silent."""

    def _go(self) -> None:
        url = urlsplit(self.path)
        fault = self.server.fault(f"{self.command} {self.path}") or Fault()
        limit = fault.cut
        body = self._body(limit)
        with self.server.lock:
            self.server.received += len(body)
            self.server.calls[url.path] += 1
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, url.path, query, headers, body, whole=limit is None)
        reply = fault.reply
        if reply is None and (limit is None or body):
            with self.server.lock:
                reply = self.server.answer(request)
        if limit is not None or fault.lose or reply is None:
            self._break()
            return
        self._send(reply, fault.cut_reply)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _go

    def _body(self, limit: int | None) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(length if limit is None else min(length, limit))

    def _send(self, reply: Reply, cut: int | None) -> None:
        self.send_response(reply.status)
        if reply.status != 204:
            self.send_header("Content-Type", reply.type)
            self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body if cut is None else reply.body[:cut])
        if cut is not None:
            self.wfile.flush()
            self._break()

    def _break(self) -> None:
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it broke by itself


def certificate(folder: Path) -> Path:
    """Make a certificate for localhost that signs itself, once; return its file, which also holds the key."""
    made = folder / "localhost.pem"
    if not made.exists():
        folder.mkdir(parents=True, exist_ok=True)
        key, cert = folder / "key.pem", folder / "cert.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            ],
            check=True,
            capture_output=True,
        )
        draft = folder / f"{uuid4().hex}.pem"
        draft.write_bytes(cert.read_bytes() + key.read_bytes())
        draft.replace(made)
    return made


def serve(server: FakeServer, environment: Mapping[str, str]) -> None:
    """Serve until told to stop; print the environment that clients need, one JSON line, first."""
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(SystemExit(0)))
    print(json.dumps(environment), flush=True)
    try:
        server.serve_forever(poll_interval=0.05)
    finally:
        server.server_close()


def arguments(product: str) -> argparse.Namespace:
    """Read the command line of a fake that runs as a process."""
    parser = argparse.ArgumentParser(description=f"A server that speaks as {product} does, for tests.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--lag", type=float, default=0.0, help="seconds after which lists show what is new")
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that meet an accident")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def adjust(server: FakeServer, said: argparse.Namespace) -> None:
    """Set a server up as the command line says."""
    server.lag_s, server.fault_rate, server.random = said.lag, said.faults, random.Random(said.seed)


def now() -> str:
    """Return the time as both products write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
