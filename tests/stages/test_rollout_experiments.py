"""Experiments: who meets which version, what they show, and what ends them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen import engine
from evergreen.core.errors import Conflict, InvalidInput, NotFound, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.ports import Tally
from evergreen.core.records import Event, Experiment, Model
from evergreen.core.states import ExperimentState, ModelState
from evergreen.stages import rollout
from evergreen.stages.serve import Live
from evergreen.stages.serve.router import choose

Open = Callable[..., Loop]
M = ModelState
shares = st.lists(st.floats(0.01, 0.3), min_size=1, max_size=3)


@given(st.text(max_size=12), shares, st.floats(0.1, 1.0))
def test_larger_shares_only_add_units(unit: str, large: list[float], factor: float) -> None:
    small = [factor * share for share in large]
    met = choose("x", unit, small)
    if met is not None:
        assert choose("x", unit, large) == met


def test_shares_come_out_as_asked_and_a_new_experiment_draws_anew() -> None:
    units = [f"user-{i}" for i in range(20_000)]
    met = [choose("x", u, (0.2, 0.1)) for u in units]
    for arm, share in ((0, 0.2), (1, 0.1), (None, 0.7)):
        assert abs(met.count(arm) / 20_000 - share) < 0.01
    first = {u for u, arm in zip(units, met, strict=True) if arm == 0}
    second = {u for u in units if choose("y", u, (0.2, 0.1)) == 0}
    assert abs(len(first & second) / len(first) - 0.2) < 0.03


@pytest.fixture
def loop(open_loop: Open, tmp_path: Any) -> Loop:
    """A loop whose champion is v3, with three other versions on record."""
    found = open_loop()
    for version, state in enumerate((M.RETIRED, M.ROLLED_BACK, M.CHAMPION, M.REJECTED), 1):
        folder = tmp_path / f"artifact{version}"
        folder.mkdir(exist_ok=True)
        (folder / "answer.json").write_text(f'"v{version}"')
        model = Model(
            id=f"m{version}",
            loop="l",
            state=state,
            version=version,
            key=f"models/m{version}",
            since=datetime(2026, 1, 1, tzinfo=UTC),
        )
        found.store.put(model.key, folder)
        found.ledger.add(model, by="test", because="")
    return found


def begin(loop: Loop, **more: Any) -> Experiment:
    settings: dict[str, Any] = {"versions": [1, 2], "shares": [0.3, 0.2], "by": "ann", "why": "to see", **more}
    return engine.experiment(loop, **settings)


def outcomes(loop: Loop, n: int = 400, **right: int) -> None:
    loop.ledger.append(
        "l", (), traffic={m: Tally(n, judged=n, right=r, latency_ms=n, latency_sq=n) for m, r in right.items()}
    )


def state(loop: Loop) -> ExperimentState:
    found = loop.ledger.last(Experiment, "l")
    assert found is not None
    return found.state


def events(loop: Loop) -> list[str]:
    return [e.because for e in loop.ledger.find(Event, "l")]


def test_each_unit_meets_its_arm_again_and_again(loop: Loop) -> None:
    found = begin(loop)
    live = Live(loop)
    live.refresh()
    units = [f"user-{i}" for i in range(1000)]
    answers = {u: live.answer({}, u) for u in units}
    said = [a.output for a in answers.values()]
    assert abs(said.count("v1") - 300) < 60
    assert abs(said.count("v2") - 200) < 60
    assert all(a.exposed == (found.id, a.output) for a in answers.values())
    assert [live.answer({}, u).output for u in units] == said
    engine.stop(loop, by="ann")
    live.refresh()
    assert {live.answer({}, u).output for u in units} == {"v3"}
    assert live.answer({}, "ann").exposed is None
    live.close()


def test_one_better_and_one_worse(loop: Loop) -> None:
    outcomes(loop, 1000, m1=0, m3=1000)  # before it began: it does not count
    begin(loop, promote=True)
    outcomes(loop, m1=320, m2=180, m3=240)
    rollout.advance(loop)
    assert state(loop) is ExperimentState.ENDED
    assert loop.ledger.last(Model, "l", M.CHAMPION).version == 1
    report = rollout.report(loop)
    assert (report["winner"], [a["call"] for a in report["arms"]]) == (1, ["champion", "better", "worse"])
    assert "v1: 80.0 % of 400 judged answers right, the champion's 60.0 % of 400: better" in report["because"]
    assert "| v2 | 20 % |" in report["markdown"]
    assert any(said.startswith("forced by rollout: v1: 80.0 %") for said in events(loop)) or any(
        said.startswith("promoted by rollout: v1: 80.0 %") for said in events(loop)
    )


def test_it_ends_with_its_winner_as_champion_or_goes_on(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(loop, promote=True)
    outcomes(loop, m1=320, m2=180, m3=240)
    with monkeypatch.context() as away:

        def unavailable(key: str) -> list[str]:
            raise Unavailable("the store is away")

        away.setattr(loop.store, "list", unavailable)
        with pytest.raises(Unavailable):
            rollout.advance(loop)
        assert state(loop) is ExperimentState.RUNNING
    rollout.advance(loop)
    assert state(loop) is ExperimentState.ENDED
    assert loop.ledger.last(Model, "l", M.CHAMPION).version == 1


def test_a_winner_whose_files_are_gone_is_not_promoted_and_that_is_said(loop: Loop) -> None:
    begin(loop, promote=True)
    outcomes(loop, m1=320, m2=180, m3=240)
    loop.store.delete("models/m1")
    rollout.advance(loop)
    assert state(loop) is ExperimentState.ENDED
    assert loop.ledger.last(Model, "l", M.CHAMPION).version == 3
    assert "v1 cannot be loaded: its files are not in the store any more" in events(loop)


def test_a_worse_arm_is_out_while_the_others_go_on(loop: Loop) -> None:
    begin(loop)
    outcomes(loop, m1=240, m2=150, m3=240)
    rollout.advance(loop)
    assert state(loop) is ExperimentState.RUNNING
    live = Live(loop)
    live.refresh()
    answers = [live.answer({}, f"user-{i}") for i in range(500)]
    assert {a.output for a in answers} == {"v1", "v3"}
    assert {a.exposed and a.exposed[1] for a in answers} == {"v1", "v3", None}
    worse = "37.5 % of 400 judged answers right, the champion's 60.0 % of 400: worse"
    assert f"v2 is out of the experiment: {worse}" in events(loop)
    assert f"\n- v2 is out: {worse}\n" in rollout.report(loop)["markdown"]
    live.close()
    before = len(events(loop))
    rollout.advance(loop)
    assert len(events(loop)) == before
    outcomes(loop, m1=340, m2=0, m3=240)
    rollout.advance(loop)
    assert state(loop) is ExperimentState.ENDED
    assert rollout.report(loop)["winner"] == 1
    assert loop.ledger.last(Model, "l", M.CHAMPION).version == 3  # nobody asked for more than a report


def test_an_arm_whose_answers_fail_is_out_at_once(loop: Loop) -> None:
    begin(loop, versions=[1], shares=[0.5])
    loop.ledger.append("l", (), traffic={"m1": Tally(10, 5)})
    rollout.advance(loop)
    assert state(loop) is ExperimentState.ENDED
    assert "v1: 5 of 15 answers failed, more than 2 %" in rollout.report(loop)["because"]


def test_the_deadline_ends_what_evidence_does_not(loop: Loop, time: Any) -> None:
    begin(loop, deadline=timedelta(days=2))
    outcomes(loop, m1=240, m2=241, m3=240)
    time.on(days=1)
    rollout.advance(loop)
    assert state(loop) is ExperimentState.RUNNING
    time.on(days=1)
    rollout.advance(loop)
    assert state(loop) is ExperimentState.ENDED
    report = rollout.report(loop)
    assert report["because"].startswith("its deadline has come: v1: 60.0 % of 400")
    assert (report["winner"], [a["call"] for a in report["arms"]]) == (None, ["champion", "open", "open"])


def test_shares_that_are_not_met_freeze_it(loop: Loop) -> None:
    found = begin(loop, versions=[1], shares=[0.5])
    loop.ledger.expose(found.id, {str(n): "v1" if n < 300 else "v3" for n in range(1000)})
    outcomes(loop, m1=390, m3=240)
    rollout.advance(loop)
    assert state(loop) is ExperimentState.FROZEN
    assert "the arms did not meet the shares promised: v3 700 (50 %), v1 300 (50 %)" in events(loop)[-1]
    live = Live(loop)
    live.refresh()
    assert {live.answer({}, str(n)).output for n in range(50)} == {"v3"}
    live.close()
    begin(loop)
    assert state(loop) is ExperimentState.RUNNING


def test_what_passed_the_gate_waits_for_its_end(loop: Loop) -> None:
    begin(loop)
    loop.ledger.add(Model(id="m5", loop="l", state=M.PASSED, version=5, key="models/m1"), by="t", because="")
    rollout.advance(loop)
    assert loop.ledger.get(Model, "m5").state is M.PASSED
    assert engine.rollback(loop, by="ann", why="enough").version == 3  # it is the latest step
    rollout.advance(loop)
    assert loop.ledger.get(Model, "m5").state is M.SHADOW


def test_a_promotion_ends_it(loop: Loop) -> None:
    begin(loop)
    engine.promote(loop, 1, by="ann", why="I know it is better")
    assert state(loop) is ExperimentState.ENDED
    assert rollout.report(loop)["because"] == "ann promoted v1"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"versions": []}, InvalidInput),
        ({"versions": [1, 1]}, InvalidInput),
        ({"versions": [1, 3]}, InvalidInput),
        ({"versions": [1, 9]}, NotFound),
        ({"shares": [0.1]}, InvalidInput),
        ({"shares": [0.5, 0.5]}, InvalidInput),
        ({"shares": [0.5, 0.0]}, InvalidInput),
        ({"why": " "}, InvalidInput),
    ],
)
def test_what_makes_no_sense_is_refused(loop: Loop, wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        begin(loop, **wrong)
    assert loop.ledger.last(Experiment, "l") is None


def test_one_at_a_time_and_not_beside_a_rollout(loop: Loop) -> None:
    begin(loop)
    with pytest.raises(Conflict, match="running already"):
        begin(loop)
    engine.stop(loop, by="ann", why="enough")
    with pytest.raises(NotFound):
        engine.stop(loop, by="ann")
    loop.ledger.add(Model(id="m5", loop="l", state=M.SHADOW, version=5, key="models/m1"), by="t", because="")
    with pytest.raises(Conflict, match="v5 is on its way"):
        begin(loop)
