"""Experiments over HTTP: start one, stop it, read how it stands."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from evergreen import engine
from evergreen.core.loop import Loop
from evergreen.http.auth import Role
from evergreen.http.errors import decode
from evergreen.http.serving import Serving
from evergreen.http.shapes import Because, Reason, Text
from evergreen.stages import rollout


class Experiment(Struct, kw_only=True, forbid_unknown_fields=True):
    """Versions to put beside the champion."""

    versions: Annotated[list[Annotated[int, Meta(ge=1, le=2**53)]], Meta(min_length=1, max_length=20)]
    shares: Annotated[list[float], Meta(description="Of the units, one for each version; the champion keeps the rest.")]
    why: Reason
    metric: Literal["accuracy", "score"] = "accuracy"
    deadline: Annotated[Text | None, Meta(description='How long at most, "7d" for example.')] = None
    promote: Annotated[bool, Meta(description="Make the best one champion at the end, if any is better.")] = False


class ArmOut(Struct, kw_only=True):
    """One version in an experiment."""

    version: int
    share: float
    exposed: Annotated[int, Meta(description="units that met it")]
    n: Annotated[int, Meta(description="outcomes")]
    mean: float | None
    difference: Annotated[float | None, Meta(description="to the champion")]
    low: Annotated[float | None, Meta(description="of the interval around the difference")]
    high: float | None
    failed: int
    mean_ms: float | None
    call: Literal["champion", "open", "better", "worse", "out"]
    because: str


class ExperimentOut(Struct, kw_only=True):
    """How an experiment stands, or stood at its end."""

    id: str
    loop: str
    state: Literal["running", "frozen", "ended"]
    why: str
    by: str
    metric: str
    alpha: float
    began: str | None
    deadline: str | None
    ended: str | None
    arms: list[ArmOut]
    chance: Annotated[float, Meta(description="that arms meeting their shares would show such odd numbers of units")]
    because: str
    winner: int | None
    markdown: str


async def start_experiment(serving: Serving, request: Request, loop: Loop) -> Response:
    """Put versions beside the champion; when this is answered, they are."""
    told: Experiment = decode(await request.body() or b"{}", Experiment)
    await serving.act(
        partial(engine.experiment, deadline=rollout.length(told.deadline), promote=told.promote),
        loop,
        told.versions,
        told.shares,
        by=serving.require(request, Role.OPERATOR),
        why=told.why,
        metric=told.metric,
    )
    return await _report(serving, loop, 201)


async def stop_experiment(serving: Serving, request: Request, loop: Loop) -> Response:
    """End the experiment; when this is answered, the champion answers all."""
    told: Because = decode(await request.body() or b"{}", Because)
    by = serving.require(request, Role.OPERATOR)
    await serving.act(engine.stop, loop, by=by, why=told.why)
    return await _report(serving, loop)


async def experiment(serving: Serving, _: Request, loop: Loop) -> Response:
    """Say how the newest experiment stands."""
    return await _report(serving, loop)


async def _report(serving: Serving, loop: Loop, status: int = 200) -> Response:
    found: dict[str, Any] = await serving.run(rollout.report, loop)
    return Response(msgspec.json.encode(found), status, media_type="application/json")
