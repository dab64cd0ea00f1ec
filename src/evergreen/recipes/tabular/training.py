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
from evergreen.recipes.tabular.labels import Labels, key
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
    report: Report = lambda phase, step, total, metrics: None,
) -> Fitted:
    """Learn from rows, oldest first. Raises `JobFailed` where there is nothing to tell apart."""
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


def _classes(options: TabularOptions, rows: list[Row]) -> tuple[list[Row], tuple[Label, ...], dict[str, int]]:
    """Return the rows and classes that can be learned; a class with a single row cannot."""
    labels = Labels(options.target, options.classes)
    counts = Counter(key(labels.read(row.label, text=False)) for row in rows)
    few = {str(name): n for (_, name), n in counts.items() if n < 2}
    kept = [row for row in rows if counts[key(labels.read(row.label, text=False))] >= 2]
    found = {key(c): c for c in (labels.read(row.label, text=False) for row in kept)}
    if len(found) < 2:
        raise JobFailed(
            f"there are {len(rows)} rows to learn from, with {len(found)} class(es) of at least two rows; two are needed",
            kind="configuration",
            hint="Collect more labelled samples, or look at the target column.",
        )
    order = {key(c): i for i, c in enumerate(options.classes or ())}
    ordered = sorted(found, key=lambda k: (order.get(k, 0), k[0], k[1]))
    return kept, tuple(found[k] for k in ordered), few


def _arrays(layout: Layout, rows: Sequence[Row], classes: Sequence[Label]) -> tuple[Any, Any, Any]:
    import numpy as np

    places = {key(c): i for i, c in enumerate(classes)}
    x = np.array([layout.encode(row.input) for row in rows], dtype=np.float32)
    y = np.array([places[key(row.label)] for row in rows])
    return x, y, np.array([row.weight for row in rows], dtype=np.float64)
