"""The table of roles: every way in, of the API, the pages, the fast path and each template's door, against every caller.

The ways are those of the running application. One that stands in no table here fails the first test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_harness import MEMORY, PLAIN, App, running, wait
from starlette.responses import Response
from starlette.routing import Mount, Route
from typer.testing import CliRunner

from evergreen.cli.app import app as cli
from evergreen.core.errors import ConfigError
from evergreen.core.records import Run
from evergreen.core.states import OPEN_RUNS
from evergreen.http import auth
from evergreen.http.app import build
from evergreen.http.auth import Role
from evergreen.http.ways import Endpoint, Way, declared

NONE, APP, REVIEWER, OPERATOR, ADMIN = Role
#: Path -> role, and what is answered to those who may, when the body is `[]` (or, for a page, a form that has a token).
API = {
    "POST /api/{loop}/predict": (APP, 400),
    "POST /api/{loop}/samples": (APP, 200),
    "POST /api/{loop}/feedback": (APP, 400),
    "POST /api/{loop}/uploads": (APP, 400),
    "GET /api/{loop}/uploads": (APP, 200),
    "GET /api/{loop}/training/status": (APP, 200),
    "GET /api/{loop}/status": (APP, 200),
    "GET /api/{loop}/models": (APP, 200),
    "GET /api/{loop}/rollout": (APP, 200),
    "GET /api/{loop}/drift": (APP, 200),
    "GET /api/{loop}/history": (APP, 200),
    "GET /metrics": (APP, 200),
    "POST /api/{loop}/train": (OPERATOR, 400),
    "POST /api/{loop}/cancel": (OPERATOR, 400),
    "POST /api/{loop}/promote": (OPERATOR, 400),
    "POST /api/{loop}/rollback": (OPERATOR, 400),
    "POST /api/{loop}/experiment": (OPERATOR, 400),
    "POST /api/{loop}/experiment/stop": (OPERATOR, 400),
    "GET /api/{loop}/experiment": (APP, 404),
    "GET /api/{loop}/models/{v}/download": (OPERATOR, 404),
    "GET /health": (NONE, 200),
    "GET /openapi.json": (NONE, 200),
    "GET /docs": (NONE, 200),
}
PAGES = {
    "GET /": (APP, 200),
    "GET /loops/{name}": (APP, 200),
    "GET /loops/{name}/models/{v}": (APP, 404),
    "GET /loops/{name}/models/{v}/gate": (APP, 404),
    "POST /loops/{name}/train": (OPERATOR, 404),  # forms are sent about a loop that is not there: they change nothing
    "POST /loops/{name}/promote": (OPERATOR, 404),
    "POST /loops/{name}/rollback": (OPERATOR, 404),
    "POST /loops/{name}/cancel": (OPERATOR, 404),
    "POST /loops/{name}/experiment": (OPERATOR, 404),
    "POST /loops/{name}/stop": (OPERATOR, 404),
    "GET /audit": (ADMIN, 200),
    "GET /login": (NONE, 200),
    "POST /login": (NONE, 401),  # without a key
    "POST /logout": (APP, 303),
    "GET /events": (APP, 200),
    "GET /events/{name}": (APP, 200),
}
PARIMA = {
    "POST /api/parima/predict": (APP, 400),
    "POST /api/parima/train": (OPERATOR, 400),
    "GET /api/parima/training/status": (APP, 200),
    "GET /health": (NONE, 200),
}
BACKDOOR = {
    "POST /api/ai/learn": (APP, 400),
    "POST /api/ai/upload-model": (APP, 400),
    "GET /api/ai/uploads": (APP, 403),  # who names no device must be an operator
    "GET /api/ai/uploads/{id}": (APP, 404),
    "GET /api/ai/latest-model": (APP, 200),
    "GET /api/ai/models": (APP, 200),
    "GET /api/ai/models/{version}": (APP, 404),
    "GET /api/ai/stats": (APP, 200),
    "POST /api/ai/training/trigger": (OPERATOR, 400),
    "GET /api/ai/training/status": (APP, 200),
    "GET /admin/training": (OPERATOR, 200),
    "GET /admin": (OPERATOR, 200),
    "POST /admin/training": (OPERATOR, 400),
}
#: What a higher role is answered, where that is something else.
HIGHER = {("GET /api/ai/uploads", OPERATOR): 200}
TABLES: Mapping[str, Mapping[str, tuple[Role, int]]] = {
    "plain": API | PAGES,
    "parima": API | PAGES | PARIMA,
    "backdoor": API | PAGES | BACKDOOR,
}
LOOP = {"plain": "toy", "parima": "parima", "backdoor": "intent"}
LIVE = ("GET /events", "GET /events/{name}")  # never end
RANKS = {role.name.lower(): role for role in Role}
BAD = ("revoked", "expired", "unknown")


class Callers:
    """One key of each kind, and what a request by its owner carries."""

    def __init__(self, app: App) -> None:
        ledger = app.project.ledger
        made = {name: auth.create(ledger, name, name) for name in RANKS if name != "none"}
        made["revoked"] = auth.create(ledger, "revoked", "admin")
        made["expired"] = auth.create(ledger, "expired", "admin", timedelta(milliseconds=1))
        self._ids = {name: id for name, (id, _) in made.items()}
        self._keys = {name: key for name, (_, key) in made.items()} | {"unknown": "egk_nobody"}
        auth.revoke(ledger, self._ids["revoked"])
        app.serving.keys.read()
        self._sessions = app.serving.sessions

    def key(self, name: str) -> dict[str, str]:
        return {} if name == "none" else {"authorization": f"Bearer {self._keys[name]}"}

    def browser(self, name: str) -> tuple[dict[str, str], str]:
        """Return the cookie of a session and the token that its forms carry."""
        cookie, value = self._sessions.visitor, "a visitor"
        if name in self._ids:
            cookie, value = self._sessions.cookie, self._sessions.seal(self._ids[name])
        return {"cookie": f"{cookie}={value}"}, self._sessions.token(value)


@pytest.fixture(scope="module", params=TABLES)
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, App]]:
    folder = tmp_path_factory.mktemp(request.param) / "project"
    text = MEMORY + PLAIN
    if request.param != "plain":
        assert CliRunner().invoke(cli, ["init", "--template", request.param, str(folder)]).exit_code == 0
        text = (folder / "evergreen.toml").read_text()
    with running(folder, text) as app:
        yield request.param, app


@pytest.fixture(scope="module")
def callers(system: tuple[str, App]) -> Callers:
    return Callers(system[1])


def test_every_way_in_has_its_line_here(system: tuple[str, App]) -> None:
    name, app = system
    assert {way.name: way.role for way in app.serving.ways} == {said: role for said, (role, _) in TABLES[name].items()}


def test_nothing_leads_around_the_table(system: tuple[str, App]) -> None:
    """What the application routes is what the table says, and the files that pages are made of."""
    _, app = system
    front: Any = build(app.serving)
    ways = {way.name for way in app.serving.ways}
    inner = front._app._app
    for route in inner.routes:
        if isinstance(route, Mount):
            assert route.path == "/static"
        else:
            assert isinstance(route, Way)
            assert route.said.name in ways
    hot = {f"{method} {path}" for method, path in front._paths}
    loops = {way.replace("{loop}", loop) for way in ways for loop in app.project.loops}
    assert hot <= ways | loops


def ask(
    app: App, way: Endpoint, loop: str, headers: Mapping[str, str], form: Mapping[str, str] | None
) -> httpx.Response:
    """Take a way in; of what never ends, only the head is read."""
    named = "nowhere" if way.page and way.method == "POST" else loop
    path = way.path
    for part, value in {"{loop}": loop, "{name}": named, "{v}": "7", "{id}": "nothing", "{version}": "1.0.7"}.items():
        path = path.replace(part, value)
    body = {"data": form} if form is not None else {"content": b"[]"} if way.method == "POST" else {}
    if way.method == "POST" and form is None:
        headers = {**headers, "content-type": "application/json"}
    with app.http.stream(way.method, path, headers=dict(headers), **body) as answer:
        if answer.status_code != 200 or way.name not in LIVE:
            answer.read()
    return answer


def expected(name: str, way: str, rank: Role) -> int:
    """Return what the table says that a caller of a role is answered."""
    role, status = TABLES[name][way]
    if rank < role:
        return 401 if rank is NONE else 403
    return next((s for (w, least), s in HIGHER.items() if w == way and rank >= least), status)


@pytest.mark.parametrize("role", RANKS)
def test_with_a_key_of_each_role(system: tuple[str, App], callers: Callers, role: str) -> None:
    name, app = system
    for way in app.serving.ways:
        if way.page and way.method == "POST":
            continue  # forms: below
        said = ask(app, way, LOOP[name], callers.key(role), None)
        wanted = expected(name, way.name, RANKS[role])
        if wanted == 401 and way.page and way.name not in LIVE:
            wanted = 303  # strangers are led to the form
            assert said.headers["location"].startswith("/login?next=")
        assert said.status_code == wanted, (way.name, role, said.text)


@pytest.mark.parametrize("role", RANKS)
def test_with_a_form_of_each_role(system: tuple[str, App], callers: Callers, role: str) -> None:
    name, app = system
    for way in app.serving.ways:
        if not way.page or way.method != "POST":
            continue
        if way.path == "/admin/training":
            continue  # has no loop in its path: below
        cookie, token = callers.browser(role)
        said = ask(app, way, LOOP[name], cookie, {"csrf": token})
        assert said.status_code == expected(name, way.name, RANKS[role]), (way.name, role, said.text)
    app.serving.keys.read()


@pytest.mark.parametrize("role", [*RANKS, *BAD])
def test_no_form_is_taken_without_its_token(system: tuple[str, App], callers: Callers, role: str) -> None:
    name, app = system
    before = app.project.ledger.revision()
    for way in app.serving.ways:
        if not way.page or way.method != "POST":
            continue
        cookie, _ = callers.browser(role if role != "unknown" else "none")
        for token in ("", "0" * 64, callers.browser("admin" if role in ("none", "unknown") else "none")[1]):
            said = ask(app, way, LOOP[name], cookie, {"csrf": token})
            known = RANKS.get(role, NONE) > NONE
            assert said.status_code == (403 if known or way.path not in ("/logout", "/admin/training") else 401), (
                way.name,
                role,
                said.text,
            )
    assert app.project.ledger.revision() == before


@pytest.mark.parametrize("kind", BAD)
def test_with_a_key_that_does_not_hold(system: tuple[str, App], callers: Callers, kind: str) -> None:
    """Such a key is told so everywhere, also where none is needed; a session of such a key is nobody's."""
    name, app = system
    for way in app.serving.ways:
        form = {"csrf": "x"} if way.page and way.method == "POST" else None
        said = ask(app, way, LOOP[name], callers.key(kind), form)
        assert said.status_code == 401, (way.name, kind)
        if not way.page and kind != "unknown":
            cookie, _ = callers.browser(kind)
            said = ask(app, way, LOOP[name], cookie, None)
            assert said.status_code == expected(name, way.name, NONE), (way.name, kind)


def test_the_form_of_the_training_page(tmp_path: Path) -> None:
    """Its path names no loop, so that each role asks a server of its own."""
    folder = tmp_path / "project"
    assert CliRunner().invoke(cli, ["init", "--template", "backdoor", str(folder)]).exit_code == 0
    with running(folder, (folder / "evergreen.toml").read_text()) as app:
        callers = Callers(app)
        for role, status in {"none": 401, "app": 403, "reviewer": 403, "operator": 303, "admin": 303}.items():
            cookie, token = callers.browser(role)
            wait(lambda: app.project.ledger.last(Run, "intent", *OPEN_RUNS) is None)
            said = app.http.post("/admin/training", data={"csrf": token}, headers=cookie)
            assert said.status_code == status, (role, said.text)


def test_a_route_that_does_not_say_who_may_take_it_is_not_served(start: Callable[..., App]) -> None:
    async def answer(_: Any) -> Response:
        return Response("for everybody")

    with pytest.raises(ConfigError, match="/loose does not say who may take it"):
        declared([Route("/loose", answer)])


def test_the_document_tells_of_every_way_but_the_pages(system: tuple[str, App]) -> None:
    name, app = system
    said = app.http.get("/openapi.json").json()
    told = {
        f"{m.upper()} {path}": op.get("x-role", "none")
        for path, ways in said["paths"].items()
        for m, op in ways.items()
    }
    doors = {way.name for way in app.serving.ways if not way.page}
    hidden = {way for way in API if way.replace("{loop}", LOOP[name]) in doors - set(API)}  # a door answers there
    assert told == {way: role.name.lower() for way, (role, _) in TABLES[name].items() if way in doors - hidden}
    assert json.dumps(said).count("egk_") == 0
