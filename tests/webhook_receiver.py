"""Somebody who takes webhooks: keeps what came, answers as he is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """An HTTP server that notes every POST: (headers in lower case, body)."""

    def __init__(self) -> None:
        self.posts: list[tuple[dict[str, str], bytes]] = []
        #: Says how the next POST is answered: a status, or a status and headers; or raises, to break off.
        self.answer: Callable[[], int | tuple[int, dict[str, str]]] = lambda: 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.posts.append(({k.lower(): v for k, v in self.headers.items()}, body))
                said = outer.answer()
                status, head = said if isinstance(said, tuple) else (said, {})
                self.send_response(status)
                for name, value in {**head, "content-length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def events(self) -> list[dict[str, Any]]:
        """What came, in order."""
        return [json.loads(body) for _, body in self.posts]

    def wait(self, until: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Wait for something to become true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := until():
                return value
            time.sleep(0.02)
        raise AssertionError(f"it never came true; {len(self.posts)} came")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
