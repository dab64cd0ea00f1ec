"""The gate's verdict whatever it is given: one of four, the same for both sides, never for what is certainly worse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from evergreen.core.config import GateConfig
from evergreen.core.recipe import Metric
from evergreen.stages.gate.golden import Answered
from evergreen.stages.gate.harm import holm, of_answers, of_figures
from evergreen.stages.gate.rules import Case, decide
from evergreen.stages.gate.statistics import bootstrap

OUTCOMES = ("promote", "reject", "inconclusive", "not_comparable")
RANK = {"reject": 0, "inconclusive": 1, "promote": 2}
figure = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-1e6, 1e6))
pair = st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0]))
pairs = st.lists(pair, min_size=30, max_size=150)


def judged(rules: GateConfig, mine: list[float], theirs: list[float], **more: Any) -> Any:
    return decide(rules, Case({"accuracy": mine}, {"accuracy": theirs}, rival=1, **more))


@st.composite
def cases(draw: st.DrawFn) -> tuple[GateConfig, Case]:
    n = draw(st.integers(0, 60))
    column = st.lists(figure, min_size=n, max_size=n)
    odd = st.one_of(column, st.lists(st.one_of(figure, st.just(float("nan"))), max_size=n))
    names = st.sampled_from(["accuracy", "loss"])
    parts = st.lists(st.sampled_from("abc"), min_size=n, max_size=n)
    sure = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0]), st.floats(0, 1)), max_size=n)
    case = Case(
        candidate=draw(st.dictionaries(names, odd)),
        champion=draw(st.dictionaries(names, odd)),
        rival=draw(st.one_of(st.none(), st.just(1))),
        obstacle=draw(st.sampled_from(["", "", "another champion"])),
        load_error=draw(st.sampled_from(["", "", "", "it is not whole"])),
        latency_ms=draw(st.one_of(st.none(), st.floats(0, 100))),
        size_mb=draw(st.one_of(st.none(), st.floats(0, 100))),
        metrics={"loss": Metric(larger_is_better=False)},
        slices=draw(st.dictionaries(st.sampled_from(["device", "label"]), parts)),
        groups=draw(st.one_of(st.just([]), st.lists(st.integers(0, 9), min_size=n, max_size=n))),
        strata=draw(st.one_of(st.just([]), parts)),
        sure={"candidate": draw(sure)},
        golden=[Answered("g", draw(st.booleans()), draw(st.booleans()), "a", "b")] if draw(st.booleans()) else [],
        looks=draw(st.integers(0, 5)),
    )
    rules = GateConfig(
        metric=draw(names),
        rule=draw(st.sampled_from(["non_inferiority", "superiority"])),
        margin=draw(st.sampled_from([0.0, 0.01, 0.2])),
        floors=draw(st.sampled_from([{}, {"accuracy": 0.5}, {"loss": 3.0}])),
        min_rows=draw(st.sampled_from([1, 30])),
        max_latency_ms=draw(st.sampled_from([None, 50.0])),
        max_size_mb=draw(st.sampled_from([None, 50.0])),
        max_ece=draw(st.sampled_from([None, 0.3])),
        slices=draw(st.sampled_from([(), ("device",), ("device", "label")])),
        slice_rows=draw(st.sampled_from([1, 10])),
        looks=draw(st.sampled_from([1, 3])),
        correct_looks=draw(st.booleans()),
    )
    return rules, case


@settings(max_examples=100, deadline=None)
@given(cases())
def test_every_case_has_one_of_four_outcomes_and_a_reason(given_: tuple[GateConfig, Case]) -> None:
    rules, case = given_
    verdict = decide(rules, case)
    assert verdict.outcome in OUTCOMES
    assert verdict.because
    if case.load_error or any(g.must and not g.right for g in case.golden):
        assert verdict.outcome == "reject"
    if verdict.outcome == "not_comparable":
        assert case.obstacle
    if verdict.outcome == "promote" and case.rival is not None:
        sure = verdict.figures["low"] > (rules.margin if rules.rule == "superiority" else -rules.margin) - 1e-12
        assert sure or (rules.rule == "non_inferiority" and not verdict.figures["worse"])
        assert not any(part["harmed"] for part in verdict.figures["slices"])


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_two_models_that_change_places_have_the_opposite_verdict(rows: list[tuple[float, float]]) -> None:
    mine, theirs = [a for a, _ in rows], [b for _, b in rows]
    rules = GateConfig(rule="superiority", margin=0.0)
    one, other = judged(rules, mine, theirs), judged(rules, theirs, mine)
    assert one.figures["low"] == pytest.approx(-other.figures["high"])
    assert one.figures["mcnemar_p"] == other.figures["mcnemar_p"]
    assert (one.outcome == "promote") == (other.figures["high"] < 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=30, max_size=80))
@example([1e-150] + [0.0] * 29)
def test_a_metric_of_which_less_is_better_is_the_same_turned_round(gains: list[float]) -> None:
    zeros = [0.0] * len(gains)
    up = decide(GateConfig(metric="m"), Case({"m": gains}, {"m": zeros}, rival=1, metrics={"m": Metric()}))
    turned = Case({"m": [-g for g in gains]}, {"m": zeros}, rival=1, metrics={"m": Metric(larger_is_better=False)})
    down = decide(GateConfig(metric="m"), turned)
    assert (up.outcome, up.figures["low"]) == (down.outcome, down.figures["low"])


@settings(max_examples=80, deadline=None)
@given(pairs, st.data())
def test_answering_clearly_more_rows_right_never_makes_the_verdict_worse(
    rows: list[tuple[float, float]], data: st.DataObject
) -> None:
    mine, theirs = [a for a, _ in rows], [b for _, b in rows]
    wrong = [i for i, figure in enumerate(mine) if not figure]
    assume(len(wrong) >= 3)
    mended = set(data.draw(st.lists(st.sampled_from(wrong), min_size=max(3, len(rows) // 20), unique=True)))
    better = [1.0 if i in mended else figure for i, figure in enumerate(mine)]
    before, after = judged(GateConfig(), mine, theirs), judged(GateConfig(), better, theirs)
    assert after.figures["difference"] > before.figures["difference"]
    assert RANK[after.outcome] >= RANK[before.outcome]


@settings(max_examples=60, deadline=None)
@given(st.integers(30, 300), st.data())
def test_what_is_certainly_worse_by_more_than_the_margin_is_turned_away(n: int, data: st.DataObject) -> None:
    lost = data.draw(st.integers(n // 5 + 1, n))
    mine, theirs = [0.0] * lost + [1.0] * (n - lost), [1.0] * n
    assert judged(GateConfig(margin=0.01), mine, theirs).outcome == "reject"


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_only_raises_and_keeps_the_order(chances: list[float]) -> None:
    adjusted = holm(chances)
    assert all(a >= p and a <= 1 for a, p in zip(adjusted, chances, strict=True))
    ranked = [a for _, a in sorted(zip(chances, adjusted, strict=True))]
    assert ranked == sorted(ranked)
    assert min(adjusted, default=0) == min(1.0, min(chances, default=0) * len(chances))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 60), st.sampled_from([0.0, 0.02, 0.1]))
def test_harm_is_surer_the_more_rows_are_worse(better: int, worse: int, same: int, margin: float) -> None:
    n = better + worse + same + 1
    p = of_answers(better, worse, n, margin)
    assert 0 <= p <= 1
    assert of_answers(better, worse + 1, n + 1, margin) <= p + 1e-9 or margin > 0


@pytest.mark.parametrize("t", [-3.0, -1.0, 0.0, 0.5, 2.5])
@pytest.mark.parametrize("n", [6, 30])
def test_figures_are_tested_as_students_test_does(t: float, n: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with the tabular extra")
    spread = [((i % 2) * 2 - 1) * (1 + i / n) for i in range(n)]
    centred = [s - sum(spread) / n for s in spread]
    error = (sum(s * s for s in centred) / (n - 1) / n) ** 0.5
    values = [s + t * error for s in centred]
    assert of_figures(values, (), 0.0) == pytest.approx(stats.t.cdf(t, n - 1), abs=0.004)


def test_rows_of_a_group_count_as_one_draw() -> None:
    values = [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0] * 5
    groups = [i // 4 for i in range(60)]
    alone, together = bootstrap(values, 0.95), bootstrap(values, 0.95, groups=groups)
    assert together.mean == alone.mean
    assert together.high - together.low > 1.3 * (alone.high - alone.low)


def test_layers_of_fixed_size_make_the_interval_narrower() -> None:
    values = [0.0] * 30 + [1.0] * 28 + [0.0, 0.0]
    strata = ["a"] * 30 + ["b"] * 30
    alone, layered = bootstrap(values, 0.95), bootstrap(values, 0.95, strata=strata)
    assert layered.mean == alone.mean
    assert layered.high - layered.low < 0.5 * (alone.high - alone.low)


def test_a_part_that_is_certainly_worse_turns_away_what_is_better_on_the_whole() -> None:
    mine = [1.0] * 300 + [0.0] * 40 + [1.0] * 20
    theirs = [0.0] * 100 + [1.0] * 260
    slices: Mapping[str, list[str]] = {"device": ["phone"] * 300 + ["watch"] * 60}
    verdict = judged(GateConfig(slices=("device",)), mine, theirs, slices=slices)
    assert verdict.outcome == "reject"
    assert verdict.because.startswith(
        "worse by more than 0.02 where device is watch (0.333 against 1.000 on 60 rows): "
    )
    small = judged(GateConfig(slices=("device",), slice_rows=61), mine, theirs, slices=slices)
    assert small.outcome == "promote"
    assert [part["judged"] for part in small.figures["slices"]] == [True, False]
    unknown = judged(GateConfig(slices=("devise",)), mine, theirs)
    assert "nothing was held out by devise" in unknown.because


def test_after_many_looks_it_warns_and_asks_for_more_if_told_to() -> None:
    mine, theirs = [1.0] * 92 + [0.0] * 8, [1.0] * 78 + [0.0] * 7 + [1.0] * 7 + [0.0] * 8
    mild = judged(GateConfig(rule="superiority", margin=0.0), mine, theirs, looks=40)
    assert (mild.outcome, "40 earlier candidates were judged" in mild.because) == ("promote", True)
    strict = judged(GateConfig(rule="superiority", margin=0.0, correct_looks=True), mine, theirs, looks=40)
    assert strict.figures["level"] > 0.999
    assert strict.figures["low"] < mild.figures["low"]
    assert "Mind" not in judged(GateConfig(), mine, theirs, looks=19).because
