"""FolderRunner keeps the promises of a runner, with a worker beside it that shares nothing but the folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from evergreen.backends.runner.folder import FolderRunner
from evergreen.core.config import Use
from evergreen.core.plugins import make
from evergreen.core.ports import Ledger, Store
from evergreen.job.far import attendance
from evergreen.testing.runner import RunnerContract

QUICK = {"beat": 0.1, "poll": 0.05, "lease": 5.0}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return folder(tmp_path)


def folder(tmp_path: Path) -> Store:
    made: Store = make("stores", Use(use="local", path=str(tmp_path / "shared")), home=tmp_path, state=tmp_path)
    return made


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made: Ledger = make(
        "ledgers", Use(use="sql"), home=tmp_path, state=tmp_path / "state", now=lambda: datetime.now(UTC)
    )
    yield made
    made.close()


def made(tmp_path: Path, store: Store, ledger: Ledger, **options: Any) -> FolderRunner:
    built: FolderRunner = make(
        "runners",
        Use(use="folder", **{**QUICK, **options}),
        ledger=ledger,
        store=store,
        store_use={},
        home=tmp_path,
        state=tmp_path / "state",
    )
    return built


@pytest.fixture(params=["grant", "direct"])
def runner(request: pytest.FixtureRequest, tmp_path: Path, store: Store, ledger: Ledger, worker: None) -> FolderRunner:
    return made(tmp_path, store, ledger, mode=request.param)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[None]:
    """A worker in a thread; its trainings are processes of their own."""
    (tmp_path / "shared").mkdir()
    stop = threading.Event()
    thread = threading.Thread(
        target=attendance.attend, args=(str(tmp_path / "shared"),), kwargs={"poll_s": 0.05, "stop": stop, "say": str}
    )
    thread.start()
    yield
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


class TestFolderRunner(RunnerContract):
    pass
