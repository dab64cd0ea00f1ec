"""ProcessRunner keeps the promises of a runner, and loses nothing when processes die."""

from __future__ import annotations

from pathlib import Path

import pytest

from evergreen.core.config import Use
from evergreen.core.plugins import make
from evergreen.core.ports import Runner, Store
from evergreen.testing.runner import RunnerContract


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made: Store = make("stores", Use(use="local"), home=tmp_path, state=tmp_path / "state")
    return made


@pytest.fixture
def runner(tmp_path: Path, store: Store) -> Runner:
    made: Runner = make(
        "runners", Use(use="process"), store=store, store_use={"use": "local"}, home=tmp_path, state=tmp_path / "state"
    )
    return made


class TestProcessRunner(RunnerContract):
    pass
