"""The pages' routes: what is read, what is shown, and what a person may do from there."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from hmac import compare_digest
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from evergreen import engine
from evergreen.core.errors import EvergreenError, InvalidInput, Unauthorized
from evergreen.core.loop import Loop
from evergreen.core.ports import Ledger
from evergreen.http import audit
from evergreen.http.auth import Role
from evergreen.http.errors import advice
from evergreen.http.pages import assembly, gate, reading, reports, views, words
from evergreen.http.pages.live import Pulse
from evergreen.http.pages.render import Renderer, Visitor
from evergreen.http.ways import Endpoint, Way
from evergreen.stages import rollout

T = TypeVar("T")
#: Rows of the table of models before "show all" is asked for.
ROWS = 10
#: Lines of the audit log on its page.
LINES = 200
_HTML = {"cache-control": "no-store"}


class Loops(Protocol):
    """What the pages need of a project."""

    @property
    def loops(self) -> Mapping[str, Loop]: ...
    @property
    def ledger(self) -> Ledger: ...


class Serving(Protocol):
    """What the pages need of a running server."""

    @property
    def project(self) -> Loops: ...
    @property
    def locked(self) -> bool: ...
    @property
    def closing(self) -> threading.Event: ...
    @property
    def ways(self) -> Sequence[Endpoint]: ...
    def loop(self, name: str) -> Loop: ...
    def role(self, request: Request) -> Any: ...
    def csrf(self, request: Request) -> str: ...
    def check_csrf(self, request: Request, token: str | None) -> None: ...
    def require(self, request: Request, role: str) -> str: ...
    def sign_in(self, request: Request, response: Response, key: str) -> Any: ...
    async def sign_out(self, request: Request, response: Response) -> None: ...
    async def act(self, fn: Callable[..., T], *args: Any, **kw: Any) -> T: ...


def page(method: str, path: str, handler: Handler, role: Role, summary: str, *, loop: str = "", link: str = "") -> Way:
    """Return the route of a page; the overview leads to those with a `link`."""
    return Way(Endpoint(method, path, handler, role, summary, media="text/html", loop=loop, page=True, link=link))


Handler = Callable[[Request], Awaitable[Response]]
#: Titles of pages about what went wrong, by status.
_TITLES = {403: "Not allowed", 404: "Not found", 405: "Not possible", 500: "Something went wrong"}


@dataclass(frozen=True)
class Trouble:
    """What went wrong, where no error of ours says so."""

    status: int
    message: str
    hint: str | None

    def __str__(self) -> str:
        return self.message


class Pages:
    """Handlers over one running server."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.render = Renderer()
        self.pulse = Pulse(serving.closing)

    def routes(self) -> list[Way]:
        """Return the routes of all pages."""
        show = self.guarded
        return [
            page("GET", "/", show(self.overview), Role.APP, "All loops."),
            page("GET", "/loops/{name}", show(self.loop), Role.APP, "One loop."),
            page("GET", "/loops/{name}/models/{v}", show(self.model), Role.APP, "One version."),
            page("GET", "/loops/{name}/models/{v}/gate", show(self.gate), Role.APP, "Why the gate decided so."),
            *(
                page("POST", f"/loops/{{name}}/{verb}", self.doing(verb), Role.OPERATOR, f"The form to {verb}.")
                for verb in ("train", "promote", "rollback", "cancel", "experiment", "stop")
            ),
            page("GET", "/audit", show(self.audit), Role.ADMIN, "Who did what.", link="Audit log"),
            page("GET", "/login", self.login, Role.NONE, "Asks for a key."),
            page("POST", "/login", self.sign_in, Role.NONE, "Begins a session."),
            page("POST", "/logout", show(self.sign_out), Role.APP, "Ends the session."),
            page("GET", "/events", self.events, Role.APP, "Tells when the overview has changed."),
            page("GET", "/events/{name}", self.events, Role.APP, "Tells when a loop's page has changed."),
        ]

    # What is shown

    async def overview(self, request: Request) -> Response:
        """Show one card per loop."""
        loops = list(self.serving.project.loops.values())
        cards = await run_in_threadpool(lambda: [views.summary(reading.card(loop)) for loop in loops])
        may = self.serving.role(request)
        links = [(way.path, way.link) for way in self.serving.ways if way.link and may >= way.role]
        return self._page(request, "overview.html", events="/events", cards=cards, links=links, title="Overview")

    async def loop(self, request: Request, error: EvergreenError | None = None) -> Response:
        """Show one loop; with an error on top if something could not be done."""
        loop = self.serving.loop(request.path_params["name"])
        before = _whole(request.query_params.get("before"), "before")
        facts = await run_in_threadpool(reading.page, loop, before)
        everything = "all" in request.query_params
        page = assembly.page(facts, None if everything else ROWS, raw=self._visitor(request).reviews)
        shown = {"events": f"/events/{quote(loop.name)}", "page": page, "before": before, "title": loop.name}
        if error:
            shown["here"] = f"/loops/{quote(loop.name)}"
        return self._page(request, "loop.html", error=error, **shown)

    async def model(self, request: Request) -> Response:
        """Show one model version."""
        loop = self.serving.loop(request.path_params["name"])
        version = request.path_params["v"]
        page = await run_in_threadpool(_model_page, loop, version)
        title = f"{loop.name} {words.version(version)}"
        return self._page(request, "model.html", events="", page=page, title=title)

    async def gate(self, request: Request) -> Response:
        """Show what the gate's verdict on a version rests on."""
        loop, version = self.serving.loop(request.path_params["name"]), request.path_params["v"]
        model = await run_in_threadpool(reading.model, loop.ledger, loop.name, version)
        page = gate.page(model, loop.config.gate)
        return self._page(request, "gate.html", events="", page=page, title=f"{loop.name} v{version}, gate")

    async def audit(self, request: Request) -> Response:
        """Show who did what, the newest first; for administrators only."""
        self.serving.require(request, "admin")
        lines = await run_in_threadpool(audit.read, self.serving.project.ledger, limit=LINES)
        now = datetime.now(UTC)
        shown = [(words.moment(datetime.fromisoformat(line.at), now), line) for line in lines]
        return self._page(request, "audit.html", events="", lines=shown, most=LINES, title="Audit log")

    # What is done

    def doing(self, verb: str) -> Handler:
        """Return the handler of a form that changes something."""

        async def handle(request: Request) -> Response:
            try:
                form = await request.form()
                self.serving.check_csrf(request, str(form.get("csrf", "")))
                by = self.serving.require(request, "operator")
                loop = self.serving.loop(request.path_params["name"])
                said = await self._do(verb, loop, form, by)
            except Unauthorized as e:
                return self._login(request, e, request.url.path.removesuffix(f"/{verb}"))
            except EvergreenError as e:
                known = request.path_params["name"] in self.serving.project.loops
                return await self.loop(request, e) if known else self._error(request, e)
            return self._back(request, f"/loops/{quote(loop.name)}", said)

        return handle

    async def _do(self, verb: str, loop: Loop, form: FormData, by: str) -> str:
        why, force = words.cut(str(form.get("why", "")), 500), form.get("force") == "on"
        act = self.serving.act
        if verb == "train":
            await act(engine.ask, loop, by=by, why=why or "asked for on the dashboard", force=force)
            return "A training was asked for. It begins with the next turn."
        if verb == "cancel":
            await act(engine.cancel, loop, by=by, why=why or "cancelled on the dashboard")
            return "The training was cancelled."
        if not why:
            raise InvalidInput("a reason is needed: it goes into the history", field="why")
        if verb == "experiment":
            versions, shares = _numbers(form, "versions"), _numbers(form, "shares")
            await act(
                partial(engine.experiment, deadline=rollout.length(str(form.get("deadline", "")))),
                loop,
                [int(v) for v in versions],
                shares,
                by=by,
                why=why,
            )
            return "The experiment has begun."
        if verb == "stop":
            await act(engine.stop, loop, by=by, why=why)
            return "The experiment has ended: the champion answers all."
        if verb == "rollback":
            now = await act(engine.rollback, loop, by=by, why=why)
            return f"Rolled back: {words.version(now.version)} answers."
        version = _whole(str(form.get("version", "")), "version")
        if version is None:
            raise InvalidInput("a version is needed", field="version")
        await act(engine.promote, loop, version, by=by, why=why, force=force)
        return f"{words.version(version)} is champion now."

    # Who

    async def login(self, request: Request) -> Response:
        """Ask for a key."""
        return self._login(request, None, request.query_params.get("next", "/"))

    async def sign_in(self, request: Request) -> Response:
        """Begin a session."""
        form = await request.form()
        to = local(str(form.get("next", "/")))
        try:
            self.serving.check_csrf(request, str(form.get("csrf", "")))
            response = RedirectResponse(_root(request) + to, 303)
            self.serving.sign_in(request, response, str(form.get("key", "")))
        except EvergreenError as e:
            return self._login(request, e, to)
        return response

    async def sign_out(self, request: Request) -> Response:
        """End a session."""
        self.serving.check_csrf(request, str((await request.form()).get("csrf", "")))
        response = RedirectResponse(_root(request) + "/login", 303)
        await self.serving.sign_out(request, response)
        return response

    # What is live

    async def events(self, request: Request) -> Response:
        """Tell the browser whenever its page has changed."""
        self.serving.require(request, "app")
        name = request.path_params.get("name")
        loops = [self.serving.loop(name)] if name else list(self.serving.project.loops.values())
        stream = self.pulse.listen(name or "", loops)
        head = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=head)

    # How

    def guarded(self, page: Handler) -> Handler:
        """Show a page to those who may read; ask strangers for a key, explain what goes wrong."""

        async def handle(request: Request) -> Response:
            try:
                self.serving.require(request, "app")
                return await page(request)
            except Unauthorized as e:
                if request.method == "GET":
                    where = request.url.path.removeprefix(_root(request))
                    return RedirectResponse(f"{_root(request)}/login?{urlencode({'next': where})}", 303)
                return self._login(request, e, "/")
            except EvergreenError as e:
                return self._error(request, e)

        return handle

    def _visitor(self, request: Request) -> Visitor:
        return Visitor.of(self.serving.role(request), locked=self.serving.locked)

    def _page(
        self, request: Request, template: str, *, error: EvergreenError | Trouble | None = None, **shown: Any
    ) -> Response:
        said = "" if error else self._said(request)
        again = advice(error).get("Retry-After") if isinstance(error, EvergreenError) else None
        head = _HTML | ({"retry-after": again} if again else {})
        shown |= {"error": error, "said": said, "root": _root(request), "visitor": self._visitor(request)}
        html = self.render(template, csrf=partial(self.serving.csrf, request), **shown)
        return Response(html, error.status if error else 200, head, "text/html; charset=utf-8")

    def _login(self, request: Request, error: EvergreenError | None, to: str) -> Response:
        return self._page(request, "login.html", error=error, events="", title="Sign in", next=local(to))

    def _error(self, request: Request, error: EvergreenError | Trouble) -> Response:
        title = _TITLES.get(error.status, "Not possible")
        return self._page(request, "error.html", error=error, events="", title=title, asked=request.url.path)

    def told(self, request: Request, status: int, said: Mapping[str, Any], head: Mapping[str, str]) -> Response | None:
        """Tell a person in a browser of what went wrong outside of a page; None for programs."""
        path = request.url.path.removeprefix(_root(request))
        if "text/html" not in request.headers.get("accept", "") or path.startswith("/api/"):
            return None
        lost = Trouble(404, "There is no such page", "The address may be old, or mistyped.")
        response = self._error(request, lost if status == 404 else Trouble(status, said["message"], said["hint"]))
        response.headers.update(head)
        return response

    def _back(self, request: Request, path: str, said: str) -> Response:
        mark = self._mark(request, said)
        return RedirectResponse(f"{_root(request)}{path}?{urlencode({'said': said, 'mark': mark})}", 303)

    def _said(self, request: Request) -> str:
        """Return what a form of this session has led to; of a link that somebody else made, nothing."""
        said = request.query_params.get("said", "")
        given = request.query_params.get("mark", "").encode()
        genuine = said and compare_digest(self._mark(request, said).encode(), given)
        return words.cut(said, 200) if genuine else ""

    def _mark(self, request: Request, said: str) -> str:
        return blake2b(said.encode(), key=self.serving.csrf(request).encode()[:64], digest_size=12).hexdigest()


def local(path: str) -> str:
    """Return a path of this server; anything that would lead elsewhere becomes the overview.

    >>> local("/loops/a"), local("//elsewhere.example"), local("https://elsewhere.example")
    ('/loops/a', '/', '/')
    """
    inside = path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable() and "\\" not in path
    return path if inside else "/"


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")


def _numbers(form: FormData, field: str) -> list[float]:
    """Read "3, 4" or "v3 v4". Raises `InvalidInput`."""
    try:
        return [float(x.removeprefix("v")) for x in str(form.get(field, "")).replace(",", " ").split()]
    except ValueError:
        raise InvalidInput(f"{field} are numbers, parted by commas", field=field) from None


def _whole(text: str | None, field: str) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise InvalidInput(f"{field} is not a whole number", field=field)
    return int(text)


def _model_page(loop: Loop, version: int) -> assembly.ModelPage:
    model = reading.model(loop.ledger, loop.name, version)
    facts = reading.card(loop)
    return assembly.model_page(model, facts, reading.lineage(loop.ledger, model), reports.of(loop, model))
