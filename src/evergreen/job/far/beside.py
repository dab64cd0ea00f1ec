"""What goes on beside a worker's turns: the training, slow copies, and what is reckoned from watching them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from evergreen.core.errors import EvergreenError
from evergreen.core.ports import Progress, Ticket

#: Longest pause before a folder out of reach is tried again.
_PAUSE_S = 60.0


class Trainer(Protocol):
    """A runner on this machine that can be asked to hand over: the `process` runner."""

    def start(self, ticket: Ticket) -> str:
        """Begin; return a handle."""
        ...

    def poll(self, handle: str) -> Progress:
        """Say how it goes."""
        ...

    def cancel(self, handle: str) -> None:
        """Ask it to stop, and insist."""
        ...

    def drain(self, handle: str) -> None:
        """Ask it to save a checkpoint and end."""
        ...


class Task:
    """Something slow that goes on beside the beats."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self.done = False
        self.error: Exception | None = None

    def __call__(self) -> None:
        """Do it."""
        try:
            self._work()
        except (EvergreenError, OSError) as e:
            self.error = e
        finally:
            self.done = True


Spawn = Callable[[Callable[[], None]], None]


class Pauses:
    """When a folder out of reach is to be tried again: after 1, 2, 4 … 60 seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._n, self._until = clock, 0, 0.0

    @property
    def on(self) -> bool:
        """Say whether it is too early."""
        return self._clock() < self._until

    def begin(self) -> None:
        """It failed."""
        self._until = self._clock() + min(_PAUSE_S, 2.0**self._n)
        self._n = min(self._n + 1, 10)

    def over(self) -> None:
        """It worked."""
        self._n, self._until = 0, 0.0


class Rate:
    """How long a phase will still take, from how fast its last steps were."""

    def __init__(self) -> None:
        self._phase = ("", 0)
        self._seen: deque[tuple[float, int]] = deque(maxlen=200)
        self._total = 0

    def see(self, now: float, at: Progress) -> None:
        """Take note of how far it is."""
        if (at.phase, at.total) != self._phase:
            self._phase = (at.phase, at.total)
            self._seen.clear()
        if at.total and (not self._seen or at.step > self._seen[-1][1]):
            self._seen.append((now, at.step))

    @property
    def left_s(self) -> float | None:
        """Seconds to the end of the phase; None while nobody can tell.

        >>> rate = Rate()
        >>> for second in range(5):
        ...     rate.see(float(second), Progress("running", "training", 10 * second, 100))
        >>> rate.left_s
        6.0
        """
        if len(self._seen) < 2:
            return None
        (then, first), (now, last) = self._seen[0], self._seen[-1]
        return round((self._phase[1] - last) * (now - then) / (last - first), 1)
