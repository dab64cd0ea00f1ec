"""Whoever waits for "completed" finds what came of it: in the folder and over HTTP, whichever step is taken when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from backdoor_kit import Time, feed, opened, said

from evergreen import engine
from evergreen.core.errors import NotFound, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.records import Experiment, Model
from evergreen.core.states import ExperimentState, ModelState
from evergreen.stages import dataset, gate, rollout, run, trigger
from evergreen.templates.backdoor import folder, jobs, versions
from evergreen.templates.backdoor.door import look_of

KEY = "training_triggers/training_needed_a.json"


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(autouse=True)
def made_up_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's file for phones is none; what becomes of true ones is tested where they are made."""
    monkeypatch.setattr("evergreen.job.exports.check", lambda *_: [])


def ask(loop: Loop) -> None:
    """Ask by a trigger file and let the training begin."""
    feed(loop, 60)
    loop.store.write(KEY, folder.encoded({"created_at": "now", "reason": "a test", "force": True, "status": "pending"}))
    look_of("")(loop)


def trained(loop: Loop) -> Model:
    """Train, and stop short of the gate."""
    (asked,) = jobs.listed(loop)
    assert asked["status"] == "processing"
    for _ in range(3):
        if due := trigger.look(loop, dataset.latest(loop)):
            run.queue(loop, dataset.freeze(loop, due), due)
        run.start(loop)
        run.poll(loop)
    (model,) = loop.ledger.find(Model, loop.name)
    assert model.state is ModelState.CANDIDATE
    return model


def told(loop: Loop) -> list[str]:
    """Return what trigger file, state and HTTP say of the training."""
    state = said(loop, folder.STATE)["latest_job"]
    return [said(loop, KEY)["status"], state["status"] if state else "none", str(jobs.listed(loop)[0]["status"])]


def there(loop: Loop) -> bool:
    """Say whether all that is promised can be fetched."""
    try:
        latest = said(loop, folder.LATEST)
        listed = said(loop, folder.VERSIONS)["versions"]
        place = f"{folder.MODELS}/{latest['version']}"
        info = said(loop, f"{place}/model_info.json")
        assert all(loop.store.read(key) for key in latest["files"])
    except NotFound:
        return False
    return bool(latest["in_service"] and listed[0]["in_service"] and info["in_service"] and latest["files"])


@pytest.mark.parametrize("ledger", ["memory", "sql"])
def test_completed_is_the_last_word(tmp_path: Path, time: Time, ledger: str) -> None:
    with opened(tmp_path, time, ledger=ledger, use="backdoor_kit:Phone") as loop:
        look = look_of("")
        ask(loop)
        trained(loop)
        look(loop)
        look(loop)
        assert told(loop) == ["training"] * 3
        gate.judge(loop)
        look(loop)
        look(loop)
        assert told(loop) == ["training"] * 3  # it has passed, and takes over at the next turn
        assert not there(loop)
        rollout.advance(loop)
        look(loop)
        assert said(loop, KEY)["status"] == "training"  # published in this look, and answered in the next
        assert there(loop)
        look(loop)
        assert told(loop) == ["completed"] * 3
        assert said(loop, KEY)["model_info"]["in_service"] is True


class Between:
    """Lets the loop take its next step just before the n-th word that is read from, or written to, ledger or folder."""

    def __init__(self, loop: Loop, n: int, steps: list[Callable[[Loop], object]]) -> None:
        self._loop, self._left, self.steps, self._busy = loop, n, steps, False

    def __call__(self, word: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a way to read or write."""

        def wrapped(*args: Any, **more: Any) -> Any:
            if not self._busy:
                self._left -= 1
                self._busy = True
                if self._left <= 0 and self.steps:
                    self.steps.pop(0)(self._loop)
                self._busy = False
            return word(*args, **more)

        return wrapped


def test_whenever_a_step_falls_completed_means_there(tmp_path: Path, time: Time) -> None:
    for n in range(1, 200, 7):
        with opened(tmp_path / str(n), time, use="backdoor_kit:Phone") as loop, pytest.MonkeyPatch.context() as patch:
            ask(loop)
            trained(loop)
            look, between = look_of(""), Between(loop, n, [gate.judge, rollout.advance])
            for port, name in ((loop.store, "write"), (loop.ledger, "recall"), (loop.ledger, "find")):
                patch.setattr(port, name, between(getattr(port, name)))
            for _ in range(5):
                look(loop)
                assert "completed" not in told(loop)[:2] or there(loop), n
            if between.steps:
                assert n > 10
                return
            for _ in range(3):
                look(loop)
            assert told(loop) == ["completed"] * 3, n


def test_a_rollout_of_several_steps_is_not_waited_for(tmp_path: Path, time: Time) -> None:
    with opened(tmp_path, time, use="backdoor_kit:Phone") as loop:
        look, rules = (
            look_of(""),
            loop.config.rollout.model_copy(update={"steps": (0.0, 1.0), "hold": timedelta(hours=1)}),
        )
        slow = replace(loop, config=loop.config.model_copy(update={"rollout": rules}))
        ask(slow)
        engine.tick(slow)
        first = slow.ledger.last(Model, slow.name, ModelState.CHAMPION)
        assert first is not None  # nobody is there to protect: at once
        engine.ask(slow, by="ann", why="another", force=True)
        for _ in range(3):
            engine.tick(slow)
            look(slow)
        assert [model.state for _, model in versions.all_of(slow)] == [ModelState.CHAMPION, ModelState.SHADOW]
        assert {job["status"] for job in jobs.listed(slow)} == {"completed"}
        files = [said(slow, key) for key in slow.store.list(folder.TRIGGERS)]
        assert [file["status"] for file in files] == ["completed", "completed"]
        assert said(slow, folder.LATEST)["number"] == 1


def test_an_experiment_is_not_waited_for(tmp_path: Path, time: Time) -> None:
    with opened(tmp_path, time) as loop:
        ask(loop)
        model = trained(loop)
        gate.judge(loop)
        passed = loop.ledger.get(Model, model.id)
        assert (passed.state, jobs.settled(loop, passed)) == (ModelState.PASSED, False)
        loop.ledger.add(
            Experiment(id="e", loop=loop.name, state=ExperimentState.RUNNING, arms=[], why="a test", by="ann"),
            by="ann",
            because="a test",
        )
        assert jobs.settled(loop, passed)


def test_one_version_that_cannot_be_written_now_stops_neither_the_others_nor_the_state(
    tmp_path: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, time, use="backdoor_kit:Phone") as loop:
        look, write = look_of(""), loop.store.write
        ask(loop)
        engine.tick(loop)
        ((name, _),) = versions.all_of(loop)

        def frail(key: str, data: bytes) -> None:
            if name in key:
                raise Unavailable("the line is dead")
            write(key, data)

        monkeypatch.setattr(loop.store, "write", frail)
        for _ in range(2):
            with pytest.raises(Unavailable, match="the line is dead"):
                look(loop)
        assert said(loop, KEY)["status"] == "training"
        assert "published" in said(loop, KEY)["message"]
        with pytest.raises(NotFound):
            loop.store.read(folder.LATEST)  # it would name files that are not there
        assert said(loop, folder.STATE)["model"] == name
        time.on(seconds=10)
        engine.ask(loop, by="ann", why="another", force=True)
        engine.tick(loop)
        with pytest.raises(Unavailable, match="the line is dead"):
            look(loop)
        assert said(loop, folder.LATEST)["number"] == 2
        monkeypatch.setattr(loop.store, "write", write)
        look(loop)
        look(loop)
        assert {said(loop, key)["status"] for key in loop.store.list(folder.TRIGGERS)} == {"completed"}
