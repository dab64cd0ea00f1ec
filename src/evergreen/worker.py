"""The clock: turn every loop, again and again, one process at a time for each."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

from evergreen import engine
from evergreen.core.loop import Loop
from evergreen.core.records import Run
from evergreen.core.states import OPEN_RUNS

log = logging.getLogger(__name__)

#: A clock that was killed is replaced after this long (at once on the same machine).
LEASE_SECONDS = 30.0
#: How often to look whether another process has changed the ledger.
GLANCE_SECONDS = 0.25
#: How often to look at a training that is under way.
BRISK_SECONDS = 0.1


def holder() -> str:
    """Name this process so that another on this machine can tell whether it still lives: host:pid:start."""
    try:
        started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        started = "0"
    return f"{socket.gethostname()}:{os.getpid()}:{started}"


def turn(loops: Sequence[Loop], *, me: str, doors: Sequence[Any] = ()) -> Mapping[str, bool]:
    """Tick each loop once, unless another process holds it. One loop's trouble is not another's.

    Returns, for each loop, whether it was ticked here.
    """
    ticked = {}
    for loop in loops:
        ticked[loop.name] = loop.ledger.lease(f"tick/{loop.name}", me, LEASE_SECONDS)
        if not ticked[loop.name]:
            continue
        try:
            engine.tick(loop)
            for door in doors:
                door.watch(loop)
        except Exception:
            log.exception("tick of %s failed", loop.name)
    return ticked


class Clock:
    """A thread that turns the loops: at its interval, briskly while a training runs, at once when woken."""

    def __init__(
        self,
        loops: Sequence[Loop],
        *,
        every: float,
        after: Callable[[], None] = lambda: None,
        doors: Sequence[Any] = (),
    ) -> None:
        self._loops = loops
        self._every = every
        self._after = after
        self._doors = doors
        self._wake = Event()
        self._stop = False
        self._me = holder()
        self._thread = Thread(target=self._run, name="clock", daemon=True)
        for loop in loops:
            if hasattr(loop.runner, "on_change"):  # a runner that can tell when a training has ended
                loop.runner.on_change = self.wake

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Turn now."""
        self._wake.set()

    def stop(self) -> None:
        """Finish the turn under way and end; give the leases back."""
        self._stop = True
        self._wake.set()
        self._thread.join()
        for loop in self._loops:
            loop.ledger.release(f"tick/{loop.name}", self._me)

    def _run(self) -> None:
        if not self._loops:
            return
        ledger = self._loops[0].ledger
        seen, next_turn = -1, 0.0
        while not self._stop:
            try:
                now = ledger.revision()
                if self._wake.is_set() or now != seen or monotonic() >= next_turn:
                    self._wake.clear()
                    turn(self._loops, me=self._me, doors=self._doors)
                    next_turn = monotonic() + self._every
                    seen = now
                    if ledger.revision() != now:
                        self._after()
                        continue
                    self._after()
            except Exception:
                log.exception("the clock stumbled")
            self._wake.wait(BRISK_SECONDS if self._busy() else GLANCE_SECONDS)

    def _busy(self) -> bool:
        try:
            return any(loop.ledger.last(Run, loop.name, *OPEN_RUNS) is not None for loop in self._loops)
        except Exception:
            log.exception("the ledger cannot be read")
            return False
