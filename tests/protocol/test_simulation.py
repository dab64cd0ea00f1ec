"""The far side's own code, app and worker, in simulated worlds: whatever goes wrong, no promise is broken and every run ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("greenlet", reason="the simulation switches between actors with greenlet")

from far_mutants import MUTANTS
from far_plan import HORIZON_S, KINDS, WEATHERS, Fault, Kind, Plan, draw
from far_stage import BEGIN
from far_world import play
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evergreen.job.far.protocol import Mode

#: Worlds in which a mutant must have been noticed once.
WORLDS = 150

#: Two attempts of one run are looked after at once: a slow one puts back what was true before.
OVERLAP = Plan(
    seed=1575,
    weather="api",
    workers=2,
    steps=12,
    every=1,
    faults=(
        Fault(20.8, "app pause", 3, 300.0),
        Fault(24.0, "worker pause", 0, 300.0),
        Fault(42.1, "worker crash", 3, 40.0),
        Fault(55.0, "worker loss", 3, 100.0),
        Fault(128.4, "worker crash", 3, 100.0),
        Fault(195.1, "worker pause", 3, 300.0),
        Fault(228.2, "worker crash", 2, 5.0),
        Fault(359.2, "worker pause", 2, 40.0),
        Fault(407.0, "app crash", 0, 5.0),
        Fault(499.2, "app pause", 0, 5.0),
        Fault(513.6, "app pause", 3, 5.0),
        Fault(559.2, "cancel", 0, 100.0),
    ),
)

faults = st.builds(
    Fault,
    at=st.floats(0, HORIZON_S / 2).map(lambda at: round(at, 1)),
    kind=st.sampled_from(KINDS),
    whom=st.integers(0, 3),
    lasts=st.sampled_from((5.0, 40.0, 100.0, 300.0)),
)
plans = st.builds(
    Plan,
    seed=st.integers(0, 2**32),
    weather=st.sampled_from(list(WEATHERS)),
    workers=st.integers(1, 4),
    second_app=st.sampled_from(("", "same ledger", "copied ledger")),
    loops=st.integers(1, 2),
    steps=st.sampled_from((2, 6, 12)),
    step_s=st.sampled_from((1.0, 5.0, 20.0)),
    every=st.sampled_from((1, 2, 5)),
    session_s=st.sampled_from((None, None, 90.0, 300.0)),
    fails=st.sampled_from((False, False, False, True)),
    faults=st.lists(faults, max_size=10).map(tuple),
)


@settings(max_examples=80)
@given(plans)
@example(draw(6))  # cancelled between a loss and the next attempt
@example(draw(71))  # cancelled while the result was on its way
@example(draw(43))  # the app dies before it has said in the folder that it is over
@example(draw(33))  # calls fail while the model is stored
@example(OVERLAP)
def test_when_the_app_grants(plan: Plan) -> None:
    assert play(plan).broken == ()


@settings(max_examples=50)
@given(plans, st.sampled_from(("strong", "api")))
def test_when_workers_help_themselves(plan: Plan, weather: str) -> None:
    # Two ledgers of one run cannot be told apart by a claim that neither of them granted.
    second = "" if plan.second_app == "copied ledger" else plan.second_app
    assert play(replace(plan, mode="direct", weather=weather, second_app=second)).broken == ()


@pytest.mark.parametrize("seed", range(6))
def test_on_sqlite(seed: int) -> None:
    assert play(replace(draw(seed), ledger="sql")).broken == ()


@pytest.mark.parametrize("kind", ["app crash", "worker crash", "worker loss", "cancel"])
@pytest.mark.parametrize("mode", ["grant", "direct"])
def test_after_every_single_operation(kind: Kind, mode: Mode) -> None:
    """Play a world once, then again and again with a fault in it: after its first operation, its second, …"""
    plan = Plan(seed=3, mode=mode, weather="strong", workers=2, steps=3, step_s=2.0, every=1, brisk=True)
    whose = "w" if kind.startswith("worker") else "app"
    moments = [at for at, who, _ in play(plan, trace=True).trace if who.startswith(whose)]
    assert len(moments) > 50
    for at in moments if kind == "app crash" else moments[::2]:
        for whom in range(plan.workers) if whose == "w" else (0,):
            fault = Fault(at - BEGIN + 1e-9, kind, whom, lasts=30.0)
            assert play(replace(plan, faults=(fault,))).broken == (), fault


def test_the_same_plan_plays_out_the_same_way() -> None:
    plan = draw(5)
    assert play(plan, trace=True) == play(plan, trace=True)


def test_without_faults_one_attempt_is_enough() -> None:
    for seed in range(20):
        end = play(
            replace(
                draw(seed), faults=(), second_app="", loops=1, fails=False, session_s=None, weather="strong", brisk=True
            )
        )
        assert (end.broken, end.attempts) == ((), 1)


@pytest.mark.parametrize("app_s", [1.0, 2.0, 4.0])
def test_on_an_overloaded_machine_it_takes_longer(app_s: float) -> None:
    """A look of the app takes as long as an offer is fresh, or longer; workers are given the job all the same."""
    for seed in range(6):
        plan = Plan(seed=seed, workers=2, steps=2, every=1, app_s=app_s, faults=(Fault(60.0, "worker loss", 0, 100.0),))
        assert play(plan).broken == (), plan


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_left_out_is_noticed(name: str) -> None:
    mutant = MUTANTS[name]
    plans = [mutant.plan(seed) for seed in range(WORLDS)]
    with mutant.at_work():
        noticed = next((plan for plan in plans if play(plan).broken), None)
    assert noticed is not None, f"{mutant.about}: unnoticed in {WORLDS} worlds"
    assert play(noticed).broken == ()  # it was that rule


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["grant", "direct"])
def test_five_thousand_worlds(mode: str) -> None:
    for seed in range(5000):
        plan = draw(seed, mode)  # type: ignore[arg-type]
        assert play(plan).broken == (), plan
