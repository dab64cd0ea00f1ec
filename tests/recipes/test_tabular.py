"""The tabular recipe keeps every promise of a recipe, with each kind of model."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import pytest

from evergreen.recipes.tabular import Tabular, TabularOptions
from evergreen.testing.recipe import RecipeContract

FEATURES = ("frustumCoverage", "occlusionRatio", "meanVisibleDistance", "deviceFPS", "deviceCPULoad")


def log(n: int, seed: int = 1) -> list[dict[str, str]]:
    """Make up lines of a decision log, all text, as a CSV reader gives them."""
    rng = random.Random(seed)
    lines = []
    for i in range(n):
        cover, hidden, far = rng.random(), rng.random(), rng.lognormvariate(2.4, 0.8)
        fps, cpu = rng.uniform(20, 120), rng.random()
        lod = min(3, max(0, int(3 * hidden + math.log1p(far) / 2 - 2 * cover + (fps < 45) + rng.gauss(0, 0.4))))
        after = min(120.0, fps * (1.0 if rng.random() < 0.8 else 0.5))
        numbers = {name: f"{v:.4f}" for name, v in zip(FEATURES, (cover, hidden, far, fps, cpu), strict=True)}
        lines.append(
            {**numbers, "decisionLOD": str(lod), "fpsAfterDecision": f"{after:.1f}", "timestamp": str(1700000000 + i)}
        )
    return lines


def options(**more: object) -> TabularOptions:
    """Return PARIMA's options, with changes."""
    given: dict[str, object] = {
        "target": "decisionLOD",
        "features": FEATURES,
        "required": FEATURES,
        "ranges": {"frustumCoverage": (0, 1), "occlusionRatio": (0, 1), "deviceCPULoad": (0, 1)},
        "classes": (0, 1, 2, 3, 4, 5),
        "outcome": {"column": "fpsAfterDecision", "before": "deviceFPS"},
        "trees": 20,
    }
    return TabularOptions.model_validate(given | more)


class Contract(RecipeContract):
    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls) -> Sequence[Mapping[str, object]]:
        return log(500)

    @pytest.fixture(scope="class")
    @classmethod
    def bad_rows(cls) -> Sequence[tuple[Mapping[str, object], str]]:
        good = log(1)[0]
        without = {name: cell for name, cell in good.items() if name != "deviceFPS"}
        return [
            (good | {"deviceFPS": "nan"}, "deviceFPS"),
            (good | {"deviceFPS": "inf"}, "deviceFPS"),
            (good | {"deviceFPS": "1e39"}, "deviceFPS"),
            (good | {"deviceFPS": ""}, "deviceFPS"),
            (good | {"deviceFPS": "fast"}, "deviceFPS"),
            (good | {"deviceFPS": "1_0"}, "deviceFPS"),
            (good | {"deviceFPS": True}, "deviceFPS"),
            (without, "deviceFPS"),
            (good | {"frustumCoverage": "1.2"}, "frustumCoverage"),
            (good | {"frustumCoverage": "-0.1"}, "frustumCoverage"),
            (good | {"decisionLOD": "6"}, "decisionLOD"),
            (good | {"decisionLOD": "1.5"}, "decisionLOD"),
            (good | {"decisionLOD": "nan"}, "decisionLOD"),
            (good | {"decisionLOD": ""}, "decisionLOD"),
            (good | {"decisionLOD": None}, "decisionLOD"),
            ({name: cell for name, cell in good.items() if name != "decisionLOD"}, "decisionLOD"),
            (good | {"notes": float("nan")}, "notes"),
            ({"input": {"deviceFPS": "60"}, "label": 1}, "frustumCoverage"),
        ]


class TestForest(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls) -> Tabular:
        return Tabular(options())


class TestBoosting(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls) -> Tabular:
        return Tabular(options(model="gradient_boosting"))


class TestLogistic(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls) -> Tabular:
        return Tabular(options(model="logistic", class_weight="balanced"))


class TestSupportVectors(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls) -> Tabular:
        return Tabular(options(model="svm", calibrate=False))


class TestEverythingChosen(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls) -> Tabular:
        return Tabular(options(model="auto", recency="auto", trees=10))
