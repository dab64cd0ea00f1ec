"""The page for trainings: how many interactions wait, what was trained, what phones sent in; and a button to train."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from evergreen import engine
from evergreen.core.errors import EvergreenError, Unauthorized
from evergreen.core.loop import Loop
from evergreen.core.records import Json, Upload
from evergreen.http.auth import Role
from evergreen.http.pages import words
from evergreen.http.pages.render import Renderer
from evergreen.http.pages.routes import Pages
from evergreen.http.pages.routes import page as way
from evergreen.stages import retain
from evergreen.templates.backdoor import jobs, publishing, uploading, versions

if TYPE_CHECKING:
    from evergreen.http.serving import Serving
    from evergreen.http.ways import Way

PATH = "/admin/training"
#: Rows of each table.
_ROWS = 20


def routes(serving: Serving, name: str) -> list[Way]:
    """Return the page's routes."""
    page = TrainingPage(serving, name)
    return [
        way("GET", PATH, page.guarded(page.show), Role.OPERATOR, "Trainings.", loop=name, link="Training"),
        way("POST", PATH, page.train, Role.OPERATOR, "The form to train.", loop=name),
        way("GET", "/admin", page.guarded(page.show), Role.OPERATOR, "The same.", loop=name),
    ]


class TrainingPage(Pages):
    """One page, made as the others are."""

    def __init__(self, serving: Serving, name: str) -> None:
        super().__init__(serving)
        self._name = name
        self.render = Renderer(Path(__file__).parent / "pages")

    async def show(self, request: Request, error: EvergreenError | None = None) -> Response:
        """Show where trainings stand; for operators only."""
        self.serving.require(request, "operator")
        loop = self.serving.loop(self._name)
        facts = await run_in_threadpool(_facts, loop)
        if error:
            facts["here"] = PATH
        return self._page(
            request, "training.html", error=error, events=f"/events/{loop.name}", title="Training", path=PATH, **facts
        )

    async def train(self, request: Request) -> Response:
        """Ask for a training."""
        try:
            form = await request.form()
            self.serving.check_csrf(request, str(form.get("csrf", "")))
            by = self.serving.require(request, "operator")
            why = words.cut(str(form.get("why", "")), 500) or "manual"
            loop = self.serving.loop(self._name)
            await self.serving.act(engine.ask, loop, by=by, why=why, force=form.get("force") == "on")
        except Unauthorized as e:
            return self._login(request, e, PATH)
        except EvergreenError as e:
            return await self.guarded(partial(self.show, error=e))(request)
        return self._back(request, PATH, "A training was asked for. A trigger file tells of it within seconds.")


def _facts(loop: Loop) -> dict[str, Any]:
    """Read everything that the page shows (blocking)."""
    now = loop.now()
    every = jobs.listed(loop, _ROWS)
    known = versions.all_of(loop)
    uploads = uploading.described(loop.ledger.find(Upload, loop.name, newest_first=True, limit=_ROWS))
    return {
        "loop": loop.name,
        "elsewhere": loop.config.runner.use == "folder",
        "state": publishing.state(loop),
        "jobs": [_timed(job, now, "created_at", "completed_at") for job in every],
        "uploads": [_timed(upload, now, "uploaded_at") for upload in uploads],
        "models": [
            {**_timed(jobs.model_info(name, model), now, "created_at"), "kept": not retain.swept(loop, model)}
            for name, model in reversed(known[-_ROWS:])
        ],
        "last_training": _moment(publishing.state(loop)["last_training"], now),
    }


def _timed(said: dict[str, Json], now: datetime, *keys: str) -> dict[str, Any]:
    return {**said, **{key: _moment(said[key], now) for key in keys}}


def _moment(said: Json, now: datetime) -> words.Moment | None:
    return words.moment(datetime.fromisoformat(said), now) if said else None
