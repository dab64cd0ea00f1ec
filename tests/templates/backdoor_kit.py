"""A loop called intent on the smallest backends, with a recipe that answers the most frequent label."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import evergreen
from evergreen import engine
from evergreen.core.loop import Loop
from evergreen.core.recipe import Job
from evergreen.core.records import Json, Run
from evergreen.stages import collect
from evergreen.testing.runner import Majority

TOML = """
{ledger}
[loops.intent]
recipe = {{ use = "{use}"{recipe} }}
runner = {{ use = "{runner}" }}
[loops.intent.collect]
consent = false
[loops.intent.trigger]
{trigger}
[loops.intent.gate]
min_rows = 1
margin = 1.0
[loops.intent.rollout]
steps = [1.0]
hold = "0s"
{rollout}
"""


class Phone(Majority):
    """Leaves a file for phones, too, and tells of two models from devices."""

    def train(self, job: Job) -> Mapping[str, Json]:
        """Count labels; lay the answer down once more."""
        details = super().train(job)
        (job.out / "exports").mkdir()
        (job.out / "exports" / "intent.mlmodel").write_bytes(b"CoreML " + (job.out / "answer.json").read_bytes())
        (job.out / "exports" / "intent.onnx").write_bytes(b"ONNX")
        return {
            **details,
            "uploads": {"u1": {"weight": 0.4, "why": "it helped"}, "u2": {"weight": 0.0, "why": "no help | at all"}},
        }


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def on(self, **much: float) -> None:
        self.at += timedelta(**much)


@contextmanager
def opened(home: Path, time: Time, *, ledger: str = "memory", **changes: str) -> Iterator[Loop]:
    """Open the loop in a folder."""
    home.mkdir(parents=True, exist_ok=True)
    given = {
        "use": "evergreen.testing.runner:Majority",
        "recipe": "",
        "runner": "inline",
        "trigger": "auto = false",
        "rollout": "",
        **changes,
    }
    (home / "evergreen.toml").write_text(TOML.format(ledger=f'ledger = {{ use = "{ledger}" }}', **given))
    project = evergreen.open(home / "evergreen.toml")
    project.ledger._clock = time  # type: ignore[attr-defined]
    try:
        yield replace(project["intent"], now=time)
    finally:
        project.ledger.close()


def feed(loop: Loop, n: int, label: str = "play", first: int = 0) -> None:
    """Store labelled samples."""
    rows = [{"id": f"{label}-{i}", "input": {"text": f"{label} {i}"}, "label": label} for i in range(first, first + n)]
    loop.ledger.append("intent", [collect.admit(loop, row, origin="test") for row in rows])


def tick(loop: Loop, times: int = 6) -> None:
    """Let the stages do what there is to do."""
    for _ in range(times):
        engine.tick(loop)


def said(loop: Loop, key: str) -> dict[str, Any]:
    """Read a file of the shared folder."""
    found = json.loads(loop.store.read(key))
    assert isinstance(found, dict)
    return found


def runs(loop: Loop) -> list[Run]:
    """List the trainings, oldest first."""
    return list(loop.ledger.find(Run, "intent"))
