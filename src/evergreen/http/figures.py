"""What every process of one server has counted, summed up: each writes its figures down where the others see them."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

import msgspec

from evergreen.http.metrics import Meter

#: Where, below the state folder, figures are written down.
FOLDER = "figures"
#: How often a process writes its figures down, at most, in seconds.
EVERY_SECONDS = 0.5


class Counted(msgspec.Struct):
    """One loop's `Meter`, as it is written down."""

    requests: list[tuple[str, int, int]]
    answers: list[tuple[int, str, int]]
    buckets: list[int]
    seconds: float
    dropped: int


class Figures:
    """The meters of this process, and those of its companions in a folder; of one that died, too, so that no sum falls."""

    def __init__(self, meters: dict[str, Meter], folder: Path | None = None, id: str = "") -> None:
        self._meters = meters
        self._folder = folder  # None: there are no companions
        self._name = f"{id}.json"
        self._written = b""
        self._next = 0.0

    def write(self) -> None:
        """Write the figures down if it is time and they are others than before."""
        if self._folder is None or monotonic() < self._next:
            return
        self._next = monotonic() + EVERY_SECONDS
        said = msgspec.json.encode({loop: _counted(meter) for loop, meter in self._meters.items()})
        if said != self._written:
            part = self._folder / f".{self._name}"
            part.write_bytes(said)
            os.replace(part, self._folder / self._name)
            self._written = said

    def total(self, loop: str) -> Meter:
        """Sum up a loop's figures (blocking: it reads files). Companions' may be half a second old."""
        total = Meter()
        _add(total, _counted(self._meters[loop]))
        for file in sorted(self._folder.glob("[!.]*.json")) if self._folder else ():
            if file.name != self._name:
                other = msgspec.json.decode(file.read_bytes(), type=dict[str, Counted]).get(loop)
                if other is not None:
                    _add(total, other)
        return total


def cleared(folder: Path) -> None:
    """Make the folder, empty: sums begin anew with the server."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.json"):
        file.unlink()


def _counted(meter: Meter) -> Counted:
    return Counted(
        [(operation, status, n) for (operation, status), n in list(meter.requests.items())],
        [(version, variant, n) for (version, variant), n in list(meter.answers.items())],
        list(meter.buckets),
        meter.seconds,
        meter.dropped,
    )


def _add(total: Meter, more: Counted) -> None:
    for operation, status, n in more.requests:
        total.requests[operation, status] += n
    for version, variant, n in more.answers:
        total.answers[version, variant] += n
    total.buckets = [a + b for a, b in zip(total.buckets, more.buckets, strict=True)]
    total.seconds += more.seconds
    total.dropped += more.dropped
