"""Follow a training to its verdict, turning the loop here if no server does."""

from __future__ import annotations

import json
import time
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING

from evergreen.cli import terminal
from evergreen.cli.opening import server
from evergreen.core.errors import EvergreenError, JobFailed, Stale

if TYPE_CHECKING:
    from evergreen.core.loop import Loop
    from evergreen.core.records import Model, Run
    from evergreen.project import Project
    from evergreen.worker import Leases

#: Seconds between two looks.
LOOK = 0.1
#: Seconds that a running server is given to follow the ledger; it takes a quarter of one.
PATIENCE = 5.0


def follow(project: Project, loop: Loop, run: Run) -> Model | None:
    """Show progress until the run has ended and its candidate is judged; return the model, None if there is none.

    A model that passed and waits for others, or that cannot be judged now, is not waited for.
    """
    from evergreen import worker
    from evergreen.core.records import Model, Run
    from evergreen.core.states import OPEN_RUNS, ModelState

    leases = worker.Leases(worker.holder())
    unsettled = (ModelState.CANDIDATE, ModelState.PASSED)  # judged and on its first step a moment later
    waits = 0.0
    try:
        with terminal.progress() as show:
            while True:
                turned = _turn(project, loop, leases)
                run = loop.ledger.get(Run, run.id)
                made = [m for m in loop.ledger.find(Model, loop.name, newest_first=True, limit=5) if m.run == run.id]
                if run.state not in OPEN_RUNS and (not made or made[0].state not in unsettled):
                    break
                if run.state not in OPEN_RUNS and (made[0].state is ModelState.PASSED or trouble(loop)):
                    waits += LOOK
                    if waits > PATIENCE:
                        break
                said = run.progress
                phase = str(said.get("phase") or run.state)
                show(phase, int(said.get("step") or 0), int(said.get("total") or 0))
                time.sleep(LOOK)
        if not turned:
            until_served(project, loop)
        return loop.ledger.get(Model, made[0].id) if made else None
    finally:
        leases.give_back(loop)


def trouble(loop: Loop) -> str | None:
    """Say why candidates cannot be judged now, if so."""
    return loop.ledger.recall("trouble", f"{loop.name}/gate")


def until_served(project: Project, loop: Loop) -> None:
    """Wait, for a few seconds, until a running server answers with the champion that the ledger names."""
    from evergreen.core.records import Model
    from evergreen.core.states import ModelState

    running = server(project)
    champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
    if running is None or champion is None:
        return
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{running['url']}/health", timeout=PATIENCE) as answer:  # noqa: S310 - our own
                if json.load(answer)["loops"][loop.name]["version"] == champion.version:
                    return
        except (OSError, ValueError, KeyError):
            return  # it has ended, or is another program: nothing to wait for
        time.sleep(LOOK)


def _turn(project: Project, loop: Loop, leases: Leases) -> bool:
    """Tick the loop unless another process does; say whether it was ticked here."""
    from evergreen import engine

    if not leases.mine(loop):
        return False
    with suppress(Stale):  # somebody was faster with one step; the next turn looks again
        engine.tick(loop)
    for door in project.doors:
        door.watch(loop)
    return True


def tell(loop: Loop, run: Run, model: Model | None) -> None:
    """Print what came of a training. Raises `JobFailed` if it failed."""
    from evergreen.core.records import Run
    from evergreen.core.states import ModelState, RunState

    run = loop.ledger.get(Run, run.id)
    if model is None:
        if run.state is RunState.FAILED:
            raise JobFailed(f"the training failed: {run.error}", hint=f"evergreen history {loop.name}")
        if run.state is RunState.SKIPPED:
            raise EvergreenError(f"nothing was trained: {run.error}", hint="Collect more, or train with --force.")
        raise EvergreenError(f"the training was {run.state}")
    verdict = str(model.verdict.get("outcome", "")).replace("_", " ")
    because = model.verdict.get("because") or trouble(loop) or ""
    print(f"v{model.version}: {verdict or 'not judged'}. {because}".rstrip())
    metrics = sorted({*model.scores, *model.rival_scores})
    if metrics:
        rows = [[m, terminal.figure(model.scores.get(m)), terminal.figure(model.rival_scores.get(m))] for m in metrics]
        terminal.table(["metric", f">v{model.version}", ">champion then"], rows)
    later = {
        ModelState.CANDIDATE: "; it is judged once that is put right, with a server or `evergreen train` running",
        ModelState.PASSED: ", and waits for the canary or the experiment under way",
    }
    print(f"v{model.version} is {model.state.replace('_', ' ')}{later.get(model.state, '')}.")


def outcome(loop: Loop, run: Run, model: Model | None) -> dict[str, object]:
    """Say what came of a training, for a machine."""
    from evergreen.core.records import Run

    run = loop.ledger.get(Run, run.id)
    return {
        "run": {"id": run.id, "state": run.state, "error": run.error, "failure": run.failure},
        "model": None
        if model is None
        else {
            "version": model.version,
            "state": model.state,
            "scores": dict(model.scores),
            "verdict": dict(model.verdict),
        },
    }
