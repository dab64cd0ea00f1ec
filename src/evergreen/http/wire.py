"""The wire: HTTP as uvicorn reads it, with bounds on what a caller may send, and how slowly, before we know who it is."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from evergreen.http.packets import Packets

#: Seconds for a caller to say what it wants, and to go on with a body. Bytes of a head, and of whatever is no body.
HEAD_S, BODY_S = 30.0, 60.0
HEAD, ASIDE = 64 * 1024, 256 * 1024
#: Seconds between two looks at a connection.
LOOK_S = 10.0

_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Wire(HttpToolsProtocol):
    """One connection. What follows a body (trailers) is not taken for headers."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._open = True  # the caller's turn: it has not said all that it has to say
        self._heading = True
        self._began = self._heard = self.loop.time()
        self._first = False
        self._spent = self._body = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look after it from now on."""
        super().connection_made(Packets(transport, self.loop))  # type: ignore[arg-type]
        self._watch = self.loop.call_later(LOOK_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look after it no more."""
        self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read; refuse heads, trailers and the like that do not end."""
        self._heard = self.loop.time()
        self._first = False
        super().data_received(data)
        if self._open and not self._first:
            self._spent += len(data)
            if self._spent - self._body > (HEAD if self._heading else ASIDE + self._body):
                self._refuse(_LARGE)

    def on_message_begin(self) -> None:
        """Begin to count; the first piece may hold the end of what came before, so it is left out."""
        super().on_message_begin()
        self._open = self._heading = self._first = True
        self._began = self._heard
        self._spent = self._body = 0

    def on_headers_complete(self) -> None:
        """Hand the request on as it is now."""
        super().on_headers_complete()
        self._heading = False
        self.headers = []  # what follows a body cannot say who calls

    def on_body(self, body: bytes) -> None:
        """Count what is limited elsewhere."""
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It is our turn."""
        self._open = False
        super().on_message_complete()

    def _look(self) -> None:
        """End a connection that keeps us waiting."""
        if self.transport.is_closing():
            return
        now = self.loop.time()
        paused = self.flow.read_paused  # it is we who keep the caller waiting
        answered = self.cycle is not None and self.cycle.response_complete
        if self._open and (
            (now - self._began > HEAD_S and (self._heading or answered)) or (now - self._heard > BODY_S and not paused)
        ):
            self._refuse(_SLOW)
        else:
            self._watch = self.loop.call_later(LOOK_S, self._look)

    def _refuse(self, said: bytes) -> None:
        begun = self.scope is not None and self._heading  # browsers open connections that they may not need
        if begun and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(said)
        self.transport.close()
