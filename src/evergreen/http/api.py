"""The colder half of the API: trainings, models, history, and what machines ask of a server."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any

import msgspec
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

import evergreen
from evergreen import engine
from evergreen.core.errors import InvalidInput, NotFound
from evergreen.core.loop import Loop
from evergreen.core.records import Model, Run
from evergreen.core.states import IN_SERVICE, OPEN_RUNS
from evergreen.http import shapes, uploads
from evergreen.http.auth import Role
from evergreen.http.errors import decode
from evergreen.http.metrics import render
from evergreen.http.serving import Serving
from evergreen.stages import collect, observe

#: Versions that are listed.
_LISTED = 500
#: Bytes of a download that are read at a time.
_PIECE = 1 << 18

_encoder = msgspec.json.Encoder()


def reply(said: Any, status: int = 200) -> Response:
    """Answer with JSON."""
    return Response(_encoder.encode(said), status, media_type="application/json")


async def body_of(request: Request, shape: type[msgspec.Struct]) -> Any:
    """Read a body; none at all is an empty object. Raises msgspec's errors, which `errors` explains."""
    return decode(await request.body() or b"{}", shape)


# Training


async def train(serving: Serving, request: Request, loop: Loop) -> Response:
    """Ask for a training; it begins within moments."""
    wish: shapes.Training = await body_of(request, shapes.Training)
    run = await serving.act(
        engine.ask,
        loop,
        by=serving.require(request, Role.OPERATOR),
        why=wish.why or "asked over HTTP",
        force=wish.force,
        overrides=wish.overrides or None,
        file=None if wish.file is None else Path(wish.file),
    )
    return reply(shapes.Asked(run.id, run.state.value, run.why), 202)


async def cancel(serving: Serving, request: Request, loop: Loop) -> Response:
    """Stop the training that waits or runs."""
    told: shapes.Because = await body_of(request, shapes.Because)
    by = serving.require(request, Role.OPERATOR)
    run = await serving.act(engine.cancel, loop, by=by, why=told.why or "asked over HTTP")
    return reply(shapes.Asked(run.id, run.state.value, run.why))


async def status(serving: Serving, _: Request, loop: Loop) -> Response:
    """Say where a loop stands."""
    return reply(await serving.run(observe.status, loop))


async def drift(serving: Serving, _: Request, loop: Loop) -> Response:
    """Say whether live traffic is still what the champion learnt from."""
    return reply(await serving.run(observe.drift_report, loop))


async def history(serving: Serving, request: Request, loop: Loop) -> Response:
    """Say what happened, and why."""
    limit, before = _number(request, "limit", 50, 1, 500), _number(request, "before", None, 0, 2**53)
    events = await serving.run(observe.history, loop, limit=limit, before=before)
    more = events[-1]["seq"] if events and len(events) == limit else None
    return reply(shapes.History(events, more))


# Models


async def models(serving: Serving, _: Request, loop: Loop) -> Response:
    """List versions, newest first."""
    found = await serving.run(loop.ledger.find, Model, loop.name, newest_first=True, limit=_LISTED)
    return reply(shapes.Models([_model(m) for m in found]))


async def download(serving: Serving, request: Request, loop: Loop) -> Response:
    """Hand out an artifact as a zip file, verified on the way."""
    version = request.path_params["v"]
    file, size = await serving.run(_zip, serving, loop, version)
    headers = {"Content-Disposition": f'attachment; filename="{loop.name}-v{version}.zip"', "Content-Length": str(size)}
    pieces = iter(lambda: file.read(_PIECE), b"")
    return StreamingResponse(
        pieces, headers=headers, media_type="application/zip", background=BackgroundTask(file.close)
    )


async def upload(serving: Serving, request: Request, loop: Loop) -> Response:
    """Take in a model that a device sent."""
    taken, _ = await uploads.take(serving, request, loop)
    return reply(uploads.shape(taken))


async def uploaded(serving: Serving, _: Request, loop: Loop) -> Response:
    """List models from devices, newest first."""
    found = await serving.run(collect.received, loop, limit=_LISTED)
    return reply(shapes.Uploads([uploads.shape(one) for one in found]))


async def rollout(serving: Serving, _: Request, loop: Loop) -> Response:
    """Say who answers now, and what their traffic says."""
    return reply(await serving.run(_rollout, serving, loop))


async def promote(serving: Serving, request: Request, loop: Loop) -> Response:
    """Make a version champion. Once this is answered, no other version answers."""
    told: shapes.Promotion = await body_of(request, shapes.Promotion)
    by = serving.require(request, Role.OPERATOR)
    model = await serving.act(
        engine.promote, loop, told.version, by=by, why=told.why or "asked over HTTP", force=told.force
    )
    return reply(_model(model))


async def rollback(serving: Serving, request: Request, loop: Loop) -> Response:
    """Take a challenger back, or else put the former champion back."""
    told: shapes.Because = await body_of(request, shapes.Because)
    by = serving.require(request, Role.OPERATOR)
    return reply(_model(await serving.act(engine.rollback, loop, by=by, why=told.why or "asked over HTTP")))


# The server


async def health(serving: Serving, _: Request) -> Response:
    """Say how the server is."""
    said = await serving.run(_health, serving)
    return reply(said)


async def metrics(serving: Serving, _: Request) -> Response:
    """Give the figures for Prometheus."""
    return Response(await serving.run(render, serving), media_type="text/plain; version=0.0.4")


def _health(serving: Serving) -> shapes.Health:
    loops = {name: _loop_health(serving, loop) for name, loop in serving.project.loops.items()}
    well = not any(one.trouble for one in loops.values())
    return shapes.Health("ok" if well else "degraded", evergreen.__version__, loops)


def _loop_health(serving: Serving, loop: Loop) -> shapes.LoopHealth:
    live = serving.lives[loop.name]
    champion = live.lineup.champion
    trouble = serving.troubles.get(loop.name) or "; ".join(live.broken.values()) or None
    try:
        training = loop.ledger.last(Run, loop.name, *OPEN_RUNS) is not None
    except Exception as e:  # noqa: BLE001 - what is loaded answers on; that is what this page is for
        training, trouble = None, f"the ledger cannot be read: {e}"
    return shapes.LoopHealth(
        model_loaded=champion is not None,
        version=None if champion is None else champion.model.version,
        training_in_progress=training,
        trouble=trouble,
    )


def _rollout(serving: Serving, loop: Loop) -> shapes.Rollout:
    loaded = {slot.model.id for slot in serving.lives[loop.name].lineup.slots}
    return shapes.Rollout(
        list(loop.config.rollout.steps),
        [
            shapes.InService(_model(m), m.id in loaded, _traffic(loop, m))
            for m in loop.ledger.find(Model, loop.name, *IN_SERVICE, newest_first=True)
        ],
    )


def _traffic(loop: Loop, model: Model) -> shapes.Traffic:
    t = loop.ledger.tally(model.id)
    mean = round(t.latency_ms / t.answered, 3) if t.answered else None
    return shapes.Traffic(
        t.answered,
        t.failed,
        t.judged,
        t.right,
        mean,
        t.scored,
        t.score / t.scored if t.scored else None,
        t.compared,
        t.agreed,
    )


def _model(m: Model) -> shapes.ModelOut:
    return shapes.ModelOut(
        version=m.version,
        id=m.id,
        state=m.state.value,
        share=m.share,
        since=m.since.isoformat() if m.since else None,
        at=m.at.isoformat() if m.at else None,
        scores=dict(m.scores),
        rival_scores=dict(m.rival_scores),
        verdict=dict(m.verdict),
        details=dict(m.details),
        dataset=m.dataset,
        run=m.run,
    )


def _zip(serving: Serving, loop: Loop, version: int) -> tuple[IO[bytes], int]:
    """Pack an artifact into a file without a name, which is gone when it is closed; return it and its size."""
    model = next((m for m in loop.ledger.find(Model, loop.name) if m.version == version), None)
    if model is None:
        raise NotFound(f"{loop.name} has no version {version}", field="v")
    out = tempfile.TemporaryFile(dir=serving.project.state)  # noqa: SIM115 - closed once it was sent
    with tempfile.TemporaryDirectory(prefix="download-", dir=serving.project.state) as folder:
        artifact = Path(folder) / "artifact"
        loop.store.get(model.key, artifact)
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as packed:
            for path in sorted(p for p in artifact.rglob("*") if p.is_file()):
                packed.write(path, path.relative_to(artifact))
    size = out.tell()
    out.seek(0)
    return out, size


def _number(request: Request, name: str, default: int | None, low: int, high: int) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and low <= int(text[:20]) <= high):
        raise InvalidInput(f"{name} is not a whole number from {low} to {high}", field=name)
    return int(text)
