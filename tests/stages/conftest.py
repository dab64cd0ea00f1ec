"""Loops on the smallest backends, with a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import evergreen
from evergreen.core.loop import Loop
from evergreen.stages import collect

TOML = """
ledger = {{ use = "{ledger}" }}
[loops.l]
recipe = {{ use = "{recipe}" }}
runner = {{ use = "inline" }}
[loops.l.collect]
consent = {consent}
{sources}
[loops.l.dataset]
{dataset}
[loops.l.trigger]
{trigger}
[loops.l.gate]
{gate}
[loops.l.rollout]
{rollout}
[loops.l.serve]
{serve}
"""
DEFAULTS = {
    "recipe": "evergreen.testing.runner:Majority",
    "consent": "false",
    "sources": "",
    "dataset": "",
    "trigger": "min_new = 50",
    "gate": "margin = 0.1",
    "rollout": 'steps = [0.0, 0.5, 1.0]\nhold = "0s"',
    "serve": "",
}


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def on(self, **much: float) -> None:
        """Move it on."""
        self.at += timedelta(**much)


Open = Callable[..., Loop]


@pytest.fixture
def time() -> Time:
    """The clock of every loop of this test."""
    return Time()


@pytest.fixture(params=["memory", "sql"])
def open_loop(request: pytest.FixtureRequest, tmp_path: Path, time: Time) -> Iterator[Open]:
    """Return a function that opens the loop "l" with settings of one's own."""
    opened = []

    def opening(**changes: Any) -> Loop:
        (tmp_path / "evergreen.toml").write_text(TOML.format(ledger=request.param, **{**DEFAULTS, **changes}))
        project = evergreen.open(tmp_path / "evergreen.toml")
        opened.append(project.ledger)
        project.ledger._clock = time  # type: ignore[attr-defined]
        return replace(project["l"], now=time)

    yield opening
    for ledger in opened:
        ledger.close()


@pytest.fixture
def loop(open_loop: Open) -> Loop:
    """The loop as most tests want it."""
    return open_loop()


@pytest.fixture
def feed() -> Callable[..., None]:
    """Return a function that stores labelled samples, none like another."""
    number = count()

    def feeding(loop: Loop, n: int, label: str, origin: str = "test") -> None:
        rows = [{"input": {"i": next(number)}, "label": label} for _ in range(n)]
        loop.ledger.append("l", [collect.admit(loop, row, origin=origin) for row in rows])

    return feeding
