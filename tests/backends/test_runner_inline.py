"""InlineRunner keeps the promises of a runner, as far as one that blocks can."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from evergreen.core.config import Use
from evergreen.core.plugins import make
from evergreen.core.ports import Runner, Store
from evergreen.testing.runner import RunnerContract, ended, wait_for


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made: Store = make("stores", Use(use="local"), home=tmp_path, state=tmp_path / "state")
    return made


@pytest.fixture
def runner(tmp_path: Path, store: Store) -> Runner:
    return inline(tmp_path, store)


def inline(folder: Path, store: Store) -> Runner:
    made: Runner = make(
        "runners",
        Use(use="inline"),
        store=store,
        ledger=None,
        store_use={"use": "local"},
        home=folder,
        state=folder / "state",
    )
    return made


class TestInlineRunner(RunnerContract):
    blocking = True


def test_a_new_instance_knows_the_result(runner: Runner, store: Store, tmp_path: Path) -> None:
    handle = runner.start(TestInlineRunner().ticket(store, tmp_path))
    assert inline(tmp_path, store).poll(handle) == runner.poll(handle)


def test_another_thread_sees_it_run_and_stops_it(runner: Runner, store: Store, tmp_path: Path) -> None:
    ticket = TestInlineRunner().ticket(store, tmp_path, recipe={"sleep_s": 20})
    thread = threading.Thread(target=runner.start, args=(ticket,))
    thread.start()
    assert wait_for(runner, "r1-1", lambda progress: progress.step > 0).state == "running"
    runner.cancel("r1-1")
    thread.join()
    assert wait_for(runner, "r1-1", ended).state == "cancelled"
