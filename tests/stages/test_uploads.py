"""Models from devices on their way through trainings: taken, settled, given back, and a reason to train."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from evergreen import engine
from evergreen.core.config import TriggerConfig
from evergreen.core.loop import Loop
from evergreen.core.ports import Progress
from evergreen.core.records import Event, Model, Run, Upload
from evergreen.core.states import RunState, UploadState
from evergreen.stages.trigger import Facts, due

Feed = Callable[..., Any]


class Told:
    """A runner that keeps what it was given and says what it was told to say."""

    def __init__(self, *news: Progress) -> None:
        self.news = list(news)
        self.tickets: list[Any] = []

    def start(self, ticket: Any) -> str:
        self.tickets.append(ticket)
        return f"{ticket.run}-{ticket.attempt}"

    def poll(self, handle: str) -> Progress:
        return self.news.pop(0) if self.news else Progress("running", "training")

    def cancel(self, handle: str) -> None:
        self.news.append(Progress("cancelled"))


def sent_in(loop: Loop, *names: str) -> None:
    for name in names:
        upload = Upload(
            id=name, loop="l", state=UploadState.PENDING, name=f"{name}.onnx", format="onnx", sha256=name, size=1,
            key=f"uploads/l/{name}",
        )  # fmt: skip
        loop.ledger.add(upload, by="collect", because="sent in")


def fates(loop: Loop) -> dict[str, tuple[str, float | None]]:
    return {u.id: (u.state.value, u.weight) for u in loop.ledger.find(Upload, "l")}


def given(loop: Loop, *news: Progress) -> Told:
    runner = Told(*news)
    object.__setattr__(loop, "runner", runner)
    return runner


def test_a_training_takes_what_waits_and_settles_it(loop: Loop, feed: Feed) -> None:
    feed(loop, 60, "a")
    sent_in(loop, "good", "random", "unheard")
    told = {"good": {"weight": 0.4, "why": "it helps"}, "random": {"weight": 0.0, "why": "it does not help"}}
    runner = given(loop, Progress("running"), Progress("done", details={"uploads": told}))
    engine.tick(loop)
    assert runner.tickets[0].uploads == {name: f"uploads/l/{name}" for name in ("good", "random", "unheard")}
    assert {state for state, _ in fates(loop).values()} == {"processing"}
    sent_in(loop, "late")
    engine.tick(loop)
    (model,) = loop.ledger.find(Model, "l")
    assert fates(loop) == {
        "good": ("incorporated", 0.4), "random": ("failed", 0.0), "unheard": ("failed", 0.0), "late": ("pending", None),
    }  # fmt: skip
    assert loop.ledger.get(Upload, "good").model == model.id
    assert loop.ledger.get(Upload, "random").error == "it does not help"
    moves = [e for e in loop.ledger.find(Event, "l") if e.subject == "upload good"]
    assert [(e.to, e.because) for e in moves][1:] == [
        ("processing", f"run {model.run} has it"),
        ("incorporated", "it helps"),
    ]


@pytest.mark.parametrize(
    ("ends", "state"),
    [(Progress("failed", error="a mistake", failure="user_code"), "failed"), (Progress("cancelled"), "cancelled")],
)
def test_a_training_that_leaves_no_model_gives_them_back(loop: Loop, feed: Feed, ends: Progress, state: str) -> None:
    feed(loop, 60, "a")
    sent_in(loop, "one")
    given(loop, Progress("running"), ends)
    engine.tick(loop)
    assert fates(loop) == {"one": ("processing", None)}
    engine.tick(loop)
    assert [r.state.value for r in loop.ledger.find(Run, "l")] == [state]
    assert fates(loop) == {"one": ("pending", None)}


def test_a_training_withdrawn_between_two_attempts_gives_them_back(loop: Loop, feed: Feed) -> None:
    feed(loop, 60, "a")
    sent_in(loop, "one")
    given(loop, Progress("running"), Progress("lost"))
    engine.tick(loop)
    engine.tick(loop)
    engine.cancel(loop, by="ann", why="enough")
    assert fates(loop) == {"one": ("pending", None)}


def test_the_next_attempt_has_the_same_and_no_more_than_wait(loop: Loop, feed: Feed) -> None:
    feed(loop, 60, "a")
    sent_in(loop, "one")
    runner = given(loop, Progress("running"), Progress("lost"))
    engine.tick(loop)
    engine.tick(loop)
    sent_in(loop, "two")
    engine.tick(loop)
    assert [set(t.uploads) for t in runner.tickets] == [{"one"}, {"one", "two"}]
    assert loop.ledger.last(Run, "l", RunState.RUNNING) is not None


def test_enough_of_them_are_a_reason_to_train() -> None:
    rules = TriggerConfig(pending_models=3)
    assert not due(rules, Facts(60, 0, None, None, pending=2)).train
    decision = due(rules, Facts(60, 0, None, None, pending=3))
    assert (decision.train, decision.because) == (True, "3 uploaded models pending")
    assert due(rules, Facts(60, 7, None, None, pending=3)).because == "7 new samples and 3 uploaded models pending"


def test_one_of_them_is_something_new_at_the_interval() -> None:
    rules = TriggerConfig.model_validate({"every": "12h"})
    assert due(rules, Facts(60, 0, None, None, pending=1)).because == "1 uploaded model pending at the interval"
    assert not due(rules, Facts(60, 0, None, None)).train


def test_a_failed_training_does_not_start_again_at_once_because_of_them() -> None:
    rules = TriggerConfig(pending_models=1)
    waits = Facts(60, 0, None, timedelta(seconds=5), pending=1, failures=1, since_failure=timedelta(seconds=5))
    assert not due(rules, waits).train
    later = Facts(60, 0, None, timedelta(hours=1), pending=1, failures=1, since_failure=timedelta(hours=1))
    assert due(rules, later).train
