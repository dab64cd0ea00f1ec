"""What every request passes but the hot ones: who calls and from where, size of the body, headers of the answer."""

from __future__ import annotations

import re
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evergreen.core.errors import EvergreenError, TooLarge
from evergreen.http.audit import REFUSED
from evergreen.http.auth import Raw, Role
from evergreen.http.errors import answer
from evergreen.http.sessions import HOURS
from evergreen.http.ways import READS, Way
from evergreen.logs import concerning

if TYPE_CHECKING:
    from evergreen.http.origins import Head
    from evergreen.http.serving import Serving
    from evergreen.http.ways import Endpoint

#: Last part of paths that "*" in `cors` opens to pages from everywhere, beside everything that only reads.
OPEN = frozenset({"predict", "samples", "feedback"})
#: What a caller may call a request.
_ID = re.compile(r"[\w.:/+=@-]{1,100}", re.ASCII)

_SECURITY: Head = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]
#: Where the call came over TLS: for a year, only so.
_HSTS = (b"strict-transport-security", b"max-age=31536000")
CSP = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)


def opened(scope: Scope, claims: frozenset[str] = frozenset()) -> bool:
    """Say whether "*" in `cors` opens this route."""
    path: str = scope["path"]
    return path.rpartition("/")[2] in OPEN or path in claims


class Edge:
    """ASGI middleware around the pages and the colder half of the API."""

    def __init__(self, app: ASGIApp, serving: Serving, claims: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._serving = serving
        self._claims = claims  # paths that a door answers on the hot path
        self._max = serving.config.http.max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        id = request_id(headers)
        with concerning(request_id=id):
            await self._admit(scope, headers, receive, send, [(b"x-request-id", id.encode())])

    async def _admit(self, scope: Scope, headers: Raw, receive: Receive, send: Send, mark: Head) -> None:
        await self._serving.keys.fresh()
        origin = headers.get(b"origin")
        asked = headers.get(b"access-control-request-method") if scope["method"] == "OPTIONS" else None
        free = opened(scope, self._claims) or (asked or scope["method"].encode()) in (b"GET", b"HEAD")
        if origin is not None and asked is not None:
            head = self._serving.origins.preflight(origin, open=free)
            await _send(send, 204 if head else 403, [*head, *mark, (b"content-length", b"0")], b"")
            return
        extra = [*mark, *self._serving.origins.cors(origin, open=free), *_SECURITY]
        if scope["scheme"] == "https":
            extra.append(_HSTS)
        try:
            changes = scope["method"] not in READS
            scope["evergreen.caller"] = self._serving.screen(scope, headers, changes=changes, open=free)
            limit = self._serving.roomy.get(scope["path"], self._max)
            fits(headers.get(b"content-length"), limit)
        except EvergreenError as e:
            status, body, head = answer(e)
            if (tell := self._serving.voice(scope["path"])) is not None:
                status, body = tell(e)
                head = [(name, value) for name, value in head if name != b"content-length"]
                head.append((b"content-length", b"%d" % len(body)))
            await self._audited(scope, status)
            await _send(send, status, head + extra, body)
            return
        # What the handler of unexpected errors has logged and answered comes out here once more.
        with suppress(Exception):
            await self._app(scope, self._bounded(receive, limit), self._dressed(scope, send, extra))

    def _bounded(self, receive: Receive, limit: int) -> Receive:
        """Count what comes in; a body may say nothing of its length."""
        total = 0

        async def bounded() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > limit:
                raise too_large(limit)
            return message

        return bounded

    def _dressed(self, scope: Scope, send: Send, extra: Head) -> Send:
        """Add headers to the answer."""

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                head: Head = [*message.get("headers", []), *extra]
                message["headers"] = head
                if not any(name == b"content-security-policy" for name, _ in head):
                    head.append((b"content-security-policy", CSP.encode()))
                if not any(name == b"cache-control" for name, _ in head) and not scope["path"].startswith("/static/"):
                    head.append((b"cache-control", b"no-store"))
                if "evergreen.visitor" in scope:
                    head.append((b"set-cookie", self._visitor(scope)))
                await self._audited(scope, message["status"])
            await send(message)

        return dressed

    async def _audited(self, scope: Scope, status: int) -> None:
        """Tell the audit log of a change, or of a call that is refused; of what a person has changed before it is answered."""
        way: Endpoint | None = scope.get("evergreen.way")
        if way is None and status in REFUSED:
            way = self._asked_for(scope)
        changes = way is not None and way.changes and scope["method"] not in READS
        if not changes and status not in REFUSED:
            return
        found = scope.get("path_params", {})
        # A path that nobody knows is not written down: it is the caller's own text.
        what = way.name if way is not None else f"{scope['method'][:10]} (any)"
        loop = found.get("loop") or found.get("name") or (way.loop if way is not None else "")
        line = self._serving.line(scope, what, status, loop if loop in self._serving.project.loops else "")
        if way is not None and way.role is not Role.APP and status < 400:
            await self._serving.run(self._serving.audit.write, line)
        else:
            self._serving.audit.count(line)

    def _asked_for(self, scope: Scope) -> Endpoint | None:
        """Find the line of the table for a call that did not get as far as its route."""
        for route in getattr(self._app, "routes", ()):
            match, more = route.matches(scope)
            if match is Match.FULL and isinstance(route, Way):
                scope["path_params"] = more["path_params"]
                return route.said
        return None

    def _visitor(self, scope: Scope) -> bytes:
        carrier = Response()
        carrier.set_cookie(
            self._serving.sessions.visitor,
            scope["evergreen.visitor"],
            max_age=HOURS * 3600,
            httponly=True,
            samesite="lax",
            secure=Request(scope).url.scheme == "https",
        )
        return next(value for name, value in carrier.raw_headers if name == b"set-cookie")


def request_id(headers: Raw) -> str:
    """Return what the caller calls this request, or a name of ours; it stands in the log and in the answer."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if _ID.fullmatch(given) else token_hex(8)


def too_large(limit: int) -> TooLarge:
    """Say how large a body may be."""
    return TooLarge(
        f"the body is larger than {limit} bytes",
        hint="Send it in parts; `max_body` in [http] sets the limit (`collect.max_upload` for models).",
    )


def fits(length: bytes | None, limit: int) -> None:
    """Raise `TooLarge` if a body announces that it is."""
    if length is not None and length.isdigit() and int(length) > limit:
        raise too_large(limit)


async def _send(send: Send, status: int, headers: Head, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
