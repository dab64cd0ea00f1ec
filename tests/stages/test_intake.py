"""The group commit: everybody is told the truth, nobody is taken along by another's mistake, nothing is lost at the end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from evergreen.core.errors import InvalidInput, Overloaded, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.ports import Tally
from evergreen.core.records import Sample
from evergreen.stages.collect import Intake


def sample(id: str, **more: Any) -> Sample:
    return Sample(**{"id": id, "loop": "l", "input": {}, "label": "a", **more})


class Told:
    """Keeps what a writer was told, by name."""

    def __init__(self) -> None:
        self.results: dict[str, tuple[Sequence[bool] | None, Exception | None]] = {}

    def as_(self, name: str) -> Any:
        return lambda new, error: self.results.__setitem__(name, (new, error))


def test_what_waits_together_is_stored_in_one_transaction_and_each_is_told_its_own(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, real = [], loop.ledger.append

    def append(name: str, samples: Sequence[Sample], **more: Any) -> Sequence[bool]:
        commits.append((name, len(samples)))
        return real(name, samples, **more)

    monkeypatch.setattr(loop.ledger, "append", append)
    intake, told = Intake(loop.ledger), Told()
    intake.put("l", [sample("a"), sample("b")], done=told.as_("first"))
    intake.put("other", [sample("a")], done=told.as_("second"))
    intake.put("l", [sample("b"), sample("c")], {"m": Tally(1)}, told.as_("third"))
    intake.put("l", (), {"m": Tally(2, 1)})
    assert intake.waiting == 5
    intake.start()
    intake.stop()
    assert commits == [("l", 4), ("other", 1)]
    assert told.results == {
        "first": ([True, True], None),
        "second": ([True], None),
        "third": ([False, True], None),
    }
    assert loop.ledger.tally("m") == Tally(3, 1)
    assert (loop.ledger.counts("l").usable, intake.waiting) == (3, 0)


def test_one_that_cannot_be_stored_does_not_take_the_others_with_it(loop: Loop) -> None:
    intake, told = Intake(loop.ledger), Told()
    intake.put("l", [sample("a")], {"m": Tally(1)}, told.as_("good"))
    intake.put("l", [sample("b", input=float("nan"))], {"m": Tally(1)}, told.as_("bad"))
    intake.put("l", [sample("c")], done=told.as_("later"))
    intake.start()
    intake.stop()
    assert told.results["good"] == told.results["later"] == ([True], None)
    assert isinstance(told.results["bad"][1], InvalidInput)
    assert loop.ledger.counts("l").usable == 2
    assert loop.ledger.tally("m") == Tally(1)


def test_a_ledger_that_is_away_is_told_to_all_who_wait_and_the_writer_goes_on(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("the ledger is away")

    intake, told = Intake(loop.ledger), Told()
    with monkeypatch.context() as broken:
        broken.setattr(loop.ledger, "append", away)
        first = threading.Event()
        intake.put("l", [sample("a")], done=told.as_("a"))
        intake.put("l", [sample("b")], done=lambda *_: first.set())
        intake.start()
        assert first.wait(10)
    intake.put("l", [sample("a")], done=told.as_("again"))
    intake.stop()
    assert isinstance(told.results["a"][1], Unavailable)
    assert told.results["again"] == ([True], None)


def test_who_cannot_be_told_does_not_stop_the_writer(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    def gone(*_: Any) -> None:
        raise RuntimeError("Event loop is closed")

    intake, told = Intake(loop.ledger), Told()
    intake.put("l", [sample("a")], done=gone)
    intake.put("l", [sample("b")], done=told.as_("b"))
    intake.start()
    intake.put("l", [sample("c")], done=told.as_("c"))
    intake.stop()
    assert told.results == {"b": ([True], None), "c": ([True], None)}
    assert "nobody could be told what became of 1 samples of l" in caplog.text


def test_more_than_can_be_held_is_sent_away_and_so_is_who_comes_after_the_end(loop: Loop) -> None:
    intake = Intake(loop.ledger, max_waiting=3)
    intake.put("l", [sample("a"), sample("b")])
    with pytest.raises(Overloaded, match="2 samples wait to be stored; the most is 3"):
        intake.put("l", [sample("c"), sample("d")])
    intake.put("l", [sample("c")])
    intake.start()
    intake.stop()
    assert loop.ledger.counts("l").usable == 3
    with pytest.raises(Unavailable, match="stopping"):
        intake.put("l", [sample("d")])


def test_many_writers_at_once_lose_nothing(loop: Loop) -> None:
    intake, told = Intake(loop.ledger), Told()
    intake.start()

    def post(who: int) -> None:
        for n in range(50):
            intake.put("l", [sample(f"{who}-{n}"), sample(f"all-{n}")], done=told.as_(f"{who}-{n}"))

    threads = [threading.Thread(target=post, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    intake.stop()
    assert len(told.results) == 200
    assert loop.ledger.counts("l").usable == 250
    assert sum(sum(new or ()) for new, _ in told.results.values()) == 250
