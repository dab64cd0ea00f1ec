"""One process that serves: socket, server, signals, and the order of starting and ending."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

import evergreen
from evergreen.core.errors import ConfigError
from evergreen.http.app import build
from evergreen.http.auth import in_force
from evergreen.http.origins import loopback
from evergreen.http.serving import Serving
from evergreen.logs import configure
from evergreen.project import Project

log = logging.getLogger("evergreen.http")

#: Running requests are given this long to end, in seconds.
_GRACE = 10
_BACKLOG = 2048


def serve(
    project: Project, *, host: str | None = None, port: int | None = None, ready: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called with the URL once requests are answered.

    `port` 0 takes a free one. EVERGREEN_PORT stands in for `port`. Raises `ConfigError` when the port is taken,
    or when others than this machine could call and there is no key.
    """
    http = project.config.http
    host = host or http.host
    _check_keys(project, host)
    sock = _listen(host, _port(port, http.port))
    bound = sock.getsockname()[1]
    url = f"http://{f'[{host}]' if ':' in host else host}:{bound}"
    try:
        configure(project.state / "server.log", [name for who in project.subscribers.values() for name in who.secrets])
        sys.setswitchinterval(0.001)  # a busy clock thread gives way to requests five times sooner than by default
        serving = Serving(project, host=host)
        note = project.state / "server.json"
        serving.start()
        try:
            _Server(serving, note, url, ready).run(sockets=[sock])
        finally:
            note.unlink(missing_ok=True)
            serving.stop()
            log.info("ended")
    finally:
        sock.close()


class _Server(uvicorn.Server):
    """Uvicorn, told when to say that it is ready, and to end quietly."""

    def __init__(self, serving: Serving, note: Path, url: str, ready: Callable[[str], None] | None) -> None:
        super().__init__(
            uvicorn.Config(
                build(serving),
                loop="uvloop" if sys.platform != "win32" else "auto",
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # `proxies` in [http] says whom to believe
                backlog=_BACKLOG,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        self._serving = serving
        self._note = note
        self._url = url
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept, then tell."""
        await super().startup(sockets)
        self._note.write_text(json.dumps({"pid": os.getpid(), "url": self._url}), encoding="utf-8")
        log.info("evergreen %s serves %s", evergreen.__version__, self._url)
        if self._ready is not None:
            self._ready(self._url)

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


def _check_keys(project: Project, host: str) -> None:
    """Refuse to let strangers in by accident."""
    if loopback(host) or project.config.http.anonymous is not None or in_force(project.ledger):
        return
    raise ConfigError(
        f"others could call {host}, and there is no key that holds to tell them apart",
        field="http.host",
        hint="Make a key: evergreen keys create --role admin NAME. Or say what callers without a key may do: "
        '`anonymous` in [http], for example "app".',
    )


def _port(given: int | None, configured: int) -> int:
    if given is not None:
        return given
    text = os.environ.get("EVERGREEN_PORT")
    if not text:
        return configured
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ConfigError(f"EVERGREEN_PORT is not a port: {text!r}", field="EVERGREEN_PORT")
    return int(text)


def _listen(host: str, port: int) -> socket.socket:
    """Bind, or say what is in the way."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
    except OSError as e:
        raise ConfigError(f"cannot listen on {host}: {e}", field="http.host") from e
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as e:
        sock.close()
        if e.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} is taken",
                field="http.port",
                hint="End what listens there, or take another: evergreen up --port 0 finds a free one.",
            ) from e
        raise ConfigError(f"cannot listen on {host}:{port}: {e.strerror}", field="http.host") from e
    return sock
