"""Shares, hold times and taking back, as a function of values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from evergreen.core.config import RolloutConfig
from evergreen.core.ports import Tally
from evergreen.core.records import Model
from evergreen.core.states import ModelState
from evergreen.stages.rollout import decide
from evergreen.stages.serve.router import dial

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RULES = RolloutConfig(steps=(0.0, 0.1, 0.5, 1.0), hold=timedelta(minutes=10))


def a_model(state: ModelState, share: float = 0.0, age: timedelta = timedelta(0)) -> Model:
    return Model(id="m", loop="l", state=state, version=2, key="k", share=share, since=NOW - age)


def test_it_climbs_step_by_step_and_holds_each() -> None:
    old = timedelta(minutes=11)
    assert decide(RULES, a_model(ModelState.PASSED), Tally(), NOW).share == 0.0
    assert decide(RULES, a_model(ModelState.SHADOW, 0.0, old), Tally(), NOW).share == 0.1
    assert decide(RULES, a_model(ModelState.CANARY, 0.1, timedelta(minutes=9)), Tally(), NOW).do == "hold"
    assert decide(RULES, a_model(ModelState.CANARY, 0.1, old), Tally(), NOW).share == 0.5
    assert decide(RULES, a_model(ModelState.CANARY, 0.5, old), Tally(), NOW).share == 1.0


def test_failures_take_it_back_at_once_but_not_the_first_two() -> None:
    young = a_model(ModelState.CANARY, 0.1)
    assert decide(RULES, young, Tally(answered=2, failed=2), NOW).do == "hold"
    assert decide(RULES, young, Tally(answered=100, failed=3), NOW).do == "take back"
    assert decide(RULES, young, Tally(answered=1000, failed=3), NOW).do == "hold"


def test_slowness_takes_it_back() -> None:
    rules = RULES.model_copy(update={"max_latency_ms": 5.0})
    slow = Tally(answered=20, latency_ms=20 * 6.0)
    assert decide(rules, a_model(ModelState.CANARY, 0.1), slow, NOW).because.startswith("an answer takes 6.0 ms")


def test_a_first_model_does_not_wait() -> None:
    assert decide(RULES, a_model(ModelState.PASSED), Tally(), NOW, alone=True).share == 1.0


def test_answers_may_be_asked_for() -> None:
    rules = RULES.model_copy(update={"min_answers": 50})
    old = a_model(ModelState.CANARY, 0.1, timedelta(hours=1))
    assert decide(rules, old, Tally(answered=49), NOW).do == "hold"
    assert decide(rules, old, Tally(answered=50), NOW).do == "raise"


@given(
    st.sampled_from([ModelState.PASSED, ModelState.SHADOW, ModelState.CANARY]),
    st.floats(0, 1),
    st.timedeltas(timedelta(0), timedelta(days=1)),
    st.integers(0, 500),
)
def test_a_share_never_falls_on_the_way_up(state: ModelState, share: float, age: timedelta, answered: int) -> None:
    step = decide(RULES, a_model(state, share, age), Tally(answered=answered), NOW)
    if step.do == "raise" and state is not ModelState.PASSED:
        assert step.share > share or step.share == 1.0


@given(st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_only_adds_units(unit: str, a: float, b: float) -> None:
    low, high = sorted((a, b))
    if dial("model", unit) < low:
        assert dial("model", unit) < high


def test_shares_come_out_as_asked_and_differ_between_challengers() -> None:
    units = [f"user-{i}" for i in range(20_000)]
    first = {u for u in units if dial("m1", u) < 0.1}
    second = {u for u in units if dial("m2", u) < 0.1}
    assert abs(len(first) / 20_000 - 0.1) < 0.01
    assert abs(len(first & second) / len(first) - 0.1) < 0.03
