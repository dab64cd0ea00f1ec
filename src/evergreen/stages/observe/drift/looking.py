"""Look at what came since the last look: a few hundred predictions at most, whatever the traffic."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from itertools import islice

from evergreen.core.config import DriftConfig
from evergreen.core.errors import NotFound, Unavailable
from evergreen.core.loop import Loop
from evergreen.core.ports import Tally
from evergreen.core.recipe import Described
from evergreen.core.records import Dataset, Json, Model, Sample
from evergreen.core.states import ModelState
from evergreen.stages.observe.drift import alarm, memory, report, sketch, stream
from evergreen.stages.observe.drift.memory import Looked, References, State, Window

log = logging.getLogger(__name__)

#: Training rows that a reference is made of, the newest.
ROWS = 5000
#: Seconds between two looks, and judged answers that are worth one.
PAUSE_S, LABELS = 10.0, 10
#: How far back, in windows of samples of all loops, the first look goes for predictions.
_BACK = 20
#: Where predictions are filed.
_ORIGIN = "predict"


def look(loop: Loop) -> None:
    """Count what is new, compare, and say so if an alarm begins, another kind joins it, or it is over.

    Costs two look-ups while little is new.
    """
    rules = loop.config.drift
    last = memory.looked(loop)
    champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
    if not rules.watch or champion is None:
        if last is not None and not rules.watch:
            memory.forget(loop)
        return
    tally = loop.ledger.tally(champion.id)
    now = loop.now().timestamp()
    if last is None or last.model != champion.id:
        if last is None or not _just_crowned(champion, now):
            _begin(loop, champion, tally)
        return
    news = tally.answered - last.answered >= memory.pane_rows(rules) or tally.judged - last.judged >= LABELS
    if not (news or last.unwritten) or 0 <= now - last.at < PAUSE_S:
        return
    state = memory.recall(loop)
    if state is None:
        return
    learnt = _take_in(loop, state, tally)
    state.looked.at = now
    _conclude(loop, state, references=learnt)


def _just_crowned(champion: Model, now: float) -> bool:
    """Say whether a champion may not last: to learn what it was trained on takes time that requests would rather have."""
    return champion.since is not None and 0 <= now - champion.since.timestamp() < PAUSE_S


def _begin(loop: Loop, champion: Model, tally: Tally) -> None:
    """Learn what the champion was trained on, and count the newest predictions; an alarm goes on until it is judged."""
    former = memory.recall(loop)
    newest = next(loop.ledger.samples(loop.name, labelled=False, newest_first=True, limit=1), None)
    at = newest.seq if newest is not None else 0
    state = State(
        Looked(champion.id, champion.version, at, max(0, at - _BACK * loop.config.drift.window)),
        References(),
        Window(drifted=former.window.drifted if former else []),
        stream.Quality(),
        former.alarm if former else None,
    )
    state.looked.answered = state.looked.first = tally.answered
    state.looked.judged, state.looked.right = tally.judged, tally.right
    state.looked.at = loop.now().timestamp()
    rows = _describe(state, loop.recipe.describe, (s.input for s in _learnt_from(loop, champion, state)))
    if rows and any(rows):
        state.references.inputs = sketch.learn(rows)
    elif rows:
        state.looked.why = "the recipe does not describe its inputs"
    _count(loop, state, _newest(loop, state))
    _conclude(loop, state, references=True)


def _take_in(loop: Loop, state: State, tally: Tally) -> bool:
    """Count what is new; say whether a reference was learnt."""
    rules, last = loop.config.drift, state.looked
    if tally.judged > last.judged:
        right = min(max(0, tally.right - last.right), tally.judged - last.judged)
        state.quality = stream.learn(state.quality, tally.judged - last.judged, right, rules.fall)
    last.judged, last.right = tally.judged, tally.right
    learnt = False
    if tally.answered > last.answered:
        if state.references.outputs is None and tally.answered - last.first >= _first_answers(rules):
            learnt = _learn_outputs(loop, state, tally)
        _count(loop, state, _newest(loop, state))
    last.answered = tally.answered
    return learnt


def _conclude(loop: Loop, state: State, *, references: bool) -> None:
    """Compare, remember, and tell if something is to be told."""
    found = memory.found(state, loop.config.drift)
    judged = {f.of for f in found}
    kinds = alarm.kinds(found, state.quality)
    if state.alarm is not None:  # what cannot be told yet, after a change of champion, is as it was
        waiting = [k for k in state.alarm.kinds if k not in judged and _may_be_told(state, k)]
        kinds = [k for k in ("inputs", "outputs", "quality") if k in {*kinds, *waiting}]
    unjudged = [key for key in state.window.drifted if key.split("/")[0] not in judged]
    drifted = [f.key for f in found if f.drifted] + unjudged
    state.looked.unwritten |= set(drifted) != set(state.window.drifted)
    state.window.drifted = drifted
    what = alarm.news(state.alarm, kinds)
    before = state.alarm.kinds if state.alarm is not None else []
    rows = memory.whole(state.references.inputs, state.window.inputs).n
    with loop.ledger.together():
        if kinds != before:
            because = alarm.told(found, state.quality, rows, state.looked.version, before)
            state.alarm = alarm.of(state.alarm, kinds, because, loop.now().isoformat())
            state.looked.unwritten = True
            memory.keep_alarm(loop, state.alarm)
            if what is not None:
                details = alarm.details(found, state.quality, kinds, state.looked.version)
                loop.ledger.note(loop.name, what, by="observe", because=because, details=details)
        memory.keep_figures(loop, found, state.quality)
        memory.keep(loop, state, references=references)
    if state.looked.unwritten:
        _write_report(loop, state)


def _may_be_told(state: State, kind: str) -> bool:
    """Say whether something that cannot be told now will be, sooner or later."""
    if kind == "inputs":
        return state.references.inputs is not None
    return kind == "outputs"


def _write_report(loop: Loop, state: State) -> None:
    """Lay the report where others can read it; a store that is away is asked again at the next look."""
    try:
        report.write(loop, state)
    except (Unavailable, OSError) as e:
        log.info("the drift report of %s waits for the store: %s", loop.name, e)
        return
    state.looked.unwritten = False
    memory.keep(loop, state)


def _learnt_from(loop: Loop, champion: Model, state: State) -> Iterable[Sample]:
    """Return the newest rows that the champion was trained on, in the order in which they came."""
    try:
        data = loop.ledger.get(Dataset, champion.dataset or "")
    except NotFound:
        state.looked.why = f"what v{champion.version} was trained on is not known"
        return ()
    read = loop.ledger.samples(
        loop.name, side="train", upto=data.as_of, origin=data.origin, newest_first=True, limit=ROWS
    )
    return reversed([sample for sample in read if sample.weight > 0])


def _newest(loop: Loop, state: State) -> list[Sample]:
    """Return the predictions since the last look, as many as the window holds at most, the newest; oldest first."""
    read = loop.ledger.samples(
        loop.name,
        labelled=False,
        after=state.looked.cursor,
        origin=_ORIGIN,
        newest_first=True,
        limit=loop.config.drift.window,
    )
    samples = list(read)[::-1]
    if samples:
        state.looked.cursor = samples[-1].seq
    return samples


def _count(loop: Loop, state: State, samples: list[Sample]) -> None:
    """Count predictions: all inputs, and of the outputs the champion's."""
    own = [s.output for s in samples if s.model == state.looked.model and s.seq > state.looked.began]
    sides = (
        (state.references.inputs, state.window.inputs, loop.recipe.describe, [s.input for s in samples]),
        (state.references.outputs, state.window.outputs, loop.recipe.describe_output, own),
    )
    rows = memory.pane_rows(loop.config.drift)
    for reference, panes, describe, values in sides:
        if reference is None:
            continue
        for row in _describe(state, describe, values):
            sketch.count(reference, memory.filling(reference, panes, rows), row)


def _learn_outputs(loop: Loop, state: State, tally: Tally) -> bool:
    """Learn how the champion answered at first. What it says of rows it was trained on would be no measure."""
    wanted = _first_answers(loop.config.drift)
    read = loop.ledger.samples(
        loop.name, labelled=False, after=state.looked.began, origin=_ORIGIN, limit=_BACK * loop.config.drift.window
    )
    first = list(islice((s for s in read if s.model == state.looked.model), wanted))
    if len(first) < wanted:  # not all answers are stored: as many again, then another look
        state.looked.first = tally.answered
        return False
    state.references.outputs = sketch.learn(_describe(state, loop.recipe.describe_output, (s.output for s in first)))
    state.looked.began = first[-1].seq  # they are not held against themselves
    return True


def _first_answers(rules: DriftConfig) -> int:
    return max(rules.min_rows, rules.window // 2)


def _describe(state: State, describe: Callable[[Json], Described], values: Iterable[Json]) -> list[Described]:
    """Describe values; those that the recipe cannot describe are counted, and told in the report."""
    rows: list[Described] = []
    for value in values:
        try:
            rows.append(sketch.described(describe(value)))
        except Exception as e:  # noqa: BLE001 - a recipe may raise anything; its answers are none the worse for it
            log.debug("a value cannot be described: %s", e)
            state.looked.unread += 1
    return rows
