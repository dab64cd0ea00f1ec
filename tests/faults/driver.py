"""A server's clock without the server: turns one loop until nothing is left to do, and dies where it is told.

    python driver.py PROJECT [FUNCTION:LINE:TIMES]

Prints one line, `settled`, when the loop has a champion and no training is open. With a fault it is killed
by SIGKILL, as by a power cut, just before LINE (counted from the top of FUNCTION) is executed for the TIMES-th time.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import Any

import evergreen
from evergreen import engine
from evergreen.core.records import Event, Model, Run
from evergreen.core.states import OPEN_RUNS, ModelState
from evergreen.stages import dataset
from evergreen.stages.rollout import moving
from evergreen.stages.run import training

#: The functions between whose lines the power is cut.
PLACES = {
    "tick": engine.tick,
    "queue": training.queue,
    "start": training.start,
    "succeed": training._succeed,
    "freeze": dataset._freeze,
    "raise": moving._raise,
}


def die_at(place: str, line: int, times: int) -> None:
    """Arrange for SIGKILL before the `times`-th execution of a line."""
    code = PLACES[place].__code__  # type: ignore[attr-defined]
    target, left = code.co_firstlineno + line, [times]

    def inside(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and frame.f_lineno == target:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return inside

    def outside(frame: FrameType, event: str, _: Any) -> Any:
        return inside if frame.f_code is code else None

    sys.settrace(outside)


def main() -> int:
    """Turn until settled, for half a minute at most."""
    project = evergreen.open(sys.argv[1])
    (loop,) = project.loops.values()
    if len(sys.argv) > 2:
        place, line, times = sys.argv[2].split(":")
        die_at(place, int(line), int(times))
    had_champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION) is not None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        engine.tick(loop)
        champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
        if had_champion and champion is None:
            print("a gap without a champion")
            return 1
        had_champion = champion is not None
        busy = loop.ledger.last(Run, loop.name, *OPEN_RUNS)
        waiting = loop.ledger.last(Model, loop.name, ModelState.CANDIDATE, ModelState.PASSED)
        trained = loop.ledger.last(Run, loop.name)
        if trained and champion and not busy and not waiting:
            print("settled", len(loop.ledger.find(Event, loop.name)))
            return 0
        time.sleep(0.02)
    print("not settled in time")
    return 1


if __name__ == "__main__":
    sys.exit(main())
