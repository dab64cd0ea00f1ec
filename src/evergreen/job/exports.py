"""Files for other systems that a recipe left beside its model: each must decide as the model does, or all has failed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from evergreen.core import plugins
from evergreen.core.config import Use
from evergreen.core.errors import ConfigError, EvergreenError, JobFailed
from evergreen.core.ports import Format
from evergreen.core.recipe import Predictor, Recipe, Row
from evergreen.core.records import Json

_BATCH = 64
#: How long one file is compared; what was compared by then counts.
_TIME_S = 30.0
#: Share of rows that may differ: where two answers are equally likely, rounding decides.
_TIES = 0.005


def files(artifact: Path) -> list[Path]:
    """List what a recipe exported."""
    return sorted(path for path in (artifact / "exports").glob("*") if path.is_file())


def check(
    recipe: Recipe, predictor: Predictor, rows: Sequence[Row], found: Sequence[Path], scratch: Path
) -> list[dict[str, Json]]:
    """Read each file back as a stranger's would be, compare decisions; raise `JobFailed` for one that differs.

    Returns for each: file, format, on how many rows it was compared, and the share on which it agreed. A predictor of
    several models may tell by `exported` which of them its exports hold; that one is then compared.
    """
    predictor = getattr(predictor, "exported", predictor)
    return [_checked(recipe, predictor, rows, file, scratch / file.name) for file in found]


def _checked(recipe: Recipe, predictor: Predictor, rows: Sequence[Row], file: Path, folder: Path) -> dict[str, Json]:
    name, reader = _format(file)
    folder.mkdir(parents=True)
    try:
        exported = recipe.adopt(folder, reader.read(file, folder))
    except ConfigError:
        raise
    except EvergreenError as e:
        raise JobFailed(f"The export {file.name} cannot be read back: {e}", hint=e.hint) from e
    try:
        compared, differ = _compare(recipe, predictor, exported, rows)
    finally:
        exported.close()
    if differ and len(differ) > _TIES * compared:
        row, ours, theirs = differ[0]
        raise JobFailed(
            f"The export {file.name} decides otherwise than the model on {len(differ)} of {compared} rows; "
            f"on row {row} it says {theirs!r}, the model {ours!r}."
        )
    agree = 1 - len(differ) / compared if compared else None
    return {"file": file.name, "format": name, "rows": compared, "agree": agree}


def _compare(
    recipe: Recipe, predictor: Predictor, exported: Predictor, rows: Sequence[Row]
) -> tuple[int, list[tuple[str, Json, Json]]]:
    """Return how many rows were compared, and those that differ: id, our decision, the export's."""
    until, compared, differ = time.monotonic() + _TIME_S, 0, []
    for begin in range(0, len(rows), _BATCH):
        batch = rows[begin : begin + _BATCH]
        inputs = [row.input for row in batch]
        for row, ours, theirs in zip(batch, predictor.predict(inputs), exported.predict(inputs), strict=True):
            decisions = recipe.decision(ours), recipe.decision(theirs)
            if decisions[0] != decisions[1]:
                differ.append((row.id, *decisions))
        compared += len(batch)
        if time.monotonic() > until:
            break
    return compared, differ


def _format(file: Path) -> tuple[str, Format]:
    for name in plugins.names("formats"):
        if file.suffix.lower() in plugins.load("formats", name).suffixes:
            reader: Format = plugins.make("formats", Use(use=name))
            return name, reader
    raise JobFailed(f"No installed format reads the export {file.name}, so nobody can tell whether it is right.")
