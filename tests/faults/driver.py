"""A server's clock without the server: turns one loop until nothing is left to do, and dies where it is told.

    python driver.py

reads orders from its input, a JSON array on each line: [PROJECT] or [PROJECT, FAULT]. For each it begins a process,
which is quick for everything is imported already, and answers with [EXIT STATUS, what it has printed].

The process prints one line, `settled N`, when the loop has a champion and no training is open, N being how often
it has changed ledger or store. It is killed by SIGKILL, as by a power cut, just before

    FUNCTION:LINE:TIMES   LINE (counted from the top of FUNCTION) is executed for the TIMES-th time,
    change:N              it would change ledger or store for the N-th time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import sqlalchemy.dialects.sqlite  # noqa: F401  what every order needs, imported once
from sqlalchemy import event
from sqlalchemy.engine import Engine

import evergreen
from evergreen import engine
from evergreen.backends.ledger.sql import ledger  # noqa: F401
from evergreen.core.loop import Loop
from evergreen.core.records import Model, Run
from evergreen.core.states import ON_THE_WAY, OPEN_RUNS, ModelState
from evergreen.job import attempt  # noqa: F401
from evergreen.stages import dataset, gate, retain
from evergreen.stages.observe.drift import looking
from evergreen.stages.rollout import moving
from evergreen.stages.run import training
from evergreen.testing import runner  # noqa: F401

#: The functions between whose lines the power is cut.
PLACES = {
    "tick": engine.tick,
    "queue": training.queue,
    "start": training.start,
    "succeed": training._succeed,
    "freeze": dataset._freeze,
    "judge": gate.judge,
    "raise": moving._raise,
    "conclude": looking._conclude,
    "sweep": retain.sweep,
    "delete": retain._delete,
}
#: Longest that an order may take, in seconds.
PATIENCE_S = 120.0


def die() -> None:
    """Be gone, here and now."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(place: str, line: int, times: int) -> None:
    """Arrange for the end before the `times`-th execution of a line."""
    code = PLACES[place].__code__
    target, left = code.co_firstlineno + line, [times]

    def inside(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and frame.f_lineno == target:
            left[0] -= 1
            if left[0] == 0:
                die()
        return inside

    def outside(frame: FrameType, event: str, _: Any) -> Any:
        return inside if frame.f_code is code else None

    sys.settrace(outside)


class Changes:
    """Counts changes of ledger and store, and ends the process before the one it was told of."""

    def __init__(self, loop: Loop, last: int | None) -> None:
        self.n, self._last = 0, last
        event.listen(Engine, "commit", lambda _: self._count())
        for name in ("write", "put", "put_new", "delete"):
            setattr(loop.store, name, self._counted(getattr(loop.store, name)))

    def _counted(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            self._count()
            return act(*given, **named)

        return counted

    def _count(self) -> None:
        self.n += 1
        if self.n == self._last:
            die()


def drive(path: str, fault: str = "") -> int:
    """Turn until settled, for two minutes at most."""
    project = evergreen.open(path)
    (loop,) = project.loops.values()
    place, *numbers = fault.split(":")
    changes = Changes(loop, int(numbers[0]) if place == "change" else None)
    if place in PLACES:
        die_at(place, *map(int, numbers))
    had_champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION) is not None
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        before = loop.ledger.revision()
        engine.tick(loop)
        champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
        if had_champion and champion is None:
            print("a gap without a champion")
            return 1
        had_champion = champion is not None
        busy = loop.ledger.last(Run, loop.name, *OPEN_RUNS)
        moving = loop.ledger.last(Model, loop.name, ModelState.CANDIDATE, *ON_THE_WAY)
        if champion and not busy and not moving and loop.ledger.revision() == before:
            print("settled", changes.n)
            return 0
        time.sleep(0.02 if busy else 0)
    print("not settled in time")
    return 1


def obey(order: list[str]) -> tuple[int, str]:
    """Drive in a process of its own; return its exit status, negative for a signal, and what it has printed."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(into, 1)
        code = 70
        try:
            code = drive(*order)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(into)
    with os.fdopen(out) as said:
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), said.read()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)
