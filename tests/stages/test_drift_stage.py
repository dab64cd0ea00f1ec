"""Drift as the stage sees it: what is read, what is remembered, what is told, and what the trigger makes of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from evergreen import engine
from evergreen.core.errors import Unavailable
from evergreen.core.loop import Loop
from evergreen.core.ports import Tally
from evergreen.core.records import Dataset, Event, Model, Run, Sample
from evergreen.core.states import ModelState, RunState
from evergreen.stages import observe, run, trigger
from evergreen.stages.observe.drift import looking, memory

RECIPE = """
from evergreen.testing.runner import Majority

class Described(Majority):
    def describe(self, value):
        if value.get("bad"):
            raise ValueError("no")
        return {k: v for k, v in value.items()}
    def describe_output(self, output):
        return {"label": output["label"], "confidence": output["confidence"]}
"""
number = count()


class World:
    """A loop with a champion, and the traffic it has."""

    def __init__(self, loop: Loop, time: Any) -> None:
        self.loop, self.time = loop, time
        self.rng = random.Random(1)
        self.model: Model
        self.versions = count(1)

    def row(self, shift: float = 0.0) -> dict[str, Any]:
        return {"x": self.rng.gauss(shift, 1), "kind": self.rng.choice("ab")}

    def samples(self, n: int, shift: float, **more: Any) -> list[Sample]:
        return [Sample(id=f"s{next(number)}", loop="l", input=self.row(shift), **more) for _ in range(n)]

    def crown(self, rows: int = 1000, shift: float = 0.0) -> Model:
        """Put a champion there that was trained on rows, as the stages before would."""
        ledger, version = self.loop.ledger, next(self.versions)
        last = ledger.last(Dataset, "l")
        if rows:
            ledger.append("l", self.samples(rows, shift, label="a", side="train", origin="file"))
        newest = next(ledger.samples("l", newest_first=True, limit=1), None)
        data = Dataset(
            id=f"d{version}", loop="l", version=last.version + 1 if last else 1, as_of=newest.seq if newest else 0,
            collected=ledger.counts("l").usable, train=rows, holdout=0, digest="", key="",
        )  # fmt: skip
        ledger.add(data, by="test", because="")
        if version > 1:
            ledger.move(self.model, ModelState.RETIRED, by="rollout", because="")
        champion, since = ModelState.CHAMPION, self.time()
        self.model = ledger.add(
            Model(id=f"m{version}", loop="l", state=champion, version=version, key="", dataset=data.id, since=since),
            by="test",
            because="",
        )
        return self.model

    def ask(self, n: int, shift: float = 0.0, label: str = "a", confidence: float = 0.9, **more: Any) -> None:
        """Answer n predictions, and let the clock tick a few times meanwhile."""
        for start in range(0, n, 50):
            some = min(50, n - start)
            output = {"label": label, "confidence": min(1.0, self.rng.gauss(confidence, 0.02))}
            rows = self.samples(some, shift, output=output, origin="predict", model=self.model.id)
            tally = Tally(answered=some, latency_ms=float(some), **{k: v * some // 50 for k, v in more.items()})
            self.loop.ledger.append("l", rows, traffic={self.model.id: tally})
            self.look()

    def look(self) -> None:
        self.time.on(seconds=11)
        observe.watch(self.loop)

    def events(self) -> list[Event]:
        return [e for e in self.loop.ledger.find(Event, "l") if e.what in ("drift", "all clear")]


@pytest.fixture
def world(open_loop: Callable[..., Loop], time: Any, tmp_path: Path) -> World:
    """A world with small windows."""
    (tmp_path / "described.py").write_text(RECIPE)
    serve = "[loops.l.drift]\nwindow = 200\nmin_rows = 100\n"
    loop = open_loop(recipe="described:Described", trigger="drift = true\nmin_size = 1", serve=serve)
    return World(loop, time)


def test_traffic_as_in_training_raises_nothing(world: World) -> None:
    world.crown()
    world.look()
    world.ask(1500)
    assert world.events() == []
    said = observe.drift_report(world.loop)
    assert said["alarm"] is None
    assert said["violations"] == []
    assert {(f["of"], f["name"]) for f in said["features"]} == {
        ("inputs", "x"), ("inputs", "kind"), ("outputs", "label"), ("outputs", "confidence"),
    }  # fmt: skip
    assert "like what v1 learnt from" in said["because"]


def test_an_alarm_begins_once_and_ends_once(world: World) -> None:
    world.crown()
    world.look()
    world.ask(300)
    world.ask(1000, shift=2.0)
    (begun,) = world.events()
    assert begun.what == "drift"
    assert begun.details["kinds"] == ["inputs"]
    assert begun.details["features"][0]["name"] == "x"
    assert begun.because.startswith("inputs have changed: x (PSI ")
    assert observe.drift_report(world.loop)["alarm"]["kinds"] == ["inputs"]
    world.ask(1000)
    assert [e.what for e in world.events()] == ["drift", "all clear"]
    assert observe.drift_report(world.loop)["alarm"] is None


def test_a_change_in_kind_is_told(world: World) -> None:
    world.crown()
    world.look()
    world.ask(600)
    world.ask(300, shift=2.0)
    world.ask(300, shift=2.0, label="b", confidence=0.5)
    assert [e.details["kinds"] for e in world.events()] == [["inputs"], ["inputs", "outputs"]]
    assert {f["name"] for f in world.events()[1].details["features"]} >= {"x", "label"}


def test_a_kind_that_comes_and_goes_under_one_alarm_is_told_once(world: World) -> None:
    world.crown()
    world.look()
    world.ask(600)
    for _ in range(3):
        world.ask(300, shift=2.0, label="b", confidence=0.5)
        world.ask(300, shift=2.0)
    assert len(world.events()) <= 2
    world.ask(1000)
    assert world.events()[-1].what == "all clear"


def test_labels_that_come_tell_of_a_fall(world: World) -> None:
    world.crown()
    world.look()
    world.ask(1000, judged=50, right=45)
    assert world.events() == []
    world.ask(400, judged=50, right=20)
    (begun,) = world.events()
    assert begun.details["kinds"] == ["quality"]
    assert "90 % before" in begun.because
    assert observe.drift_report(world.loop)["quality"]["fallen"]


def test_a_new_champion_s_answers_are_judged_anew(world: World) -> None:
    world.crown()
    world.look()
    world.ask(1000, judged=50, right=45)
    world.ask(400, judged=50, right=20)
    world.crown()
    observe.watch(world.loop)
    assert world.events()[-1].what == "drift"  # one that has just taken over may not last
    world.look()
    assert world.events()[-1].what == "all clear"
    assert world.events()[-1].because == (
        "v2 has taken over, and its answers are judged anew; the last 200 predictions are like what v2 knows"
    )


def test_the_report_is_a_file_that_others_can_read(world: World) -> None:
    world.crown()
    world.look()
    world.ask(300)
    world.ask(300, shift=2.0)
    said = json.loads(world.loop.store.read("reports/drift/l/constraint_violations.json"))
    assert list(said) == ["violations"]
    assert {"feature_name", "constraint_check_type", "description"} == set(said["violations"][0])
    assert said["violations"][0]["feature_name"] == "x"
    assert said["violations"][0]["constraint_check_type"] == "baseline_drift_check"
    assert json.loads(world.loop.store.read("reports/drift/l/report.json"))["alarm"]["kinds"] == ["inputs"]
    world.ask(600)
    assert json.loads(world.loop.store.read("reports/drift/l/constraint_violations.json")) == {"violations": []}


def test_a_store_that_is_away_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.crown()
    world.look()
    world.ask(300)

    def away(*_: Any) -> None:
        raise Unavailable("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(world.loop.store, "write", away)
        world.ask(300, shift=2.0)
    assert [e.what for e in world.events()] == ["drift"]
    assert world.loop.store.list("reports/drift/") == []
    world.look()
    assert "reports/drift/l/constraint_violations.json" in world.loop.store.list("reports/drift/")


def test_a_new_champion_is_judged_anew_and_the_alarm_goes_on_until_it_is(world: World) -> None:
    world.crown()
    world.look()
    world.ask(300)
    world.ask(300, shift=2.0)
    world.crown(rows=0)  # trained on the same rows again: it helps nothing
    world.look()
    world.ask(300, shift=2.0)
    assert [e.what for e in world.events()] == ["drift"]
    world.loop.ledger.append("l", world.samples(5000, 2.0, label="a", side="train", origin="file"))
    world.crown(rows=0)  # and this one knows what comes now
    world.look()
    world.ask(300, shift=2.0)
    assert [e.what for e in world.events()] == ["drift", "all clear"]


def test_a_look_reads_a_bounded_number_of_samples(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.crown()
    world.look()
    read = []
    original = world.loop.ledger.samples

    def counted(*args: Any, **more: Any) -> Iterator[Sample]:
        for sample in original(*args, **more):
            read.append(sample.id)
            yield sample

    monkeypatch.setattr(world.loop.ledger, "samples", counted)
    output = {"label": "a", "confidence": 0.9}
    rows = world.samples(5000, 0.0, output=output, origin="predict", model="m1")
    world.loop.ledger.append("l", rows, traffic={"m1": Tally(answered=5000)})
    world.look()
    assert 0 < len(read) <= 2 * world.loop.config.drift.window
    read.clear()
    world.look()  # nothing new
    assert read == []
    state = memory.recall(world.loop)
    assert state is not None
    assert memory.whole(state.references.inputs, state.window.inputs).n == 200


def test_what_is_remembered_is_small_and_holds_no_value(world: World) -> None:
    world.crown()
    world.look()
    world.ask(900)
    said = [v for k, v in world.loop.ledger.recall_all("drift").items() if k.startswith("l")]
    assert sum(map(len, said)) < 20_000
    state = memory.recall(world.loop)
    assert state is not None
    inputs = [s.input["x"] for s in world.loop.ledger.samples("l", labelled=False)]
    assert not any(str(x) in one for x in inputs for one in said)


def test_a_look_that_is_killed_half_way_is_made_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.crown()
    world.look()
    world.ask(300)
    with monkeypatch.context() as patched:
        patched.setattr(looking.memory, "keep", _killed)
        with pytest.raises(KeyboardInterrupt):
            world.ask(300, shift=3.0)
    assert world.events() == []
    world.ask(300, shift=3.0)
    assert [e.what for e in world.events()] == ["drift"]


def _killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_values_that_cannot_be_described_are_counted_and_disturb_nothing(world: World) -> None:
    world.crown()
    world.look()
    bad = [
        Sample(id=f"b{i}", loop="l", input={"bad": True}, output={}, origin="predict", model="m1") for i in range(40)
    ]
    world.loop.ledger.append("l", bad, traffic={"m1": Tally(answered=40)})
    world.ask(200)
    assert observe.drift_report(world.loop)["undescribed"] >= 40


def test_a_loop_that_is_not_watched_forgets(world: World, open_loop: Callable[..., Loop]) -> None:
    world.crown()
    world.look()
    off = world.loop.config.model_copy(update={"drift": world.loop.config.drift.model_copy(update={"watch": False})})
    from dataclasses import replace

    loop = replace(world.loop, config=off)
    observe.watch(loop)
    assert not [k for k in loop.ledger.recall_all("drift") if k.startswith("l")]
    assert observe.drift_report(loop)["because"] == "drift.watch is false"


def test_before_there_is_a_champion_the_report_says_so(world: World) -> None:
    assert observe.drift_report(world.loop)["because"] == "there is no champion yet"


# The trigger


def _due(world: World) -> Run | None:
    from evergreen.stages import dataset

    return trigger.look(world.loop, dataset.latest(world.loop))


def test_drift_and_new_labels_are_a_reason_to_train_once(world: World) -> None:
    world.crown()
    world.loop.ledger.add(
        Run(id="r0", loop="l", state=RunState.QUEUED, why="first", dataset="d1"), by="test", because=""
    )
    _end(world, "r0")
    world.look()
    world.ask(300)
    _label(world, 60)
    assert _due(world) is None  # labels alone are none
    world.ask(300, shift=2.0)
    due = _due(world)
    assert due is not None
    assert due.why.startswith("drift: inputs have changed: x (PSI ")
    assert due.why.endswith("60 new samples")
    _train(world, due)
    asked = Run(id="rf", loop="l", state=RunState.REQUESTED, why="a file by itself", origin="file")
    _train(world, world.loop.ledger.add(asked, by="test", because=""))  # no answer to what live traffic is
    assert _due(world) is None
    _label(world, 99)
    assert _due(world) is None  # twice as many are needed while the same alarm lasts
    _label(world, 1)
    assert _due(world) is not None


def test_drift_without_new_labels_trains_nothing(world: World) -> None:
    world.crown()
    _train(world, Run(id="r0", loop="l", state=RunState.QUEUED, why="first"))
    world.look()
    world.ask(300)
    world.ask(300, shift=2.0)
    assert observe.drift_report(world.loop)["alarm"]
    _label(world, 49)
    assert _due(world) is None


def test_a_training_s_own_outcome_never_begins_another(world: World) -> None:
    """The champion that drift brought has learnt from a mixture: it still differs from what comes now."""
    world.crown()
    _train(world, Run(id="r0", loop="l", state=RunState.QUEUED, why="first"))
    world.look()
    world.ask(300)
    world.ask(300, shift=2.0)
    _label(world, 50)
    trained = 0
    for _ in range(20):
        if due := _due(world):
            trained += 1
            _train(world, due)
            world.crown(rows=0)
        world.ask(60, shift=2.0)
    assert trained == 1


def _label(world: World, n: int) -> None:
    world.loop.ledger.append("l", world.samples(n, 2.0, label="a", side="train", origin="labels"))


def _train(world: World, due: Run) -> None:
    from evergreen.stages import dataset

    run.queue(world.loop, dataset.freeze(world.loop, due), due)
    _end(world, due.id)


def _end(world: World, id: str) -> None:
    ledger = world.loop.ledger
    running = ledger.move(ledger.get(Run, id), RunState.RUNNING, by="run", because="")
    ledger.move(running, RunState.SUCCEEDED, by="run", because="", ended=world.loop.now())
    world.time.on(seconds=1)


def test_the_whole_loop_turns_with_it(world: World) -> None:
    world.crown()
    engine.tick(world.loop)
    world.ask(300)
    world.ask(300, shift=2.0)
    world.time.on(seconds=11)
    engine.tick(world.loop)
    assert [e.what for e in world.events()] == ["drift"]
