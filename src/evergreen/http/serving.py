"""What a running server holds: the project, its models in service, the writer, the clock, and who may do what."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from evergreen import engine
from evergreen.core.config import Config
from evergreen.core.errors import Refused, Unauthorized
from evergreen.core.loop import Loop
from evergreen.core.records import Json, Model, Sample
from evergreen.http.audit import Audit, Line
from evergreen.http.auth import Caller, Keys, Raw, Role, demand, presented
from evergreen.http.desk import Desk
from evergreen.http.figures import FOLDER, Figures
from evergreen.http.follower import Follower
from evergreen.http.metrics import History
from evergreen.http.origins import PASSED_ON, Origins, loopback
from evergreen.http.rates import Rates, neighbourhood
from evergreen.http.receipts import Receipts
from evergreen.http.sessions import HOURS, Sessions, cookies, secret
from evergreen.http.uploads import Queue, room
from evergreen.http.ways import Endpoint
from evergreen.outbox import Outbox
from evergreen.project import Ids, Project
from evergreen.stages.collect import Intake
from evergreen.stages.serve import Answer, Live
from evergreen.worker import Clock, holder

log = logging.getLogger("evergreen.http")

T = TypeVar("T")


class Timekeeper(Protocol):
    """What turns the loops: `evergreen.worker.Clock`."""

    def start(self) -> None: ...
    def wake(self) -> None: ...
    def stop(self) -> None: ...


class Serving:
    """One running server. Give it to routes; everything they may touch hangs on it."""

    def __init__(self, project: Project, *, host: str | None = None, id: str | None = None) -> None:
        self.ids = Ids()
        self.project = project
        self.config: Config = project.config
        http = self.config.http
        self.local = loopback(host or http.host)
        self.keys = Keys(project.ledger)
        self.sessions = Sessions(secret(project.state))
        self.audit = Audit(project.ledger, keep=http.audit, also=partial(self.keys.tell, sessions_s=HOURS * 3600.0))
        self._by_key, self._by_address = Rates(http.rate.key), Rates(http.rate.anonymous)
        self._logins = Rates(http.rate.login / 60, burst_s=60.0)
        self.origins = Origins(http.cors, http.hosts)
        self.intake = Intake(project.ledger)
        self.receipts = Receipts(self.intake)
        self.pool = ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1), thread_name_prefix="answer")
        self.aside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shadow")
        self.lives = {name: Live(loop) for name, loop in project.loops.items()}
        self.desks = {
            name: Desk(loop, self.lives[name], self.intake, self.pool, self.aside)
            for name, loop in project.loops.items()
        }
        self.clock: Timekeeper = Clock(
            list(project.loops.values()),
            every=self.config.tick.total_seconds(),
            after=self.refresh,
            doors=project.doors,
        )
        self.outbox = Outbox(project)
        #: Lines of history, counted for whoever asks for figures.
        self.happened = History()
        #: What this process has counted, and its companions on the same port.
        self.figures = Figures(
            {name: desk.meter for name, desk in self.desks.items()},
            self.intake,
            self.outbox,
            project.state / FOLDER if id else None,
            id or "",
        )
        #: Keeps this process in step with others that serve the same ledger.
        self.follower = Follower(
            project.ledger, self.lives, self.refresh, self.figures.write, id=id or self.ids.new(), holder=holder()
        )
        #: Where models from devices wait to be examined, and the paths that take larger bodies (bytes): theirs.
        self.examinations = Queue()
        self.roomy = {f"/api/{name}/uploads": room(loop) for name, loop in project.loops.items()}
        #: How errors are told below paths of doors, also before a door is asked: beginning of the path -> (status, JSON).
        self.voices: dict[str, Callable[[Exception], tuple[int, bytes]]] = {}
        #: Every way in there is, doors' and pages' included; complete once the application is put together.
        self.ways: tuple[Endpoint, ...] = ()
        #: Loops whose models could not be brought up to date, and why.
        self.troubles: dict[str, str] = {}
        #: Set when the server is to end: whoever keeps a connection open should close it.
        self.closing = threading.Event()
        self._anonymous = None if http.anonymous is None else Role.named(http.anonymous)
        self._refreshing = threading.Lock()

    def loop(self, name: str) -> Loop:
        """Return a loop, or raise `NotFound` that lists them."""
        return self.project.loop(name)

    def voice(self, path: str) -> Callable[[Exception], tuple[int, bytes]] | None:
        """Return how errors of a path are told, where a door has its own way."""
        return next((tell for beginning, tell in self.voices.items() if path.startswith(beginning)), None)

    # Life

    def start(self) -> None:
        """Load what is in service and begin to write and to tick (blocking)."""
        self.keys.read()
        self.happened.read(self)
        self.follower.start()
        self.intake.start()
        self.audit.start()
        self.outbox.start()
        self.clock.start()

    def stop(self) -> None:
        """Tick no more, write what waits, let go of the models (blocking; the event loop has ended)."""
        self.closing.set()
        self.clock.stop()
        self.outbox.stop()
        self.follower.stop()
        for desk in self.desks.values():
            desk.flush()
            desk.expose()
        self.intake.stop()
        self.audit.stop()
        self.pool.shutdown()
        self.aside.shutdown()
        for live in self.lives.values():
            live.close()

    def refresh(self) -> None:
        """Bring every line-up in step with the ledger (blocking). One loop's trouble is not the others'."""
        with self._refreshing:
            for name, live in self.lives.items():
                try:
                    live.refresh()
                except Exception as e:
                    if self.troubles.get(name) != str(e):
                        log.exception("the models of %s could not be brought up to date", name)
                    self.troubles[name] = str(e)
                else:
                    self.troubles.pop(name, None)

    # Work for routes

    async def run(self, fn: Callable[..., T], *args: Any, **kw: Any) -> T:
        """Run something that blocks in a thread."""
        return await asyncio.to_thread(fn, *args, **kw)

    async def act(self, fn: Callable[..., T], *args: Any, **kw: Any) -> T:
        """Run a change in a thread; when this returns, no request is answered by what was before it, in any process.

        For `engine.promote` the model is loaded everywhere first, so that the swap itself takes no time.
        """
        return await asyncio.to_thread(self._act, partial(fn, *args, **kw))

    async def predict(
        self, name: str, value: Json, *, unit: str | None = None, id: str | None = None, **about: Any
    ) -> Answer:
        """Answer one input of a loop and write it down; for doors with paths of their own."""
        (answer,) = await self.desks[name].predict([value], [id or self.ids.new()], unit=unit, **about)
        return answer

    async def store(self, name: str, samples: Sequence[Sample]) -> Sequence[bool]:
        """Store samples; returns once they are safe on disk, saying of each whether it was new."""
        return await self.receipts.store(name, samples)

    def _act(self, change: partial[T]) -> T:
        before = self.follower.generations()
        with self._prepared(change):
            result = change()
        self.refresh()
        self.clock.wake()
        self.follower.settled(before)
        return result

    def _prepared(self, change: partial[Any]) -> AbstractContextManager[None]:
        return self._promoted(*change.args, **change.keywords) if change.func is engine.promote else nullcontext()

    def _promoted(self, loop: Loop, version: int, **_: Any) -> AbstractContextManager[None]:
        for model in loop.ledger.find(Model, loop.name):
            if model.version == version:
                return self.follower.prepared(loop.name, model)
        return nullcontext()  # it does not exist: the change itself says so

    # Who may do what

    @property
    def open(self) -> bool:
        """Whether everybody on this machine may do everything: there are no keys, and nobody else can call."""
        return self._anonymous is None and self.local and not len(self.keys)

    @property
    def locked(self) -> bool:
        """Whether a key is needed for some things, so that pages should offer to sign in."""
        return self.stranger.role < Role.ADMIN

    @property
    def stranger(self) -> Caller:
        """What a caller without a key is."""
        if self._anonymous is not None:
            return Caller("anonymous", self._anonymous, "anonymous")
        return Caller("local", Role.ADMIN, "open") if self.open else Caller("anonymous", Role.NONE, "anonymous")

    def screen(self, scope: Scope, headers: Raw, *, changes: bool, open: bool) -> Caller:
        """Say who calls, or raise: an unknown key, too many calls, a name that is not ours, a page from elsewhere.

        `changes` is whether the call may change something, `open` whether "*" in `cors` opens it to every page.
        """
        try:
            caller = self._caller(headers)
        except Unauthorized:
            self._by_address.spend(address(scope))
            raise
        if caller.id is not None:
            self._by_key.spend(caller.id)
        elif caller.via == "anonymous":
            self._by_address.spend(address(scope))
        if self.local and caller.role > Role.NONE and caller.via in ("open", "anonymous"):
            self.origins.check_host(headers.get(b"host"))
            if caller.via == "open" and not PASSED_ON.isdisjoint(headers):
                raise Refused(
                    "this call came through a proxy: others than this machine could be behind it",
                    hint="Make a key: evergreen keys create --role admin NAME. Or set `anonymous` in [http].",
                )
        if changes:
            origin = headers.get(b"origin")
            if origin is not None and caller.via == "session":
                self.origins.check_own(origin, headers.get(b"host"))
            elif origin is not None:
                self.origins.check_origin(origin, headers.get(b"host"), open=open)
            elif headers.get(b"sec-fetch-site") == b"cross-site":
                raise Refused("pages from elsewhere may not do this", field="Sec-Fetch-Site")
        return caller

    def line(self, scope: Scope, what: str, status: int, loop: str = "") -> Line:
        """Return the line of the audit log that tells of a call."""
        caller: Caller | None = scope.get("evergreen.caller")
        if caller is None:
            caller = self._whose(dict(scope["headers"]))
        role = caller.role.name.lower()
        return Line(caller.name, role, caller.via, what, status, address(scope), loop, caller.id or "")

    def role(self, request: Request) -> Role:
        """Return the caller's role."""
        return self.caller(request).role

    def caller(self, request: Request) -> Caller:
        """Return who calls."""
        known: Caller | None = request.scope.get("evergreen.caller")
        return known if known is not None else self._caller(dict(request.scope["headers"]))

    def require(self, request: Request, role: str | Role) -> str:
        """Return the caller's name for the history, or raise `Unauthorized` or `Refused`."""
        return demand(self.caller(request), role if isinstance(role, Role) else Role.named(role))

    def _caller(self, headers: Raw) -> Caller:
        if b"authorization" in headers or b"x-api-key" in headers:
            key = self.keys.by_secret(presented(headers) or b"")
            return Caller(key.name, key.role, "key", key.id)
        if b"cookie" in headers:
            sealed = self._session(headers[b"cookie"])
            known = self.keys.by_session(*sealed) if sealed else None
            if known is not None:
                return Caller(known.name, known.role, "session", known.id)
        return self.stranger

    def _session(self, cookie: bytes | None) -> tuple[str, str] | None:
        seal = cookies(cookie).get(self.sessions.cookie)
        return self.sessions.unseal(seal) if seal else None

    def _whose(self, headers: Raw) -> Caller:
        """Say whose call it was that was refused before it was known who calls."""
        try:
            sent = presented(headers)
            key = self.keys.whose(sent) if sent else None
        except Unauthorized:
            sent, key = b"", None
        if key is not None:
            return Caller(key.name, key.role, "key", key.id)
        return self.stranger if sent is None else Caller("unknown", Role.NONE, "key")

    # Sessions of people

    def sign_in(self, request: Request, response: Response, key: str) -> Caller:
        """Begin a session on `response`, or raise `Unauthorized`, or `TooMany` after many attempts that failed."""
        where = address(request.scope)
        self._logins.check(where)
        try:
            known = self.keys.by_secret(key.strip().encode())
        except Unauthorized:
            self._logins.spend(where)
            raise
        response.set_cookie(
            self.sessions.cookie,
            self.sessions.seal(known.id),
            max_age=HOURS * 3600,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        caller = Caller(known.name, known.role, "session", known.id)
        request.scope["evergreen.caller"] = caller
        return caller

    async def sign_out(self, request: Request, response: Response) -> None:
        """End the session on `response`, and for whoever else has its cookie."""
        sealed = self._session(dict(request.scope["headers"]).get(b"cookie"))
        if sealed:
            await self.run(self.keys.end, sealed[1])
        response.delete_cookie(
            self.sessions.cookie, httponly=True, samesite="lax", secure=request.url.scheme == "https"
        )

    def csrf(self, request: Request) -> str:
        """Return the token that a form on this page must carry; strangers get a cookie to bind it to."""
        return self.sessions.token(self._bound_to(request) or self._visitor(request))

    def check_csrf(self, request: Request, token: str | None) -> None:
        """Raise `Refused` unless the form came from a page we gave to this session."""
        bound_to = self._bound_to(request)
        if not token or bound_to is None or not self.sessions.genuine(token, bound_to):
            raise Refused(
                "this form is not from this session, or the session has ended",
                field="csrf",
                hint="Load the page again and repeat.",
            )

    def _bound_to(self, request: Request) -> str | None:
        """Return the cookie that tokens of this browser are bound to, if it sent one."""
        sent = cookies(dict(request.scope["headers"]).get(b"cookie"))
        return sent.get(self.sessions.cookie) or sent.get(self.sessions.visitor)

    def _visitor(self, request: Request) -> str:
        """Give this browser a cookie with this answer; the edge sets it."""
        name: str = request.scope.setdefault("evergreen.visitor", secrets.token_hex(16))
        return name


def address(scope: Scope) -> str:
    """Return where a call came from, as it is counted and written down."""
    client = scope.get("client")
    return neighbourhood(client[0]) if client else ""
