"""The clock: it turns in time, outlives every trouble, and tells of it once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import evergreen
from evergreen import engine, worker
from evergreen.core.errors import Stale, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.records import Model, Run
from evergreen.core.states import ModelState
from evergreen.stages import collect
from evergreen.worker import Clock, Troubles, turn

TOML = """
[loops.l]
recipe = { use = "evergreen.testing.runner:Majority" }
runner = { use = "inline" }
[loops.l.collect]
consent = false
[loops.l.trigger]
min_new = 50
[loops.l.rollout]
steps = [0.0, 0.5, 1.0]
hold = "0s"
"""


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    (tmp_path / "evergreen.toml").write_text(TOML)
    project = evergreen.open(tmp_path / "evergreen.toml")
    yield project["l"]
    project.ledger.close()


def feed(loop: Loop, n: int, label: str) -> None:
    rows = [{"input": {"i": i}, "label": label} for i in range(n)]
    loop.ledger.append("l", [collect.admit(loop, row, origin="test") for row in rows])


def until(done: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_trouble_is_told_when_it_begins_when_it_changes_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    troubles, fate = Troubles(), ["a", "a", "a", "b", "b", "", "", "a"]

    def act(said: str) -> None:
        if said:
            raise ValueError(said)

    with caplog.at_level(logging.WARNING):
        for said in fate:
            troubles.tried("it", lambda said=said: act(said))
    assert [r.levelname for r in caplog.records] == ["ERROR", "ERROR", "WARNING", "ERROR"]


def test_that_somebody_was_faster_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    def act() -> None:
        raise Stale("moved")

    with caplog.at_level(logging.INFO):
        Troubles().tried("it", act)
    assert not caplog.records


def test_doors_are_told_though_the_tick_failed_and_one_door_is_not_the_other(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def fail(_: Loop) -> None:
        told.append("failed")
        raise ValueError("this one is broken")

    monkeypatch.setattr(engine, "tick", fail)
    doors = [SimpleNamespace(watch=fail), SimpleNamespace(watch=lambda at: told.append(at.name))]
    assert turn([loop], leases=worker.Leases("me"), doors=doors) == {"l": True}
    assert told == ["failed", "failed", "l"]


def test_a_loop_that_another_process_holds_is_left_alone(loop: Loop) -> None:
    assert loop.ledger.lease("tick/l", "elsewhere:1:1", 60)
    assert turn([loop], leases=worker.Leases(worker.holder())) == {"l": False}


def test_the_clock_walks_a_loop_to_its_champion_and_gives_the_lease_back(loop: Loop) -> None:
    refreshed: list[int] = []
    clock = Clock([loop], every=60, after=lambda: refreshed.append(1))
    clock.start()
    feed(loop, 60, "a")
    clock.wake()
    until(lambda: loop.ledger.last(Model, "l", ModelState.CHAMPION))
    clock.stop()
    assert refreshed
    assert loop.ledger.lease("tick/l", "elsewhere:1:1", 60)


def test_a_clock_that_never_started_or_has_no_ledger_any_more_still_stops(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock([loop], every=1).stop()
    Clock([], every=1).start()

    def away(*_: object) -> None:
        raise Unavailable("the ledger is away")

    clock = Clock([loop], every=1)
    clock.start()
    monkeypatch.setattr(loop.ledger, "release", away)
    clock.stop()


def test_a_ledger_that_is_away_is_waited_for_without_haste_and_told_of_once(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, asked, back = loop.ledger.revision, [0], threading.Event()

    def away() -> int:
        asked[0] += 1
        if not back.is_set():
            raise Unavailable("the ledger is away")
        return real()

    monkeypatch.setattr(loop.ledger, "revision", away)
    monkeypatch.setattr(worker, "GLANCE_SECONDS", 0.02)
    clock = Clock([loop], every=60)
    clock.wake()  # must not make it ask without a pause
    feed(loop, 60, "a")
    clock.start()
    until(lambda: asked[0] > 5)
    assert asked[0] < 200
    back.set()
    until(lambda: loop.ledger.last(Model, "l", ModelState.CHAMPION))
    clock.stop()
    assert [r.levelname for r in caplog.records if r.name == "evergreen.worker"] == ["ERROR", "WARNING"]


def test_a_loop_that_changes_something_at_every_turn_does_not_keep_the_clock_busy(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [0]

    def chatter(at: Loop) -> None:
        turns[0] += 1
        at.ledger.note("l", "chatter", by="test", because="always something")

    monkeypatch.setattr(engine, "tick", chatter)
    monkeypatch.setattr(worker, "GLANCE_SECONDS", 60)
    clock = Clock([loop], every=60)
    clock.start()
    until(lambda: turns[0] == worker.AT_ONCE)
    clock.stop()
    assert turns[0] == worker.AT_ONCE


def test_two_that_tick_one_loop_at_once_do_nothing_twice(loop: Loop) -> None:
    """The lease may run out under a long tick: then two processes are at it."""
    feed(loop, 60, "a")
    errors: list[Exception] = []

    def tick() -> None:
        for _ in range(12):
            try:
                engine.tick(loop)
            except Stale:
                continue
            except Exception as e:  # noqa: BLE001 - shown at the end
                errors.append(e)

    for label in "bc":
        threads = [threading.Thread(target=tick) for _ in range(3)]
        for thread in threads:
            thread.start()
        feed(loop, 400, label)
        for thread in threads:
            thread.join()
    engine.tick(loop)
    assert not errors
    runs, models = loop.ledger.find(Run, "l"), loop.ledger.find(Model, "l")
    assert len(models) == len({m.run for m in models}) == len(runs)
    assert len([m for m in models if m.state is ModelState.CHAMPION]) == 1
    assert not [m for m in models if "not load" in str(m.verdict.get("because"))]


def test_a_lease_is_renewed_inside_a_turn_that_takes_longer_than_it_lasts(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LEASE_SECONDS", 1.5)  # long enough for a thread to have its turn on a busy machine
    inside, go_on = threading.Event(), threading.Event()

    def long(_: Loop) -> None:
        inside.set()
        go_on.wait(20)

    monkeypatch.setattr(engine, "tick", long)
    clock = Clock([loop], every=60)
    clock.start()
    assert inside.wait(20)
    end = time.monotonic() + 4
    while time.monotonic() < end:
        assert not loop.ledger.lease("tick/l", "elsewhere:1:1", 60)
        time.sleep(0.05)
    go_on.set()
    clock.stop()
    assert loop.ledger.lease("tick/l", "elsewhere:1:1", 60)


def test_a_turn_that_hangs_is_given_up_and_another_process_takes_the_loop(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(worker, "LONGEST_TURN_SECONDS", 0.0)
    inside, go_on = threading.Event(), threading.Event()

    def hang(_: Loop) -> None:
        inside.set()
        go_on.wait(20)

    monkeypatch.setattr(engine, "tick", hang)
    clock = Clock([loop], every=60)
    clock.start()
    assert inside.wait(20)
    until(lambda: loop.ledger.lease("tick/l", "elsewhere:1:1", 60))
    go_on.set()
    clock.stop()
    assert not loop.ledger.lease("tick/l", "third:1:1", 60)  # giving back takes it from nobody else
