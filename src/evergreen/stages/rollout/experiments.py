"""Experiments that a person starts: versions side by side, until evidence, a deadline or a person ends them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Literal

from evergreen.core.config import duration
from evergreen.core.errors import Conflict, InvalidInput, NotFound
from evergreen.core.loop import Loop
from evergreen.core.records import Arm, Experiment, Json, Model
from evergreen.core.states import ExperimentState, ModelState
from evergreen.stages.rollout.arms import Standing, markdown, stand

#: No experiment is planned for longer.
LONGEST = timedelta(days=3650)
OPEN = (ExperimentState.RUNNING, ExperimentState.FROZEN)


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
    """Put versions beside the champion, each before a share of the units; who meets which is drawn anew.

    Raises `InvalidInput`, `NotFound`, `Conflict` where a model is on its way or an experiment is running already.
    """
    if not why.strip():
        raise InvalidInput("a reason is needed", field="why")
    if not versions or len(set(versions)) != len(versions):
        raise InvalidInput("versions are needed, each once", field="versions")
    if len(shares) != len(versions):
        raise InvalidInput(f"{len(versions)} versions need as many shares, not {len(shares)}", field="shares")
    if any(s <= 0 for s in shares) or sum(shares) >= 1:
        raise InvalidInput(
            "each share is more than 0, and together they leave something to the champion", field="shares"
        )
    rules = loop.config.rollout.evidence
    models = {m.version: m for m in loop.ledger.find(Model, loop.name)}
    for version in versions:
        _check(loop, models.get(version), version)
    with loop.ledger.together():
        champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
        if champion is None:
            raise Conflict(f"{loop.name} has no champion to compare with")
        if champion.version in versions:
            raise InvalidInput(f"v{champion.version} is the champion: it takes part anyway", field="versions")
        if loop.ledger.last(Experiment, loop.name, ExperimentState.RUNNING) is not None:
            raise Conflict("an experiment is running already", hint="evergreen experiment LOOP --stop --why …")
        moving = loop.ledger.last(Model, loop.name, ModelState.SHADOW, ModelState.CANARY)
        if moving is not None:
            raise Conflict(
                f"v{moving.version} is on its way", hint="Let it arrive, or take it back: evergreen rollback"
            )
        end(loop, because="another experiment begins")
        arms = [(champion, 1 - sum(shares)), *((models[v], s) for v, s in zip(versions, shares, strict=True))]
        return loop.ledger.add(
            Experiment(
                id=loop.new_id(),
                loop=loop.name,
                state=ExperimentState.RUNNING,
                arms=[
                    asdict(Arm(model=m.id, version=m.version, share=s, before=asdict(loop.ledger.tally(m.id))))
                    for m, s in arms
                ],
                why=why,
                by=by,
                metric=metric,
                alpha=rules.alpha,
                burn_in=rules.burn_in,
                deadline=None if deadline is None else loop.now() + deadline,
                promote=promote,
            ),
            by=by,
            because=why,
        )


def length(text: str | None) -> timedelta | None:
    """Read a deadline, "12h" or "7d"; nothing is none. Raises `InvalidInput`.

    >>> length("12h")
    datetime.timedelta(seconds=43200)
    """
    if not text:
        return None
    try:
        found = duration(text)
    except OverflowError:
        found = None
    if not isinstance(found, timedelta) or not timedelta(0) < found <= LONGEST:
        raise InvalidInput(
            f"{text!r} is no length of time", field="deadline", hint="For example 12h or 7d, ten years at most."
        )
    return found


def stop(loop: Loop, *, by: str, why: str) -> Experiment:
    """End the experiment that is running or frozen, on a person's word. Raises `NotFound`."""
    ended = end(loop, because=f"stopped by {by}" + (f": {why}" if why.strip() else ""))
    if ended is None:
        raise NotFound(f"{loop.name} has no experiment that could be stopped")
    return ended


def report(loop: Loop, id: str | None = None) -> dict[str, Json]:
    """Return how an experiment stands, or stood at its end: as data, and as Markdown under `markdown`."""
    found = loop.ledger.last(Experiment, loop.name) if id is None else loop.ledger.get(Experiment, id)
    if found is None or found.loop != loop.name:
        hint = f"Begin one: evergreen experiment {loop.name} --versions 2 --shares 0.2 --why …"
        raise NotFound(f"{loop.name} has had no experiment yet", hint=hint)
    standing: Mapping[str, Json] = found.report or _standing(loop, found).plain()
    return {
        "id": found.id,
        "loop": loop.name,
        "state": found.state.value,
        "why": found.why,
        "by": found.by,
        "metric": found.metric,
        "alpha": found.alpha,
        "began": None if found.at is None else found.at.isoformat(),
        "deadline": None if found.deadline is None else found.deadline.isoformat(),
        "ended": None if found.ended is None else found.ended.isoformat(),
        **standing,
        "markdown": markdown(found, standing),
    }


def look(loop: Loop) -> tuple[Experiment | None, Standing | None]:
    """Look at the running experiment: put an arm out, freeze or end it if that is what follows.

    Returns the experiment as it is afterwards and how it stands; nothing where none was running.
    """
    found = loop.ledger.last(Experiment, loop.name, ExperimentState.RUNNING)
    if found is None:
        return None, None
    standing = _standing(loop, found)
    if standing.do == "freeze":
        return _close(loop, found, standing, ExperimentState.FROZEN), standing
    if standing.do == "end":
        return _close(loop, found, standing, ExperimentState.ENDED), standing
    worse = {a.version: a.because.removeprefix(f"v{a.version}: ") for a in standing.arms if a.call == "worse"}
    if worse:
        arms = [asdict(replace(arm, out=arm.out or worse.get(arm.version, ""))) for arm in found.parties]
        with loop.ledger.together():
            found = loop.ledger.update(found, arms=arms)
            for version, because in worse.items():
                said = f"v{version} is out of the experiment: {because}"
                loop.ledger.note(loop.name, "arm out", by="rollout", because=said, details={"version": version})
    return found, standing


def end(loop: Loop, *, because: str) -> Experiment | None:
    """End whatever experiment is open; its report stays as it stood."""
    ended = None
    for found in loop.ledger.find(Experiment, loop.name, *OPEN):
        standing = replace(_standing(loop, found), because=because)
        ended = _close(loop, found, standing, ExperimentState.ENDED)
    return ended


def _close(loop: Loop, found: Experiment, standing: Standing, to: ExperimentState) -> Experiment:
    return loop.ledger.move(
        found, to, by="rollout", because=standing.because, report=standing.plain(), ended=loop.now()
    )


def _standing(loop: Loop, found: Experiment) -> Standing:
    tallies = {arm.model: loop.ledger.tally(arm.model) for arm in found.parties}
    return stand(found, tallies, loop.ledger.exposed(found.id), loop.config.rollout, loop.now())


def _check(loop: Loop, model: Model | None, version: int) -> None:
    if model is None:
        raise NotFound(f"{loop.name} has no model v{version}", field="versions")
    if model.state is ModelState.CANDIDATE:
        raise Conflict(f"v{version} is not judged yet")
    if model.key not in loop.store.list(model.key):
        raise Conflict(f"v{version} cannot be loaded: its files are not in the store any more")
