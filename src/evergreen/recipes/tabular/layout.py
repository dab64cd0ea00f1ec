"""Which numbers the model is given, in which order: learned from the training rows, kept in the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Literal

import msgspec

from evergreen.core.errors import InvalidInput, JobFailed
from evergreen.core.records import Json
from evergreen.recipes.tabular.columns import LARGEST, missing, points
from evergreen.recipes.tabular.labels import spelling
from evergreen.recipes.tabular.options import SequenceOptions, TabularOptions

#: A category of its own needs this many rows; the rarer ones, and unseen ones, are all zeros.
_RARE = 2
_MOST_CATEGORIES = 50


class Column(msgspec.Struct, frozen=True):
    """One feature: `fill` and `flag` (an extra 0/1 for "was missing") of a number, `values` of a category."""

    name: str
    kind: Literal["number", "category"]
    fill: float = 0.0
    flag: bool = False
    values: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many numbers this column becomes."""
        return 1 + self.flag if self.kind == "number" else len(self.values) + 1


class Layout:
    """Turns an input into the numbers a model reads. A missing category is one of its own, the last."""

    def __init__(self, columns: Sequence[Column], sequence: SequenceOptions | None = None) -> None:
        self.columns = tuple(columns)
        self.sequence = sequence
        plain = all(c.kind == "number" and not c.flag for c in self.columns) and sequence is None
        self._plain = [(c.name, c.fill) for c in self.columns] if plain else None
        self._places = {c.name: {value: i for i, value in enumerate(c.values)} for c in self.columns}

    @property
    def width(self) -> int:
        """How many numbers the model reads."""
        return sum(c.width for c in self.columns) + (
            self.sequence.length * len(self.sequence.fields) if self.sequence else 0
        )

    @property
    def spans(self) -> dict[str, tuple[int, int]]:
        """Where the numbers of each feature begin and end."""
        spans, at = {}, 0
        for c in self.columns:
            spans[c.name] = (at, at + c.width)
            at += c.width
        if self.sequence:
            spans[self.sequence.column] = (at, self.width)
        return spans

    def encode(self, value: Json) -> list[float]:
        """Return the numbers for one input. Raises `InvalidInput` where a number was learned and none is given."""
        if self._plain is not None:
            numbers = []
            for name, fill in self._plain:
                v = value.get(name)
                numbers.append(v if v.__class__ is float or v.__class__ is int else _number(name, v, fill))
            return numbers
        return self._encode(value)

    def _encode(self, value: Mapping[str, Json]) -> list[float]:
        numbers: list[float] = []
        for c in self.columns:
            v = value.get(c.name)
            if c.kind == "number":
                numbers.append(v if v.__class__ is float or v.__class__ is int else _number(c.name, v, c.fill))
                if c.flag:
                    numbers.append(1.0 if missing(v) else 0.0)
            else:
                hot = [0.0] * c.width
                place = len(c.values) if missing(v) else self._places[c.name].get(_category(v))
                if place is not None:
                    hot[place] = 1.0
                numbers += hot
        if self.sequence is not None:
            numbers += points(self.sequence, value)
        return numbers

    def to_json(self) -> dict[str, Json]:
        """Return what `from_json` reads."""
        return {
            "columns": [msgspec.to_builtins(c) for c in self.columns],
            "sequence": self.sequence.model_dump() if self.sequence else None,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Layout:
        """Build a layout from a manifest. Raises ValueError if it is not one."""
        columns = msgspec.convert(raw["columns"], list[Column])
        return cls(columns, SequenceOptions(**raw["sequence"]) if raw["sequence"] else None)


def learn(options: TabularOptions, inputs: Sequence[Mapping[str, Json]]) -> Layout:
    """Find the columns, their medians and their categories. Raises `JobFailed` if there is nothing to learn from."""
    names = options.features
    if names is None:
        seen = {name: None for value in inputs for name in value}
        names = tuple(name for name in seen if name not in options.never)
    columns = []
    for name in names:
        column = _column(name, [value.get(name) for value in inputs], options)
        if column is not None:
            columns.append(column)
    if not columns and options.sequence is None:
        raise JobFailed("no column can be learned from: all are empty or lists", kind="configuration")
    return Layout(columns, options.sequence)


def _column(name: str, cells: Sequence[Json], options: TabularOptions) -> Column | None:
    filled = [cell for cell in cells if not missing(cell)]
    numeric = all(cell.__class__ in (int, float) for cell in filled)
    if name not in options.categorical and (numeric or options.features is not None or name in options.ranges):
        numbers = [cell for cell in filled if cell.__class__ in (int, float) and abs(cell) <= LARGEST]
        if not numbers and options.features is None:
            return None
        return Column(name, "number", float(median(numbers)) if numbers else 0.0, len(filled) < len(cells))
    if not all(isinstance(cell, str | int | float) for cell in filled):
        return None
    counts = Counter(_category(cell) for cell in filled)
    frequent = [value for value, n in counts.most_common(_MOST_CATEGORIES) if n >= _RARE]
    return Column(name, "category", values=tuple(sorted(frequent)))


def _category(v: Json) -> str:
    return spelling(v) if isinstance(v, bool | int | float | str) else ""


def _number(name: str, v: Json, fill: float) -> float:
    if missing(v):
        return fill
    raise InvalidInput(f"{name} is {str(v)[:80]!r}, not a number", field=name)
