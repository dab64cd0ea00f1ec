"""Events of the ledger as lines a person reads: who did what, when and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evergreen.core.records import Event
from evergreen.http.pages import words
from evergreen.http.pages.reading import Facts
from evergreen.http.pages.words import Moment

_RUNS = {
    "requested": ("Training asked for", "candidate"),
    "queued": ("Training queued", "candidate"),
    "running": ("Training started", "running"),
    "succeeded": ("Training finished", "good"),
    "failed": ("Training failed", "failed"),
    "cancelled": ("Training cancelled", "rejected"),
    "skipped": ("Training skipped", "idle"),
}
_MODELS = {
    "candidate": "was trained",
    "passed": "passed the gate",
    "rejected": "was rejected",
    "undecided": "could not be told from the champion",
    "shadow": "answers in the shadow",
    "canary": "answers as canary",
    "champion": "became champion",
    "retired": "retired",
    "rolled_back": "was taken back",
}
_SHAPES = {
    "skipped": "idle",
    "upload refused": "rejected",
    "failed": "failed",
    "alarm": "failed",
    "drift": "canary",
    "all clear": "good",
}
_UPLOADS = {
    "pending": ("A model came from a device", "candidate"),
    "processing": ("A device’s model is tried", "running"),
    "incorporated": ("A device’s model joined in", "good"),
    "failed": ("A device’s model was left out", "rejected"),
}
_EXPERIMENTS = {
    "running": ("Experiment started", "canary"),
    "frozen": ("Experiment frozen", "failed"),
    "ended": ("Experiment ended", "good"),
}


@dataclass(frozen=True)
class Line:
    """One line of history."""

    title: str
    because: str
    by: str
    at: Moment | None
    kind: str  #: the shape beside it
    version: int | None  #: of the model it tells of
    seq: int


def line(event: Event, facts: Facts) -> Line:
    """Put one event into words."""
    kind, _, id = event.subject.partition(" ")
    version = None
    title, shape = event.what.replace("_", " ").capitalize(), "idle"
    to = event.to or ("candidate" if kind == "model" else "requested" if kind == "run" else "")
    if kind == "model" and to in _MODELS:
        version = _version(id, facts, event.details)
        title, shape = f"{words.version(version) if version else 'A model'} {_MODELS[to]}{_share(event)}", to
    elif kind == "run" and to in _RUNS:
        title, shape = _RUNS[to]
    elif kind == "experiment" and to in _EXPERIMENTS:
        title, shape = _EXPERIMENTS[to]
    elif kind == "upload" and (event.to or "pending") in _UPLOADS:
        title, shape = _UPLOADS[event.to or "pending"]
    elif kind == "dataset":
        data = facts.datasets.get(id)
        title, shape = f"Dataset {words.version(data.version)} frozen" if data else "Dataset frozen", "good"
    elif event.what in _SHAPES:
        shape = _SHAPES[event.what]
    return Line(title, event.because, event.by, words.moment(event.at, facts.now), shape, version, event.seq)


def _version(id: str, facts: Facts, details: Mapping[str, object]) -> int | None:
    for m in facts.models:
        if m.id == id:
            return m.version
    told = details.get("version")
    return told if isinstance(told, int) else None


def _share(event: Event) -> str:
    share = event.details.get("share")
    if event.to == "canary" and isinstance(share, int | float):
        return f" at {words.whole_percent(share)}"
    return ""
