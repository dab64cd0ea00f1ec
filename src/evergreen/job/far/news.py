"""What a worker tells whoever started it: one sentence for people, the same as fields for machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["waiting", "taken", "running", "checkpoint", "ended", "trouble", "leaving"]


@dataclass(frozen=True)
class News:
    """One thing that is so now."""

    kind: Kind
    text: str
    loop: str = ""
    run: str = ""
    phase: str = ""
    step: int = 0
    total: int = 0
    left_s: float | None = None


Tell = Callable[[News], None]


@dataclass(frozen=True)
class Training:
    """One attempt that this worker had."""

    loop: str
    run: str
    attempt: int
    state: str  #: done, failed, lost, cancelled, or stopped: somebody else has it, or nobody wants it any more
    seconds: float
    error: str = ""
    failure: str | None = None

    def __str__(self) -> str:
        said = {
            "done": "trained, and the model is in the folder",
            "stopped": "stopped, for it is no longer wanted from this machine",
            "cancelled": "stopped, for somebody asked to",
        }.get(self.state, "handed over" if self.failure == "preempted" else f"failed: {self.error}")
        return f"{self.loop} (run {self.run[-8:]}, attempt {self.attempt}): {said}, after {span(self.seconds)}"


def span(seconds: float) -> str:
    """Write a length of time, briefly.

    >>> span(42), span(600), span(9000)
    ('42 s', '10 min', '2 h 30 min')
    """
    s = round(seconds)
    if s < 120:
        return f"{s} s"
    return f"{s // 60} min" if s < 7200 else f"{s // 3600} h {s % 3600 // 60} min"
