"""The models in service: nothing dropped, nothing leaked, something to answer with while there is anything."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evergreen.core.errors import Corrupt, InvalidInput, NoModel, NotFound, PredictionFailed, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.records import Json, Model
from evergreen.core.states import ModelState
from evergreen.stages.serve import Live
from evergreen.stages.serve.live import RETRY, WARM
from evergreen.stages.serve.slot import Slot

M = ModelState


class Loaded:
    """A predictor that says which artifact it was loaded from, and knows whether it was closed."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.closed = 0

    def predict(self, inputs: Sequence[Json]) -> Sequence[Json]:
        assert not self.closed
        if self.answer == "fails":
            raise RuntimeError("this model is broken")
        return [self.answer] * len(inputs)

    def close(self) -> None:
        self.closed += 1


class Bench:
    """A loop whose loads are counted."""

    def __init__(self, loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop, self.folder, self.loads = loop, tmp_path / "artifact", []
        self.folder.mkdir()
        monkeypatch.setattr(loop.recipe, "load", self.load)
        self.live = Live(loop)

    def load(self, artifact: Path) -> Loaded:
        said = (artifact / "answer").read_text()
        if said == "torn":
            raise Corrupt("the model is torn")
        self.loads.append(Loaded(said))
        return self.loads[-1]

    def add(self, state: ModelState, answer: str, share: float = 0.0) -> Model:
        last = self.loop.ledger.last(Model, "l")
        version = last.version + 1 if last else 1
        (self.folder / "answer").write_text(answer)
        self.loop.store.put(f"models/m{version}", self.folder)
        model = Model(
            id=f"m{version}",
            loop="l",
            state=state,
            version=version,
            key=f"models/m{version}",
            share=share,
            since=self.loop.now(),
        )
        return self.loop.ledger.add(model, by="test", because="")

    def move(self, id: str, to: ModelState, **changes: Any) -> None:
        model = self.loop.ledger.get(Model, id)
        self.loop.ledger.move(model, to, by="rollout", because="", since=self.loop.now(), **changes)

    def open(self) -> list[str]:
        return [p.answer for p in self.loads if not p.closed]


@pytest.fixture
def bench(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(loop, tmp_path, monkeypatch)


def test_what_goes_out_of_service_is_closed_once_and_the_former_champion_stays_warm(bench: Bench) -> None:
    for n in range(4):
        if n:
            bench.move(f"m{n}", M.RETIRED)
        bench.add(M.CHAMPION, f"a{n}")
        bench.live.refresh()
        bench.live.refresh()
    assert bench.open() == ["a2", "a3"]
    bench.live.close()
    bench.live.close()
    assert [p.closed for p in bench.loads] == [1, 1, 1, 1]
    with pytest.raises(NoModel):
        bench.live.answer({}, "ann")


def test_a_model_that_cannot_be_loaded_leaves_the_one_before_it_in_place(bench: Bench, time: Any) -> None:
    bench.add(M.CHAMPION, "good")
    bench.live.refresh()
    bench.move("m1", M.RETIRED)
    bench.add(M.CHAMPION, "torn")
    bench.live.refresh()
    assert bench.live.answer({}, "ann").output == "good"
    assert bench.live.broken == {"m2": "v2: the model is torn"}
    fresh = Live(bench.loop)  # the same after a restart
    fresh.refresh()
    assert fresh.answer({}, "ann").output == "good"
    bench.move("m2", M.ROLLED_BACK)
    bench.move("m1", M.CHAMPION)
    time.on(seconds=2)
    bench.live.refresh()
    assert bench.live.broken == {}


def test_a_model_that_cannot_be_loaded_is_let_be_for_a_while(
    bench: Bench, time: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    real = bench.loop.store.get

    def away(key: str, folder: Path) -> None:
        tried.append(key)
        raise Unavailable("the store is away")

    bench.add(M.CHAMPION, "good")
    with monkeypatch.context() as broken:
        broken.setattr(bench.loop.store, "get", away)
        for _ in range(5):
            bench.live.refresh()
            time.on(seconds=1)
    assert len(tried) == 1
    assert bench.loop.store.get == real
    time.at += RETRY
    bench.live.refresh()
    assert bench.live.answer({}, "ann").output == "good"


def test_a_damaged_copy_is_fetched_anew(bench: Bench) -> None:
    model = bench.add(M.CHAMPION, "good")
    bench.live.refresh()
    (bench.loop.state / "cache" / model.key / "answer").write_text("torn")
    fresh = Live(bench.loop)
    fresh.refresh()
    assert fresh.answer({}, "ann").output == "good"


def test_a_canary_answers_where_there_is_nobody_else(bench: Bench) -> None:
    bench.add(M.CHAMPION, "torn")
    bench.add(M.CANARY, "new", share=0.0)
    bench.live.refresh()
    assert bench.live.answer({}, "ann").output == "new"


def test_a_warm_model_outlives_the_clock_s_refresh_and_is_let_go_of_if_nothing_comes(bench: Bench, time: Any) -> None:
    bench.add(M.CHAMPION, "old")
    new = bench.add(M.PASSED, "new")
    bench.live.refresh()
    bench.live.warm(new)
    bench.live.refresh()  # the clock is quicker than the promotion
    bench.live.warm(new)
    assert bench.open() == ["old", "new"]
    assert len(bench.loads) == 2
    time.at += WARM
    bench.live.refresh()
    assert bench.open() == ["old"]


def test_a_refresh_that_fails_half_way_leaks_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.add(M.CHAMPION, "one")

    def away(*_: Any) -> Any:
        raise Unavailable("the ledger is away")

    with monkeypatch.context() as broken:
        broken.setattr(bench.loop.ledger, "last", away)
        for _ in range(3):
            with pytest.raises(Unavailable):
                bench.live.refresh()
    bench.live.refresh()
    assert len(bench.loads) == 1
    bench.live.close()
    assert bench.open() == []


def test_a_model_whose_files_are_gone_cannot_be_warmed(bench: Bench) -> None:
    model = bench.add(M.PASSED, "new")
    bench.loop.store.delete(model.key)
    with pytest.raises(NotFound):
        bench.live.warm(model)
    assert not list((bench.loop.state / "cache" / "models").glob(".*"))


def test_who_fails_is_covered_and_named(bench: Bench) -> None:
    bench.add(M.RETIRED, "old")
    bench.add(M.CHAMPION, "good")
    bench.add(M.CANARY, "fails", share=1.0)
    bench.live.refresh()
    answer = bench.live.answer({}, "ann")
    assert (answer.output, answer.model.version, answer.failed) == ("good", 2, ["m3"])


def test_where_all_fail_it_is_said_who(bench: Bench) -> None:
    bench.add(M.RETIRED, "fails")
    bench.add(M.CHAMPION, "fails")
    bench.live.refresh()
    with pytest.raises(PredictionFailed, match="this model is broken") as failed:
        bench.live.answer({}, "ann")
    assert failed.value.failed == ["m2", "m1"]


def test_bad_input_is_nobody_s_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> Any:
        raise InvalidInput("no such column")

    bench.add(M.CHAMPION, "good")
    bench.live.refresh()
    monkeypatch.setattr(bench.loop.recipe, "check", refuse)
    with pytest.raises(InvalidInput):
        bench.live.answer({}, "ann")


def test_shadows_are_named_and_may_be_asked_until_they_are_gone(bench: Bench) -> None:
    bench.add(M.CHAMPION, "good")
    bench.add(M.SHADOW, "new")
    bench.live.refresh()
    (shadow,) = bench.live.answer({}, "ann").shadows
    assert bench.live.ask(shadow, {}) == "new"
    bench.move("m2", M.ROLLED_BACK)
    bench.live.refresh()
    with pytest.raises(NoModel, match="v2 is not in service"):
        bench.live.ask(shadow, {})


def test_the_former_champions_are_not_read_again_at_every_refresh(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(M.RETIRED, "old")
    bench.add(M.CHAMPION, "good")
    real, asked = bench.loop.ledger.find, []

    def find(kind: Any, loop: str, *states: Any, **more: Any) -> Any:
        asked.extend(s for s in states if s is M.RETIRED)
        return real(kind, loop, *states, **more)

    monkeypatch.setattr(bench.loop.ledger, "find", find)
    for _ in range(5):
        bench.live.refresh()
    assert len(asked) == 1


def test_a_slot_closes_after_its_last_request_and_only_once() -> None:
    predictor = Loaded("a")
    slot = Slot(Model(id="m", loop="l", state=M.CHAMPION, version=1, key="k"), predictor)
    slot.enter()
    slot.enter()
    slot.retire()
    slot.leave()
    assert predictor.closed == 0
    slot.leave()
    slot.retire()
    assert predictor.closed == 1


def test_a_predictor_that_cannot_be_closed_spoils_no_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> None:
        raise OSError("cannot unmap")

    monkeypatch.setattr(Loaded, "close", broken)
    for n in range(4):
        if n:
            bench.move(f"m{n}", M.RETIRED)
        bench.add(M.CHAMPION, f"a{n}")
        bench.live.refresh()
        assert bench.live.answer({}, "ann").output == f"a{n}"


def test_many_swaps_under_many_requests_use_no_closed_model(bench: Bench) -> None:
    bench.add(M.CHAMPION, "a")
    bench.add(M.RETIRED, "b")
    bench.add(M.RETIRED, "c")
    bench.live.refresh()
    stop, errors = threading.Event(), []

    def hammer() -> None:
        while not stop.is_set():
            try:
                bench.live.answer({}, "ann")
            except BaseException as e:  # noqa: BLE001 - shown at the end
                errors.append(e)

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    order = ["m1", "m2", "m3"]
    for turn in range(60):
        with bench.loop.ledger.together():
            bench.move(order[turn % 3], M.RETIRED)
            bench.move(order[(turn + 1) % 3], M.CHAMPION)
        bench.live.refresh()
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(bench.open()) == 2
