"""An S3 server for tests and benchmarks: a real one in a process of its own, and one before it that fails on demand."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

sys.path.insert(0, str(Path(__file__).parent))

from fake_server import FakeServer, Fault, Handler, Reply, Request

BUCKET = "evergreen"
#: What a client needs in its environment, besides the address; the server takes any credentials.
ENVIRONMENT: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test-secret",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
_HOP = ("connection", "keep-alive", "transfer-encoding", "host", "content-length", "expect", "server", "date")


@contextmanager
def s3_server() -> Iterator[str]:
    """Start a server with one bucket, `BUCKET`; yield its address. It is gone afterwards, with all it held."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = {"SERVICES": "s3", "SFTP_ENABLED": "0", "IOT_MTLS_ENABLED": "0", "GATEWAY_PORT": str(port)}
    command = [sys.executable, "-m", "hypercorn", "ministack.app:app", "--bind", f"127.0.0.1:{port}"]
    with tempfile.TemporaryFile() as out:
        server = subprocess.Popen(command, env={**os.environ, **quiet}, stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + 60
            while (status := _make_bucket(port)) != 200:
                if server.poll() is not None or time.monotonic() > deadline:
                    out.seek(0)
                    raise RuntimeError(f"the S3 server does not start ({status}): {out.read().decode()[-2000:]}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _make_bucket(port: int) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    # Any signature will do, but the service is told from its scope.
    scope = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    try:
        connection.request("PUT", f"/{BUCKET}", headers={"Authorization": scope})
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


@contextmanager
def faulty_s3() -> Iterator[FaultyS3]:
    """Run a server, and one before it that fails on demand, for the length of a block."""
    with s3_server() as behind:
        server = FaultyS3(behind)
        server.start()
        try:
            yield server
        finally:
            server.close()


class Passing(Handler):
    """Reads requests, meets faults, passes answers on; the answer to HEAD says a length and has no body."""

    def do_HEAD(self) -> None:
        self._go()

    def _send(self, reply: Reply, cut: int | None) -> None:
        if self.command != "HEAD":
            super()._send(reply, cut)
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()


class FaultyS3(FakeServer):
    """Stands before an S3 server. `lies`: it takes conditions and heeds none. `wrong_key`: it knows no key of ours."""

    def __init__(self, behind: str, port: int = 0) -> None:
        super().__init__(port)
        self.RequestHandlerClass = Passing
        self._behind = urlsplit(behind).netloc
        self.lies = self.wrong_key = False
        self.parts: list[int] = []  #: numbers of the parts that were uploaded, as they came
        self.sent = 0  #: bytes of bodies that were stored

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables with which a client comes here."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": self.url}

    def busy(self, seconds: int) -> Reply:
        return refusal(503, "SlowDown", {"Retry-After": str(seconds)})

    def accidents(self, line: str) -> list[Fault]:
        return [*super().accidents(line), Fault(reply=Reply(429, b"", "text/plain")), Fault(cut_reply=1)]

    def answer(self, request: Request) -> Reply:
        if self.wrong_key:
            return refusal(403, "InvalidAccessKeyId")
        if not request.whole:
            return Reply(400)  # nobody hears it: what came in part is not passed on
        headers = {name: value for name, value in request.headers.items() if name not in _HOP}
        if self.lies:
            headers.pop("if-none-match", None)
        status, found, body = self._pass_on(request, headers)
        if status == 200 and request.method == "PUT":
            self.sent += len(request.body)
            if "partNumber" in request.query:
                self.parts.append(int(request.query["partNumber"]))
        kept = {n: v for n, v in found.items() if n.lower() not in (*_HOP, "content-type")}
        if request.method == "HEAD":
            kept["Content-Length"] = found.get("Content-Length", "0")
        return Reply(status, body, found.get("Content-Type", "application/xml"), kept)

    def _pass_on(self, request: Request, headers: Mapping[str, str]) -> tuple[int, Mapping[str, Any], bytes]:
        connection = http.client.HTTPConnection(self._behind, timeout=60)
        try:
            url = f"{request.path}?{urlencode(request.query)}" if request.query else request.path
            connection.request(request.method, url, body=request.body or None, headers=headers)
            response = connection.getresponse()
            found = {name.title(): value for name, value in response.getheaders()}
            return response.status, found, response.read()
        finally:
            connection.close()


def refusal(status: int, code: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Return an error as S3 writes it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    return Reply(status, body.encode(), "application/xml", headers or {})
