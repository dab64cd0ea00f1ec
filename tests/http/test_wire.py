"""What comes over a socket that no good client sends: it gets nobody anywhere, and holds nothing up."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import uvicorn
from http_harness import MEMORY, PLAIN, wait, write

import evergreen
from evergreen.http import auth, wire
from evergreen.http.app import build
from evergreen.http.serving import Serving
from evergreen.http.wire import Wire

BODY = b'{"input": {"n": 1}}'
PATIENCE_S = 30.0


class Site:
    """A locked server, and a way to say anything to it."""

    def __init__(self, port: int, key: str) -> None:
        self.port = port
        self.key = f"Authorization: Bearer {key}\r\n".encode()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def say(self, *parts: bytes) -> bytes:
        """Say something; return all that is answered until the server hangs up."""
        with closing(self.connect()) as line:
            with suppress(BrokenPipeError, ConnectionResetError):
                for part in parts:
                    line.sendall(part)
            return hear(line)

    def head(self, what: bytes, *lines: bytes) -> bytes:
        return b"\r\n".join([what + b" HTTP/1.1", b"Host: localhost:%d" % self.port, *lines]) + b"\r\n"


def hear(line: socket.socket) -> bytes:
    """Listen until the other side hangs up."""
    heard = b""
    try:
        while piece := line.recv(65536):
            heard += piece
    except ConnectionResetError:
        heard += b"(reset)"
    return heard


@contextmanager
def served(folder: Path) -> Iterator[Site]:
    serving = Serving(evergreen.open(write(folder, MEMORY + PLAIN)))
    _, key = auth.create(serving.project.ledger, "shop", "app")
    serving.start()
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(build(serving), http=Wire, lifespan="off", ws="none", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    try:
        wait(lambda: server.started)
        yield Site(sock.getsockname()[1], key)
    finally:
        serving.closing.set()
        server.should_exit = True
        thread.join()
        sock.close()
        serving.stop()
        serving.project.ledger.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(tmp_path_factory.mktemp("wire") / "project") as site:
        yield site


CLOSE = b"Connection: close"


def test_a_trailer_is_no_header(site: Site) -> None:
    """Neither does it say who calls, nor in whose place."""
    chunked = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
    asked = site.head(b"POST /api/toy/predict", b"Transfer-Encoding: chunked", CLOSE)
    assert site.say(asked + b"\r\n" + chunked + site.key + b"\r\n").startswith(b"HTTP/1.1 401 ")
    good = asked + site.key + b"\r\n" + chunked
    assert site.say(good + b"\r\n").startswith(b"HTTP/1.1 503 ")  # let in: there is no model yet
    assert site.say(good + b"Authorization: Bearer wrong\r\n\r\n").startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 90"],
        [b"Content-Length: 19", b"Content-Length: 28"],
        [b"Transfer-Encoding: xchunked", b"Content-Length: 19"],
        [b"Transfer-Encoding: chunked, identity"],
        [b"Transfer-Encoding : chunked", b"Content-Length: 4"],
        [b"Content-Length: -5"],
        [b"Content-Length: +19"],
        [b"Content-Length: 0x13"],
        [b"Content-Length: 99999999999999999999999"],
        [b"Content-Length: 19", b" folded: line"],
        [b"Content-Length: 19", b"X: nul\0"],
    ],
)
def test_two_readings_of_where_a_body_ends_are_none(site: Site, lines: list[bytes]) -> None:
    """What could be read as a second request by one side only is refused, and nothing after it is answered."""
    asked = site.head(b"POST /api/toy/predict", *lines) + site.key + b"\r\n"
    second = site.head(b"GET /health") + b"\r\n"
    heard = site.say(asked + BODY + b"\r\n0\r\n\r\n" + second)
    assert heard.startswith(b"HTTP/1.1 400 ")
    assert heard.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("endless", [b"X: ", b"GET /"])
def test_a_head_without_end_is_refused(site: Site, endless: bytes) -> None:
    start = endless if endless.startswith(b"GET") else site.head(b"GET /health") + endless
    heard = site.say(start, *[b"a" * 50_000] * 12)
    assert heard.startswith((b"HTTP/1.1 431 ", b"(reset)"))
    assert site.say(site.head(b"GET /health", CLOSE) + b"\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("wrong", [b"", b"Authorization: Bearer wrong\r\n"])
def test_a_trailer_without_end_is_refused(site: Site, wrong: bytes) -> None:
    asked = site.head(b"POST /api/toy/predict", b"Transfer-Encoding: chunked") + (wrong or site.key) + b"\r\n"
    heard = site.say(asked, b"%x\r\n%s\r\n0\r\nX: " % (len(BODY), BODY), *[b"a" * 100_000] * 40)
    assert heard.count(b"HTTP/1.1 200 ") == 0  # it hung up: this came to an end


def test_many_requests_in_one_piece_are_answered_each(site: Site) -> None:
    """What is counted is one request's, however they come in."""
    asked = site.head(b"POST /api/toy/predict", b"Content-Length: %d" % len(BODY)) + site.key + b"\r\n" + BODY
    last = site.head(b"GET /health", CLOSE) + b"\r\n"
    assert site.say(asked * 400 + last).count(b"HTTP/1.1 503 ") == 400


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    """A server that waits for nobody."""
    for name in ("HEAD_S", "BODY_S", "LOOK_S"):
        monkeypatch.setattr(wire, name, 0.2)
    with served(tmp_path / "hasty") as site:
        yield site


def test_who_says_nothing_more_is_hung_up_on(hasty: Site) -> None:
    asked = hasty.head(b"POST /api/toy/samples", b"Content-Length: 1000")
    assert hasty.say() == b""
    assert hasty.say(b"GET / HT").startswith(b"HTTP/1.1 408 ")
    assert hasty.say(asked).startswith(b"HTTP/1.1 408 ")
    assert b"200" not in hasty.say(asked + hasty.key + b"\r\n[")


@pytest.mark.parametrize("key", [True, False])
def test_who_says_it_very_slowly_is_hung_up_on(hasty: Site, key: bool) -> None:
    """A head, or a body that nobody waits for any more, byte by byte."""
    asked = hasty.head(b"POST /api/toy/samples", b"Content-Length: 100000000")
    begun = asked if key else asked + b"\r\n"
    with closing(hasty.connect()) as line:
        line.sendall(begun)
        line.settimeout(0.02)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                line.sendall(b"a")
                if not line.recv(65536):
                    return
            except TimeoutError:
                continue
            except OSError:
                return
    raise AssertionError("it was listened to all the time")


def test_who_is_answered_slowly_is_not(hasty: Site) -> None:
    """Live pages wait for hours: it is not their turn."""
    with closing(hasty.connect()) as line:
        line.sendall(hasty.head(b"GET /events") + hasty.key + b"\r\n")
        assert line.recv(65536).startswith(b"HTTP/1.1 200 ")
        line.settimeout(1.0)
        with suppress(TimeoutError):
            while True:
                assert line.recv(65536) != b""
