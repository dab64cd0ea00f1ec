"""Trainings as the app's pages, paths and trigger files speak of them: pending, processing, training, completed, failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evergreen.core.loop import Loop
from evergreen.core.records import Experiment, Json, Model, Run
from evergreen.core.states import ExperimentState, ModelState, RunState
from evergreen.templates.backdoor import versions

#: What will not change any more.
ENDED = ("completed", "failed")
#: Longest text of an error, in characters.
_LONGEST = 2000


def status_of(loop: Loop, run: Run, model: Model | None) -> str:
    """Say in the app's words how far a training is, which left `model`: it has not ended before that is settled."""
    if model is not None and not settled(loop, model):
        return "training"
    if run.state in (RunState.REQUESTED, RunState.QUEUED):
        return "processing"
    if run.state is RunState.RUNNING:
        return "processing" if _waits(run) else "training"
    return "completed" if run.state is RunState.SUCCEEDED else "failed"


def message_of(run: Run, name: str | None, model: Model | None) -> str:
    """Say in a sentence how far a training is, or how it ended."""
    if run.state is RunState.REQUESTED:
        return "Taken. The training begins with the next turn."
    if run.state is RunState.QUEUED:
        return "Its samples are frozen; it waits for its turn."
    if run.state is RunState.RUNNING:
        return _under_way(run)
    if run.state is RunState.SUCCEEDED and model is not None:
        return f"Version {name}: {_fate(model)}"
    if run.state is RunState.SKIPPED:
        return f"No training: {run.error or 'there was nothing to learn from'}"[:_LONGEST]
    return f"The training failed: {run.error or run.state.value}"[:_LONGEST]


def _waits(run: Run) -> bool:
    return str(run.progress.get("phase") or "waiting").startswith("waiting")


def _under_way(run: Run) -> str:
    if _waits(run):
        return "It waits for a worker: run the notebook, or `evergreen worker` where the folder can be reached."
    where = run.progress.get("where")
    phase = run.progress.get("phase")
    again = f", attempt {run.attempt}" if run.attempt > 1 else ""
    return f"Under way{f' on {where}' if where else ''}: {phase}{again}."


def _fate(model: Model) -> str:
    because = str(model.verdict.get("because") or "").rstrip(".")
    said = {
        ModelState.CANDIDATE: "trained; the gate judges it",
        ModelState.REJECTED: f"not let through: {because}",
        ModelState.UNDECIDED: f"not put into service, as the comparison decided nothing: {because}",
        ModelState.CHAMPION: f"in service: {because}",
        ModelState.RETIRED: f"was in service: {because}",
        ModelState.ROLLED_BACK: "was taken back",
    }
    return said.get(model.state, f"passed the gate and takes over: {because}")


def model_info(name: str, model: Model) -> dict[str, Json]:
    """Describe a model version: name, scores, size, which models from devices are part of it."""
    details = model.details
    uploads = details.get("uploads") or {}
    return {
        "version": name,
        "number": model.version,
        "state": model.state.value,
        "in_service": model.state is ModelState.CHAMPION,
        "created_at": model.at.isoformat() if model.at else None,
        "scores": dict(model.scores),
        "compared_with": dict(model.rival_scores),
        "verdict": {key: model.verdict.get(key) for key in ("outcome", "because")},
        "training_rows": details.get("n_train"),
        "holdout_rows": details.get("n_holdout"),
        "size_bytes": details.get("size_bytes"),
        "incorporated_user_models": [id for id, said in uploads.items() if (said.get("weight") or 0) > 0],
        "exports": details.get("exports") or [],
        "download": f"/api/ai/models/{name}" if details.get("exports") else None,
    }


def job(loop: Loop, run: Run, name: str | None, model: Model | None) -> dict[str, Json]:
    """Describe one training."""
    progress: Mapping[str, Any] = run.progress
    return {
        "id": run.id,
        "status": status_of(loop, run, model),
        "message": message_of(run, name, model),
        "reason": run.why,
        "force": run.force,
        "triggered_by": run.by,
        "created_at": run.at.isoformat() if run.at else None,
        "started_at": run.started.isoformat() if run.started else None,
        "completed_at": run.ended.isoformat() if run.ended else None,
        "attempt": run.attempt,
        "phase": progress.get("phase", ""),
        "step": progress.get("step", 0),
        "total": progress.get("total", 0),
        "where": progress.get("where"),
        "left_s": progress.get("left_s"),
        "error": run.error,
        "modelVersion": name,
    }


def listed(loop: Loop, limit: int = 50) -> list[dict[str, Json]]:
    """Return the newest trainings, newest first."""
    runs = loop.ledger.find(Run, loop.name, newest_first=True, limit=limit)
    made = {model.run: (name, model) for name, model in versions.all_of(loop) if model.run}  # read last: none is missed
    return [job(loop, run, *made.get(run.id, (None, None))) for run in runs]


def model_of(loop: Loop, run: Run) -> tuple[str, Model] | tuple[None, None]:
    """Return the model that a training left, with its name."""
    if run.state is not RunState.SUCCEEDED:
        return None, None
    return next(((name, model) for name, model in versions.all_of(loop) if model.run == run.id), (None, None))


def settled(loop: Loop, model: Model) -> bool:
    """Say whether it is known what comes of a model: it was turned away, or has got its first share of the traffic.

    More steps of a rollout are not waited for, nor is an experiment, whose end a model that has passed must wait for.
    """
    if model.state is ModelState.PASSED:
        return loop.ledger.last(Experiment, loop.name, ExperimentState.RUNNING) is not None
    return model.state is not ModelState.CANDIDATE
