"""Rollout as a stage: who makes room for whom, what is taken back, and what a person's word does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from evergreen import engine
from evergreen.core.errors import Conflict, Stale, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.ports import Tally
from evergreen.core.records import Event, Model
from evergreen.core.states import ModelState
from evergreen.stages import observe, rollout
from evergreen.stages.rollout import moving

Feed = Callable[..., None]
Open = Callable[..., Loop]
M = ModelState


def add(loop: Loop, tmp_path: Any, *states: ModelState) -> list[Model]:
    """Put models on record, their artifacts in the store."""
    (tmp_path / "artifact").mkdir(exist_ok=True)
    (tmp_path / "artifact/answer.json").write_text('"a"')
    models = []
    for state in states:
        last = loop.ledger.last(Model, "l")
        version = last.version + 1 if last else 1
        model = Model(
            id=f"m{version}", loop="l", state=state, version=version, key=f"models/m{version}", since=loop.now()
        )
        loop.store.put(model.key, tmp_path / "artifact")
        models.append(loop.ledger.add(model, by="test", because=""))
    return models


def states(loop: Loop) -> list[str]:
    return [m.state.value for m in loop.ledger.find(Model, "l")]


def traffic(loop: Loop, **tallies: Tally) -> None:
    loop.ledger.append("l", (), traffic=tallies)


@pytest.mark.parametrize("steps", ["[0.1, 1.0]", "[1.0]", "[0.0, 1.0]"])
def test_steps_may_begin_anywhere(open_loop: Open, tmp_path: Any, steps: str) -> None:
    loop = open_loop(rollout=f'steps = {steps}\nhold = "0s"')
    add(loop, tmp_path, M.CHAMPION, M.PASSED)
    for _ in range(3):
        rollout.advance(loop)
    assert states(loop) == ["retired", "champion"]


def test_of_several_that_passed_the_newest_goes_on(loop: Loop, tmp_path: Any) -> None:
    add(loop, tmp_path, M.CHAMPION, M.CANARY, M.PASSED, M.PASSED)
    rollout.advance(loop)
    assert states(loop) == ["champion", "rolled_back", "rolled_back", "shadow"]


def test_a_canary_that_gathers_evidence_is_let_finish(open_loop: Open, tmp_path: Any) -> None:
    loop = open_loop(rollout=EVIDENCE)
    add(loop, tmp_path, M.CHAMPION, M.CANARY, M.PASSED, M.PASSED)
    rollout.advance(loop)
    assert states(loop) == ["champion", "canary", "rolled_back", "passed"]
    said = observe.status(loop)
    assert (said["rollout"]["version"], said["waiting"]) == (2, [4])
    outcomes(loop, 160, 40)
    rollout.advance(loop)
    assert states(loop) == ["champion", "rolled_back", "rolled_back", "passed"]
    rollout.advance(loop)
    assert states(loop)[3] == "shadow"


def test_no_training_begins_by_itself_that_would_only_overtake(open_loop: Open, feed: Feed, time: Any) -> None:
    loop = open_loop(rollout='steps = [0.0, 0.5, 1.0]\nhold = "10m"')
    for _ in range(3):
        feed(loop, 300, "a")
        for _ in range(3):
            engine.tick(loop)
            time.on(seconds=2)
    assert states(loop) == ["champion", "shadow"]
    for _ in range(40):
        time.on(minutes=1)
        engine.tick(loop)
    assert states(loop)[:2] == ["retired", "champion"]
    assert len(states(loop)) == 3


def test_a_rollout_that_stands_still_for_want_of_traffic_is_not_waited_for(
    open_loop: Open, feed: Feed, time: Any
) -> None:
    loop = open_loop(rollout='steps = [0.5, 1.0]\nhold = "10m"\nmin_answers = 100')
    for _ in range(2):
        feed(loop, 300, "a")
        engine.tick(loop)
    time.on(minutes=21)
    feed(loop, 300, "a")
    engine.tick(loop)
    assert states(loop) == ["champion", "rolled_back", "canary"]


def test_answers_count_in_their_own_step(open_loop: Open, tmp_path: Any, time: Any) -> None:
    loop = open_loop(rollout='steps = [0.1, 0.5, 1.0]\nhold = "1m"\nmin_answers = 50')
    add(loop, tmp_path, M.CHAMPION, M.PASSED)
    rollout.advance(loop)
    traffic(loop, m2=Tally(60))
    for _ in range(3):
        time.on(minutes=2)
        rollout.advance(loop)
    assert loop.ledger.get(Model, "m2").share == 0.5
    traffic(loop, m2=Tally(60))
    rollout.advance(loop)
    assert states(loop) == ["retired", "champion"]


def test_a_champion_that_fails_is_taken_back_though_it_did_well_for_long(loop: Loop, tmp_path: Any) -> None:
    add(loop, tmp_path, M.RETIRED, M.CHAMPION)
    traffic(loop, m2=Tally(100_000))
    rollout.advance(loop)
    traffic(loop, m1=Tally(30), m2=Tally(0, 30))
    rollout.advance(loop)
    assert states(loop) == ["champion", "rolled_back"]
    assert loop.ledger.find(Event, "l")[-1].because == "30 of 30 answers failed, more than 2 %"


def test_a_failing_champion_is_taken_back_while_a_challenger_is_on_its_way(open_loop: Open, tmp_path: Any) -> None:
    loop = open_loop(rollout='hold = "10m"')
    add(loop, tmp_path, M.RETIRED, M.CHAMPION, M.CANARY)
    traffic(loop, m2=Tally(0, 30))
    rollout.advance(loop)
    assert states(loop) == ["champion", "rolled_back", "canary"]


def test_where_all_fail_alike_nobody_is_taken_back(loop: Loop, tmp_path: Any) -> None:
    add(loop, tmp_path, M.RETIRED, M.RETIRED, M.CHAMPION)
    for _ in range(4):
        traffic(loop, m2=Tally(0, 10), m3=Tally(0, 10))
        rollout.advance(loop)
    assert states(loop) == ["retired", "retired", "champion"]


def test_two_that_fail_do_not_take_turns(loop: Loop, tmp_path: Any) -> None:
    add(loop, tmp_path, M.RETIRED, M.CHAMPION)
    for _ in range(6):
        champion = loop.ledger.last(Model, "l", M.CHAMPION)
        assert champion is not None
        traffic(loop, **{champion.id: Tally(0, 10)})
        rollout.advance(loop)
    assert states(loop) == ["champion", "rolled_back"]


def test_what_a_person_forced_is_judged_by_its_new_traffic_only(loop: Loop, tmp_path: Any) -> None:
    add(loop, tmp_path, M.RETIRED, M.CHAMPION)
    traffic(loop, m2=Tally(10, 30))
    rollout.advance(loop)
    assert states(loop) == ["champion", "rolled_back"]
    engine.promote(loop, 2, by="ann", why="it was the network", force=True)
    for _ in range(3):
        rollout.advance(loop)
    assert states(loop) == ["retired", "champion"]


def test_a_person_s_word_is_not_overruled_by_what_was_on_its_way(loop: Loop, tmp_path: Any) -> None:
    add(loop, tmp_path, M.RETIRED, M.CHAMPION, M.CANARY)
    engine.promote(loop, 1, by="ann", why="the good old one")
    for _ in range(3):
        rollout.advance(loop)
    assert states(loop) == ["champion", "retired", "rolled_back"]


def test_rollback_takes_the_challenger_first_then_the_champion(loop: Loop, tmp_path: Any) -> None:
    add(loop, tmp_path, M.RETIRED, M.CHAMPION, M.CANARY)
    assert engine.rollback(loop, by="ann").version == 2
    assert states(loop) == ["retired", "champion", "rolled_back"]
    assert engine.rollback(loop, by="ann").version == 1
    with pytest.raises(Conflict, match="no former champion"):
        engine.rollback(loop, by="ann")


def test_rollback_works_while_the_store_is_away(loop: Loop, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Any:
        raise Unavailable("the store is away")

    add(loop, tmp_path, M.RETIRED, M.CHAMPION)
    monkeypatch.setattr(loop.store, "list", away)
    monkeypatch.setattr(loop.store, "get", away)
    assert engine.rollback(loop, by="ann").version == 1


def test_a_version_without_its_files_becomes_nothing(loop: Loop, tmp_path: Any) -> None:
    add(loop, tmp_path, M.CHAMPION, M.PASSED, M.REJECTED)
    loop.store.delete("models/m2")
    loop.store.delete("models/m3")
    with pytest.raises(Conflict, match="not in the store"):
        engine.promote(loop, 3, by="ann", why="to see", force=True)
    rollout.advance(loop)
    assert states(loop) == ["champion", "rolled_back", "rejected"]


def test_a_store_that_is_away_keeps_a_model_where_it_is(
    loop: Loop, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise OSError("the network is down")

    add(loop, tmp_path, M.CHAMPION, M.PASSED)
    with monkeypatch.context() as broken:
        broken.setattr(loop.store, "list", away)
        rollout.advance(loop)
    assert states(loop) == ["champion", "passed"]
    rollout.advance(loop)
    assert states(loop) == ["champion", "shadow"]


def test_a_champion_that_changed_since_it_was_looked_at_is_noticed(
    loop: Loop, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(loop, tmp_path, M.RETIRED, M.CHAMPION, M.PASSED)
    real = moving.decide

    def late(*args: Any, **more: Any) -> Any:
        monkeypatch.setattr(moving, "decide", real)
        engine.promote(loop, 1, by="ann", why="meanwhile")
        return real(*args, **more)

    monkeypatch.setattr(moving, "decide", late)
    with pytest.raises(Stale):
        rollout.advance(loop)
    rollout.advance(loop)
    assert states(loop) == ["champion", "retired", "rolled_back"]


EVIDENCE = 'steps = [0.0, 0.1, 0.5, 1.0]\nhold = "0s"\nrule = "evidence"\n'


def outcomes(loop: Loop, champion: int, challenger: int) -> None:
    """Let labels come for 200 answers of each, so many of them right."""
    traffic(loop, m1=Tally(200, judged=200, right=champion), m2=Tally(200, judged=200, right=challenger))


def test_evidence_makes_a_better_one_champion_whatever_its_share(open_loop: Open, tmp_path: Any) -> None:
    loop = open_loop(rollout=EVIDENCE)
    add(loop, tmp_path, M.CHAMPION, M.PASSED)
    traffic(loop, m1=Tally(1000, judged=1000, right=999))  # of a better time: it does not count
    for share in (0.0, 0.1, 0.5, 0.5):
        rollout.advance(loop)
        assert loop.ledger.last(Model, "l").share == share
    outcomes(loop, 120, 160)
    rollout.advance(loop)
    assert states(loop) == ["retired", "champion"]
    said = [e.because for e in loop.ledger.find(Event, "l") if e.to == "champion"][-1]
    assert said == (
        "it is not worse by more than 2 points: 80.0 % of 200 judged answers right, the champion's 60.0 % of 200; "
        "the difference is +7.1 points or more with 95 % certainty"
    )


def test_evidence_takes_a_worse_one_back_and_says_why(open_loop: Open, tmp_path: Any) -> None:
    loop = open_loop(rollout=EVIDENCE.replace("0.0, 0.1, ", ""))
    add(loop, tmp_path, M.CHAMPION, M.PASSED)
    rollout.advance(loop)
    assert states(loop) == ["champion", "canary"]
    outcomes(loop, 160, 110)
    rollout.advance(loop)
    assert states(loop) == ["champion", "rolled_back"]
    assert loop.ledger.last(Event, "l").because.startswith(
        "it is worse: 55.0 % of 200 judged answers right, the champion's 80.0 %"
    )


@pytest.mark.parametrize(
    ("policy", "left"), [("keep", ["champion", "rolled_back"]), ("promote", ["retired", "champion"])]
)
def test_where_no_evidence_comes_the_deadline_decides(
    open_loop: Open, tmp_path: Any, time: Any, policy: str, left: list[str]
) -> None:
    loop = open_loop(rollout=EVIDENCE + f'evidence = {{ deadline = "2d", at_deadline = "{policy}" }}')
    add(loop, tmp_path, M.CHAMPION, M.PASSED)
    for _ in range(4):
        rollout.advance(loop)
    outcomes(loop, 150, 150)
    time.on(days=1)
    rollout.advance(loop)
    assert states(loop) == ["champion", "canary"]
    time.on(days=1)
    rollout.advance(loop)
    assert states(loop) == left
    told = [e.because for e in loop.ledger.find(Event, "l") if e.because.startswith("no evidence")]
    assert "within 2 days: 75.0 %" in told[0]


def test_a_new_champion_begins_the_comparison_anew(open_loop: Open, tmp_path: Any) -> None:
    loop = open_loop(rollout=EVIDENCE)
    add(loop, tmp_path, M.RETIRED, M.CHAMPION, M.PASSED)
    for _ in range(3):
        rollout.advance(loop)
    traffic(loop, m2=Tally(1000, 50), m1=Tally(1000, judged=200, right=20), m3=Tally(200, judged=200, right=180))
    traffic(loop, m2=Tally(judged=200, right=190))
    rollout.advance(loop)  # the champion fails: its predecessor is put back
    assert states(loop) == ["champion", "rolled_back", "canary"]
    rollout.advance(loop)
    assert states(loop) == ["champion", "rolled_back", "canary"]
    traffic(loop, m1=Tally(judged=200, right=120), m3=Tally(judged=200, right=180))
    rollout.advance(loop)
    assert states(loop) == ["retired", "rolled_back", "champion"]


def test_one_that_is_only_slower_than_the_champion_may_be_is_taken_back(open_loop: Open, tmp_path: Any) -> None:
    loop = open_loop(rollout='steps = [0.5, 1.0]\nhold = "1h"\nmax_slowdown = 2')
    add(loop, tmp_path, M.CHAMPION, M.PASSED)
    rollout.advance(loop)
    steady = {"latency_ms": 100 * 2.0, "latency_sq": 100 * 4.1}
    traffic(loop, m1=Tally(100, **steady), m2=Tally(100, latency_ms=100 * 50.0, latency_sq=4800.0**2))
    rollout.advance(loop)  # one answer of five seconds is no slowness
    assert states(loop) == ["champion", "canary"]
    traffic(loop, m2=Tally(3000, latency_ms=3000 * 8.0, latency_sq=3000 * 65.0))
    rollout.advance(loop)
    assert states(loop) == ["champion", "rolled_back"]
    assert "more than 2 times the champion's 2.0 ms" in loop.ledger.last(Event, "l").because
