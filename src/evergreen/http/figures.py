"""What every process of one server has counted, summed up: each writes its figures down where the others see them."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from evergreen.outbox import Outbox
    from evergreen.stages.collect import Intake

#: Upper bounds of the latency buckets, in seconds.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
#: Where, below the state folder, figures are written down.
FOLDER = "figures"
#: How often a process writes its figures down, at most, in seconds.
EVERY_SECONDS = 0.5
#: Beside the figures: the last line of history from before the server began.
_BEGAN = ".began"


class Meter:
    """What one loop's requests cost and how they ended. Written by the event loop's thread only."""

    __slots__ = ("answers", "buckets", "dropped", "requests", "seconds")

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  #: (operation, status) -> how many
        self.answers: Counter[tuple[int, str]] = Counter()  #: (version, variant) -> how many
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.dropped = 0  #: predictions that could not be written down

    def took(self, seconds: float) -> None:
        """Count how long a prediction took."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


class Counted(msgspec.Struct):
    """One loop's `Meter`, as it is written down."""

    requests: list[tuple[str, int, int]] = []
    answers: list[tuple[int, str, int]] = []
    buckets: list[int] = []
    seconds: float = 0.0
    dropped: int = 0


class Counts(msgspec.Struct):
    """What one process has counted."""

    pid: int
    loops: dict[str, Counted]
    commits: int = 0
    commit_seconds: float = 0.0
    waiting: int = 0  #: samples that are to be stored
    given_up: dict[str, int] = {}  #: subscriber -> events it is not told of


class Figures:
    """The figures of this process and its companions; those of one that died, too, so that no sum ever falls.

    All read the same files, their own included, and so say the same, up to half a second late, whoever is asked.
    """

    def __init__(
        self, meters: dict[str, Meter], intake: Intake, outbox: Outbox, folder: Path | None = None, id: str = ""
    ) -> None:
        self._meters = meters
        self._intake = intake
        self._outbox = outbox
        self._folder = folder  # None: there are no companions
        self._name = f"{id}.json"
        self._written = b""
        self._next = 0.0

    def write(self) -> None:
        """Write the figures down if it is time and they are others than before."""
        if self._folder is None or monotonic() < self._next:
            return
        self._next = monotonic() + EVERY_SECONDS
        said = msgspec.json.encode(self._counts())
        if said != self._written:
            part = self._folder / f".{self._name}"
            part.write_bytes(said)
            os.replace(part, self._folder / self._name)
            self._written = said

    def all(self) -> list[Counts]:
        """Return what each process has counted (blocking: it reads files)."""
        if self._folder is None:
            return [self._counts()]
        files = sorted(self._folder.glob("[!.]*.json"))
        return [msgspec.json.decode(file.read_bytes(), type=Counts) for file in files]

    @property
    def began(self) -> int | None:
        """The last line of history from before the server began; None if only this process could know."""
        return None if self._folder is None else int((self._folder / _BEGAN).read_text())

    def _counts(self) -> Counts:
        intake = self._intake
        loops = {loop: _counted(meter) for loop, meter in self._meters.items()}
        given_up = {name: postman.given_up for name, postman in self._outbox.postmen.items()}
        return Counts(os.getpid(), loops, intake.commits, intake.seconds, intake.waiting, given_up)


def total(counts: list[Counts], loop: str) -> Meter:
    """Sum up one loop's figures."""
    sum_ = Meter()
    for more in _of(counts, loop):
        for operation, status, n in more.requests:
            sum_.requests[operation, status] += n
        for version, variant, n in more.answers:
            sum_.answers[version, variant] += n
        sum_.buckets = [a + b for a, b in zip(sum_.buckets, more.buckets, strict=True)]
        sum_.seconds += more.seconds
        sum_.dropped += more.dropped
    return sum_


def cleared(folder: Path, began: int) -> None:
    """Make the folder, empty: sums begin anew with the server. `began`: the newest line of history."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.json"):
        file.unlink()
    (folder / _BEGAN).write_text(str(began))


def _of(counts: list[Counts], loop: str) -> Iterator[Counted]:
    return (one.loops[loop] for one in counts if loop in one.loops)


def _counted(meter: Meter) -> Counted:
    return Counted(
        [(operation, status, n) for (operation, status), n in list(meter.requests.items())],
        [(version, variant, n) for (version, variant), n in list(meter.answers.items())],
        list(meter.buckets),
        meter.seconds,
        meter.dropped,
    )
