"""Models from devices on their way through a training: taken when it starts, settled when it has left a model."""

from __future__ import annotations

from collections.abc import Mapping

from evergreen.core.loop import Loop
from evergreen.core.records import Model, Run, Upload
from evergreen.core.states import UploadState


def take(loop: Loop, run: Run) -> Mapping[str, str]:
    """Let a run that starts have every model that waits; return where they lie. The same again for the same run."""
    with loop.ledger.together():
        for waiting in loop.ledger.find(Upload, loop.name, UploadState.PENDING):
            loop.ledger.move(waiting, UploadState.PROCESSING, by="run", because=f"run {run.id} has it", run=run.id)
        return {upload.id: upload.key for upload in _held(loop, run)}


def settle(loop: Loop, run: Run, model: Model) -> None:
    """Write down what became of each in the model. Called in the block that adds the model.

    The recipe tells it in its details: `uploads` = {id: {"weight": 0.3, "why": "…"}}; no weight, no part.
    """
    told = model.details.get("uploads") or {}
    for upload in _held(loop, run):
        said = told.get(upload.id, {})
        weight, why = float(said.get("weight") or 0.0), str(said.get("why") or "the training did not use it")
        if weight > 0:
            loop.ledger.move(
                upload, UploadState.INCORPORATED, by="run", because=why, model=model.id, weight=weight, error=None
            )
        else:
            loop.ledger.move(upload, UploadState.FAILED, by="run", because=why, weight=0.0, error=why)


def give_back(loop: Loop, run: Run) -> None:
    """Let the next training have what this one could not use. Called in the block that ends the run."""
    for upload in _held(loop, run):
        loop.ledger.move(upload, UploadState.PENDING, by="run", because=f"run {run.id} left no model")


def _held(loop: Loop, run: Run) -> list[Upload]:
    return [u for u in loop.ledger.find(Upload, loop.name, UploadState.PROCESSING) if u.run == run.id]
