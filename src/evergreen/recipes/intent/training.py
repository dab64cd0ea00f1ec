"""From rows to a fitted, calibrated model: which rows are learned, which say where the scope ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evergreen.core.errors import JobFailed
from evergreen.core.recipe import Row
from evergreen.core.records import Json
from evergreen.recipes.intent import choose, counting, models, words
from evergreen.recipes.intent.choose import Choice, Report
from evergreen.recipes.intent.described import Described
from evergreen.recipes.intent.options import IntentOptions

_FEWEST_GROUPS = 10


@dataclass(frozen=True)
class Fitted:
    """A model ready for export, with everything worth telling about it."""

    described: Described
    model: models.Model
    counted: counting.Counted
    texts: Sequence[str]  #: of the rows learned from
    y: Any  #: the places of their labels
    given: Any  #: their weights
    choice: Choice
    details: dict[str, Json]


def fit(options: IntentOptions, rows: Sequence[Row], *, seed: int, threads: int, report: Report) -> Fitted:
    """Learn from rows. Raises `JobFailed` where there are too few, or nothing to tell apart."""
    import numpy as np

    rows = [row for row in rows if row.weight > 0 and isinstance(row.label, str)]
    if len(rows) < options.min_samples:
        raise JobFailed(
            f"there are {len(rows)} labelled samples to learn from; {options.min_samples} are needed",
            kind="configuration",
            hint="Collect more samples, or set recipe.min_samples lower.",
        )
    outside = [row.input["text"] for row in rows if row.label == options.out_of_scope_label]
    inside, labels, few = _known(options, rows)
    texts = [row.input["text"] for row in inside]
    places = {label: i for i, label in enumerate(labels)}
    y = np.array([places[row.label] for row in inside])
    given = np.array([row.weight for row in inside], dtype=np.float64)
    given = given / given.mean()
    report("count", 0, 1, {"rows": float(len(rows)), "labels": float(len(labels))})
    counted = counting.count(texts, runs=None, least=1) if options.model == "random_forest" else counting.count(texts)
    report("count", 1, 1, {"names": float(len(counted.names))})
    keys = _keys(inside)
    beyond = counting.matrix(counted.names, outside)
    trial = choose.Trial(counted, y, given, keys, beyond, len(labels), options, seed, threads)
    choice = choose.choose(trial, report)
    model = models.fit(
        choice.setting,
        counted,
        y,
        given,
        len(labels),
        seed=seed,
        threads=threads,
        step=lambda done, total: report("fit", done, total, {}),
    )
    names = tuple(counted.names[i] for i in model.counted)
    described = Described(
        names, model.idf, labels, model.described(), choice.temperature, choice.limit, options.out_of_scope_label
    )
    details: dict[str, Json] = {
        "model": choice.setting.kind,
        "c": choice.setting.c if choice.setting.kind == "linear" else None,
        "n_train": len(inside),
        "n_out_of_scope": len(outside),
        "n_classes": len(labels),
        "classes": {label: int(n) for label, n in zip(labels, np.bincount(y), strict=True)},
        "vocabulary": len(names),
        "temperature": round(choice.temperature, 4),
        "limit": choice.limit,
        "limit_why": choice.why,
        "cv": dict(choice.table),
    }
    if few:
        details["left_out"] = few
    return Fitted(described, model, counted, texts, y, given, choice, details)


def _keys(rows: Sequence[Row]) -> list[str]:
    """Return what must stay together in cross-validation: the rows of a group, and those with the same words.

    Groups count only where there are enough of them to be divided.
    """
    grouped = len({row.group for row in rows}) >= _FEWEST_GROUPS
    return [
        f"#{row.group}" if grouped and row.group is not None else f"={words.plain(row.input['text'])}" for row in rows
    ]


def _known(options: IntentOptions, rows: Sequence[Row]) -> tuple[list[Row], tuple[str, ...], dict[str, int]]:
    """Return the rows and intents that can be learned; an intent with a single row cannot."""
    inside = [row for row in rows if row.label != options.out_of_scope_label]
    counts = Counter(row.label for row in inside)
    few = {name: counts.pop(name) for name, n in list(counts.items()) if n < 2}
    if len(counts) < 2:
        raise JobFailed(
            f"there are {len(inside)} samples with an intent, and {len(counts)} intents with two or more; two are needed",
            kind="configuration",
            hint="Collect samples of a second intent, or look at the labels.",
        )
    return [row for row in inside if row.label in counts], tuple(sorted(counts)), few
