"""The route by which callers say what came of an answer: joined with the prediction by its id, or by its session."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from evergreen.core.errors import InvalidInput, NotFound
from evergreen.core.loop import Loop
from evergreen.core.records import Sample
from evergreen.http import shapes
from evergreen.http.api import body_of, reply
from evergreen.http.desk import Desk
from evergreen.http.serving import Serving
from evergreen.stages import collect
from evergreen.stages.collect import Given

#: Another server may be about to write the prediction down: look again after so many seconds each.
_AGAIN = (0.02, 0.05, 0.15)
#: Before a session's newest is looked for, seconds: what another server answered just now is written down by then.
_SETTLE = 0.05
#: How much later than it was given a prediction may be written down.
_SLACK = timedelta(seconds=_SETTLE + sum(_AGAIN))


async def feedback(serving: Serving, request: Request, loop: Loop) -> Response:
    """Join what is known now with the prediction it is about. The same twice counts once; another label replaces it."""
    told: shapes.Feedback = await body_of(request, shapes.Feedback)
    _check(told)
    desk = serving.desks[loop.name]
    given = await _meant(desk, loop, told)
    if given is None and told.session is not None:
        raise NotFound(
            f"session {told.session!r} of {loop.name} asked nothing that is stored in the "
            f"{loop.config.collect.correction_within} before",
            field="session",
        )
    if given is None and told.input is UNSET:
        raise NotFound(
            f"no prediction or sample {told.id!r} of {loop.name} was stored", field="id", hint='Send its "input" along.'
        )
    sample = _sample(loop, told, given)
    (fresh,) = await serving.store(loop.name, [sample])
    return reply(shapes.Joined(int(fresh), int(not fresh), sample.id.removesuffix(".feedback")))


def _check(told: shapes.Feedback) -> None:
    """Refuse what names nothing to be about, or says nothing of it."""
    if (told.id is None) == (told.session is None):
        raise InvalidInput("send the `id` of a prediction, or a `session`, and not both", field="id")
    if told.label is None and told.score is None:
        raise InvalidInput("there is neither a `label` nor a `score`", field="label")
    for name in ("id", "session", "subject"):
        if "\0" in (getattr(told, name) or ""):
            raise InvalidInput(f"{name} holds the character NUL", field=name)


async def _meant(desk: Desk, loop: Loop, told: shapes.Feedback) -> Given | None:
    """Find what it is about; wait a moment for another server to write it down, if it is not there yet."""
    at = loop.now() - timedelta(seconds=told.ago)
    if told.session is not None:
        await asyncio.sleep(_SETTLE)
    for pause in (*_AGAIN, None):
        if told.id is not None:
            found = await desk.given(told.id)
        else:
            found = await desk.asked(told.session or "", at, slack=_SLACK)
        if found is not None or pause is None or told.input is not UNSET:
            return found
        await asyncio.sleep(pause)
    return None


def _sample(loop: Loop, told: shapes.Feedback, given: Given | None) -> Sample:
    said: dict[str, Any] = {"label": told.label, "score": told.score, "weight": told.weight}
    if given is not None:  # without consent it would not have been stored
        return collect.outcome(loop, given._replace(subject=told.subject or given.subject), **said)
    unknown = Given(told.id or "", told.input, None, None, told.subject)
    return collect.outcome(loop, unknown, **said, consent=told.consent)
