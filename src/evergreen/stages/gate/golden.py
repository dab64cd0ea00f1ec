"""Golden cases: inputs whose answer is known, asked of a candidate where it would serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from evergreen.core.errors import ConfigError, EvergreenError
from evergreen.core.recipe import Predictor, Recipe
from evergreen.core.records import Json

_LENGTH = 120


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the file of golden cases."""

    input: Json
    expected: Json  #: the decision; of an answer with several parts, those that matter
    must: bool = False  #: a candidate that answers otherwise is turned away
    name: str = ""


@dataclass(frozen=True)
class Answered:
    """A golden case and what a candidate made of it."""

    name: str
    must: bool
    right: bool
    expected: str
    answered: str


def read(path: Path) -> list[Golden]:
    """Read the file. Raises `ConfigError` that names the line."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as e:
        raise ConfigError(f"the golden cases {path.name} cannot be read: {e.strerror or e}", field="gate.golden") from e
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            case = msgspec.json.decode(line, type=Golden)
        except msgspec.MsgspecError as e:
            hint = 'A line is {"input": …, "expected": …}, perhaps with "must": true and a "name".'
            raise ConfigError(f"{path.name}, line {number}: {e}", field="gate.golden", hint=hint) from e
        found.append(msgspec.structs.replace(case, name=case.name or f"line {number}"))
    return found


def ask(recipe: Recipe, predictor: Predictor, cases: Sequence[Golden]) -> list[Answered]:
    """Ask a loaded model every case; one that it cannot answer at all is answered wrongly."""
    return [_ask(recipe, predictor, case) for case in cases]


def _ask(recipe: Recipe, predictor: Predictor, case: Golden) -> Answered:
    try:
        output = predictor.predict([recipe.check(case.input)])[0]
        said = recipe.decision(output)
    except EvergreenError as e:
        return Answered(case.name, case.must, False, _written(case.expected), f"error: {e}"[:_LENGTH])
    right = _meets(case.expected, said) or (isinstance(case.expected, dict) and _meets(case.expected, output))
    return Answered(case.name, case.must, right, _written(case.expected), _written(said))


def _meets(expected: Json, said: Json) -> bool:
    """Compare what is expected with what was said; figures may differ in the sixth digit."""
    if isinstance(expected, dict):
        return isinstance(said, dict) and all(k in said and _meets(v, said[k]) for k, v in expected.items())
    if isinstance(expected, list) and isinstance(said, list):
        return len(expected) == len(said) and all(map(_meets, expected, said))
    if isinstance(expected, bool) or isinstance(said, bool):
        return expected is said
    if isinstance(expected, int | float) and isinstance(said, int | float):
        return abs(expected - said) <= 1e-6 * max(1.0, abs(expected))
    return bool(expected == said)


def _written(value: Json) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _LENGTH else text[: _LENGTH - 1] + "…"
