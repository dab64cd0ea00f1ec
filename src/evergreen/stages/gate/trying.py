"""A candidate loaded as the serving process would: it answers as where it was trained, quickly enough, and the golden cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import msgspec

from evergreen.core.errors import EvergreenError
from evergreen.core.recipe import Recipe
from evergreen.core.records import Json
from evergreen.stages.gate.golden import Answered, Golden, ask


@dataclass(frozen=True)
class Tried:
    """What loading a candidate showed."""

    error: str = ""
    latency_ms: float | None = None
    golden: Sequence[Answered] = ()


def attempt(recipe: Recipe, folder: Path, cases: Sequence[Golden]) -> Tried:
    """Load `folder/model`, compare its answers with those of `folder/evaluation/probes.json`, ask the golden cases."""
    try:
        predictor = recipe.load(folder / "model")
        try:
            probes = _probes(folder / "evaluation" / "probes.json")
            for value, _ in probes[:1]:
                predictor.predict([value])  # to warm up
            start = perf_counter()
            said = [predictor.predict([value])[0] for value, _ in probes]
            latency = (perf_counter() - start) * 1000 / len(probes) if probes else None
            golden = ask(recipe, predictor, cases)
        finally:
            predictor.close()
    except EvergreenError as e:
        return Tried(str(e))
    except Exception as e:  # noqa: BLE001 - whatever a model raises here, it would raise in service
        return Tried(f"{type(e).__name__}: {e}")
    for (_, before), now in zip(probes, said, strict=True):
        if not _alike(before, now):
            return Tried(f"it answers {now!r} here and answered {before!r} where it was trained", latency, golden)
    return Tried("", latency, golden)


def _probes(path: Path) -> list[tuple[Json, Json]]:
    return msgspec.json.decode(path.read_bytes(), type=list[tuple[Json, Json]]) if path.is_file() else []


def _alike(a: Json, b: Json) -> bool:
    """Compare two answers; figures may differ by what another processor's rounding does."""
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b or a == b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= 1e-3 * max(1.0, abs(a), abs(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_alike, a, b))
    return bool(a == b)
