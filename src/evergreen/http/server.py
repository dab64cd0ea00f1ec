"""The server: where it listens, whether it may, and in how many processes."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from evergreen.core.errors import ConfigError
from evergreen.http.auth import in_force
from evergreen.http.origins import loopback
from evergreen.http.process import BACKLOG, answer, noted
from evergreen.http.processes import Parent
from evergreen.logs import configure
from evergreen.project import Project


def serve(
    project: Project,
    *,
    host: str | None = None,
    port: int | None = None,
    processes: int | None = None,
    config: Path | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called with the URL once requests are answered.

    `port` 0 takes a free one. EVERGREEN_PORT stands in for `port`. `config` is the file that further processes
    open; evergreen.toml if not given. Raises `ConfigError` when the port is taken, or when others than this machine
    could call and there is no key.
    """
    http = project.config.http
    host = host or http.host
    processes = processes or http.processes
    _check_keys(project, host)
    if processes > 1 and sys.platform == "win32":
        raise ConfigError("several processes cannot share a port on Windows", field="http.processes")
    with ExitStack() as stack:
        socks = [stack.enter_context(sock) for sock in _listen(host, _port(port, http.port), processes)]
        url = f"http://{f'[{host}]' if ':' in host else host}:{socks[0].getsockname()[1]}"
        secrets = [name for who in project.subscribers.values() for name in who.secrets]
        configure(project.state / "server.log", secrets)
        note = stack.enter_context(noted(project.state))

        def told() -> None:
            note(url)
            if ready is not None:
                ready(url)

        if processes == 1:
            answer(project, socks[0], host=host, url=url, ready=told)
        else:
            Parent(project, config or project.home / "evergreen.toml", host=host, url=url).run(socks, processes, told)


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


def _listen(host: str, port: int, processes: int) -> list[socket.socket]:
    """Bind, or say what is in the way: a socket for each process where the system deals calls out among them.

    The sockets stay open here whatever becomes of a process: calls that wait at one are taken by its successor.
    """
    if processes == 1 or sys.platform != "linux":
        return [_bound(host, port, shared=False)]
    if port:
        _bound(host, port, shared=False).close()  # else we could not tell that somebody else shares it
    first = _bound(host, port, shared=True)
    return [first, *(_bound(host, first.getsockname()[1], shared=True) for _ in range(processes - 1))]


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
    except OSError as e:
        raise ConfigError(f"cannot listen on {host}: {e}", field="http.host") from e
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
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
