"""Drift as functions of values: figures against SciPy's, counts that lose nothing, alarms that do not cry wolf."""

from __future__ import annotations

import random
import string
from math import isclose

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.core.config import DriftConfig
from evergreen.stages.observe.drift import alarm, divergence, sketch, stream
from evergreen.stages.observe.drift.compare import compare, judge
from evergreen.stages.observe.drift.sketch import Pane, Reference

counts = st.lists(st.integers(0, 500), min_size=2, max_size=25)
pairs = st.integers(2, 20).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 300), min_size=n, max_size=n).filter(sum) for _ in range(2)])
)
values = st.none() | st.floats(allow_nan=True) | st.text(max_size=80) | st.lists(st.text(max_size=5), max_size=5)
rows = st.lists(st.dictionaries(st.sampled_from("abcd"), values, max_size=4), max_size=60)
RULES = DriftConfig()


# Figures


@given(st.floats(0, 300), st.integers(1, 60))
def test_the_chance_of_a_chi_square_is_scipy_s(x: float, degrees: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert isclose(divergence.chance(x, degrees), stats.chi2.sf(x, degrees), rel_tol=1e-6, abs_tol=1e-12)


@given(pairs)
def test_distances_are_none_for_equals_and_the_same_both_ways(pair: tuple[list[int], list[int]]) -> None:
    one, two = pair
    assert divergence.psi(one, one) == 0
    assert isclose(divergence.psi(one, two), divergence.psi(two, one), abs_tol=1e-9)
    assert divergence.psi(one, two) >= 0
    assert divergence.jensen_shannon(one, one) < 1e-6
    assert 0 <= divergence.jensen_shannon(one, two) <= 1


@given(pairs)
def test_p_values_are_probabilities_and_larger_for_rows_that_are_worth_less(pair: tuple[list[int], list[int]]) -> None:
    for test in (divergence.kolmogorov_smirnov, divergence.chi_square):
        m, n = map(sum, pair)
        _, p = test(*pair, m, n)
        assert 0 <= p <= 1
        assert divergence.kolmogorov_smirnov(*pair, m / 10, n / 10)[1] >= divergence.kolmogorov_smirnov(*pair, m, n)[1]
        assert test(pair[0], pair[0], m, m)[1] == 1.0


def test_kolmogorov_and_smirnov_s_p_value_is_scipy_s_where_every_value_has_its_bin() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = random.Random(1)
    one, two = ([rng.gauss(at, 1) for _ in range(400)] for at in (0, 0.2))
    ends = sorted([*one, *two])
    binned = []
    for sample in (one, two):
        kept = set(sample)
        binned.append([int(value in kept) for value in ends])
    statistic, p = divergence.kolmogorov_smirnov(*binned, 400, 400)
    theirs = stats.ks_2samp(one, two, method="asymp")
    assert isclose(statistic, theirs.statistic, abs_tol=1e-9)
    assert isclose(p, theirs.pvalue, rel_tol=0.15)


@given(st.lists(st.floats(0, 1), max_size=30))
def test_adjusted_p_values_are_no_smaller_and_in_the_same_order(p: list[float]) -> None:
    adjusted = divergence.holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_rows_of_one_user_are_not_taken_for_independent() -> None:
    rng = random.Random(3)
    alone = [[rng.randrange(10) for _ in range(250)] for _ in range(20)]
    crowd = [[user for _ in range(10) for user in [rng.randrange(10)] * 25] for _ in range(20)]
    binned = [[[part.count(i) for i in range(10)] for part in parts] for parts in (alone, crowd)]
    assert divergence.uneven(binned[0], ordered=True).excess == 1.0
    assert divergence.uneven(binned[0], ordered=False).excess == 1.0
    assert 15 < divergence.uneven(binned[1], ordered=True).excess < 100
    assert 15 < divergence.uneven(binned[1], ordered=False).excess < 100


def test_slow_change_makes_a_long_window_worth_hardly_more_than_a_short_one() -> None:
    parts = [[100 + 5 * i, 200 - 5 * i] for i in range(20)]
    slow = divergence.uneven(parts, ordered=False)
    assert slow.growth > 0.8
    assert divergence.worth(4000, slow.excess, slow.growth, 300) < 2 * divergence.worth(300, slow.excess, 0, 300)


# Counts


@given(rows)
@settings(max_examples=60)
def test_every_row_is_counted_once_for_each_feature(raw: list[dict[str, object]]) -> None:
    described = [sketch.described(row) for row in raw]
    reference = sketch.learn(described)
    pane = sketch.empty(reference)
    for row in described:
        sketch.count(reference, pane, row)
    assert pane.n == reference.rows == len(raw)
    for feature, found in zip(reference.features, pane.counts, strict=True):
        assert sum(found) == sum(feature.counts) == len(raw)
        if not feature.words:  # the reference's own words are judged by the other rows
            assert found == feature.counts
    assert msgspec.json.decode(msgspec.json.encode(reference), type=Reference) == reference
    assert not any(f.drifted for f in judge(compare("inputs", reference, pane), RULES)) or any(
        f.words for f in reference.features
    )


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=300), st.floats(allow_nan=False))
def test_bins_rise_and_none_is_lost(numbers: list[float], value: float) -> None:
    ends = sketch.edges(numbers)
    assert ends == sorted(ends)
    assert len(ends) <= sketch.BINS + 1
    feature = sketch.Feature("x", "number", [0] * (len(ends) + 2), edges=ends)
    assert 0 <= sketch.place(feature, value) <= feature.missing


def test_a_reference_is_small_and_holds_no_rare_text() -> None:
    rng = random.Random(1)
    described = [
        {
            "text": ["".join(rng.choices(string.ascii_lowercase, k=7)) for _ in range(20)],
            "name": f"person {i}",
            "x": rng.gauss(0, 1),
        }
        for i in range(3000)
    ]
    said = msgspec.json.encode(sketch.learn(described))
    assert len(said) < 40_000
    assert b"person" not in said
    assert all(word.encode() not in said for word in described[0]["text"])  # type: ignore[union-attr]


def test_new_words_are_seen_and_old_ones_are_not() -> None:
    rng = random.Random(5)
    known = [f"word{i}" for i in range(500)]
    talk = [{"w": rng.choices(known, k=8)} for _ in range(2000)]
    reference = sketch.learn(talk[:1500])
    for new, drifted in ((0, False), (1, True)):
        pane = sketch.empty(reference)
        for row in talk[1500:]:
            sketch.count(reference, pane, {"w": [*row["w"], *["neologism"] * new]})
        assert any(f.drifted for f in judge(compare("inputs", reference, pane), RULES)) is drifted


# Findings


def _window(reference: Reference, draw: object, n: int = 1000) -> Pane:
    pane = sketch.empty(reference)
    for _ in range(n):
        sketch.count(reference, pane, draw())  # type: ignore[operator]
    return pane


def test_what_has_changed_is_found_and_named() -> None:
    rng = random.Random(7)
    reference = sketch.learn(
        [{"x": rng.gauss(0, 1), "y": rng.gauss(0, 1), "k": rng.choice("ab"), "z": 1.0} for _ in range(3000)]
    )

    def draw() -> dict[str, float | str]:
        row: dict[str, float | str] = {"x": rng.gauss(1, 1), "y": rng.gauss(0, 1), "k": rng.choice("abc")}
        return row | ({"z": 1.0} if rng.random() > 0.2 else {})

    found = judge(compare("inputs", reference, _window(reference, draw)), RULES)
    assert {(f.name, f.check) for f in found if f.drifted} == {
        ("x", "baseline_drift_check"),
        ("k", "categorical_values_check"),
        ("z", "completeness_check"),
    }


def test_small_windows_of_the_same_are_no_drift_whatever_their_index() -> None:
    """Sixty rows against sixty equals have an index beyond 0.2 more often than not; that must say nothing."""
    rng = random.Random(11)
    alarming = 0
    for _ in range(30):
        reference = sketch.learn([{"x": rng.gauss(0, 1)} for _ in range(60)])
        pane = _window(reference, lambda: {"x": rng.gauss(0, 1)}, 60)
        alarming += divergence.psi(reference.features[0].counts, pane.counts[0]) > 0.2
        assert not any(f.drifted for f in judge(compare("inputs", reference, pane), RULES))
    assert alarming > 10


def test_an_alarm_lasts_until_the_effect_is_half_of_what_counts() -> None:
    rng = random.Random(13)
    reference = sketch.learn([{"x": rng.gauss(0, 1)} for _ in range(5000)])
    between = compare("inputs", reference, _window(reference, lambda: {"x": rng.gauss(0.29, 1)}, 3000))
    assert RULES.effect / 2 < between[0].effect < RULES.effect
    assert not judge(between, RULES)[0].drifted
    assert judge(between, RULES, {between[0].key})[0].drifted
    calm = compare("inputs", reference, _window(reference, lambda: {"x": rng.gauss(0.05, 1)}, 3000))
    assert not judge(calm, RULES, {calm[0].key})[0].drifted


@given(st.lists(st.sets(st.sampled_from(["inputs", "outputs", "quality"])), max_size=30))
def test_every_kind_is_told_once_in_an_alarm_and_alarms_are_closed(story: list[set[str]]) -> None:
    known: alarm.Alarm | None = None
    told, heard = [], set[str]()
    for now in story:
        kinds = sorted(now)
        what = alarm.news(known, kinds)
        assert (what == "drift") == bool(now - heard)
        heard = heard | now if now else set()
        told += [what] if what else []
        known = alarm.of(known, kinds, "", "")
        assert alarm.news(known, kinds) is None
    assert told.count("all clear") == sum(bool(a) and not b for a, b in zip([set(), *story], story, strict=False))


# Quality


@given(st.lists(st.tuples(st.integers(1, 2000), st.floats(0, 1)), max_size=120))
@settings(max_examples=60)
def test_what_is_known_of_quality_stays_small_and_adds_up(said: list[tuple[int, float]]) -> None:
    known = stream.Quality()
    for n, share in said:
        known = stream.learn(known, n, int(n * share), 0.05)
        assert len(known.blocks) <= stream.MOST
        assert all(0 <= right <= n for n, right in known.blocks)
        assert 0 <= known.share <= 1
        assert known.judged <= sum(n for n, _ in said)


def test_a_fall_is_told_and_so_is_its_end() -> None:
    rng = random.Random(17)
    known = stream.Quality()
    seen = []
    for share, labels in ((0.9, 2000), (0.6, 600), (0.9, 3000)):
        for _ in range(labels // 10):
            known = stream.learn(known, 10, sum(rng.random() < share for _ in range(10)), 0.05)
        seen.append(known.fallen)
    assert seen == [False, True, False]


def test_a_share_that_rises_or_stays_is_no_fall() -> None:
    rng = random.Random(19)
    known = stream.Quality()
    for share in (0.6, 0.6, 0.8, 0.95):
        for _ in range(150):
            known = stream.learn(known, 10, sum(rng.random() < share for _ in range(10)), 0.05)
            assert not known.fallen
