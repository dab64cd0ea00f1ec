"""Sequential evidence: what holds for any data, and what it gets wrong, how often, when somebody looks all the time."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from math import comb, exp, inf

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evergreen.core.config import EvidenceConfig
from evergreen.core.ports import Tally
from evergreen.stages.rollout.betting import Hits, Wager, bet
from evergreen.stages.rollout.confidence import Sums, difference, lower, margin, upper
from evergreen.stages.rollout.evidence import Watch, weigh
from evergreen.stages.rollout.ratio import chance

START = datetime(2026, 1, 1, tzinfo=UTC)


@st.composite
def hits(draw: st.DrawFn, most: int = 2000) -> Sums:
    n = draw(st.integers(1, most))
    right = draw(st.integers(0, n))
    return Sums(n, right, right)


@st.composite
def figures(draw: st.DrawFn) -> Sums:
    values = draw(st.lists(st.floats(-100, 100), min_size=2, max_size=30))
    return Sums(len(values), sum(values), sum(v * v for v in values), binary=False)


class TestTheConfidenceSequence:
    @given(hits(), hits(), st.floats(0.001, 0.49))
    def test_swapping_the_variants_turns_it_over(self, a: Sums, b: Sums, alpha: float) -> None:
        one, other = difference([(a, b)]), difference([(b, a)])
        assert lower(one, alpha) == pytest.approx(-upper(other, alpha))

    @given(hits(), hits(), st.floats(0.001, 0.2), st.floats(0.2, 0.49))
    def test_more_certainty_is_a_wider_interval(self, a: Sums, b: Sums, strict: float, lax: float) -> None:
        found = difference([(a, b)])
        if strict < lax:
            assert lower(found, strict) <= lower(found, lax) + 1e-12
        assert lower(found, strict) < found.estimate < upper(found, strict)

    @given(hits(), hits(), st.integers(2, 50))
    def test_more_of_the_same_is_a_narrower_interval(self, a: Sums, b: Sums, times: int) -> None:
        one = margin(difference([(a, b)]), 0.05)
        many = margin(difference([_times(a, b, times)]), 0.05)
        assert many < one

    @given(figures(), figures(), st.floats(0.1, 10), st.floats(-50, 50))
    def test_units_and_zero_do_not_matter(self, a: Sums, b: Sums, factor: float, offset: float) -> None:
        here = difference([(a, b)])
        there = difference([(_linear(a, factor, offset), _linear(b, factor, offset))])
        assert there.estimate == pytest.approx(factor * here.estimate, abs=1e-6)
        assert there.sigma == pytest.approx(factor * here.sigma, rel=1e-3, abs=1e-3)

    def test_nothing_is_known_of_nothing(self) -> None:
        assert lower(difference([]), 0.05) == lower(difference([(Sums(), Sums(5, 5, 5))]), 0.05) == -inf

    def test_steps_are_compared_within_themselves(self) -> None:
        """Everything got worse as the share grew; the challenger is the same in each step."""
        steps = [(Sums(900, 810, 810), Sums(100, 90, 90)), (Sums(100, 50, 50), Sums(900, 450, 450))]
        assert difference(steps).estimate == pytest.approx(0.0)


def _times(a: Sums, b: Sums, times: int) -> tuple[Sums, Sums]:
    return Sums(times * a.n, times * a.total, times * a.squares), Sums(times * b.n, times * b.total, times * b.squares)


def _linear(s: Sums, factor: float, offset: float) -> Sums:
    total = factor * s.total + offset * s.n
    squares = factor**2 * s.squares + 2 * factor * offset * s.total + offset**2 * s.n
    return Sums(s.n, total, squares, binary=False)


class TestTheExactBet:
    @given(
        st.floats(0.01, 0.99),
        st.floats(0, 1),
        st.integers(1, 4),
        st.integers(1, 4),
        st.sampled_from([0.02, 0.1, 0.3]),
        st.sampled_from([0.0, -0.02, -0.1]),
        st.tuples(st.integers(0, 30), st.integers(0, 30)),
    )
    def test_it_wins_nothing_on_average_where_the_null_hypothesis_holds(
        self, rate: float, below: float, n1: int, n2: int, gap: float, null: float, seen: tuple[int, int]
    ) -> None:
        """Its expected gain is computed in full, over every outcome of a batch: fairness, not a simulation of it."""
        assume(rate + null >= 0)
        second = (rate + null) * below
        before = Wager(0.0, Hits(30, seen[0]), Hits(30, seen[1]))
        expected = 0.0
        for r1 in range(n1 + 1):
            for r2 in range(n2 + 1):
                p = comb(n1, r1) * rate**r1 * (1 - rate) ** (n1 - r1)
                p *= comb(n2, r2) * second**r2 * (1 - second) ** (n2 - r2)
                after = bet(before, Hits(30 + n1, seen[0] + r1), Hits(30 + n2, seen[1] + r2), gap=gap, null=null)
                expected += p * exp(after.log_e)
        assert expected <= 1 + 1e-9

    @given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
    def test_it_waits_for_both(self, outcomes: list[tuple[bool, bool]]) -> None:
        so_far, first = Wager(), Hits()
        for arm, right in outcomes:
            if arm:
                first = Hits(first.n + 1, first.right + right)
            so_far = bet(so_far, first, Hits(), gap=0.1)
        assert so_far == Wager()

    @given(st.integers(1, 300), st.data())
    def test_one_more_hit_is_more_evidence(self, n: int, data: st.DataObject) -> None:
        r1, r2 = data.draw(st.integers(0, n)), data.draw(st.integers(0, n - 1))
        one = bet(Wager(), Hits(n, r1), Hits(n, r2), gap=0.1)
        more = bet(Wager(), Hits(n, r1), Hits(n, r2 + 1), gap=0.1)
        assert more.log_e > one.log_e


class TestTheRatioOfUnits:
    @given(st.lists(st.integers(0, 5000), min_size=2, max_size=5), st.randoms())
    def test_the_order_of_arms_does_not_matter(self, counts: list[int], dice: random.Random) -> None:
        shares = [1 / len(counts)] * len(counts)
        mixed = list(counts)
        dice.shuffle(mixed)
        assert chance(counts, shares) == pytest.approx(chance(mixed, shares))
        assert 0 <= chance(counts, shares) <= 1

    def test_shares_that_are_met_raise_no_alarm_and_others_do(self) -> None:
        dice = random.Random(1)
        alarms = 0
        for _ in range(300):
            counts = [0, 0, 0]
            lowest = 1.0
            for _ in range(2000):
                counts[dice.choices((0, 1, 2), (0.6, 0.2, 0.2))[0]] += 1
                if sum(counts) % 20 == 0:
                    lowest = min(lowest, chance(counts, [0.6, 0.2, 0.2]))
            alarms += lowest < 0.05
        assert alarms <= 15
        assert chance([6000, 2000, 1600], [0.6, 0.2, 0.2]) < 0.001
        assert chance([10, 1], [1.0, 0.0]) == 0.0


def _decided(dice: random.Random, rules: EvidenceConfig, rates: tuple[float, float], most: int, share: float) -> str:
    """Let traffic come one by one, look at each, and say what was done."""
    watch = Watch(START, "m", [(Tally(), Tally())])
    n, right = [0, 0], [0, 0]
    for _ in range(most):
        arm = int(dice.random() < share)
        n[arm] += 1
        right[arm] += dice.random() < rates[arm]
        watch, found = weigh(rules, watch, *(Tally(judged=n[i], right=right[i]) for i in (0, 1)))
        if found.do != "wait":
            return found.do
    return "wait"


@pytest.mark.slow
@pytest.mark.parametrize("base", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_decisions_are_seldom_wrong_though_somebody_always_looks(base: float, share: float) -> None:
    dice = random.Random(7)
    rules = EvidenceConfig()
    below = [_decided(dice, rules, (base, base - rules.margin), 1500, share) for _ in range(200)]
    assert below.count("promote") <= 0.05 * 200 + 7  # two standard deviations above
    same = [_decided(dice, rules, (base, base), 1500, share) for _ in range(200)]
    assert same.count("take back") <= rules.harm_alpha * 200 + 10


def test_a_much_worse_one_is_taken_back_before_the_burn_in_and_a_much_better_one_promoted() -> None:
    dice = random.Random(3)
    rules = EvidenceConfig(burn_in=1000)
    worse = [_decided(dice, rules, (0.9, 0.3), 200, 0.5) for _ in range(20)]
    better = [_decided(dice, rules, (0.3, 0.9), 400, 0.5) for _ in range(20)]
    assert worse.count("take back") == 20
    assert better.count("promote") >= 18


def test_figures_are_judged_too() -> None:
    dice = random.Random(5)
    rules = EvidenceConfig(metric="score", margin=0.5, harm=2.0)

    def tally(mean: float) -> Tally:
        values = [dice.gauss(mean, 5) for _ in range(400)]
        return Tally(scored=400, score=sum(values), score_sq=sum(v * v for v in values))

    watch = Watch(START, "m", [(Tally(), Tally())])
    assert weigh(rules, watch, tally(10), tally(12))[1].do == "promote"
    found = weigh(rules, watch, tally(12), tally(10))[1]
    assert (found.do, found.because[:25]) == ("take back", "it is worse: a mean of 10")
    assert weigh(rules, watch, tally(10), tally(10))[1].do == "wait"
    assert weigh(rules, watch, Tally(), Tally())[1].because == "no answer is judged yet"
