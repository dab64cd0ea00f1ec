"""Apply the rule to every candidate, on what the far side measured and what loading it here shows."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec

from evergreen.core.errors import AlreadyWaiting, ConfigError, EvergreenError, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.ports import Evidence
from evergreen.core.records import Model, Run
from evergreen.core.states import ModelState, RunState
from evergreen.stages.gate import golden, reuse, trying
from evergreen.stages.gate.rules import Case, decide

MOVES = {
    "promote": ModelState.PASSED,
    "reject": ModelState.REJECTED,
    "inconclusive": ModelState.UNDECIDED,
    "not_comparable": ModelState.UNDECIDED,
}


#: So many versions are looked back over when counting candidates judged on the same rows.
_LOOKS = 500


def judge(loop: Loop) -> None:
    """Let candidates through, turn them away, or say that it cannot be told."""
    for model in loop.ledger.find(Model, loop.name, ModelState.CANDIDATE):
        champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
        try:
            case, marks = _case(loop, model, champion)
        except (Unavailable, ConfigError, OSError) as e:
            _tell_once(loop, f"v{model.version} cannot be judged now: {e}")
            continue
        if loop.ledger.recall("trouble", f"{loop.name}/gate"):
            loop.ledger.remember("trouble", f"{loop.name}/gate", None)  # told again if it comes back
        verdict = decide(loop.config.gate, case)
        with loop.ledger.together():
            loop.ledger.move(
                model,
                MOVES[verdict.outcome],
                by="gate",
                because=verdict.because,
                verdict={**dataclasses.asdict(verdict), "holdout": marks},
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
        with loop.ledger.together():
            loop.ledger.remember("trouble", f"{loop.name}/gate", because)
            loop.ledger.note(loop.name, "cannot judge", by="gate", because=because)


def _case(loop: Loop, model: Model, champion: Model | None) -> tuple[Case, list[str]]:
    """Gather what is known, and the marks of the holdout.

    Raises `Unavailable`, `ConfigError` or `OSError` where that cannot be told now.
    """
    asked = loop.config.gate.golden
    cases = golden.read(loop.home / asked) if asked else []
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
            return Case(candidate={}, load_error=str(e)), []
        tried = trying.attempt(loop.recipe, folder, cases)
        marks = reuse.marks(evidence.ids)
        size = model.details.get("size_bytes")
        case = Case(
            candidate=evidence.candidate,
            champion=evidence.champion,
            rival=champion.version if champion else None,
            obstacle=_obstacle(model, champion, evidence),
            load_error=tried.error,
            latency_ms=tried.latency_ms,
            size_mb=size / 1e6 if isinstance(size, int | float) else None,
            metrics=loop.recipe.metrics,
            slices=evidence.slices,
            groups=evidence.groups,
            strata=evidence.strata,
            sure=evidence.sure,
            golden=tried.golden,
            looks=reuse.looks(marks, _earlier(loop, model)),
        )
        return case, marks
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _earlier(loop: Loop, model: Model) -> list[list[str]]:
    """Return the marks of the holdouts that earlier candidates were judged on, the newest first."""
    found = loop.ledger.find(Model, loop.name, newest_first=True, limit=_LOOKS)
    return [list(m.verdict.get("holdout", ())) for m in found if m.id != model.id and m.verdict]


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
