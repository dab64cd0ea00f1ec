"""Apply the rule to every candidate, on what the far side measured and what loading it here shows."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import msgspec

from evergreen.core.errors import AlreadyWaiting, EvergreenError, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.ports import Evidence
from evergreen.core.records import Json, Model, Run
from evergreen.core.states import ModelState, RunState
from evergreen.stages.gate.rules import Case, decide

MOVES = {
    "promote": ModelState.PASSED,
    "reject": ModelState.REJECTED,
    "inconclusive": ModelState.UNDECIDED,
    "not_comparable": ModelState.UNDECIDED,
}


def judge(loop: Loop) -> None:
    """Let candidates through, turn them away, or say that it cannot be told."""
    for model in loop.ledger.find(Model, loop.name, ModelState.CANDIDATE):
        champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
        try:
            case = _case(loop, model, champion)
        except (Unavailable, OSError) as e:
            _tell_once(loop, f"v{model.version} cannot be judged now: {e}")
            continue
        verdict = decide(loop.config.gate, case)
        with loop.ledger.together():
            loop.ledger.move(
                model,
                MOVES[verdict.outcome],
                by="gate",
                because=verdict.because,
                verdict=dataclasses.asdict(verdict),
                rival_scores={m: sum(v) / len(v) for m, v in case.champion.items() if v},
                since=loop.now(),
            )
            if verdict.outcome == "not_comparable" and champion is not None and model.base != champion.id:
                _ask_again(loop, model, champion)


def _ask_again(loop: Loop, model: Model, champion: Model) -> None:
    """Train the same once more against the champion of now; not a third time, however often that changes."""
    run = loop.ledger.get(Run, model.run) if model.run is not None else None
    if run is None or run.by == "gate":
        return
    why = f"v{champion.version} became champion while v{model.version} was trained"
    again = Run(
        id=loop.new_id(),
        loop=loop.name,
        state=RunState.REQUESTED,
        why=why,
        by="gate",
        force=True,
        overrides=run.overrides,
        file=run.file,
        origin=run.origin,
    )
    with suppress(AlreadyWaiting):  # the one that waits will do
        loop.ledger.add(again, by="gate", because=why)


def _tell_once(loop: Loop, because: str) -> None:
    if loop.ledger.recall("trouble", f"{loop.name}/gate") != because:
        loop.ledger.remember("trouble", f"{loop.name}/gate", because)
        loop.ledger.note(loop.name, "cannot judge", by="gate", because=because)


def _case(loop: Loop, model: Model, champion: Model | None) -> Case:
    """Gather what is known. Raises `Unavailable` or `OSError` where that cannot be told now."""
    work = loop.state / "work"
    work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"judge-{model.id}-", dir=work))  # of its own: another may judge it, too
    try:
        try:
            evidence = _evidence(loop, model, folder)
            loop.store.get(model.key, folder / "model")
        except (Unavailable, OSError):
            raise
        except (EvergreenError, msgspec.MsgspecError) as e:
            return Case(candidate={}, load_error=str(e))
        error, latency = _try(loop, folder)
        size = model.details.get("size_bytes")
        return Case(
            candidate=evidence.candidate,
            champion=evidence.champion,
            rival=champion.version if champion else None,
            obstacle=_obstacle(model, champion, evidence),
            load_error=error,
            latency_ms=latency,
            size_mb=size / 1e6 if isinstance(size, int | float) else None,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _evidence(loop: Loop, model: Model, folder: Path) -> Evidence:
    """Fetch what was measured, row by row."""
    evaluation = model.details.get("evaluation")
    if evaluation:
        loop.store.get(str(evaluation), folder / "evaluation")
    path = folder / "evaluation" / "evidence.json"
    return msgspec.json.decode(path.read_bytes(), type=Evidence) if path.is_file() else Evidence()


def _obstacle(model: Model, champion: Model | None, evidence: Evidence) -> str:
    """Say why candidate and champion cannot be compared, if so."""
    if champion is None:
        return ""
    if model.base != champion.id:
        return f"it was measured against another model than v{champion.version}, which is champion now; train again"
    if error := model.details.get("champion_error"):
        return f"v{champion.version} could not be measured on these rows: {error}"
    if not evidence.champion and evidence.candidate:
        return f"v{champion.version} was not measured on these rows"
    return ""


def _try(loop: Loop, folder: Path) -> tuple[str, float | None]:
    """Load a candidate as the serving process would, and see that it answers as it did where it was trained."""
    try:
        predictor = loop.recipe.load(folder / "model")
        try:
            probes = _probes(folder / "evaluation" / "probes.json")
            for value, _ in probes[:1]:
                predictor.predict([value])  # to warm up
            start = perf_counter()
            said = [predictor.predict([value])[0] for value, _ in probes]
            latency = (perf_counter() - start) * 1000 / len(probes) if probes else None
        finally:
            predictor.close()
    except EvergreenError as e:
        return str(e), None
    except Exception as e:  # noqa: BLE001 - whatever a model raises here, it would raise in service
        return f"{type(e).__name__}: {e}", None
    for (_, before), now in zip(probes, said, strict=True):
        if not _alike(before, now):
            return f"it answers {now!r} here and answered {before!r} where it was trained", latency
    return "", latency


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
