"""The clock: turn every loop, again and again, one process at a time for each."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any

from evergreen import engine
from evergreen.core.errors import Stale
from evergreen.core.loop import Loop
from evergreen.core.records import Event as Happening
from evergreen.core.records import Run
from evergreen.core.states import OPEN_RUNS
from evergreen.logs import HISTORY, concerning

log = logging.getLogger(__name__)
history = logging.getLogger(HISTORY)

#: Kinds of events that somebody should look at.
LOUD = ("alarm", "drift", "training failed", "rolled back", "cannot judge", "not told")

#: A clock that was killed is replaced after this long (at once on the same machine).
LEASE_SECONDS = 30.0
#: How often a process that was refused the right to tick asks for it again, at most.
REFUSED_SECONDS = 1.0
#: A turn that takes longer than this is taken to hang: its lease is renewed no more.
LONGEST_TURN_SECONDS = 3600.0
#: How often to look whether another process has changed the ledger.
GLANCE_SECONDS = 0.25
#: The longest time between two turns while a training waits or runs.
BRISK_SECONDS = 0.5
#: Turns made at once, one after the other, while each changes something; then the clock takes breath.
AT_ONCE = 20


def holder() -> str:
    """Name this process so that another on this machine can tell whether it still lives: host:pid:start."""
    try:
        started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        started = "0"
    return f"{socket.gethostname()}:{os.getpid()}:{started}"


class Troubles:
    """Tells of a trouble when it begins, when it changes and when it is over; not at every turn."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def tried(self, what: str, act: Callable[[], Any]) -> None:
        """Do something that may fail; whatever it raises is logged and goes no further."""
        try:
            act()
        except Stale:
            log.debug("%s: somebody was faster; the next turn looks again", what)
        except Exception as e:
            said = f"{type(e).__name__}: {e}"
            if self._known.get(what) != said:
                log.exception("%s failed; told once, tried again", what)
            self._known[what] = said
        else:
            if self._known.pop(what, None) is not None:
                log.warning("%s works again", what)


class Journal:
    """Copies the history into the log as it comes, a line for each event; by the process that turns the loop."""

    def __init__(self) -> None:
        self._after: dict[str, int] = {}

    def begin(self, loop: Loop) -> None:
        """Leave out what was before."""
        if loop.name not in self._after:
            newest = loop.ledger.last(Happening, loop.name)
            self._after[loop.name] = newest.seq if newest else 0

    def write(self, loop: Loop) -> None:
        """Write down what is new."""
        for event in loop.ledger.find(Happening, loop.name, after=self._after.get(loop.name, 0)):
            about = {event.noun: event.about} if event.noun in ("run", "model") else {}
            with concerning(loop=event.loop, event_id=event.id, **about):
                history.log(
                    logging.WARNING if event.kind in LOUD else logging.INFO,
                    "%s: %s (by %s)", event.kind, event.because, event.by,
                )  # fmt: skip
            self._after[loop.name] = event.seq


class Leases:
    """The right to tick, loop by loop; renewed in time, not at every turn, for each renewal is a durable write."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._lock = Lock()  # a lease that is given back must not be renewed at the same moment
        self._until: dict[str, float] = {}  # held, and not to be asked for again before
        self._again: dict[str, float] = {}  # refused, and not to be asked for again before
        self._held: dict[str, Loop] = {}

    def mine(self, loop: Loop) -> bool:
        """Say whether this process may tick the loop now."""
        now = monotonic()
        if now < self._until.get(loop.name, 0.0):
            return True
        if now < self._again.get(loop.name, 0.0):
            return False
        with self._lock:
            return self._take(loop)

    def renew(self) -> None:
        """Renew what is held; called beside a turn, however long it takes."""
        for loop in list(self._held.values()):
            with self._lock:
                if loop.name in self._held:
                    self._take(loop)

    def give_back(self, loop: Loop) -> None:
        """Let another process tick the loop."""
        with self._lock:
            self._until.pop(loop.name, None)
            self._held.pop(loop.name, None)
            loop.ledger.release(f"tick/{loop.name}", self._me)

    def _take(self, loop: Loop) -> bool:
        held = loop.ledger.lease(f"tick/{loop.name}", self._me, LEASE_SECONDS)
        if held:
            self._held[loop.name] = loop
            self._until[loop.name] = monotonic() + LEASE_SECONDS / 2
        else:
            self._held.pop(loop.name, None)
            self._until.pop(loop.name, None)
            self._again[loop.name] = monotonic() + REFUSED_SECONDS
        return held


class Heartbeat:
    """A thread that renews leases while a turn is under way, so that no other process takes a long one for dead."""

    def __init__(self, leases: Leases, troubles: Troubles) -> None:
        self._leases = leases
        self._troubles = troubles
        self._ended = Event()
        self._began: float | None = None
        self._thread = Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Renew while the block runs, unless it runs for so long that it must hang."""
        self._began = monotonic()
        try:
            yield
        finally:
            self._began = None

    def _run(self) -> None:
        while not self._ended.wait(LEASE_SECONDS / 3):
            began = self._began
            if began is not None and monotonic() - began < LONGEST_TURN_SECONDS:
                self._troubles.tried("renewing the leases", self._leases.renew)


def turn(
    loops: Sequence[Loop],
    *,
    leases: Leases,
    doors: Sequence[Any] = (),
    troubles: Troubles | None = None,
    journal: Journal | None = None,
) -> Mapping[str, bool]:
    """Tick each loop once, unless another process holds it. One loop's trouble is not another's.

    Returns, for each loop, whether it was ticked here.
    """
    troubles = troubles or Troubles()
    ticked = {}
    for loop in loops:
        ticked[loop.name] = leases.mine(loop)
        if not ticked[loop.name]:
            continue
        with concerning(loop=loop.name):
            if journal is not None:
                troubles.tried(f"the log of {loop.name}", partial(journal.begin, loop))
            troubles.tried(f"tick of {loop.name}", partial(engine.tick, loop))
            for n, door in enumerate(doors):
                troubles.tried(f"door {n} of {loop.name}", partial(door.watch, loop))
            if journal is not None:
                troubles.tried(f"the log of {loop.name}", partial(journal.write, loop))
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
        self._leases = Leases(holder())
        self._troubles = Troubles()
        self._journal = Journal()
        self._seen = -1
        self._next_turn = 0.0
        self._heartbeat = Heartbeat(self._leases, Troubles())
        self._thread = Thread(target=self._run, name="clock", daemon=True)
        for loop in loops:
            if hasattr(loop.runner, "on_change"):  # a runner that can tell when a training has ended
                loop.runner.on_change = self.wake

    def start(self) -> None:
        """Begin."""
        self._heartbeat.start()
        self._thread.start()

    def wake(self) -> None:
        """Turn now."""
        self._wake.set()

    def stop(self) -> None:
        """Finish the turn under way and end; give the leases back, where the ledger can be reached."""
        self._stop = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._heartbeat.stop()
        for loop in self._loops:
            self._troubles.tried(f"giving back {loop.name}", partial(self._leases.give_back, loop))

    def _run(self) -> None:
        while self._loops and not self._stop:
            self._troubles.tried("the clock", self._look)
            self._wake.wait(GLANCE_SECONDS)

    def _look(self) -> None:
        """Turn if it is time, or if something was changed here or elsewhere, until nothing more comes of it."""
        for _ in range(AT_ONCE):
            woken = self._wake.is_set()
            self._wake.clear()  # first of all: what cannot be read now must not be asked for without a pause
            self._next_turn = 0.0 if woken else self._next_turn
            now = self._loops[0].ledger.revision()
            if self._stop or (now == self._seen and monotonic() < self._next_turn):
                return
            self._seen, self._next_turn = now, monotonic() + self._every
            with self._heartbeat.beating():
                turn(
                    self._loops,
                    leases=self._leases,
                    doors=self._doors,
                    troubles=self._troubles,
                    journal=self._journal,
                )
            self._after()
            if any(loop.ledger.last(Run, loop.name, *OPEN_RUNS) is not None for loop in self._loops):
                self._next_turn = min(self._next_turn, monotonic() + BRISK_SECONDS)
