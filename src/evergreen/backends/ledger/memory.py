"""A ledger that forgets when the process ends: for tests, docs and trying things out."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from evergreen.backends.ledger import (
    added,
    as_json,
    changed,
    check_change,
    counted_as,
    in_utc,
    is_gone,
    moved,
    noted,
    noun,
    settle,
    to_json,
)
from evergreen.core.errors import AlreadyWaiting, Conflict, NotFound, Stale
from evergreen.core.ports import Counts, CursorMove, Tally
from evergreen.core.recipe import PluginOptions
from evergreen.core.records import Dataset, Event, Json, Model, Mov, Rec, Record, Reject, Run, Sample, Side
from evergreen.core.states import WAITING, RunState, SampleState, State

_PAGE = 1000
_R = TypeVar("_R", bound=Record)
_D = TypeVar("_D", bound=Record | Sample)


class MemoryLedger:
    """Everything in dicts, in order, behind one lock; a failed block is undone step by step."""

    Options: ClassVar[type[PluginOptions]] = PluginOptions

    def __init__(self, options: PluginOptions, *, home: Path, state: Path, now: Callable[[], datetime]) -> None:  # noqa: ARG002 - every ledger is given these
        self._clock = now
        self._lock = threading.RLock()
        self._undo: list[Callable[[], Any]] | None = None
        self._seq = 0
        self._revision = 0
        self._samples: dict[str, list[Sample]] = defaultdict(list)
        self._places: dict[str, dict[str, int]] = defaultdict(dict)
        self._rejects: dict[str, list[Reject]] = defaultdict(list)
        self._counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._records: dict[type[Record], dict[str, Any]] = defaultdict(dict)
        self._exposures: dict[str, dict[str, str]] = defaultdict(dict)
        self._tallies: dict[str, Tally] = {}
        self._remembered: dict[str, dict[str, str]] = defaultdict(dict)
        self._leases: dict[str, tuple[str, float]] = {}

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make every change inside the block at once, or none of them."""
        with self._lock:
            outer, self._undo = self._undo, []
            try:
                yield
            except BaseException:
                for step in reversed(self._undo):
                    step()
                self._undo = outer
                raise
            if outer is not None:
                outer += self._undo
            self._undo = outer

    def append(
        self,
        loop: str,
        samples: Sequence[Sample],
        *,
        rejects: Sequence[Reject] = (),
        cursor: CursorMove | None = None,
        traffic: Mapping[str, Tally] | None = None,
    ) -> Sequence[bool]:
        """Store a batch; say of each sample whether it was new."""
        samples = [as_json(sample) for sample in samples]
        with self.together():
            at = self._now()
            if cursor is not None:
                self._move_cursor(loop, cursor)
            kept, places = self._samples[loop], self._places[loop]
            settled = settle({s.id: kept[places[s.id]] for s in samples if s.id in places}, samples)
            new = {**settled.told, **{i: self._keep(loop, s, at) for i, s in settled.store.items()}}
            for one in settled.changed:
                self._set(kept, places[one.id], one)
            stored = (s for i, s in settled.store.items() if new[i])
            settled.counts.update((s.origin, name) for s in stored if (name := counted_as(s)))
            for (origin, name), n in settled.counts.items():
                self._count(loop, origin, name, n)
            for reject in rejects:
                self._push(self._rejects[loop], replace(reject, at=at))
                self._count(loop, reject.origin, "quarantined")
            for model, more in [*(traffic or {}).items(), *settled.traffic.items()]:
                self._set(self._tallies, model, self._tallies.get(model, Tally()) + more)
            return [new[i] for i in range(len(samples))]

    def sample(self, loop: str, id: str) -> Sample | None:
        """Return one sample."""
        with self._lock:
            at = self._places[loop].get(id)
            return None if at is None else _copy(self._samples[loop][at])

    def asked(self, loop: str, session: str, *, since: datetime, upto: datetime, but: str = "") -> Sample | None:
        """Return the newest sample of a session between two moments."""
        with self._lock:
            for s in reversed(self._samples[loop]):
                if s.session == session and s.id != but and s.at is not None and s.at <= upto:
                    return _copy(s) if s.at >= since else None
            return None

    def samples(
        self,
        loop: str,
        *,
        side: Side | None = None,
        state: SampleState = SampleState.ACCEPTED,
        labelled: bool = True,
        after: int = 0,
        upto: int | None = None,
        origin: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[Sample]:
        """Read samples in ledger order (or backwards), a page at a time."""
        left = limit
        while left is None or left > 0:
            with self._lock:
                page = self._page(loop, after, upto, newest_first)
            for s in page:
                if (
                    s.state is state
                    and (s.label is not None or not labelled)
                    and side in (None, s.side)
                    and origin in (None, s.origin)
                    and (left is None or left > 0)
                ):
                    left = None if left is None else left - 1
                    yield _copy(s)
            if len(page) < _PAGE:
                return
            after, upto = (after, page[-1].seq - 1) if newest_first else (page[-1].seq, upto)

    def unsided(self, loop: str, *, upto: int, origin: str | None = None) -> Sequence[int]:
        """Return the seqs, rising, of usable samples that are on no side yet."""
        with self._lock:
            return [self._samples[loop][i].seq for i in self._sideless(loop, upto, origin)]

    def take_sides(self, loop: str, *, holdout_after: int, upto: int, origin: str | None = None) -> None:
        """Put usable samples that are on no side yet on one."""
        with self.together():
            kept = self._samples[loop]
            for i in self._sideless(loop, upto, origin):
                side: Side = "holdout" if kept[i].seq > holdout_after else "train"
                self._set(kept, i, replace(kept[i], side=side))

    def rejects(self, loop: str, *, limit: int = 100) -> Sequence[Reject]:
        """Return the newest quarantined rows, newest first."""
        with self._lock:
            return self._rejects[loop][::-1][: max(limit, 0)]

    def counts(self, loop: str, *, origin: str | None = None) -> Counts:
        """Count samples."""
        with self._lock:
            total: Counter[str] = Counter()
            for (of, place), counter in self._counts.items():
                if of == loop and origin in (None, place):
                    total += counter
            return Counts(**total)

    def add(self, record: Rec, *, by: str, because: str) -> Rec:
        """Store a new record; return it with its `seq` and `at`."""
        with self.together():
            at = self._now()
            stored = self._store(replace(in_utc(record), at=at))
            if not isinstance(stored, Event):
                self._store(added(stored, at, by, because))
            return _copy(stored)

    def move(self, record: Mov, to: State, *, by: str, because: str, **changes: Any) -> Mov:
        """Change a record's state if it may be, and nobody was faster."""
        check_change(record, changes, to, by)
        with self.together():
            before = self._get(type(record), record.id)
            after = self._change(record, before, to, changes)
            self._store(moved(before, after, self._now(), by, because))
            return _copy(after)

    def update(self, record: Mov, **changes: Any) -> Mov:
        """Change fields that are not states."""
        check_change(record, changes)
        with self.together():
            return _copy(self._change(record, self._get(type(record), record.id), None, changes))

    def note(self, loop: str, what: str, *, by: str, because: str, details: Mapping[str, Json] | None = None) -> Event:
        """Write an event that changes no record."""
        with self.together():
            return _copy(self._store(noted(loop, what, self._now(), by, because, details)))

    def get(self, kind: type[Rec], id: str) -> Rec:
        """Return one record or raise `NotFound`."""
        with self._lock:
            return _copy(self._get(kind, id))

    def last(self, kind: type[Rec], loop: str, *states: State) -> Rec | None:
        """Return the newest record in one of `states`."""
        return next(iter(self.find(kind, loop, *states, newest_first=True, limit=1)), None)

    def find(
        self,
        kind: type[Rec],
        loop: str | None,
        *states: State,
        after: int = 0,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Sequence[Rec]:
        """Return records in ledger order (or backwards)."""
        with self._lock:
            found = [
                r
                for r in self._records[kind].values()
                if loop in (None, r.loop) and r.seq > after and (not states or getattr(r, "state", None) in states)
            ]
            return [_copy(r) for r in (found[::-1] if newest_first else found)[:limit]]

    def tally(self, model: str) -> Tally:
        """Sum up live traffic of one model version."""
        with self._lock:
            return self._tallies.get(model, Tally())

    def expose(self, experiment: str, units: Mapping[str, str]) -> None:
        """Keep which arm each unit met first."""
        with self.together():
            for unit, arm in units.items():
                if unit not in self._exposures[experiment]:
                    self._set(self._exposures[experiment], unit, arm)

    def exposed(self, experiment: str) -> Mapping[str, int]:
        """Count the units that each arm met."""
        with self._lock:
            return dict(sorted(Counter(self._exposures[experiment].values()).items()))

    def recall(self, scope: str, key: str) -> str | None:
        """Return a remembered value."""
        with self._lock:
            return self._remembered[scope].get(key)

    def recall_all(self, scope: str) -> Mapping[str, str]:
        """Return everything remembered in a scope."""
        with self._lock:
            return dict(sorted(self._remembered[scope].items()))

    def remember(self, scope: str, key: str, value: str | None) -> None:
        """Remember a value; None forgets it."""
        with self._lock:
            self._set(self._remembered[scope], key, value)

    def revision(self) -> int:
        """Return a number that rises with every change of a record."""
        with self._lock:
            return self._revision

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew a named lease."""
        with self._lock:
            now = self._now().timestamp()
            has, until = self._leases.get(name, ("", 0.0))
            if has not in ("", holder) and until > now and not is_gone(has):
                return False
            self._set(self._leases, name, (holder, now + seconds))
            return True

    def release(self, name: str, holder: str) -> None:
        """Give a lease back."""
        with self._lock:
            if self._leases.get(name, ("", 0.0))[0] == holder:
                self._set(self._leases, name, None)

    def close(self) -> None:
        """Let go of nothing: there are no connections."""

    def _now(self) -> datetime:
        return self._clock().astimezone(UTC)

    # Below: one change each, the lock held, its undoing noted.

    def _later(self, undo: Callable[[], Any]) -> None:
        if self._undo is not None:
            self._undo.append(undo)

    def _push(self, kept: list[Any], value: Any) -> None:
        kept.append(value)
        self._later(kept.pop)

    def _set(self, kept: Any, key: Any, value: Any) -> None:
        """Set, or with None delete, an entry of a dict or list."""
        before = kept[key] if isinstance(kept, list) else kept.get(key)
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = value
        self._later(lambda: kept.pop(key, None) if before is None else kept.__setitem__(key, before))

    def _count(self, loop: str, origin: str, name: str, n: int = 1) -> None:
        counter = self._counts[loop, origin]
        self._set(counter, name, counter[name] + n)

    def _move_cursor(self, loop: str, cursor: CursorMove) -> None:
        scope, key = self._remembered["cursor"], f"{loop}/{cursor.origin}"
        if scope.get(key) != cursor.was:
            raise Stale(f"source {cursor.origin} was read meanwhile: it is at {scope.get(key)}, not at {cursor.was}")
        self._set(scope, key, cursor.now)

    def _keep(self, loop: str, sample: Sample, at: datetime) -> bool:
        if sample.id in self._places[loop]:
            return False
        self._seq += 1
        stored = replace(sample, loop=loop, seq=self._seq, at=at)
        self._set(self._places[loop], sample.id, len(self._samples[loop]))
        self._push(self._samples[loop], stored)
        return True

    def _page(self, loop: str, after: int, upto: int | None, newest_first: bool) -> list[Sample]:
        kept = self._samples[loop]
        low = bisect_right(kept, after, key=lambda s: s.seq)
        high = len(kept) if upto is None else bisect_right(kept, upto, key=lambda s: s.seq)
        if newest_first:
            return kept[max(low, high - _PAGE) : max(high, 0)][::-1]
        return kept[low : min(high, low + _PAGE)]

    def _sideless(self, loop: str, upto: int, origin: str | None) -> Iterator[int]:
        kept = self._samples[loop]
        for i in range(bisect_left(kept, upto + 1, key=lambda s: s.seq)):
            s = kept[i]
            if counted_as(s) == "usable" and not s.side and origin in (None, s.origin):
                yield i

    def _get(self, kind: type[_R], id: str) -> _R:
        found: _R | None = self._records[kind].get(id)
        if found is None:
            raise NotFound(f"there is no {noun(kind)} {id}")
        return found

    def _store(self, record: _R) -> _R:
        kept = self._records[type(record)]
        if record.id in kept:
            raise Conflict(f"there is already a {noun(type(record))} {record.id}")
        if isinstance(record, Dataset | Model):
            self._check_version(record)
        if isinstance(record, Run):
            self._check_alone(record)
        self._seq += 1
        stored = _copy(replace(record, seq=self._seq))
        self._set(kept, record.id, stored)
        self._rise()
        return stored

    def _change(self, known: Mov, before: Mov, to: State | None, changes: Mapping[str, Any]) -> Mov:
        if isinstance(after := _copy(changed(known, before, to, changes)), Run):
            self._check_alone(after)
        self._set(self._records[type(known)], known.id, after)
        self._rise()
        return after

    def _rise(self) -> None:
        self._revision += 1
        self._later(lambda: setattr(self, "_revision", self._revision - 1))

    def _check_version(self, record: Dataset | Model) -> None:
        if any(r.loop == record.loop and r.version == record.version for r in self._records[type(record)].values()):
            raise Conflict(f"{noun(type(record))} version {record.version} of {record.loop} is taken", field="version")

    def _check_alone(self, run: Run) -> None:
        for rivals in (WAITING, (RunState.RUNNING,)):
            for r in self._records[Run].values():
                if run.state in rivals and r.state in rivals and r.loop == run.loop and r.id != run.id:
                    raise AlreadyWaiting(f"loop {run.loop} already has run {r.id}, which is {r.state}")


def _copy(record: _D) -> _D:
    """Return a record that shares no list or dict with the one given, its values as JSON keeps them."""
    fresh: dict[str, Any] = {}
    for f in fields(record):
        value = getattr(record, f.name)
        if isinstance(value, Mapping | list | tuple):
            fresh[f.name] = msgspec.json.decode(to_json(value, f.name))
    return replace(record, **fresh) if fresh else record
