"""From rows to a fitted, calibrated model: what is learned, how rows count, how choices are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evergreen.core.errors import JobFailed
from evergreen.core.recipe import Row
from evergreen.core.records import Json
from evergreen.recipes.tabular import choose, models
from evergreen.recipes.tabular.labels import Labels, spelling
from evergreen.recipes.tabular.layout import Layout, learn
from evergreen.recipes.tabular.options import Label, TabularOptions

Report = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Fitted:
    """A model ready for export, with everything worth telling about it."""

    model: models.Model
    layout: Layout
    classes: tuple[Label, ...]
    temperature: float
    x: Any  #: the training rows as the model read them (n × d, 32-bit floats)
    y: Any  #: the places of their classes
    details: Mapping[str, Json] = field(default_factory=dict)


def fit(
    options: TabularOptions,
    rows: Sequence[Row],
    *,
    seed: int = 0,
    threads: int = 1,
    report: Report | None = None,
) -> Fitted:
    """Learn from rows, oldest first. Raises `JobFailed` where there is nothing to tell apart."""
    report = report or _silent
    rows = [row for row in rows if row.weight > 0 and row.label is not None and isinstance(row.input, dict)]
    rows, classes, few = _classes(options, rows)
    layout = learn(options, [row.input for row in rows])
    x, y, given = _arrays(layout, rows, classes)
    timely = all(row.time is not None for row in rows)
    report("read", 1, 1, {"rows": float(len(rows)), "classes": float(len(classes))})
    trial = choose.Trial(x, y, given, options, timely, seed, threads)
    choice = choose.choose(trial, report)
    weights = choose.weights(y, given, choice.half_life, options.class_weight)
    model = models.fit(
        choice.kind,
        x,
        y,
        weights,
        trees=options.trees,
        seed=seed,
        threads=threads,
        step=lambda done, total: report("fit", done, total, {}),
    )
    details: dict[str, Json] = {
        "model": choice.kind,
        "n_train": len(rows),
        "classes": {str(c): int((y == i).sum()) for i, c in enumerate(classes)},
        "features": [c.name for c in layout.columns] + ([layout.sequence.column] if layout.sequence else []),
        "temperature": round(choice.temperature, 4),
        "cv": choice.table,
        "weights": {
            "half_life": choice.half_life,
            "class_weight": options.class_weight,
            "mean_row_weight": round(float(given.mean()), 4),
            "lowered_rows": int((given < 1.0).sum()),
        },
    }
    if few:
        details["left_out"] = few
    if model.rows < len(rows):
        details["note"] = f"support vectors were fitted on {model.rows} of {len(rows)} rows, taken evenly over time"
    return Fitted(model, layout, classes, choice.temperature, x, y, details)


def _silent(phase: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
    """Tell nobody."""


def _classes(options: TabularOptions, rows: list[Row]) -> tuple[list[Row], tuple[Label, ...], dict[str, int]]:
    """Return the rows and classes that can be learned; a class with a single row cannot."""
    labels = Labels(options.target, options.classes)
    found: dict[str, Label] = {}
    for row in rows:
        label = labels.read(row.label, text=False)
        found[spelling(label)] = label
    counts = Counter(spelling(row.label) for row in rows)
    few = {name: counts.pop(name) for name, n in list(counts.items()) if n < 2}
    if len(counts) < 2:
        raise JobFailed(
            f"there are {len(rows)} rows to learn from, with {len(counts)} classes of two rows or more; two are needed",
            kind="configuration",
            hint="Collect more labelled samples, or look at the target column.",
        )
    order = {spelling(c): i for i, c in enumerate(options.classes or ())}
    classes = sorted((found[name] for name in counts), key=lambda c: (order.get(spelling(c), 0), *_natural(c)))
    return [row for row in rows if spelling(row.label) in counts], tuple(classes), few


def _natural(label: Label) -> tuple[bool, float, str]:
    """Sort numbers by size, before texts."""
    text = isinstance(label, str)
    return text, 0.0 if text else float(label), str(label)


def _arrays(layout: Layout, rows: Sequence[Row], classes: Sequence[Label]) -> tuple[Any, Any, Any]:
    import numpy as np

    places = {spelling(c): i for i, c in enumerate(classes)}
    x = np.array([layout.encode(row.input) for row in rows], dtype=np.float32)
    y = np.array([places[spelling(row.label)] for row in rows])
    return x, y, np.array([row.weight for row in rows], dtype=np.float64)
