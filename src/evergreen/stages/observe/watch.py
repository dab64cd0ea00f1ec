"""Look after the champion: say once when its answers begin to fail or its traffic to differ, and once when it is over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import sqrt

from evergreen.core.loop import Loop
from evergreen.core.ports import Tally
from evergreen.core.records import Json, Model
from evergreen.core.states import ModelState
from evergreen.stages.observe import drift

#: Answers between two looks before a share of failures means anything.
WINDOW = 20


def failing(before: Tally, now: Tally, limit: float) -> bool | None:
    """Say whether more than a share `limit` of answers failed since the last look; None where that cannot be told.

    More must fail than chance would have it (three standard deviations), or no more than the limit. Pure.

    >>> failing(Tally(100, 0), Tally(200, 50), 0.02), failing(Tally(), Tally(19, 1), 0.02), failing(Tally(), Tally(99), 0.02)
    (True, None, False)
    """
    failed = now.failed - before.failed
    asked = now.answered - before.answered + failed
    if asked < WINDOW:
        return None
    expected = limit * asked
    if failed > expected + 3 * sqrt(expected):
        return True
    return False if failed <= expected else None


def watch(loop: Loop) -> None:
    """Compare the champion's traffic with what it was at the last look, and with what it learnt from."""
    _failures(loop)
    drift.look(loop)


def _failures(loop: Loop) -> None:
    champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
    if champion is None:
        return
    remembered = json.loads(loop.ledger.recall("watch", loop.name) or "{}")
    anew = {"model": champion.id, "answered": 0, "failed": 0, "alarm": False}
    if remembered.get("model") != champion.id:
        if remembered.get("alarm"):
            _tell(loop, anew, "all clear", f"v{champion.version} has taken over; its answers are counted anew")
        remembered = anew
    now = loop.ledger.tally(champion.id)
    before = Tally(remembered["answered"], remembered["failed"])
    alarm = failing(before, now, loop.config.rollout.max_error_rate)
    if alarm is None:
        return
    looked = {**remembered, "answered": now.answered, "failed": now.failed, "alarm": alarm}
    if alarm == remembered["alarm"]:
        loop.ledger.remember("watch", loop.name, json.dumps(looked))
        return
    failed = now.failed - before.failed
    asked = now.answered - before.answered + failed
    because = f"v{champion.version} could not answer {failed} of the last {asked} inputs"
    looked |= {"since": loop.now().isoformat(), "because": because}
    _tell(loop, looked, "alarm" if alarm else "all clear", because)


def _tell(loop: Loop, looked: Mapping[str, Json], what: str, because: str) -> None:
    """Write an event, and what to remember with it."""
    with loop.ledger.together():
        loop.ledger.note(loop.name, what, by="observe", because=because)
        loop.ledger.remember("watch", loop.name, json.dumps(looked))
