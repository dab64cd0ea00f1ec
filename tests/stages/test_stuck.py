"""Whatever goes wrong for one training, one row, one source or one candidate must not stop the loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evergreen import engine
from evergreen.core.errors import Corrupt, InvalidInput, Stale, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.ports import Incoming, Progress, Pulled
from evergreen.core.records import Dataset, Event, Model, Run
from evergreen.core.states import ModelState, RunState
from evergreen.stages import collect, dataset, run

Feed = Callable[..., None]
Open = Callable[..., Loop]


def states(loop: Loop) -> list[str]:
    return [r.state.value for r in loop.ledger.find(Run, "l")]


def boom(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("this is broken")


def write(path: Path, n: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f'{{"input": {{"i": {i}}}, "label": "a"}}\n' for i in range(n)))


def test_a_request_whose_dataset_cannot_be_written_fails_with_its_reason(
    loop: Loop, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(loop, 40, "a")
    monkeypatch.setattr(loop.recipe, "write", boom)
    engine.ask(loop, by="ann", why="to see")
    engine.tick(loop)
    asked = loop.ledger.last(Run, "l")
    assert asked is not None
    assert (asked.state, asked.failure) == (RunState.FAILED, "configuration")
    assert "ZeroDivisionError: this is broken" in str(asked.error)


def test_a_training_of_our_own_whose_dataset_cannot_be_written_is_tried_again_after_a_pause(
    loop: Loop, feed: Feed, time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(loop, 60, "a")
    with monkeypatch.context() as broken:
        broken.setattr(loop.recipe, "write", boom)
        for _ in range(5):
            engine.tick(loop)
            time.on(seconds=2)
        assert states(loop) == ["failed"]
        time.on(minutes=1)
        for _ in range(5):
            engine.tick(loop)
        assert states(loop) == ["failed", "failed"]
    time.on(minutes=1)
    engine.tick(loop)
    assert states(loop) == ["failed", "failed"]  # twice as long, the second time
    time.on(minutes=1)
    engine.tick(loop)
    assert states(loop) == ["failed", "failed", "succeeded"]


def test_a_failed_training_is_tried_again_with_the_same_samples_after_a_pause(
    open_loop: Open, feed: Feed, time: Any
) -> None:
    loop = open_loop()
    feed(loop, 60, "a")
    engine.ask(loop, by="ann", why="to see", overrides={"fail": True})
    for _ in range(5):
        engine.tick(loop)
        time.on(seconds=2)
    assert states(loop) == ["failed"]
    time.on(minutes=1)
    engine.tick(loop)
    assert states(loop) == ["failed", "succeeded"]
    assert loop.ledger.find(Run, "l")[-1].why == "60 new samples, again after 1 failed training"
    time.on(days=1)
    engine.tick(loop)
    assert states(loop) == ["failed", "succeeded"]


def test_new_samples_are_trained_on_though_the_last_training_failed(open_loop: Open, feed: Feed) -> None:
    loop = open_loop()
    feed(loop, 60, "a")
    engine.ask(loop, by="ann", why="to see", overrides={"fail": True})
    engine.tick(loop)
    feed(loop, 50, "a")
    engine.tick(loop)
    assert states(loop) == ["failed", "succeeded"]


def test_a_training_that_a_person_stopped_is_not_tried_again(loop: Loop, feed: Feed, time: Any) -> None:
    feed(loop, 60, "a")
    why = Run(id="mine", loop="l", state=RunState.QUEUED, why="to see")
    run.queue(loop, dataset.freeze(loop, why), why)
    engine.cancel(loop, by="ann", why="enough")
    time.on(days=2)
    engine.tick(loop)
    assert states(loop) == ["cancelled"]


def test_a_file_that_vanished_fails_the_training_that_was_asked_for_with_it(open_loop: Open, tmp_path: Path) -> None:
    loop = open_loop()
    file = tmp_path / "data/mine.jsonl"
    write(file, 20)
    engine.ask(loop, by="ann", why="to see", file=file)
    file.unlink()
    engine.tick(loop)
    (asked,) = loop.ledger.find(Run, "l")
    assert asked.state is RunState.FAILED
    assert "is gone" in str(asked.error)
    engine.ask(loop, by="ann", why="once more")  # nothing is in the way


def test_a_file_that_cannot_be_read_fails_the_training_and_nothing_else(
    open_loop: Open, feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = open_loop()
    feed(loop, 60, "a")
    engine.tick(loop)
    write(tmp_path / "data/mine.jsonl", 20)
    engine.ask(loop, by="ann", why="to see", file=tmp_path / "data/mine.jsonl")
    monkeypatch.setattr(collect.ingest, "pull_from", boom)
    engine.tick(loop)
    assert states(loop) == ["succeeded", "failed"]


def test_a_row_that_breaks_the_recipe_goes_to_quarantine_and_those_behind_it_come_in(
    open_loop: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = open_loop(sources='sources = [{ use = "jsonl", path = "data/log.jsonl" }]')
    write(tmp_path / "data/log.jsonl", 20)
    real = loop.recipe.sample
    monkeypatch.setattr(loop.recipe, "sample", lambda row: boom() if row["input"]["i"] == 7 else real(row))
    engine.tick(loop)
    counts = loop.ledger.counts("l")
    assert (counts.usable, counts.quarantined) == (19, 1)
    (reject,) = loop.ledger.rejects("l")
    assert (reject.where, reject.reason) == ("line 8", "ZeroDivisionError: this is broken")


def test_a_source_in_trouble_is_told_of_once_and_does_not_keep_the_others_waiting(loop: Loop) -> None:
    class Broken:
        origin, error = "broken", boom

        def pull(self, cursor: str | None, limit: int) -> Pulled:
            return self.error() if self.error else Pulled((), (), cursor)

    class Good:
        origin = "good"

        def pull(self, cursor: str | None, limit: int) -> Pulled:
            done = int(cursor or 0)
            rows = [Incoming(str(done), {"input": {}, "label": "a"})]
            return Pulled(rows, (), str(done + 1))

    broken = Broken()
    object.__setattr__(loop, "sources", [broken, Good()])
    for _ in range(3):
        engine.tick(loop)
    broken.error = None
    for _ in range(2):
        engine.tick(loop)
    assert loop.ledger.counts("l").usable == 5
    assert [e.what for e in loop.ledger.find(Event, "l")] == ["source failed", "source recovered"]


@pytest.mark.parametrize("error", [OSError("no space"), Unavailable("the fleet is away")])
def test_a_runner_that_cannot_start_now_is_asked_again(
    loop: Loop, feed: Feed, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def away(_: Any) -> str:
        raise error

    feed(loop, 60, "a")
    with monkeypatch.context() as broken:
        broken.setattr(loop.runner, "start", away)
        engine.tick(loop)
        engine.tick(loop)
        (waiting,) = loop.ledger.find(Run, "l")
        assert waiting.state is RunState.QUEUED
        assert str(error) in waiting.progress["phase"]
    engine.tick(loop)
    assert states(loop) == ["succeeded"]


def test_a_runner_that_breaks_fails_the_training(loop: Loop, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(loop, 60, "a")
    monkeypatch.setattr(loop.runner, "start", boom)
    engine.tick(loop)
    (failed,) = loop.ledger.find(Run, "l")
    assert failed.error == "could not be started: ZeroDivisionError: this is broken"


class Told:
    """A runner that says what it is told to."""

    def __init__(self, *news: Any) -> None:
        self.news = list(news)
        self.cancelled: list[str] = []

    def start(self, ticket: Any) -> str:
        return f"{ticket.run}-{ticket.attempt}"

    def poll(self, handle: str) -> Progress:
        said = self.news.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    def cancel(self, handle: str) -> None:
        self.cancelled.append(handle)


def test_what_cannot_be_seen_now_is_looked_at_again_and_what_cannot_be_read_is_lost(loop: Loop, feed: Feed) -> None:
    feed(loop, 60, "a")
    handed_over = Progress("failed", failure="preempted")
    lost = [Corrupt("the result is torn"), handed_over, ZeroDivisionError(), Progress("failed", failure="lost")]
    object.__setattr__(loop, "runner", Told(OSError("too many files"), *lost, Progress("lost")))
    engine.tick(loop)
    assert states(loop) == ["running"]
    for attempt, losses in ((2, 1), (3, 1), (4, 2), (5, 3)):  # what was handed over in good order is no loss
        engine.tick(loop)
        (again,) = loop.ledger.find(Run, "l")
        assert (again.attempt, again.progress["losses"]) == (attempt, losses)
        run.start(loop)
    engine.tick(loop)
    (failed,) = loop.ledger.find(Run, "l")
    assert (failed.state, failed.failure, failed.attempt) == (RunState.FAILED, "lost", 5)


def test_a_training_withdrawn_while_it_is_started_is_stopped(loop: Loop, feed: Feed) -> None:
    feed(loop, 60, "a")

    class Slow(Told):
        def start(self, ticket: Any) -> str:
            engine.cancel(loop, by="ann", why="changed my mind")
            return super().start(ticket)

    runner = Slow()
    object.__setattr__(loop, "runner", runner)
    with pytest.raises(Stale):
        engine.tick(loop)
    assert len(runner.cancelled) == 1
    assert states(loop) == ["cancelled"]


def test_a_candidate_whose_evidence_is_damaged_is_rejected_and_the_rollout_goes_on(
    loop: Loop, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(loop, 60, "a")
    real = loop.store.get

    def torn(key: str, folder: Path, moved: Any = None) -> None:
        if key.startswith("evaluations/"):
            raise Corrupt("torn")
        real(key, folder, moved)

    monkeypatch.setattr(loop.store, "get", torn)
    engine.tick(loop)
    (model,) = loop.ledger.find(Model, "l")
    assert model.state is ModelState.REJECTED
    assert "torn" in model.verdict["because"]


@pytest.mark.parametrize("error", [OSError("the network is down"), Unavailable("the store is away")])
def test_a_candidate_is_judged_when_the_store_is_back(
    loop: Loop, feed: Feed, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def away(key: str, folder: Path, moved: Any = None) -> None:
        if "datasets" not in key:
            raise error
        real(key, folder, moved)

    feed(loop, 60, "a")
    real = loop.store.get
    monkeypatch.setattr(loop.store, "get", away)
    for _ in range(3):
        engine.tick(loop)
    (model,) = loop.ledger.find(Model, "l")
    assert model.state is ModelState.CANDIDATE
    assert [e.what for e in loop.ledger.find(Event, "l")].count("cannot judge") == 1
    monkeypatch.setattr(loop.store, "get", real)
    engine.tick(loop)
    (model,) = loop.ledger.find(Model, "l")
    assert model.state is ModelState.CHAMPION


def test_two_freezes_of_the_same_samples_are_one_version(loop: Loop, feed: Feed) -> None:
    feed(loop, 60, "a")
    first = dataset.freeze(loop, Run(id="a", loop="l", state=RunState.QUEUED, why=""))
    assert first == dataset.freeze(loop, Run(id="b", loop="l", state=RunState.QUEUED, why=""))
    assert len(loop.ledger.find(Dataset, "l")) == 1


def test_samples_that_change_no_dataset_do_not_train_again_and_again(open_loop: Open, feed: Feed) -> None:
    loop = open_loop(trigger="min_new = 10")
    feed(loop, 60, "a")
    engine.tick(loop)
    useless = [{"input": {"i": i}, "label": "a", "weight": 0} for i in range(10)]
    loop.ledger.append("l", [collect.admit(loop, r, origin="t", id=f"u{i}") for i, r in enumerate(useless)])
    for _ in range(4):
        engine.tick(loop)
    assert states(loop) == ["succeeded", "succeeded"]
    last = loop.ledger.last(Dataset, "l")
    assert last is not None
    assert last.collected == 70


def test_an_asked_run_for_which_nobody_can_take_sides_still_ends(loop: Loop) -> None:
    with pytest.raises(InvalidInput):
        engine.ask(loop, by="ann", why="x", overrides={"no_such_option": 1})
    engine.ask(loop, by="ann", why="x", force=True)
    engine.tick(loop)
    assert states(loop) == ["skipped"]
