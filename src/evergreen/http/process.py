"""One process that answers: server, signals, and the order of starting and ending; by itself or as one of several."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

import evergreen
from evergreen.core.errors import ConfigError
from evergreen.http.app import build
from evergreen.http.roster import expected
from evergreen.http.serving import Serving
from evergreen.http.wire import Wire
from evergreen.logs import configure
from evergreen.project import Project

log = logging.getLogger("evergreen.http")

#: Running requests are given this long to end, in seconds.
GRACE = 10
BACKLOG = 2048


class Job(msgspec.Struct):
    """What one process of several is told by the one that starts it."""

    id: str  #: as the ledger knows it
    number: int  #: 1, 2, 3 …
    config: str
    host: str
    url: str
    socket: int  #: file descriptors that it inherits: where to listen,
    ready: int  #: where to say that it answers,
    life: int  #: and what is at its end once the parent has died


def answer(
    project: Project, sock: socket.socket, *, host: str, url: str, ready: Callable[[], None], id: str | None = None
) -> None:
    """Answer on a socket until SIGTERM or SIGINT; `ready` is called once requests are answered."""
    sys.setswitchinterval(0.001)  # a busy clock thread gives way to requests five times sooner than by default
    serving = Serving(project, host=host, id=id)
    serving.start()
    try:
        _Server(serving, url, ready).run(sockets=[sock])
    finally:
        serving.stop()
        log.info("ended")


@contextmanager
def noted(state: Path) -> Iterator[Callable[[str], None]]:
    """Give what writes `server.json`, where commands look for the server; take the file away at the end."""
    note = state / "server.json"
    try:
        yield lambda url: _write(note, url)
    finally:
        note.unlink(missing_ok=True)


def _write(note: Path, url: str) -> None:
    note.write_text(json.dumps({"pid": os.getpid(), "url": url}), encoding="utf-8")


class _Server(uvicorn.Server):
    """Uvicorn, told when to say that it is ready, and to end quietly."""

    def __init__(self, serving: Serving, url: str, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                build(serving),
                loop="uvloop" if sys.platform != "win32" else "auto",
                http=Wire,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # `proxies` in [http] says whom to believe
                backlog=BACKLOG,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self._serving = serving
        self._url = url
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept, then tell."""
        await super().startup(sockets)
        log.info("evergreen %s serves %s", evergreen.__version__, self._url)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, let what runs end."""
        self._serving.closing.set()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on a signal without raising it again: what comes after must still be written."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def main(job: Job) -> None:
    """Be one of several: answer on the socket that the parent holds, and end when it does."""
    project = evergreen.open(job.config)
    try:
        secrets = [name for who in project.subscribers.values() for name in who.secrets]
        configure(project.state / f"server-{job.number}.log", secrets)
        if not expected(project.ledger, job.id):
            raise ConfigError(
                "each process would keep records of its own: this ledger is not shared between processes",
                field="ledger",
                hint='Use the ledger "sql", or one process.',
            )
        threading.Thread(target=_outlive, args=(job.life,), name="life", daemon=True).start()
        with socket.socket(fileno=job.socket) as sock:
            answer(project, sock, host=job.host, url=job.url, ready=partial(_say, job.ready), id=job.id)
    finally:
        project.ledger.close()


def _say(ready: int) -> None:
    os.write(ready, b"1")
    os.close(ready)


def _outlive(life: int) -> None:
    """End in order when the parent, which never writes here, has died."""
    os.read(life, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Job))
