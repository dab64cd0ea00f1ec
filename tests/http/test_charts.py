"""Charts: well-formed, told in words, inside their frame, and nothing in them is markup that was not ours."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.http.pages import charts
from evergreen.http.pages.charts import Difference, Point
from evergreen.http.pages.words import Scale

SHARES = Scale(True)
finite = st.floats(-1e6, 1e6, allow_nan=False)


def drawn(svg: object) -> ElementTree.Element:
    return ElementTree.fromstring(str(svg))


def some() -> list[Point]:
    return [
        Point("v1", 0.86, 0.84, 0.88, "former", "retired"),
        Point("v2", 0.83, 0.81, 0.85, "refused", "rejected"),
        Point("v3", 0.89, 0.88, 0.91, "champion", "champion"),
        Point("v4", 0.90, None, None, "coming", "canary"),
    ]


def test_a_chart_of_versions_says_in_words_what_it_shows() -> None:
    svg = drawn(charts.versions(some(), "Accuracy", SHARES))
    assert svg.get("role") == "img"
    assert svg.findtext("title") == "Accuracy over versions"
    assert "v2 83.0\u202f% (81.0–85.0\u202f%), rejected" in (svg.findtext("desc") or "")


def test_states_differ_in_shape_and_not_only_in_colour() -> None:
    svg = drawn(charts.versions(some(), "Accuracy", SHARES))
    shapes = {dot.get("class"): dot.tag for dot in svg.iter() if "dot" in (dot.get("class") or "")}
    assert shapes == {"dot former": "circle", "dot refused": "circle", "dot champion": "path", "dot coming": "circle"}


def test_the_line_leaves_out_what_was_not_let_through() -> None:
    svg = drawn(charts.versions(some(), "Accuracy", SHARES))
    (trend,) = [p for p in svg.iter("path") if p.get("class") == "trend"]
    assert (trend.get("d") or "").count("L") == 2


@given(st.lists(st.tuples(finite, st.floats(0, 1e3)), min_size=1, max_size=60))
def test_every_point_lies_inside_the_frame(figures: list[tuple[float, float]]) -> None:
    points = [Point(f"v{i}", value, value - half, value + half) for i, (value, half) in enumerate(figures)]
    svg = drawn(charts.versions(points, "Score", Scale.of(v for v, _ in figures), 720, 260))
    dots = list(svg.iter("circle"))
    assert len(dots) == len(points)
    assert all(0 <= float(d.get("cx", -1)) <= 720 and 0 <= float(d.get("cy", -1)) <= 260 for d in dots)


@given(finite, finite)
def test_ticks_are_few_rise_and_cover(a: float, b: float) -> None:
    low, high = sorted((a, b))
    marks = charts.ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), 1)
    assert marks == sorted(set(marks))
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack
    assert 2 <= len(marks) <= 7


def test_names_are_text_never_markup() -> None:
    evil = '"><script>alert(1)</script>'
    for svg in (
        charts.versions([Point(evil, 0.5, note=evil)], evil, SHARES),
        charts.sparkline([Point(evil, 0.5, note=evil)], evil, SHARES),
        charts.forest([Difference(evil, 0.1, 0.0, 0.2)], SHARES, 0.01),
        charts.bar(0.3, evil),
    ):
        assert "<script" not in str(svg)
        assert not [e for e in drawn(svg).iter() if e.get("style") or e.tag == "script"]


def test_a_forest_tells_differences_and_draws_the_margin_as_a_band() -> None:
    rows = [Difference("accuracy", 0.009, 0.001, 0.017, decisive=True), Difference("macro f1", -0.004)]
    svg = drawn(charts.forest(rows, SHARES, 0.01))
    said = svg.findtext("desc") or ""
    assert "accuracy +0.9\u202fpoints (+0.1 to +1.7\u202fpoints)" in said
    assert "macro f1 −0.4\u202fpoints" in said
    (band,) = [r for r in svg.iter("rect") if r.get("class") == "band"]
    (zero,) = [r for r in svg.iter("line") if r.get("class") == "zero"]
    middle = float(band.get("x", 0)) + float(band.get("width", 0)) / 2
    assert middle == pytest.approx(float(zero.get("x1", 0)), abs=0.2)


def test_a_chart_of_nothing_is_nothing() -> None:
    assert (
        charts.versions([], "x", SHARES) == charts.sparkline([], "x", SHARES) == charts.forest([], SHARES, None) == ""
    )


@given(st.floats(-2, 3))
def test_a_bar_never_leaves_its_track(share: float) -> None:
    value = drawn(charts.bar(share)).findall("rect")[1].get("width", "")
    assert 0 <= float(value.rstrip("%")) <= 100


def test_every_state_has_a_shape_of_its_own() -> None:
    from evergreen.core.states import ModelState

    assert len({str(charts.mark(s)) for s in ModelState}) == len(ModelState)


def test_an_interval_sits_between_its_ends() -> None:
    svg = drawn(charts.interval(Point("", 0.5, 0.4, 0.6), 0.0, 1.0, 96))
    (whisker,) = [e for e in svg.iter("line") if e.get("class") == "whisker"]
    x = float(svg.find("circle").get("cx", math.nan))  # type: ignore[union-attr]
    assert float(whisker.get("x1", 0)) < x < float(whisker.get("x2", 0))
