"""A training's report, fetched from the store once and read as data; nothing of it is trusted to be markup."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from markupsafe import Markup

from evergreen.core.errors import Corrupt, NotFound
from evergreen.core.loop import Loop
from evergreen.core.records import Json, Model
from evergreen.http.pages import charts, prose, words

#: A larger report is not shown.
MAX_BYTES = 4 * 1024 * 1024
#: More classes than this make no readable matrix; more features no readable bars.
CLASSES, FEATURES = 24, 20
#: Parts that are shown as tables of their own.
_TABLES = ("per_class", "confusion", "confusion_matrix", "importance", "feature_importance")


@dataclass(frozen=True)
class Cell:
    """One field of the confusion matrix."""

    n: str
    heat: int  #: 0 to 9: its share of the row
    right: bool


@dataclass(frozen=True)
class Report:
    """What a training says of itself."""

    columns: Sequence[str] = ()
    per_class: Sequence[tuple[str, Sequence[str]]] = ()
    labels: Sequence[str] = ()
    matrix: Sequence[tuple[str, Sequence[Cell]]] = ()
    importance: Sequence[tuple[str, str, Markup]] = ()
    facts: Sequence[tuple[str, str]] = ()
    text: Markup | None = None  #: the report for people, where there are no figures
    trouble: str = ""  #: why there is none

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.per_class or self.matrix or self.importance or self.facts or self.text or self.trouble)


@dataclass(frozen=True)
class _Raw:
    figures: Mapping[str, Json] = field(default_factory=dict)
    text: str = ""


def of(loop: Loop, model: Model) -> Report:
    """Read the report of the training that made a model (blocking)."""
    key = model.details.get("evaluation")
    if not isinstance(key, str):
        return Report()
    folder = loop.state / "cache" / "evaluations" / re.sub(r"[^A-Za-z0-9_-]+", "-", key)
    try:
        if not folder.is_dir():
            loop.store.get(key, folder)
        raw = _read(folder / "report")
    except NotFound:
        return Report()
    except Corrupt as e:
        return Report(trouble=str(e))
    return view(raw.figures, raw.text)


def _read(folder: Path) -> _Raw:
    figures, text = folder / "report.json", folder / "report.md"
    found = msgspec.json.decode(b"{}")
    for path in (figures, text):
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise Corrupt(f"the report is larger than {words.size(MAX_BYTES)}: {path.name}")
    if figures.is_file():
        try:
            found = msgspec.json.decode(figures.read_bytes())
        except msgspec.DecodeError as e:
            raise Corrupt(f"the report cannot be read: {e}") from e
    said = text.read_text(encoding="utf-8", errors="replace") if text.is_file() else ""
    return _Raw(found if isinstance(found, Mapping) else {}, said)


def view(figures: Mapping[str, Json], text: str = "") -> Report:
    """Turn a report's figures into tables; every part is optional, and what is not understood is left out."""
    columns, classes = _classes(figures.get("per_class"))
    labels, matrix = _confusion(figures)
    importance = _importance(figures.get("importance") or figures.get("feature_importance"))
    facts = [(words.metric(k).capitalize(), words.plain(v)) for k, v in _flat(figures) if len(str(v)) <= 200]
    figured = bool(classes or matrix or importance)
    return Report(
        columns, classes, labels, matrix, importance, facts, None if figured or not text.strip() else prose.html(text)
    )


def _flat(figures: Mapping[str, Json]) -> Iterator[tuple[str, str | float]]:
    """Yield single figures, and those one storey below: {"baselines": {"guess": 0.4}}."""
    for name, value in figures.items():
        if isinstance(value, str | int | float):
            yield name, value
        elif isinstance(value, Mapping) and name not in _TABLES:
            yield from ((f"{name}: {k}", v) for k, v in value.items() if isinstance(v, str | int | float))


def _figure(value: object, column: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–" if value is None or isinstance(value, float) else words.cut(str(value), 40)
    if isinstance(value, int) and column in ("n", "rows", "support", "count"):
        return words.count(value)
    return words.percent(value) if 0 <= value <= 1 else words.plain(float(value))


def _classes(found: Any) -> tuple[Sequence[str], Sequence[tuple[str, Sequence[str]]]]:
    """Read figures per class: {class: {column: figure}}, {class: figure} or [{"class": …, column: figure}]."""
    rows: list[tuple[str, Mapping[str, Any]]] = []
    if isinstance(found, Mapping):
        rows = [(str(k), v if isinstance(v, Mapping) else {"accuracy": v}) for k, v in found.items()]
    elif isinstance(found, Sequence) and not isinstance(found, str):
        for row in found:
            if isinstance(row, Mapping) and (name := row.get("class", row.get("label"))) is not None:
                rows.append((str(name), {k: v for k, v in row.items() if k not in ("class", "label")}))
    columns = list(
        dict.fromkeys(c for _, figures in rows for c, v in figures.items() if not isinstance(v, list | dict))
    )
    return [words.metric(str(c)) for c in columns], [(n, [_figure(f.get(c), c) for c in columns]) for n, f in rows]


def _confusion(figures: Mapping[str, Json]) -> tuple[Sequence[str], Sequence[tuple[str, Sequence[Cell]]]]:
    found: Any = figures.get("confusion") or figures.get("confusion_matrix")
    labels: Any = figures.get("labels") or figures.get("classes")
    if isinstance(found, Mapping):
        labels, found = (
            found.get("labels") or found.get("classes") or labels,
            found.get("matrix") or found.get("counts"),
        )
    if not isinstance(found, Sequence) or not isinstance(labels, Sequence) or len(found) != len(labels):
        return (), ()
    square = all(isinstance(row, Sequence) and len(row) == len(labels) for row in found)
    if not square or len(labels) > CLASSES or not all(isinstance(n, int | float) for row in found for n in row):
        return (), ()
    names = [str(x) for x in labels]
    return names, [(name, list(_cells(row, i))) for i, (name, row) in enumerate(zip(names, found, strict=True))]


def _cells(row: Sequence[float], right: int) -> Iterator[Cell]:
    total = sum(row) or 1
    for i, n in enumerate(row):
        heat = 0 if n <= 0 else min(9, max(1, math.ceil(9 * n / total)))
        yield Cell(words.count(int(n)), heat, i == right)


def _importance(found: Any) -> Sequence[tuple[str, str, Markup]]:
    """Read importances: {feature: figure}, [[feature, figure]] or [{"feature": …, "importance": …}]."""
    pairs: list[tuple[str, float]] = []
    if isinstance(found, Mapping):
        found = list(found.items())
    for entry in found if isinstance(found, Sequence) and not isinstance(found, str) else ():
        if isinstance(entry, Mapping):
            name = next((entry[k] for k in ("feature", "name", "column") if k in entry), None)
            value = next((entry[k] for k in ("importance", "mean", "drop", "value") if k in entry), None)
        elif isinstance(entry, Sequence) and len(entry) == 2:
            name, value = entry
        else:
            continue
        if isinstance(value, int | float) and math.isfinite(value) and name is not None:
            pairs.append((str(name), float(value)))
    pairs = sorted(pairs, key=lambda p: -p[1])[:FEATURES]
    top = max((abs(v) for _, v in pairs), default=0) or 1
    return [(name, words.signed(f"{v:.3g}"), charts.bar(v / top)) for name, v in pairs]
