"""What a person may say about a training: begin one, stop one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evergreen.core import plugins
from evergreen.core.config import Use
from evergreen.core.errors import AlreadyWaiting, ConfigError, Conflict, InvalidInput, NotFound, Refused
from evergreen.core.loop import Loop
from evergreen.core.records import Json, Run
from evergreen.core.states import OPEN_RUNS, RunState
from evergreen.stages.run import uploads


def ask(
    loop: Loop,
    *,
    by: str,
    why: str,
    force: bool = False,
    overrides: Mapping[str, Json] | None = None,
    file: Path | None = None,
) -> Run:
    """Ask for a training; the next tick takes it from there.

    `overrides` change recipe options for this run alone, `file` (inside the folders of `collect.folders`)
    is collected and trained on alone. Raises `AlreadyWaiting` while a training waits or runs,
    `InvalidInput` or `Refused` for what cannot be done.
    """
    overrides = dict(overrides or {})
    try:
        plugins.make("recipes", with_overrides(loop, overrides))
    except ConfigError as e:
        raise InvalidInput(str(e), field=e.field, hint=e.hint) from e
    origin = None
    if file is not None:
        file = allowed(loop, file)
        origin = loop.open_file(file).origin
    asked = Run(
        id=loop.new_id(),
        loop=loop.name,
        state=RunState.REQUESTED,
        why=why,
        by=by,
        force=force,
        overrides=overrides,
        file=str(file) if file is not None else None,
        origin=origin,
    )
    with loop.ledger.together():
        running = loop.ledger.last(Run, loop.name, RunState.RUNNING)
        if running is not None:
            raise AlreadyWaiting(f"a training of {loop.name} is running")
        return loop.ledger.add(asked, by=by, because=why)


def cancel(loop: Loop, *, by: str, why: str) -> Run:
    """Stop the training that waits or runs. Raises `NotFound` if there is none, `Conflict` if it is done."""
    run = loop.ledger.last(Run, loop.name, *OPEN_RUNS)
    if run is None:
        raise NotFound(f"no training of {loop.name} waits or runs")
    if run.state is RunState.RUNNING and run.handle is not None:
        loop.runner.cancel(run.handle)  # the next poll sees it end and moves it
        if loop.runner.poll(run.handle).state == "done":
            raise Conflict(f"the training of {loop.name} has just ended; there is nothing left to stop")
        loop.ledger.note(loop.name, "cancel asked", by=by, because=why)
        return run
    with loop.ledger.together():
        uploads.give_back(loop, run)
        return loop.ledger.move(run, RunState.CANCELLED, by="run", because=f"{by}: {why}", ended=loop.now())


def with_overrides(loop: Loop, overrides: Mapping[str, Json]) -> Use:
    """Return the recipe as one run is to use it."""
    return Use.model_validate({**loop.config.recipe.model_dump(), **overrides})


def allowed(loop: Loop, file: Path) -> Path:
    """Return the path if it is a file inside one of the folders a training may be given files from."""
    path = (loop.home / file).resolve()
    folders = [(loop.home / f).resolve() for f in loop.config.collect.folders]
    if not any(path.is_relative_to(f) for f in folders):
        names = ", ".join(loop.config.collect.folders)
        raise Refused(f"{file} is outside the folders that may be trained from: {names}", field="file")
    if not path.is_file():
        raise InvalidInput(
            f"there is no file {file}", field="file", hint="Give a path below " + ", ".join(map(str, folders))
        )
    return path
