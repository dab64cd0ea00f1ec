"""Fixtures around a served project. What tests import stands in `http_harness`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `http_harness` and `small_recipes`

from http_harness import MEMORY, PLAIN, App, Process, running, write


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., App]]:
    """Return a function that serves a project until the test ends."""
    with ExitStack() as stack:

        def begin(text: str = MEMORY + PLAIN, name: str = "project") -> App:
            return stack.enter_context(running(tmp_path / name, text))

        yield begin


@pytest.fixture
def app(start: Callable[..., App]) -> App:
    """Serve the plain project."""
    return start()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Return a function that starts a server process, ended with the test."""
    started: list[Process] = []

    def begin(text: str | None = PLAIN, *, folder: Path | None = None, **kw: Any) -> Process:
        folder = folder or tmp_path / "project"
        if text is not None:
            write(folder, text)
        started.append(Process(folder, **kw))
        return started[-1]

    yield begin
    for process in started:
        process.end(9)
