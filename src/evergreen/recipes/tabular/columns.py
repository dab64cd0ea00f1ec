"""From what the application sends or logs to checked inputs and labels."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import NoReturn

import msgspec

from evergreen.core.errors import InvalidInput
from evergreen.core.recipe import Datum
from evergreen.core.records import Json
from evergreen.recipes.tabular import outcome
from evergreen.recipes.tabular.labels import Labels, as_number
from evergreen.recipes.tabular.options import SequenceOptions, TabularOptions

#: Models read 32-bit floats; anything larger would be infinite to them.
LARGEST = 3.4028234663852886e38
_MISSING = ("", "?")


def missing(cell: Json) -> bool:
    """Say whether a cell is empty: null, "" or "?"."""
    return cell is None or (isinstance(cell, str) and cell.strip() in _MISSING)


class Columns:
    """Checks inputs and reads rows, as the options say. Everything that can be is worked out beforehand."""

    def __init__(self, options: TabularOptions) -> None:
        self._options = options
        self._labels = Labels(options.target, options.classes)
        required, categorical = set(options.required), set(options.categorical)
        names = options.features or tuple(dict.fromkeys((*options.ranges, *options.categorical, *options.required)))
        free = options.features is None
        self._numeric = [
            (name, *options.ranges.get(name, (-LARGEST, LARGEST)), name in required)
            for name in names
            if name not in categorical and (not free or name in options.ranges)
        ]
        numbers = {name for name, *_ in self._numeric}
        self._numbers = frozenset(numbers)
        self._others = [(name, name in categorical, name in required) for name in names if name not in numbers]
        self._texts = frozenset(categorical | ({options.group} if options.group else set()))
        #: Columns that might be learned from although nobody named them; they must not hold NaN either.
        self._strict = free
        self._loose = options.never

    def check(self, value: Json) -> Json:
        """Return the input as it is, or raise `InvalidInput` that names the field."""
        if not isinstance(value, dict):
            raise InvalidInput(f"the input is {_kind(value)}, not an object with members", field="input")
        for name, low, high, required in self._numeric:
            v = value.get(name)
            if (v.__class__ is float or v.__class__ is int) and low <= v <= high:
                continue
            if required or not missing(v):
                self._refuse_number(name, v, low, high, name in value)
        if self._others:
            self._check_others(value)
        if self._options.sequence is not None and value.get(self._options.sequence.column) is not None:
            points(self._options.sequence, value)
        return value

    def sample(self, row: Mapping[str, Json]) -> Datum:
        """Make a datum of a flat row with the target column, or of one with `input` and `label`."""
        nested = row.get("input")
        if isinstance(nested, Mapping):
            return self._nested(row, nested)
        text = True
        value: dict[str, Json] = {}
        for name, cell in row.items():
            if cell.__class__ is str:
                value[name] = self._cell(name, cell)
            else:
                text = text and cell is None
                value[name] = cell if cell.__class__ is int or cell.__class__ is bool else _plain(name, cell)
        options = self._options
        if options.target not in row:
            raise InvalidInput(f"{options.target} is missing", field=options.target)
        label = self._labels.read(row[options.target], text=text)
        value.pop(options.target, None)
        self.check(value)
        weight = outcome.weight(options.outcome, value) if options.outcome else 1.0
        return Datum(value, label, weight, self._group(row))

    def _nested(self, row: Mapping[str, Json], nested: Mapping[str, Json]) -> Datum:
        value = {name: _plain(name, cell) for name, cell in nested.items()}
        self.check(value)
        label = row.get("label")
        weight = row.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= LARGEST:
            raise InvalidInput(f"weight is {weight!r}, not a number from 0 up", field="weight")
        if self._options.outcome and "weight" not in row:
            weight = outcome.weight(self._options.outcome, value)
        read = None if label is None else self._labels.read(label, text=False)
        group = row.get("group")
        return Datum(value, read, float(weight), self._group(value) if group is None else str(group))

    def _group(self, row: Mapping[str, Json]) -> str | None:
        name = self._options.group
        group = row.get(name) if name else None
        return None if group is None or group == "" else str(group)

    def _cell(self, name: str, cell: str) -> Json:
        """Read a cell of text: a number where the column is one, or where it looks like one and nobody says otherwise."""
        if name in self._numbers:
            try:
                number = float(cell)
            except ValueError:
                return None if missing(cell) else cell
            return number if "_" not in cell else cell
        if name == self._options.target:
            return None
        text = cell.strip()
        if text in _MISSING:
            return None
        if name in self._texts:
            return text
        if self._options.sequence and name == self._options.sequence.column:
            return _decoded(name, text)
        if self._strict and name not in self._loose:
            return as_number(text, name)
        try:
            return as_number(text, name)
        except InvalidInput:
            return cell

    def _check_others(self, value: Mapping[str, Json]) -> None:
        for name, categorical, required in self._others:
            v = value.get(name)
            if missing(v):
                if required:
                    raise InvalidInput(f"{name} is missing", field=name)
            elif categorical and not isinstance(v, str | int):
                raise InvalidInput(
                    f"{name} is {_shown(v)}, not a category (text, a whole number, true or false)", field=name
                )

    def _refuse_number(self, name: str, v: Json, low: float, high: float, there: bool) -> NoReturn:
        if not there or missing(v):
            raise InvalidInput(f"{name} is missing", field=name)
        if isinstance(v, bool) or not isinstance(v, int | float):
            raise InvalidInput(f"{name} is {_shown(v)}, not a number", field=name)
        if v != v or abs(v) > LARGEST:
            raise InvalidInput(f"{name} is {_shown(v)}, not a finite number", field=name)
        raise InvalidInput(f"{name} is {_shown(v)}, outside the range from {low:g} to {high:g}", field=name)


def points(options: SequenceOptions, value: Mapping[str, Json]) -> list[float]:
    """Return length × fields numbers, filled up with zeros at the end.

    Raises `InvalidInput` that names the place: `viewportTrajectory[3].velocity`.
    """
    column = options.column
    given = value.get(column)
    if given is None:
        given = []
    if not isinstance(given, list):
        raise InvalidInput(f"{column} is {_kind(given)}, not a list of points", field=column)
    if len(given) > options.length:
        raise InvalidInput(f"{column} has {len(given)} points; at most {options.length} are allowed", field=column)
    numbers: list[float] = []
    for i, point in enumerate(given):
        if not isinstance(point, dict):
            raise InvalidInput(f"{column}[{i}] is {_kind(point)}, not an object", field=f"{column}[{i}]")
        for name in options.fields:
            place = f"{column}[{i}].{name}"
            if name not in point:
                raise InvalidInput(f"{place} is missing", field=place)
            v = point[name]
            if isinstance(v, bool) or not isinstance(v, int | float) or not -LARGEST <= v <= LARGEST:
                raise InvalidInput(f"{place} is {_shown(v)}, not a finite number", field=place)
            numbers.append(v)
    return numbers + [0.0] * (options.length * len(options.fields) - len(numbers))


def _decoded(name: str, text: str) -> Json:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as e:
        raise InvalidInput(f"{name} is {text[:80]!r}, not a list in JSON: {e}", field=name) from e


def _plain(name: str, cell: Json) -> Json:
    """Return what JSON can say; raises `InvalidInput` for NaN, infinity and other things."""
    if not isinstance(name, str):
        raise InvalidInput(f"a row has more cells than columns: {_shown(cell)}", field="row")
    if cell is None or isinstance(cell, bool | int | str):
        return cell
    if isinstance(cell, float):
        if not isfinite(cell):
            raise InvalidInput(f"{name} is {cell}, not a finite number", field=name)
        return cell
    if isinstance(cell, list | tuple):
        return [_plain(name, part) for part in cell]
    if isinstance(cell, Mapping):
        return {key: _plain(name if isinstance(key, str) else key, part) for key, part in cell.items()}
    raise InvalidInput(f"{name} is {_kind(cell)}, which JSON cannot say", field=name)


def _shown(v: Json) -> str:
    return repr(v)[:80] if not isinstance(v, int) or abs(v) < 1e300 else "a number of hundreds of digits"


def _kind(v: Json) -> str:
    names = {
        "NoneType": "null",
        "list": "a list",
        "dict": "an object",
        "str": "text",
        "int": "a number",
        "float": "a number",
    }
    return names.get(type(v).__name__, f"a {type(v).__name__}")
