"""Moves of models between shadow, canary and champion, and who makes room for whom."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from evergreen.core.errors import Conflict, InvalidInput, NotFound, Stale, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.ports import Tally
from evergreen.core.records import Experiment, Model
from evergreen.core.states import ON_THE_WAY, ExperimentState, ModelState
from evergreen.stages.rollout import experiments
from evergreen.stages.rollout.evidence import Watch, weigh
from evergreen.stages.rollout.steps import Step, decide, unfit

#: Answers of a champion after which they are counted anew.
RECENT = 1000
#: A person may make these champion without force; the others only by force, with a reason.
WELCOME = (*ON_THE_WAY, ModelState.RETIRED)


def advance(loop: Loop) -> None:
    """Move the model on its way by at most one step; older ones make room for it.

    That is the newest, but where evidence decides a canary that gathers some is let finish: else whoever trains more
    often than evidence comes would never have a new champion.
    """
    _watch_champion(loop)
    if _experimenting(loop):
        return  # the traffic is dealt out; what has passed the gate waits
    model = coming(loop)
    if model is None:
        return
    *older, newest = loop.ledger.find(Model, loop.name, *ON_THE_WAY)
    for overtaken in older:
        if overtaken.id != model.id:
            _take_back(loop, overtaken, f"overtaken by v{newest.version}")
    champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
    step = _next(loop, model, champion)
    if step.do == "raise":
        try:
            if not _is_stored(loop, model):
                step = Step("take back", 0.0, "its files are not in the store any more")
        except (Unavailable, OSError):
            return  # the next tick asks again
    if step.do == "take back":
        _take_back(loop, model, step.because)
    elif step.do == "raise":
        _raise(loop, model, step.share, step.because, over=champion)


def _next(loop: Loop, model: Model, champion: Model | None) -> Step:
    """Decide on one model, beside the champion where both answer."""
    rules, lately, now = loop.config.rollout, _lately(loop, model), loop.now()
    if champion is None:
        return decide(rules, model, lately, now, alone=True)
    if model.state is ModelState.PASSED:
        return decide(rules, model, lately, now)
    watch = watched(loop, model)
    if watch is None or watch.champion != champion.id:  # another champion: what was shown beside the old one is void
        watch = _mark(loop, model, champion, first=True)
    theirs = loop.ledger.tally(champion.id)
    beside = theirs - watch.marks[-1][0]
    if rules.rule == "time" or model.state is not ModelState.CANARY:
        return decide(rules, model, lately, now, beside=beside)
    after, shown = weigh(rules.evidence, watch, theirs, loop.ledger.tally(model.id))
    if after != watch:
        _keep(loop, model, after)
    return decide(rules, model, lately, now, beside=beside, shown=shown, began=watch.began)


def coming(loop: Loop) -> Model | None:
    """Return the model whose turn it is to take over: a canary that gathers evidence, or else the newest on its way."""
    canary = loop.ledger.last(Model, loop.name, ModelState.CANARY)
    if canary is not None and loop.config.rollout.rule == "evidence":
        return canary
    return loop.ledger.last(Model, loop.name, *ON_THE_WAY)


def stands(loop: Loop) -> str:
    """Say what the evidence shows of the canary so far, where evidence decides; else nothing."""
    rules = loop.config.rollout
    canary = loop.ledger.last(Model, loop.name, ModelState.CANARY)
    watch = watched(loop, canary) if canary is not None and rules.rule == "evidence" else None
    if canary is None or watch is None:
        return ""
    tallies = loop.ledger.tally(watch.champion), loop.ledger.tally(canary.id)
    return weigh(rules.evidence, watch, *tallies)[1].because


def promote(loop: Loop, version: int, *, by: str, why: str, force: bool = False) -> Model:
    """Make a version champion now, on a person's word; what is on its way makes room for it.

    Raises `Conflict` for the champion itself, for one whose files are gone, and for one that the gate did not
    pass unless `force`.
    """
    if not why.strip():
        raise InvalidInput("a reason is needed", field="why")
    if not _is_stored(loop, find(loop, version)):
        raise Conflict(f"v{version} cannot be loaded: its files are not in the store any more")
    with loop.ledger.together():
        model = find(loop, version)
        if model.state is ModelState.CHAMPION:
            raise Conflict(f"v{version} is champion already")
        if model.state not in WELCOME and not force:
            raise Conflict(
                f"v{version} is {model.state.replace('_', ' ')}: it did not pass the gate or was taken back",
                hint="Use force, with a reason, to make it champion all the same.",
            )
        experiments.end(loop, because=f"{by} promoted v{version}")
        for other in loop.ledger.find(Model, loop.name, *ON_THE_WAY):
            if other.id != model.id:
                _take_back(loop, other, f"overtaken: {by} promoted v{version}")
        said = f"{'forced' if model.state not in WELCOME else 'promoted'} by {by}: {why}"
        return _raise(loop, model, 1.0, said, over=loop.ledger.last(Model, loop.name, ModelState.CHAMPION))


def rollback(loop: Loop, *, by: str, why: str) -> Model:
    """Undo the latest step: take back a challenger, or else put the former champion back.

    Returns the model that answers afterwards. Raises `Conflict` when there is nothing to go back to.
    """
    said = f"rolled back by {by}" + (f": {why}" if why.strip() else "")
    with loop.ledger.together():
        champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
        if experiments.end(loop, because=said) is not None and champion is not None:
            return champion
        challengers = loop.ledger.find(Model, loop.name, *ON_THE_WAY)
        if challengers and champion is not None:
            for model in challengers:
                _take_back(loop, model, said)
            return champion
        former = _former(loop)
        if champion is None or former is None:
            raise Conflict("there is no former champion to go back to")
        return _put_back(loop, champion, former, said)


def find(loop: Loop, version: int) -> Model:
    """Return a version or raise `NotFound`."""
    for model in loop.ledger.find(Model, loop.name, newest_first=True):
        if model.version == version:
            return model
    raise NotFound(f"{loop.name} has no model v{version}", field="version")


def _former(loop: Loop) -> Model | None:
    """Return the champion that was retired last."""
    retired = loop.ledger.find(Model, loop.name, ModelState.RETIRED)
    return max(retired, key=lambda m: (m.since or datetime.min.replace(tzinfo=UTC), m.seq), default=None)


def _watch_champion(loop: Loop) -> None:
    """Put the former champion back when the champion fails, unless that one fails just the same."""
    champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
    if champion is None:
        return
    rules = loop.config.rollout.model_copy(update={"max_latency_ms": None, "max_slowdown": None})
    lately = _lately(loop, champion)
    why = unfit(rules, lately)
    if not why and lately.answered >= RECENT:
        _count_anew(loop, champion)
    if not why or (former := _former(loop)) is None:
        return
    if not unfit(rules, _lately(loop, former)):  # it stands in where the champion fails: its tally tells
        with loop.ledger.together():
            _put_back(loop, champion, former, why)


def _experimenting(loop: Loop) -> bool:
    """Look at the experiment; make its winner champion where that was asked for. Says whether it goes on."""
    running = loop.ledger.last(Experiment, loop.name, ExperimentState.RUNNING)
    if running is None:
        return False
    if not running.promote:
        found, _ = experiments.look(loop)
        return found is not None and found.state is ExperimentState.RUNNING
    with loop.ledger.together():  # it ends with its winner as champion, or goes on
        found, standing = experiments.look(loop)
        if found is None or standing is None or found.state is not ExperimentState.ENDED or standing.winner is None:
            return found is not None and found.state is ExperimentState.RUNNING
        try:
            promote(loop, standing.winner, by="rollout", why=standing.because, force=True)
        except Stale:
            raise  # somebody was faster: the next turn looks again
        except Conflict as e:
            loop.ledger.note(loop.name, "not promoted", by="rollout", because=str(e))
    return True


def _put_back(loop: Loop, champion: Model, former: Model, because: str) -> Model:
    experiments.end(loop, because=f"the champion was taken back: {because}")
    _take_back(loop, champion, because)
    _count_anew(loop, former)
    return loop.ledger.move(former, ModelState.CHAMPION, by="rollout", because=because, share=1.0, since=loop.now())


def _take_back(loop: Loop, model: Model, because: str) -> None:
    loop.ledger.move(model, ModelState.ROLLED_BACK, by="rollout", because=because, share=0.0, since=loop.now())


def _raise(loop: Loop, model: Model, share: float, because: str, *, over: Model | None) -> Model:
    """Give a model a larger share; `over` is the champion that was seen when this was decided."""
    to = {0.0: ModelState.SHADOW, 1.0: ModelState.CHAMPION}.get(share, ModelState.CANARY)
    now = loop.now()
    with loop.ledger.together():  # there is never a moment without a champion
        old = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
        if (old and old.id) != (over and over.id):
            raise Stale(f"another model than v{model.version} has become champion meanwhile")
        if to is ModelState.CHAMPION and old is not None:
            _count_anew(loop, old)
            loop.ledger.move(
                old, ModelState.RETIRED, by="rollout", because=f"succeeded by v{model.version}", share=0.0, since=now
            )
        _count_anew(loop, model)
        if to is not ModelState.CHAMPION and old is not None:
            _mark(loop, model, old, first=to is not model.state)
        return loop.ledger.move(model, to, by="rollout", because=because, share=share, since=now)


def watched(loop: Loop, model: Model) -> Watch | None:
    """Return what is kept of a challenger beside the champion."""
    kept = loop.ledger.recall("beside", model.id)
    return msgspec.json.decode(kept, type=Watch) if kept else None


def _mark(loop: Loop, model: Model, champion: Model, *, first: bool) -> Watch:
    """Begin a step of a challenger beside the champion; the `first` of its kind begins the comparison anew."""
    now = (loop.ledger.tally(champion.id), loop.ledger.tally(model.id))
    watch = None if first else watched(loop, model)
    if watch is None or watch.champion != champion.id:
        watch = Watch(loop.now(), champion.id, [])
    watch = watch.step(*now)
    _keep(loop, model, watch)
    return watch


def _keep(loop: Loop, model: Model, watch: Watch) -> None:
    loop.ledger.remember("beside", model.id, msgspec.json.encode(watch).decode())


def _is_stored(loop: Loop, model: Model) -> bool:
    """Say whether a model can still be fetched."""
    return model.key in loop.store.list(model.key)


def _count_anew(loop: Loop, model: Model) -> None:
    """Begin a new count of a model's traffic: what was in another step, or long ago, hides what goes wrong now."""
    loop.ledger.remember("since", model.id, msgspec.json.encode(loop.ledger.tally(model.id)).decode())


def _lately(loop: Loop, model: Model) -> Tally:
    """Return what traffic says of a model since the count was begun."""
    return loop.ledger.tally(model.id) - msgspec.json.decode(loop.ledger.recall("since", model.id) or "{}", type=Tally)
