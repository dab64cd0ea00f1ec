"""Measuring a model on the rows it has never seen."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from evergreen.core.errors import JobFailed
from evergreen.core.recipe import Predictor, Recipe, Row, Scores, read_rows

_LATENCY_ROWS = 50
_LATENCY_S = 5.0
_BATCH = 64


def holdout(dataset: Path) -> list[Row]:
    """Read the rows to judge by."""
    file = dataset / "holdout" / "holdout.jsonl"
    return list(read_rows(file)) if file.exists() else []


def scores(recipe: Recipe, predictor: Predictor, rows: Sequence[Row]) -> dict[str, list[float]]:
    """Score, and make sure that there is one finite figure per row and metric."""
    if not rows:
        return {}
    found = {name: [float(figure) for figure in figures] for name, figures in recipe.score(predictor, rows).items()}
    for name, figures in found.items():
        if len(figures) != len(rows):
            raise JobFailed(f"The recipe's score gave {len(figures)} figures of {name} for {len(rows)} rows.")
        if not all(map(math.isfinite, figures)):
            raise JobFailed(f"The recipe's score gave a figure of {name} that is not a number.")
    return found


def sure(recipe: Recipe, predictor: Predictor, rows: Sequence[Row]) -> list[tuple[float, float, float]]:
    """Say how sure each answer was and whether it was right, as `Recipe.certainty` reads it; nothing without probabilities."""
    found: list[tuple[float, float, float]] = []
    if not rows or recipe.certainty(predictor.predict([rows[0].input])[0], rows[0].label) is None:
        return found
    for begin in range(0, len(rows), _BATCH):
        batch = rows[begin : begin + _BATCH]
        for row, answer in zip(batch, predictor.predict([row.input for row in batch]), strict=True):
            said = recipe.certainty(answer, row.label)
            if said is None or not all(map(math.isfinite, said)):
                return []
            given, right, of_right = said
            found.append((round(given, 6), float(right), round(of_right, 6)))
    return found


def means(scores: Scores) -> dict[str, float]:
    """Return the mean of each score."""
    return {name: math.fsum(figures) / len(figures) for name, figures in scores.items() if figures}


def latency_ms(predictor: Predictor, rows: Sequence[Row]) -> float | None:
    """Measure the mean time to answer one input, after one to warm up; None without rows."""
    if not rows:
        return None
    predictor.predict([rows[0].input])
    begin, n = time.perf_counter(), 0
    for row in rows[:_LATENCY_ROWS]:
        predictor.predict([row.input])
        n += 1
        if time.perf_counter() - begin > _LATENCY_S:
            break
    return (time.perf_counter() - begin) * 1000 / n
