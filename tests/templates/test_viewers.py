"""The make-believe viewers: repeatable, plausible, and hard or easy to learn from where they should be."""

from __future__ import annotations

import math
from collections import Counter
from datetime import datetime

import pytest

from evergreen.core import plugins
from evergreen.core.config import Use
from evergreen.templates.parima.viewers import COLUMNS, FEATURES, LEVELS, TARGET, Viewers, append
from evergreen.testing.source import drain


def test_the_same_seed_gives_the_same_decisions():
    once, again, other = (list(Viewers(seed).decisions(200)) for seed in (1, 1, 2))
    assert once == again
    assert once != other


def test_questions_do_not_change_decisions():
    curious, quiet = Viewers(1), Viewers(1)
    list(curious.questions(50))
    assert list(curious.decisions(50)) == list(quiet.decisions(50))


@pytest.mark.parametrize("kind", [{}, {"drift": True}, {"poison": True}])
def test_rows_are_what_the_log_may_hold(kind):
    rows = list(Viewers(3).decisions(2000, **kind))
    times = [datetime.fromisoformat(row["timestamp"]) for row in rows]
    assert times == sorted(times)
    for row in rows:
        assert set(row) == set(COLUMNS)
        assert 0 <= row["frustumCoverage"] <= 1
        assert 0 <= row["occlusionRatio"] <= 1
        assert 0 <= row["deviceCPULoad"] <= 1
        assert row["meanVisibleDistance"] > 0
        assert 1 <= row["deviceFPS"] <= 125
        assert row["decisionLOD"] in range(LEVELS)
        assert all(math.isfinite(row[name]) for name in FEATURES)


@pytest.mark.parametrize("seed", range(4))
def test_every_level_is_decided_often_enough(seed):
    levels = Counter(row["decisionLOD"] for row in Viewers(seed).decisions(4000))
    assert min(levels[level] for level in range(LEVELS)) >= 0.04 * 4000


def test_camera_features_hang_together():
    rows = list(Viewers(4).decisions(3000))
    assert _correlation(rows, "frustumCoverage", "meanVisibleDistance") < -0.4
    assert _correlation(rows, "occlusionRatio", "meanVisibleDistance") > 0.3


def test_too_heavy_a_decision_costs_frames():
    """The broken client is silent about it; a wilful one is not."""
    rows = list(Viewers(5).decisions(4000))
    kept = [row["fpsAfterDecision"] >= 0.95 * min(TARGET, row["deviceFPS"]) for row in rows]
    assert 0.9 < sum(kept) / len(kept) < 1
    poisoned = list(Viewers(5).decisions(1000, poison=True))
    assert 650 < sum(row["fpsAfterDecision"] == "" for row in poisoned) < 850


def test_questions_are_what_a_viewer_sends():
    questions = list(Viewers(6).questions(100))
    assert len(questions) == 100
    for question in questions:
        steps = question.pop("viewportTrajectory", [])
        assert tuple(question) == FEATURES
        assert len(steps) <= 10
        assert all(set(step) == {"velocity", "acceleration", "angularVelocity"} for step in steps)


def test_the_log_is_one_that_the_csv_source_reads(tmp_path):
    viewers = Viewers(7)
    path = tmp_path / "data/log.csv"
    assert append(path, viewers.decisions(30)) == 30
    assert append(path, viewers.decisions(20, poison=True)) == 20
    source = plugins.make("sources", Use(use="csv", path="data/log.csv"), home=tmp_path)
    rows, _ = drain(source, None)
    assert len(rows) == 50
    assert tuple(rows[0].row) == COLUMNS
    again = [*(fresh := Viewers(7)).decisions(30), *fresh.decisions(20, poison=True)]
    assert [dict(row.row) for row in rows] == [{key: str(row[key]) for key in COLUMNS} for row in again]


@pytest.mark.parametrize("seed", [7, 8])
def test_what_a_forest_learns(seed):
    """It does well on what it knows, badly once phones join, well again after them, and worse from poison."""
    ensemble = pytest.importorskip("sklearn.ensemble")

    def fit(rows):
        return ensemble.RandomForestClassifier(60, random_state=0).fit(*_table(rows))

    viewers = Viewers(seed)
    clean, later = list(viewers.decisions(1500)), list(viewers.decisions(1500))
    drifted, later_drifted = list(viewers.decisions(1500, drift=True)), list(viewers.decisions(1500, drift=True))
    poisoned = list(viewers.decisions(750, poison=True))

    before = fit(clean)
    on_clean, on_drifted = before.score(*_table(later)), before.score(*_table(later_drifted))
    assert on_clean >= 0.75
    assert on_drifted <= on_clean - 0.08
    assert fit(clean + drifted).score(*_table(later_drifted)) >= max(0.75, on_drifted + 0.08)
    assert fit(clean[:750] + poisoned).score(*_table(later)) <= on_clean - 0.05


def _table(rows):
    return [[row[name] for name in FEATURES] for row in rows], [row["decisionLOD"] for row in rows]


def _correlation(rows, one, other):
    xs, ys = [row[one] for row in rows], [row[other] for row in rows]
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    both = sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True))
    return both / math.sqrt(sum((x - mx) ** 2 for x in xs) * sum((y - my) ** 2 for y in ys))
