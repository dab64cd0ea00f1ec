"""The whole loop on the smallest backends: from a datum to a champion, a successor, and back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import evergreen
from evergreen import engine
from evergreen.core.errors import AlreadyWaiting, Conflict, NoModel
from evergreen.core.loop import Loop
from evergreen.core.records import Event, Model, Run
from evergreen.core.states import ModelState, RunState
from evergreen.stages import collect, observe, serve

TOML = """
ledger = {{ use = "{ledger}" }}
[loops.l]
recipe = {{ use = "evergreen.testing.runner:Majority" }}
runner = {{ use = "inline" }}
[loops.l.collect]
consent = false
[loops.l.trigger]
min_new = 50
[loops.l.rollout]
steps = [0.0, 0.5, 1.0]
hold = "0s"
"""


@pytest.fixture(params=["memory", "sql"])
def loop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Loop]:
    (tmp_path / "evergreen.toml").write_text(TOML.format(ledger=request.param))
    project = evergreen.open(tmp_path / "evergreen.toml")
    yield project["l"]
    project.ledger.close()


def feed(loop: Loop, n: int, label: str) -> None:
    rows = [{"input": {"i": i}, "label": label} for i in range(n)]
    loop.ledger.append("l", [collect.admit(loop, row, origin="test") for row in rows])


def states(loop: Loop) -> list[str]:
    return [m.state.value for m in loop.ledger.find(Model, "l")]


def test_a_datum_walks_down_the_corridor(loop: Loop) -> None:
    engine.tick(loop)
    assert states(loop) == []  # nothing to learn from yet

    feed(loop, 60, "a")
    engine.tick(loop)  # trained, judged, and champion at once: there is nothing to protect
    assert states(loop) == ["champion"]
    live = serve.Live(loop)
    live.refresh()
    assert live.answer({}, "ann").output == "a"

    feed(loop, 400, "b")
    engine.tick(loop)
    assert states(loop) == ["champion", "shadow"]
    engine.tick(loop)
    live.refresh()
    assert states(loop) == ["champion", "canary"]
    answers = {unit: live.answer({}, unit).output for unit in map(str, range(200))}
    assert 60 < list(answers.values()).count("b") < 140
    assert answers == {unit: live.answer({}, unit).output for unit in answers}  # sticky
    engine.tick(loop)
    live.refresh()
    assert states(loop) == ["retired", "champion"]
    assert {live.answer({}, unit).output for unit in answers} == {"b"}

    engine.rollback(loop, by="ann", why="a test")
    live.refresh()
    assert states(loop) == ["champion", "rolled_back"]
    assert live.answer({}, "ann").output == "a"
    reasons = [e.because for e in loop.ledger.find(Event, "l") if e.to == "champion"]
    assert reasons[-1] == "rolled back by ann: a test"
    live.close()


def test_no_request_is_dropped_while_models_are_swapped(loop: Loop) -> None:
    feed(loop, 60, "a")
    engine.tick(loop)
    feed(loop, 400, "b")
    for _ in range(3):
        engine.tick(loop)
    live = serve.Live(loop)
    live.refresh()
    stop, errors, asked = threading.Event(), [], [0]

    def hammer() -> None:
        while not stop.is_set():
            try:
                live.answer({}, "ann")
                asked[0] += 1
            except Exception as e:  # noqa: BLE001 - counted, and shown at the end
                errors.append(e)

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(40):
        engine.promote(loop, turn % 2 + 1, by="ann", why="again", force=True)
        live.refresh()
        assert live.answer({}, "bob").model.version == turn % 2 + 1
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert asked[0] > 40
    live.close()


def test_a_worse_candidate_is_turned_away_and_may_be_forced(loop: Loop) -> None:
    feed(loop, 400, "a")
    engine.tick(loop)
    engine.ask(loop, by="ann", why="to see", overrides={"answer": "wrong"})
    engine.tick(loop)
    assert states(loop) == ["champion", "rejected"]
    with pytest.raises(Conflict, match="did not pass the gate"):
        engine.promote(loop, 2, by="ann", why="I know better")
    engine.promote(loop, 2, by="ann", why="I know better", force=True)
    assert states(loop) == ["retired", "champion"]
    assert loop.ledger.find(Event, "l")[-1].because == "forced by ann: I know better"


def test_one_training_at_a_time(loop: Loop) -> None:
    feed(loop, 60, "a")
    engine.ask(loop, by="ann", why="first")
    with pytest.raises(AlreadyWaiting):
        engine.ask(loop, by="bob", why="second")
    engine.tick(loop)
    assert [r.state for r in loop.ledger.find(Run, "l")] == [RunState.SUCCEEDED]


def test_a_request_without_samples_is_skipped_with_its_reason(loop: Loop) -> None:
    engine.ask(loop, by="ann", why="eager", force=True)
    engine.tick(loop)
    assert observe.status(loop)["last_run"]["error"] == "Not enough samples: 0 < 1"
    assert observe.history(loop, limit=1)[0]["what"] == "skipped"


def test_a_training_that_fails_leaves_the_champion_alone(loop: Loop) -> None:
    feed(loop, 60, "a")
    engine.tick(loop)
    engine.ask(loop, by="ann", why="to see", overrides={"fail": True})
    engine.tick(loop)
    run = loop.ledger.last(Run, "l")
    assert run is not None
    assert (run.state, run.failure) == (RunState.FAILED, "user_code")
    assert states(loop) == [ModelState.CHAMPION]


def test_without_a_model_it_says_so(loop: Loop) -> None:
    with pytest.raises(NoModel):
        serve.Live(loop).answer({}, "ann")
