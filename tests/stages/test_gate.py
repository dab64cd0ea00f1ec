"""The gate's statistics against known figures, and its rule against every kind of case."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.core.config import GateConfig
from evergreen.stages.gate.rules import Case, decide
from evergreen.stages.gate.statistics import bootstrap, mcnemar, minimum_detectable

scores = st.lists(st.sampled_from([0.0, 1.0]), min_size=40, max_size=200)


def case(mine: list[float], theirs: list[float] | None = None, **more: object) -> Case:
    champion = {} if theirs is None else {"accuracy": theirs}
    rival = None if theirs is None else 1
    return Case(candidate={"accuracy": mine}, champion=champion, rival=rival, **more)  # type: ignore[arg-type]


def flips(n: int, share: float, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [float(rng.random() < share) for _ in range(n)]


def test_the_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        interval = bootstrap(flips(150, 0.8, seed), 0.95, seed)
        covered += interval.low <= 0.8 <= interval.high
    assert 0.90 <= covered / 200 <= 0.99


def test_the_bootstrap_of_continuous_figures_agrees_with_theory() -> None:
    rng = random.Random(3)
    values = [rng.gauss(5, 2) for _ in range(400)]
    interval = bootstrap(values, 0.95)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.15)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_agrees_with_the_binomial_test(better: int, worse: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with the tabular extra")
    n = better + worse
    expected = stats.binomtest(better, n, 0.5).pvalue if n else 1.0
    assert mcnemar(better, worse) == pytest.approx(min(1.0, expected), abs=1e-9)


def test_more_rows_show_smaller_differences() -> None:
    few, many = flips(50, 0.5, 1), flips(5000, 0.5, 1)
    assert minimum_detectable(many, 0.95) < minimum_detectable(few, 0.95)


@settings(max_examples=40)
@given(scores)
def test_a_model_against_itself_is_no_worse(values: list[float]) -> None:
    verdict = decide(GateConfig(margin=0.1), case(values, values))
    assert verdict.outcome == "promote"
    assert verdict.figures["difference"] == 0.0


@pytest.mark.parametrize(
    ("rows", "better", "margin", "outcome"),
    [
        (298, 0, 0.01, "inconclusive"),
        (299, 0, 0.01, "promote"),
        (80, 0, 0.01, "inconclusive"),
        (80, 1, 0.01, "inconclusive"),
        (80, 2, 0.01, "promote"),
        (80, 1, 0.0, "inconclusive"),
        (80, 3, 0.0, "promote"),
    ],
)
def test_no_row_answered_worse_is_enough_where_one_worse_by_the_margin_would_hardly_show_it(
    rows: int, better: int, margin: float, outcome: str
) -> None:
    mine, theirs = [1.0] * rows, [0.0] * better + [1.0] * (rows - better)
    verdict = decide(GateConfig(margin=margin), case(mine, theirs))
    assert verdict.outcome == outcome
    assert verdict.because.startswith("no row is answered worse")
    strict = decide(GateConfig(margin=margin, benefit=False), case(mine, theirs))
    assert strict.because.startswith(f"perhaps worse by more than {margin:g}")


def test_rows_of_a_group_show_no_more_together_than_one() -> None:
    ones = [1.0] * 300
    rules = GateConfig(margin=0.01)
    assert decide(rules, case(ones, ones, groups=range(300))).outcome == "promote"
    paired = decide(rules, case(ones, [0.0] * 4 + ones[4:], groups=[i // 2 for i in range(300)]))
    assert (paired.outcome, "299 such rows" in paired.because) == ("inconclusive", True)


@pytest.mark.parametrize(("rows", "differ"), [(60, 0.04), (60, 0.1), (150, 0.04), (299, 0.02)])
def test_what_is_worse_by_the_margin_is_hardly_ever_let_through(rows: int, differ: float) -> None:
    dice, margin, through = random.Random(rows), 0.02, 0
    for _ in range(400):
        drawn = dice.choices(
            ["worse", "better", "alike"], [(differ + margin) / 2, (differ - margin) / 2, 1 - differ], k=rows
        )
        mine, theirs = [float(d != "worse") for d in drawn], [float(d != "better") for d in drawn]
        through += decide(GateConfig(margin=margin), case(mine, theirs)).outcome == "promote"
    assert through <= 400 * 0.08  # 5 %, and three standard errors


@settings(max_examples=40)
@given(scores)
def test_what_is_promoted_one_way_is_never_promoted_the_other_way_by_superiority(values: list[float]) -> None:
    rules = GateConfig(rule="superiority", margin=0.0)
    other = [1.0] * len(values)
    outcomes = {decide(rules, case(values, other)).outcome, decide(rules, case(other, values)).outcome}
    assert outcomes != {"promote"}


def test_clear_cases() -> None:
    good, bad = flips(800, 0.85, 1), flips(800, 0.60, 2)
    assert decide(GateConfig(), case(good, bad)).outcome == "promote"
    verdict = decide(GateConfig(), case(bad, good))
    assert verdict.outcome == "reject"
    assert verdict.because.startswith("worse: accuracy")
    assert verdict.figures["high"] < 0 < verdict.figures["minimum_detectable"]


def test_too_little_to_tell_is_said_so() -> None:
    assert decide(GateConfig(min_rows=30), case([1.0] * 29, [0.0] * 29)).outcome == "inconclusive"
    close = decide(GateConfig(margin=0.001), case(flips(60, 0.7, 1), flips(60, 0.7, 9)))
    assert close.outcome == "inconclusive"


@pytest.mark.parametrize(
    ("rules", "more", "outcome", "said"),
    [
        ({"max_size_mb": 1}, {"size_mb": 2.0}, "reject", "2.0 MB is larger than 1 MB"),
        ({"max_latency_ms": 5}, {"latency_ms": 9.0}, "reject", "9.00 ms, longer than 5 ms"),
        ({"floors": {"accuracy": 0.99}}, {}, "reject", "below the floor 0.99"),
        ({"floors": {"recall": 0.1}}, {}, "reject", "no recall was measured"),
        ({}, {"load_error": "bytes are missing"}, "reject", "bytes are missing"),
        ({}, {"obstacle": "another champion"}, "not_comparable", "another champion"),
    ],
)
def test_hard_limits(rules: dict, more: dict, outcome: str, said: str) -> None:
    verdict = decide(GateConfig.model_validate(rules), case(flips(100, 0.9, 1), flips(100, 0.5, 1), **more))
    assert (verdict.outcome, said in verdict.because) == (outcome, True)


def test_the_first_model_needs_no_rival() -> None:
    assert decide(GateConfig(), case(flips(40, 0.7, 1))).outcome == "promote"
    assert decide(GateConfig(), case([])).because == "first model: nothing was held out to measure by"
