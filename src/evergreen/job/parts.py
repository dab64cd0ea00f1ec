"""By which parts the held-out rows are told apart: columns, labels, origins; groups and layers."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from evergreen.core.recipe import Recipe, Row, spelt
from evergreen.core.records import Json

#: A column of more different numbers than this is told apart by quarters.
_NUMBERS = 12
#: More parts than this are not looked at one by one: the smallest become one.
_PARTS = 40
_LENGTH = 60
NONE, OTHERS = "(none)", "(others)"


def slices(recipe: Recipe, rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[str]]:
    """Return for each name the part every row belongs to: those asked for, then those the recipe names.

    A name is "label", "origin" or a column of the input ("device", "person.age"). One that no row has is left out.
    """
    found = {name: _told([_value(row, name) for row in rows]) for name in dict.fromkeys(names)}
    own = [recipe.slices(row) for row in rows]
    for name in dict.fromkeys(name for parts in own for name in parts):
        found.setdefault(name, _few([parts.get(name, NONE) for parts in own]))
    return {name: parts for name, parts in found.items() if set(parts) - {NONE}}


def groups(rows: Sequence[Row]) -> list[int]:
    """Number what belongs together (a session, a camera); nothing where every row stands for itself."""
    numbers: dict[str, int] = {}
    found = [numbers.setdefault(f"r{i}" if row.group is None else f"g{row.group}", i) for i, row in enumerate(rows)]
    return found if len(numbers) < len(rows) else []


def strata(recipe: Recipe, rows: Sequence[Row]) -> list[str]:
    """Name the layer of each row; nothing where there is one."""
    found = [recipe.stratum(row) for row in rows]
    return found if len(set(found)) > 1 else []


def _value(row: Row, name: str) -> Json:
    if name == "label":
        return row.label
    if name == "origin":
        return row.origin
    value = row.input
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _told(values: Sequence[Json]) -> list[str]:
    """Write values as names of parts."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    plain = len(numbers) == sum(v is not None for v in values)
    if plain and len(set(numbers)) > _NUMBERS:
        return _quarters(values, sorted(numbers))
    return _few([NONE if v is None or v == "" else spelt(v)[:_LENGTH] for v in values])


def _quarters(values: Sequence[Json], ordered: Sequence[float]) -> list[str]:
    """Tell numbers apart by quarters of the rows."""
    ends = [ordered[min(len(ordered) * q // 4, len(ordered) - 1)] for q in (1, 2, 3)]
    ends = sorted(set(ends))
    names = [f"up to {ends[0]:g}", *(f"over {a:g} to {b:g}" for a, b in pairwise(ends))]
    names.append(f"over {ends[-1]:g}")
    return [NONE if v is None else names[bisect_left(ends, v)] for v in values]


def _few(names: Sequence[str]) -> list[str]:
    """Join the smallest parts where there are too many."""
    counts = Counter(names)
    if len(counts) <= _PARTS:
        return list(names)
    kept = {name for name, _ in counts.most_common(_PARTS - 1)}
    return [name if name in kept else OTHERS for name in names]
