"""After stage 8. Files of old versions are deleted, except those that somebody may want back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence

from evergreen.core.loop import Loop
from evergreen.core.records import Experiment, Model, Run
from evergreen.core.states import IN_SERVICE, ON_THE_WAY, OPEN_RUNS, ExperimentState, ModelState

_SCOPE = "retained"


def sweep(loop: Loop) -> None:
    """Delete what `rollout.keep` leaves over from the store and the cache, once for each version, with a line of history.

    The records stay: history, scores and verdicts of a version outlive its files. Costs a few look-ups
    while nothing has changed. A store that is away is asked again at the next turn.
    """
    keep = loop.config.rollout.keep
    if keep is None:
        return
    seen = _seen(loop, keep)
    if loop.ledger.recall(_SCOPE, loop.name) == seen:
        return
    models = loop.ledger.find(Model, loop.name, newest_first=True)
    wanted = needed(models, keep, max(1, loop.config.serve.keep_warm), _bases(loop))
    for model in reversed(models):
        if model.id not in wanted and loop.ledger.recall(_SCOPE, model.id) is None:
            _delete(loop, model, keep)
    loop.ledger.remember(_SCOPE, loop.name, seen)


def needed(models: Sequence[Model], keep: int, former: int, bases: frozenset[str] = frozenset()) -> set[str]:
    """Return the ids of the versions whose files stay; `models` newest first. Pure.

    That is: whatever is not judged yet, on its way or in service; the last `former` champions, to go back to; what
    open runs compare with or an experiment needs (`bases`); and of all but the champion the newest `keep`.
    """
    at_work = {ModelState.CANDIDATE, *ON_THE_WAY, *IN_SERVICE}
    retired = [m for m in models if m.state is ModelState.RETIRED]
    retired.sort(key=lambda m: (m.since.timestamp() if m.since else 0.0, m.seq), reverse=True)
    others = [m for m in models if m.state is not ModelState.CHAMPION]
    return {
        *(m.id for m in models if m.state in at_work),
        *(m.id for m in retired[:former]),
        *(m.id for m in others[:keep]),
        *bases,
    }


def swept(loop: Loop, model: Model) -> bool:
    """Say whether the files of a version were deleted."""
    return loop.ledger.recall(_SCOPE, model.id) is not None


def _seen(loop: Loop, keep: int) -> str:
    """Return what the decision rests on, as far as it can change."""
    last = loop.ledger.last(Model, loop.name)
    champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
    moving = loop.ledger.find(Model, loop.name, ModelState.CANDIDATE, *ON_THE_WAY)
    about = [m and m.id for m in (last, champion, *moving)]
    return json.dumps([keep, champion and champion.since and champion.since.isoformat(), *about, *sorted(_bases(loop))])


def _bases(loop: Loop) -> frozenset[str]:
    """Return what open runs compare with, and the arms of the experiment that is running."""
    compared = [run.base for run in loop.ledger.find(Run, loop.name, *OPEN_RUNS) if run.base]
    running = loop.ledger.last(Experiment, loop.name, ExperimentState.RUNNING)
    return frozenset([*compared, *(arm.model for arm in (running.parties if running else ()))])


def _delete(loop: Loop, model: Model, keep: int) -> None:
    evaluation = model.details.get("evaluation")
    for key in (model.key, *([str(evaluation)] if evaluation else [])):
        loop.store.delete(key)
    shutil.rmtree(loop.state / "cache" / model.key, ignore_errors=True)
    because = f"v{model.version} is {model.state.replace('_', ' ')} and not among the newest {keep}"
    with loop.ledger.together():
        loop.ledger.remember(_SCOPE, model.id, "deleted")
        loop.ledger.note(
            loop.name,
            "files deleted",
            by="retain",
            because=because,
            details={"version": model.version, "key": model.key},
        )
