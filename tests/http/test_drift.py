"""Drift as it is shown: the part of a loop's page, its pictures, and the same over the API and on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from http_harness import App
from hypothesis import given
from hypothesis import strategies as st

from evergreen.http.pages import drift

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def report(*features: dict[str, Any], **more: Any) -> dict[str, Any]:
    sides = {"inputs": {"reference": 5000, "window": 1000}, "outputs": None}
    base = {"watched": True, "because": "v1 is as it was", "alarm": None, "quality": None, "features": [*features]}
    return base | sides | more


def number(name: str, was: list[int], now: list[int], drifted: bool = False, **check: Any) -> dict[str, Any]:
    ends = [None, *range(len(was) - 2), None]
    bins = [{"from": a, "to": b} for a, b in pairwise(ends)]
    counted = [
        {**b, "reference": r, "window": w} for b, r, w in zip([*bins, {"label": "missing"}], was, now, strict=True)
    ]
    checks = [{"check": "baseline_drift_check", "psi": 0.5, "drifted": drifted} | check]
    return {"of": "inputs", "name": name, "kind": "number", "drifted": drifted, "bins": counted, "checks": checks}


def category(name: str, bins: dict[str, tuple[int, int]], drifted: bool = False) -> dict[str, Any]:
    counted = [{"label": label, "reference": r, "window": w} for label, (r, w) in bins.items()]
    checks = [{"check": "baseline_drift_check", "psi": 0.5, "drifted": drifted}]
    return {"of": "outputs", "name": name, "kind": "category", "drifted": drifted, "bins": counted, "checks": checks}


def test_a_part_says_how_it_stands() -> None:
    alarm = {"since": "2026-03-01T11:00:00+00:00", "kinds": ["inputs"], "because": ""}
    quality = {"judged": 400, "share": 0.7, "before": 0.9, "fallen": True}
    feature = number("age", [5, 5, 5, 0], [1, 1, 9, 4], True, check="completeness_check")
    shown = drift.part(report(feature, alarm=alarm, quality=quality, because="inputs have changed"), NOW)
    assert shown is not None
    assert (shown.tone, shown.sentence) == ("watch", "Inputs have changed.")
    assert shown.since is not None
    assert shown.since.ago == "1 hour ago"
    assert shown.features[0].note == "PSI 0.50 · missing"
    assert (shown.reference, shown.window) == ("5,000 rows", "1,000 predictions")
    assert shown.quality == "70\u202f% of 400 judged answers right; 90\u202f% before"
    assert drift.part(report(), NOW).tone == "empty"  # type: ignore[union-attr]
    assert drift.part({"watched": False}, NOW) is None
    assert drift.part({}, NOW) is None


def test_a_picture_says_in_words_what_it_shows_and_names_are_no_markup() -> None:
    evil = "<script>alert(1)</script>"
    shown = drift.part(report(category(evil, {evil: (90, 10), "other": (10, 90), "missing": (0, 0)}, True)), NOW)
    assert shown is not None
    picture = str(shown.features[0].picture)
    assert "<script" not in picture
    assert "other: 10\u202f% in the reference, 90\u202f% now" in picture
    assert shown.features[0].name == f"answer: {evil}"


@given(st.integers(3, 24).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 999), min_size=n, max_size=n)] * 2)))
def test_any_counts_can_be_drawn(counts: tuple[list[int], list[int]]) -> None:
    shown = drift.part(report(number("x", *counts)), NOW)
    assert shown is not None
    picture = str(shown.features[0].picture)
    assert picture.startswith("<svg")
    assert "nan" not in picture


def test_a_living_loop_has_it_on_its_page_and_over_the_api(app: App) -> None:
    said = app.http.get("/api/toy/drift").json()
    assert said["because"] == "there is no champion yet"
    app.learn("a")
    said = app.http.get("/api/toy/drift").json()
    assert (said["watched"], said["alarm"], said["violations"]) == (True, None, [])
    page = app.http.get("/loops/toy").text
    assert 'id="drift"' in page
    assert said["because"][1:] in page


def test_the_command_line_says_the_same(
    app: App, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, call: Callable[..., str]
) -> None:
    app.learn("a")
    monkeypatch.chdir(app.project.home)
    assert json.loads(call("drift", "--json"))["loop"] == "toy"
    assert "toy: " in call("drift")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command in this process; return what it printed."""

    def calling(*argv: str) -> str:
        from evergreen.cli import main

        capsys.readouterr()
        code = main([*argv])
        assert code in (0, None)
        return capsys.readouterr().out

    return calling
