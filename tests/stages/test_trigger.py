"""When to train: the rule as a function, and what the stage tells of it."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from evergreen.core.config import TriggerConfig
from evergreen.stages.trigger import Facts, due

times = st.none() | st.timedeltas(timedelta(0), timedelta(days=30))
facts = st.builds(
    lambda usable, new, look, start: Facts(usable, min(new, usable), look, start),
    st.integers(0, 5000),
    st.integers(0, 5000),
    times,
    times,
)
rules = st.builds(
    TriggerConfig,
    auto=st.booleans(),
    every=st.none() | st.timedeltas(timedelta(seconds=1), timedelta(days=2)),
    min_new=st.none() | st.integers(1, 500),
    min_size=st.integers(1, 500),
    cooldown=st.timedeltas(timedelta(0), timedelta(days=1)),
)


@given(rules, facts)
def test_it_never_trains_on_too_little_or_on_nothing_new(rules: TriggerConfig, facts: Facts) -> None:
    decision = due(rules, facts)
    if decision.train:
        assert rules.auto
        assert facts.usable >= rules.min_size
        assert facts.new > 0
        assert facts.since_start is None or facts.since_start >= rules.cooldown
        assert decision.because


@given(rules, facts)
def test_a_look_that_trains_nothing_gives_its_reason(rules: TriggerConfig, facts: Facts) -> None:
    decision = due(rules, facts)
    if decision.looked and not decision.train:
        assert decision.because


@given(rules, facts)
def test_a_run_s_own_output_cannot_trigger_it_again(rules: TriggerConfig, facts: Facts) -> None:
    after = Facts(facts.usable, 0, timedelta(0), timedelta(0))
    assert not due(rules, after).train


def test_the_interval_comes_round_with_fractions_of_hours() -> None:
    rules = TriggerConfig.model_validate({"every": "1.8s", "min_size": 10})
    assert due(rules, Facts(20, 20, timedelta(seconds=1), None)).looked is False
    assert due(rules, Facts(20, 20, timedelta(seconds=2), None)).train


def test_drift_is_a_reason_once_labels_come_and_again_only_for_twice_as_many() -> None:
    rules = TriggerConfig(drift=True, drift_min_new=50)
    wrong = "inputs have changed"
    assert not due(rules, Facts(900, 49, None, None, drift=wrong)).train
    assert not due(rules, Facts(900, 900, None, None)).train
    assert not due(TriggerConfig(), Facts(900, 900, None, None, drift=wrong)).train
    assert due(rules, Facts(900, 50, None, None, drift=wrong)).because == f"drift: {wrong}; 50 new samples"
    for answers in range(6):
        needed = 50 * 2**answers
        assert not due(rules, Facts(9000, needed - 1, None, None, drift=wrong, answers=answers)).train
        assert due(rules, Facts(9000, needed, None, None, drift=wrong, answers=answers)).train
    cooling = TriggerConfig(drift=True, cooldown=timedelta(hours=1))
    assert not due(cooling, Facts(900, 90, None, timedelta(minutes=1), drift=wrong)).train
