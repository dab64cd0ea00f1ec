"""The order of things: one loop, one turn; and what a person may ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

from evergreen.core.loop import Loop
from evergreen.core.records import Experiment, Json, Model, Run, Upload
from evergreen.stages import collect, dataset, gate, observe, retain, rollout, run, trigger


def tick(loop: Loop) -> None:
    """Let each stage act once, in order. Safe to repeat, safe to kill."""
    collect.pull(loop)  #                                    sources   -> samples
    data = dataset.latest(loop)  #                           samples   -> what a run would see now
    if due := trigger.look(loop, data):  #                   …         -> a reason to train
        run.queue(loop, dataset.freeze(loop, due), due)  #   a reason  -> a queued run
    run.start(loop)  #                                       queued    -> running
    run.poll(loop)  #                                        running   -> a candidate
    gate.judge(loop)  #                                      candidate -> passed, rejected or undecided
    rollout.advance(loop)  #                                 passed    -> shadow -> canary -> champion
    observe.watch(loop)  #                                   champion  -> alarms
    retain.sweep(loop)  #                                    old files -> gone


def ask(
    loop: Loop,
    *,
    by: str,
    why: str,
    force: bool = False,
    overrides: Mapping[str, Json] | None = None,
    file: Path | None = None,
) -> Run:
    """Ask for a training; the next tick takes it from there. Raises `AlreadyWaiting`, `InvalidInput`, `Refused`."""
    return run.ask(loop, by=by, why=why, force=force, overrides=overrides, file=file)


def cancel(loop: Loop, *, by: str, why: str) -> Run:
    """Stop the training that waits or runs. Raises `NotFound`."""
    return run.cancel(loop, by=by, why=why)


def promote(loop: Loop, version: int, *, by: str, why: str, force: bool = False) -> Model:
    """Make a version champion, now. Raises `NotFound`, `Conflict`, `InvalidInput`."""
    return rollout.promote(loop, version, by=by, why=why, force=force)


def rollback(loop: Loop, *, by: str, why: str = "") -> Model:
    """Take a challenger back, or else put the former champion back, now. Raises `Conflict`."""
    return rollout.rollback(loop, by=by, why=why)


def experiment(
    loop: Loop,
    versions: Sequence[int],
    shares: Sequence[float],
    *,
    by: str,
    why: str,
    metric: Literal["accuracy", "score"] = "accuracy",
    deadline: timedelta | None = None,
    promote: bool = False,
) -> Experiment:
    """Put versions beside the champion, each before a share of the units. Raises `InvalidInput`, `NotFound`, `Conflict`."""
    return rollout.experiment(loop, versions, shares, by=by, why=why, metric=metric, deadline=deadline, promote=promote)


def stop(loop: Loop, *, by: str, why: str = "") -> Experiment:
    """End the experiment that is running. Raises `NotFound`."""
    return rollout.stop(loop, by=by, why=why)


def receive(
    loop: Loop,
    file: Path,
    *,
    name: str,
    by: str = "collect",
    subject: str | None = None,
    description: str = "",
    about: Mapping[str, Json] | None = None,
) -> Upload:
    """Take in a model that a device sent, once it is examined. Raises `InvalidInput` with the reason if it is no use."""
    return collect.receive(loop, file, name=name, by=by, subject=subject, description=description, about=about)
