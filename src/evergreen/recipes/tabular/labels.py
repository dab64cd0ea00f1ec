"""Reading labels: which are allowed, and of which type they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from evergreen.core.errors import InvalidInput
from evergreen.core.records import Json
from evergreen.recipes.tabular.options import Label


class Labels:
    """The labels of one target column. Two labels are the same if they are spelt the same."""

    def __init__(self, target: str, classes: Sequence[Label] | None) -> None:
        self._target = target
        self._allowed = {spelling(c): c for c in classes} if classes else None

    def read(self, raw: Json, *, text: bool) -> Label:
        """Return the label as its class's own type; `text` says that every cell of the row is text, as in a CSV file.

        Raises `InvalidInput` naming the target if there is no label, or one that is not allowed.
        """
        if isinstance(raw, str):
            raw = raw.strip()
        if raw is None or raw == "":
            raise InvalidInput(f"{self._target} is missing", field=self._target)
        if not isinstance(raw, bool | int | float | str):
            raise InvalidInput(f"{self._target} is {type(raw).__name__}, not a label", field=self._target)
        if isinstance(raw, float) and not isfinite(raw):
            raise self._refusal(raw)
        if self._allowed is not None:
            return self._known(raw, self._allowed)
        if isinstance(raw, str):
            return as_number(raw, self._target) if text else raw
        return int(raw) if isinstance(raw, float) and raw.is_integer() else raw

    def _known(self, raw: Label, allowed: Mapping[str, Label]) -> Label:
        found = allowed.get(spelling(raw))
        if found is None and isinstance(raw, str):
            found = allowed.get(raw.lower()) if raw.lower() in ("true", "false") else None
            if found is None:  # "3.0" for 3
                found = allowed.get(spelling(as_number(raw, self._target)))
        if found is None:
            raise self._refusal(raw)
        return found

    def _refusal(self, raw: Label) -> InvalidInput:
        allowed = f"; allowed are {', '.join(self._allowed)}" if self._allowed else ""
        return InvalidInput(f"{self._target} is {str(raw)[:80]!r}, which is no label{allowed}", field=self._target)


def spelling(label: Label) -> str:
    """Write a label as the keys of `probabilities` have it: bools as JSON does, 3.0 as 3.

    >>> spelling(True), spelling(3.0), spelling("lod")
    ('true', '3', 'lod')
    """
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label)


def as_number(text: str, field: str) -> int | float | str:
    """Return the number a cell spells, or the cell; raises `InvalidInput` for NaN and infinity.

    A number is only one if it says no more than that: "007" stays text.

    >>> as_number("3", "lod"), as_number("0.5", "lod"), as_number("007", "lod")
    (3, 0.5, '007')
    """
    try:
        number = float(text)
    except ValueError:
        return text
    if not isfinite(number):
        raise InvalidInput(f"{field} is {text!r}, not a finite number", field=field)
    if number.is_integer() and abs(number) < 2**53:
        whole = int(number)
        digits = text.removeprefix("-").removeprefix("+")
        if digits.isdigit():
            return whole if len(digits) == 1 or digits[0] != "0" else text
        return whole if "_" not in text else text
    return number if "_" not in text else text
