"""What a page shows of a loop, read from the ledger in one go."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zlib import crc32

from evergreen.core.config import LoopConfig
from evergreen.core.errors import NotFound
from evergreen.core.loop import Loop
from evergreen.core.ports import Counts, Ledger, Tally
from evergreen.core.records import Dataset, Event, Experiment, Model, Reject, Run, Upload
from evergreen.core.states import IN_SERVICE, OPEN_RUNS, ExperimentState, ModelState
from evergreen.stages import observe, rollout

#: As many versions as a chart shows.
VERSIONS = 40
#: Lines of history on a page; models from devices.
LINES, UPLOADS = 20, 8


@dataclass(frozen=True)
class Facts:
    """Records of one loop at one moment."""

    name: str
    config: LoopConfig
    now: datetime
    counts: Counts = field(default_factory=Counts)
    models: Sequence[Model] = ()  #: newest first
    champion: Model | None = None
    coming: Model | None = None  #: on its way through the rollout
    runs: Sequence[Run] = ()  #: open ones, oldest first
    last_run: Run | None = None
    dataset: Dataset | None = None  #: the newest
    datasets: Mapping[str, Dataset] = field(default_factory=dict)  #: by id
    tallies: Mapping[str, Tally] = field(default_factory=dict)  #: by id of a model in service
    events: Sequence[Event] = ()  #: newest first
    older: bool = False  #: there are events before these
    rejects: Sequence[Reject] = ()
    evidence: str = ""  #: what live traffic shows of the model on its way, where that decides
    alarms: Mapping[str, str] = field(default_factory=dict)  #: what is wrong with live traffic now: kind -> why
    comparing: ExperimentState | None = None  #: an experiment is open
    uploads: Sequence[Upload] = ()  #: models from devices, newest first
    experiment: Mapping[str, Any] | None = None  #: the newest, as `rollout.report` tells of it
    drift: Mapping[str, Any] = field(default_factory=dict)  #: what `observe.drift_report` says


def card(loop: Loop) -> Facts:
    """Read what the overview shows."""
    return _facts(loop, events=loop.ledger.find(Event, loop.name, limit=1, newest_first=True))


def page(loop: Loop, before: int | None = None) -> Facts:
    """Read what a loop's own page shows; `before` is the seq that the history shall end at."""
    events = history(loop.ledger, loop.name, before, LINES + 1)
    return _facts(
        loop,
        events=events[:LINES],
        older=len(events) > LINES,
        rejects=loop.ledger.rejects(loop.name, limit=10),
        uploads=loop.ledger.find(Upload, loop.name, limit=UPLOADS, newest_first=True),
        evidence=rollout.stands(loop),
        experiment=rollout.report(loop) if loop.ledger.last(Experiment, loop.name) is not None else None,
        drift=observe.drift_report(loop),
    )


def _facts(loop: Loop, **more: Any) -> Facts:
    ledger, name = loop.ledger, loop.name
    models = ledger.find(Model, name, limit=VERSIONS, newest_first=True)
    champion = ledger.last(Model, name, ModelState.CHAMPION)
    coming = rollout.coming(loop)
    datasets = ledger.find(Dataset, name, limit=VERSIONS, newest_first=True)
    compared = ledger.last(Experiment, name)
    return Facts(
        name=name,
        config=loop.config,
        now=loop.now(),
        counts=ledger.counts(name),
        models=models,
        champion=champion,
        coming=coming,
        runs=ledger.find(Run, name, *OPEN_RUNS),
        last_run=ledger.last(Run, name),
        dataset=datasets[0] if datasets else None,
        datasets={d.id: d for d in datasets},
        tallies={m.id: ledger.tally(m.id) for m in (champion, coming) if m is not None},
        alarms=_alarms(loop),
        comparing=compared.state if compared is not None and compared.ended is None else None,
        **more,
    )


def _alarms(loop: Loop) -> dict[str, str]:
    """Return what `observe` has found wrong and not yet right again."""
    failing = json.loads(loop.ledger.recall("watch", loop.name) or "{}")
    drifted = json.loads(loop.ledger.recall("drift", f"{loop.name}/alarm") or "{}")
    found = {"failures": str(failing.get("because") or "answers fail")} if failing.get("alarm") else {}
    return found | ({"drift": str(drifted.get("because") or "")} if drifted else {})


def history(ledger: Ledger, loop: str, before: int | None, limit: int) -> Sequence[Event]:
    """Return the newest events, or the newest before a seq, newest first.

    The ledger reads forward from a seq, so windows that double in length are read until one holds enough.
    """
    if before is None:
        return ledger.find(Event, loop, limit=limit, newest_first=True)
    width = 2 * limit
    while True:
        start = max(before - 1 - width, 0)
        found = [e for e in ledger.find(Event, loop, after=start, limit=width) if e.seq < before]
        if len(found) >= limit or start == 0:
            return found[::-1][:limit]
        width *= 2


def model(ledger: Ledger, loop: str, version: int) -> Model:
    """Return one model version or raise `NotFound`."""
    for found in ledger.find(Model, loop, newest_first=True):
        if found.version == version:
            return found
    raise NotFound(f'loop "{loop}" has no model version {version}')


@dataclass(frozen=True)
class Lineage:
    """Where a model comes from, as far as the ledger still knows."""

    run: Run | None
    dataset: Dataset | None
    base: Model | None


def lineage(ledger: Ledger, of: Model) -> Lineage:
    """Look up what a model was made from."""
    return Lineage(_known(ledger, Run, of.run), _known(ledger, Dataset, of.dataset), _known(ledger, Model, of.base))


def _known(ledger: Ledger, kind: type[Any], id: str | None) -> Any:
    if id is None:
        return None
    try:
        return ledger.get(kind, id)
    except NotFound:
        return None


def pulse(loops: Iterable[Loop]) -> str:
    """Return a mark that changes whenever one of the loops' pages would."""
    seen: list[object] = []
    for loop in loops:
        ledger = loop.ledger
        serving = ledger.find(Model, loop.name, *IN_SERVICE)
        seen += [
            loop.name,
            ledger.revision(),
            ledger.counts(loop.name),
            [(r.id, r.state, dict(r.progress)) for r in ledger.find(Run, loop.name, *OPEN_RUNS)],
            [(m.id, ledger.tally(m.id)) for m in serving],
        ]
    return f"{crc32(repr(seen).encode()):08x}"
