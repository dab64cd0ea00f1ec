"""A report on a trained model: figures per class, confusion, importance, confidence, and how it came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from evergreen.core.recipe import Row
from evergreen.core.records import Json
from evergreen.recipes.tabular import outcome, pictures
from evergreen.recipes.tabular.labels import Labels, spelling
from evergreen.recipes.tabular.options import TabularOptions
from evergreen.recipes.tabular.predictor import TabularPredictor

_ROWS = 1000
_REPEATS = 3
_BINS = 10
_SHOWN = 20


def write(options: TabularOptions, predictor: TabularPredictor, rows: Sequence[Row], folder: Path) -> None:
    """Write `report.md`, `report.json` and pictures into `folder`."""
    if not rows:
        (folder / "report.md").write_text("# Report\n\nThere are no held-out rows to judge by.\n")
        return
    found = figures(options, predictor, rows)
    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    pictures.confusion(found["confusion"]["labels"], found["confusion"]["matrix"], folder / "confusion.png")
    pictures.importance(_top(found["importance"]), folder / "importance.png")
    pictures.calibration(found["calibration"]["bins"], folder / "calibration.png")
    (folder / "report.md").write_text(_markdown(options, predictor.manifest["details"], found), encoding="utf-8")


def figures(options: TabularOptions, predictor: TabularPredictor, rows: Sequence[Row]) -> dict[str, Any]:
    """Measure a model on held-out rows, oldest first: `accuracy`, `baselines`, `per_class`, `confusion` (rows are
    what is right, columns what was answered), `importance` (accuracy lost when a feature is shuffled) and `calibration`."""
    import numpy as np

    labels = Labels(options.target, options.classes)
    right = [labels.read(row.label, text=False) for row in rows]
    known = {spelling(c): i for i, c in enumerate(predictor.classes)}
    for label in right:  # labels the model was never taught get rows of their own
        known.setdefault(spelling(label), len(known))
    names = list(known)
    x = predictor.matrix([predictor.layout.encode(row.input) for row in rows])
    truth = np.array([known[spelling(label)] for label in right])
    said, probabilities = predictor.decide(x)
    matrix = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(matrix, (truth, said), 1)
    return {
        "rows": len(rows),
        "accuracy": float((truth == said).mean()),
        "baselines": {
            "the most frequent class": float(np.bincount(truth).max() / len(truth)),
            "the label before": float((truth[1:] == truth[:-1]).mean()) if len(truth) > 1 else 0.0,
        },
        "per_class": {name: _class(matrix, i) for i, name in enumerate(names)},
        "confusion": {"labels": names, "matrix": matrix.tolist()},
        "importance": _importance(predictor, x[-_ROWS:], truth[-_ROWS:]),
        "calibration": _calibration(probabilities.max(axis=1), truth == said),
    }


def _class(matrix: Any, i: int) -> dict[str, float | int | None]:
    hit, wanted, said = int(matrix[i, i]), int(matrix[i].sum()), int(matrix[:, i].sum())
    return {
        "n": wanted,
        "precision": round(hit / said, 4) if said else None,
        "recall": round(hit / wanted, 4) if wanted else None,
        "f1": round(2 * hit / (wanted + said), 4) if wanted + said else None,
    }


def _importance(predictor: TabularPredictor, x: Any, truth: Any) -> dict[str, float]:
    """Return the accuracy lost when the cells of one feature are shuffled among the rows (Breiman 2001)."""
    import numpy as np

    rng = np.random.default_rng(0)
    whole = float((predictor.decide(x)[0] == truth).mean())
    lost = {}
    for name, (start, end) in predictor.layout.spans.items():
        kept = []
        for _ in range(_REPEATS):
            mixed = x.copy()
            mixed[:, start:end] = x[rng.permutation(len(x)), start:end]
            kept.append(float((predictor.decide(mixed)[0] == truth).mean()))
        lost[name] = round(whole - sum(kept) / len(kept), 4)
    return dict(sorted(lost.items(), key=lambda item: -item[1]))


def _calibration(confidence: Any, right: Any) -> dict[str, Any]:
    """Return the expected calibration error over ten bins (Naeini et al. 2015), and the bins."""
    import numpy as np

    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins, error = [], 0.0
    for b in range(_BINS):
        inside = place == b
        if inside.any():
            sure, hit, n = float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum())
            bins.append({"confidence": round(sure, 4), "accuracy": round(hit, 4), "n": n})
            error += abs(sure - hit) * n / len(right)
    return {"error": round(error, 4), "bins": bins}


def _top(importance: Mapping[str, float]) -> dict[str, float]:
    return dict(list(importance.items())[:_SHOWN])


def _markdown(options: TabularOptions, details: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    parts = [_head(details, found), _classes(found), _confusion(found), _features(found), _confidence(details, found)]
    return "\n\n".join([*parts, _weights(options, details), _choice(details)]) + "\n"


def _head(details: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    baselines = ", ".join(f"“{name}” {share:.1%}" for name, share in found["baselines"].items())
    return (
        f"# Report: {_named(details['model'])}\n\n"
        f"**{found['accuracy']:.1%} right** on {found['rows']:,} held-out rows, after learning from {details['n_train']:,}.\n"
        f"Answers without a model would be right: {baselines}."
    )


def _classes(found: Mapping[str, Any]) -> str:
    rows = [
        [name, _share(c["precision"]), _share(c["recall"]), _share(c["f1"]), f"{c['n']:,}"]
        for name, c in found["per_class"].items()
    ]
    return (
        "## Classes\n\n"
        "Recall is the accuracy on rows of a class; precision is how often an answer with that class is right.\n\n"
        + _table(["class", "precision", "recall", "F1", "rows"], rows)
    )


def _confusion(found: Mapping[str, Any]) -> str:
    names, matrix = found["confusion"]["labels"], found["confusion"]["matrix"]
    rows = [[f"**{name}**", *(f"{n:,}" for n in line)] for name, line in zip(names, matrix, strict=True)]
    return (
        "## Confusion\n\nOne line for each right label, one column for each answer.\n\n"
        + _table(["right \\ answered", *names], rows)
        + "\n\n![Confusion matrix](confusion.png)"
    )


def _features(found: Mapping[str, Any]) -> str:
    rows = [[name, f"{lost:+.4f}"] for name, lost in _top(found["importance"]).items()]
    more = len(found["importance"]) - len(rows)
    return (
        "## Features\n\nAccuracy lost when the values of a feature are shuffled among held-out rows.\n\n"
        + _table(["feature", "accuracy lost"], rows)
        + (f"\n\n{more} more features are in `report.json`." if more else "")
        + "\n\n![Feature importance](importance.png)"
    )


def _confidence(details: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    rows = [[f"{b['confidence']:.2f}", f"{b['accuracy']:.1%}", f"{b['n']:,}"] for b in found["calibration"]["bins"]]
    return (
        f"## Confidence\n\nConfidence and accuracy differ by {found['calibration']['error']:.3f} on average "
        f"(expected calibration error, ten bins). The temperature is {details['temperature']:g}; it changes no decision.\n\n"
        + _table(["mean confidence", "right", "rows"], rows)
        + "\n\n![Calibration](calibration.png)"
    )


def _weights(options: TabularOptions, details: Mapping[str, Any]) -> str:
    weights = details["weights"]
    said = ["## How rows were weighed"]
    if options.outcome:
        said.append(outcome.sentence(options.outcome, details["outcome"]))
    else:
        said.append(f"{weights['lowered_rows']:,} of {details['n_train']:,} rows came with a weight below 1.")
    life = weights["half_life"]
    said.append(
        f"A row that is {life:,.0f} rows older counts half as much." if life else "Old rows count as much as new ones."
    )
    if weights["class_weight"] == "balanced":
        said.append("Classes count the same in sum, however rare they are.")
    return "\n\n".join(said)


def _choice(details: Mapping[str, Any]) -> str:
    said = ["## How the model was made"]
    cv: Mapping[str, Any] = details["cv"]
    if "tried" in cv:
        rows = [
            [
                _named(t["model"]),
                f"{t['half_life']:,.0f} rows" if t["half_life"] else "none",
                f"{t['accuracy']:.1%}",
                f"{t['log_likelihood']:.4f}",
            ]
            for t in cv["tried"]
        ]
        said.append(f"Tried on {cv['rows']:,} training rows kept back ({cv['folds']}); the best log-likelihood wins.")
        said.append(_table(["model", "half-life", "right", "log-likelihood"], rows))
    elif "note" in cv:
        said.append(f"Nothing was compared: {cv['note']}.")
    if "note" in details:
        said.append(f"Note: {details['note']}.")
    if "left_out" in details:
        few = ", ".join(f"{name} ({n})" for name, n in details["left_out"].items())
        said.append(f"Left out, because a class needs two rows: {few}.")
    said.append(
        f"The ONNX graph decides as scikit-learn does on all {details['decisions_compared']:,} inputs compared: the "
        f"training rows, shuffled and shaken ones, and ones on the thresholds of trees. Training took {details['seconds']:g} s."
    )
    return "\n\n".join(said)


def _named(kind: Json) -> str:
    names = {
        "random_forest": "random forest",
        "svm": "support vectors",
        "logistic": "logistic regression",
        "gradient_boosting": "gradient boosting",
    }
    return names[kind]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table: text to the left, figures to the right."""
    lines = [list(map(_cell, head)), *(list(map(_cell, row)) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    rule = [("-" * w if i == 0 else "-" * max(w - 1, 1) + ":") for i, w in enumerate(widths)]
    laid = [
        [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [laid[0], rule, *laid[1:]])


def _cell(text: str) -> str:
    """Keep names that came from outside from breaking the table or becoming markup."""
    flat = " ".join(text.split())
    return flat.replace("|", "\\|").replace("<", "&lt;")
