"""Where records are kept, and what every ledger of ours does alike."""

from __future__ import annotations

import math
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import msgspec

from evergreen.core import states
from evergreen.core.errors import IllegalMove, InvalidInput, Stale
from evergreen.core.ports import Tally
from evergreen.core.records import Event, Json, Model, Mov, Record, Sample
from evergreen.core.states import SampleState, State

#: What a change may never touch: who a record is, where it lies, and its state, which only `move` sets.
FIXED = ("id", "loop", "seq", "at", "state", "version")
#: What two holders of a record must agree on for the second to be heard.
_TURN = ("state", "attempt", "share", "since")

#: Outcomes in these states may be corrected, in these fields.
_OPEN = (SampleState.ACCEPTED, SampleState.PENDING)
_SAID = ("label", "weight", "right", "score")

_encode = msgspec.json.Encoder().encode
_R = TypeVar("_R", bound=Record)


def to_json(value: Json, field: str) -> str:
    """Write a value as JSON text. Raises `InvalidInput` for what JSON cannot say: NaN, infinity, objects."""
    try:
        text = _encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as e:
        raise InvalidInput(f"{field} cannot be written as JSON: {e}", field=field) from e
    # The encoder writes NaN and infinity as null, so only a text with a null in it can hide one.
    if "null" in text and _no_number(value):
        raise InvalidInput(f"{field} holds NaN or infinity, which JSON cannot say", field=field)
    return text


def _no_number(value: Json) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(_no_number(v) for v in value.values())
    return isinstance(value, list | tuple | set | frozenset) and any(_no_number(v) for v in value)


def check_figures(sample: Sample) -> None:
    """Raise `InvalidInput` for a weight that is no finite number from 0 up, or a score that is not finite."""
    if not 0 <= sample.weight < math.inf:
        raise InvalidInput(f"weight {sample.weight} of sample {sample.id} is not a number from 0 up", field="weight")
    if sample.score is not None and not math.isfinite(sample.score * sample.score):
        raise InvalidInput(f"score {sample.score} of sample {sample.id} is not a number to count with", field="score")


def as_json(sample: Sample) -> Sample:
    """Return the sample with its values as JSON keeps them."""
    check_figures(sample)
    names = ("input", "output", "label")
    return replace(sample, **{name: msgspec.json.decode(to_json(getattr(sample, name), name)) for name in names})


def counted_as(sample: Sample) -> str | None:
    """Name the figure of `Counts` in which a sample counts, if it counts at all."""
    if sample.state is SampleState.ACCEPTED:
        if sample.label is not None:
            return "usable"
        return None if sample.kind == "feedback" else "unlabelled"
    return None if sample.state is SampleState.ERASED else sample.state.value


def noun(kind: type[Record]) -> str:
    """Return what a record is called in events and messages."""
    return kind.__name__.lower()


def in_utc(record: _R) -> _R:
    """Return the record with every moment in UTC. Raises `InvalidInput` for one without a time zone."""
    in_zone: dict[str, Any] = {}
    for f in fields(record):
        value = getattr(record, f.name)
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise InvalidInput(f"{f.name} has no time zone", field=f.name)
            in_zone[f.name] = value.astimezone(UTC)
    return replace(record, **in_zone) if in_zone else record


def check_change(record: Mov, changes: Mapping[str, Any], to: State | None = None, by: str = "") -> None:
    """Raise `IllegalMove` unless stage `by` may move the record, and the changes leave alone what is fixed."""
    if to is not None:
        states.check(record.state, to, by)
    if wrong := sorted(set(changes) & set(FIXED)):
        raise IllegalMove(f"{wrong[0]} of a {noun(type(record))} is not changed this way", field=wrong[0])


def changed(known: Mov, stored: Mov, to: State | None, changes: Mapping[str, Any]) -> Mov:
    """Return what is stored with the changes made, if it still is as the caller knew it; else raise `Stale`."""
    for name in _TURN:
        if getattr(known, name, None) != getattr(stored, name, None):
            was, now = getattr(known, name), getattr(stored, name)
            raise Stale(f"{noun(type(known))} {known.id} changed meanwhile: its {name} is {now}, not {was}")
    fresh: dict[str, Any] = {**changes} if to is None else {**changes, "state": to}
    return in_utc(replace(stored, **fresh))


def added(record: Record, at: datetime, by: str, because: str) -> Event:
    """Write the line of history for a new record."""
    state = getattr(record, "state", None)
    return Event(
        id=uuid4().hex, loop=record.loop, at=at, what="added", subject=f"{noun(type(record))} {record.id}",
        by=by, because=because, to=None if state is None else str(state),
    )  # fmt: skip


def moved(before: Mov, after: Mov, at: datetime, by: str, because: str) -> Event:
    """Write the line of history for a move."""
    details: dict[str, Json] = {}
    if isinstance(before, Model) and isinstance(after, Model) and before.share != after.share:
        details["share"] = after.share
    return Event(
        id=uuid4().hex, loop=after.loop, at=at, what="moved", subject=f"{noun(type(after))} {after.id}",
        by=by, because=because, frm=str(before.state), to=str(after.state), details=details,
    )  # fmt: skip


def noted(loop: str, what: str, at: datetime, by: str, because: str, details: Mapping[str, Json] | None) -> Event:
    """Write a line of history for what changed no record."""
    return Event(
        id=uuid4().hex, loop=loop, at=at, what=what, subject=loop, by=by, because=because, details=details or {}
    )


def which_new(samples: Sequence[Sample], stored: set[str]) -> list[bool]:
    """Say of each sample whether it is the one whose id was just stored; of two with one id, the first is."""
    left, new = set(stored), []
    for sample in samples:
        new.append(sample.id in left)
        left.discard(sample.id)
    return new


def is_gone(holder: str) -> bool:
    """Say whether a lease's holder, "host:pid:start-ticks", was a process of this host that has ended."""
    host, _, rest = holder.partition(":")
    pid, _, ticks = rest.partition(":")
    if host != socket.gethostname() or not (pid.isdigit() and ticks.isdigit()) or not Path("/proc/self/stat").exists():
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    # The command, in brackets, may hold anything; what follows is state, parent … and, 20th, the start.
    after = stat.rpartition(")")[2].split()
    return after[0] in "ZX" or after[19] != ticks


def joined(known: Sample, told: Sample) -> Sample | None:
    """Return what is known once `told` was said too; None where that adds nothing.

    What names neither label nor score (it is only implied that the answer was wrong) replaces nothing.
    """
    if known.kind != "feedback" or known.state not in _OPEN or (told.label is None and told.score is None):
        return None
    after = replace(known, origin=told.origin)
    if known.model is None and told.model is not None:
        after = replace(after, model=told.model, output=told.output)
    if told.label is not None:
        after = replace(after, input=told.input, label=told.label, weight=told.weight, right=told.right)
    if told.score is not None:
        after = replace(after, score=told.score)
    return after if any(getattr(after, name) != getattr(known, name) for name in _SAID) else None


def judged(after: Sample, before: Sample | None = None) -> Tally:
    """Return what to add to the tally of the model that answered: what is known now, less what was before."""
    now, then = _judged(after), _judged(before)
    return Tally(
        judged=now.judged - then.judged,
        right=now.right - then.right,
        scored=now.scored - then.scored,
        score=now.score - then.score,
        score_sq=now.score_sq - then.score_sq,
    )


def _judged(sample: Sample | None) -> Tally:
    if sample is None or sample.kind != "feedback" or sample.model is None:
        return Tally()
    score = sample.score or 0.0
    return Tally(
        judged=int(sample.right is not None),
        right=int(sample.right is True),
        scored=int(sample.score is not None),
        score=score,
        score_sq=score * score,
    )


@dataclass(frozen=True)
class Settled:
    """What is to be stored of a batch in which there are outcomes, and what these come to."""

    told: Mapping[int, bool]  #: place of an outcome in the batch -> did it say anything new?
    store: Mapping[int, Sample]  #: place -> what is to be added, outcomes and the rest, in order
    changed: Sequence[Sample]  #: outcomes that are there, as they are known now
    counts: Counter[tuple[str, str]]  #: (origin, name in `Counts`) -> how many more of what is there
    traffic: Mapping[str, Tally]


def settle(there: Mapping[str, Sample], samples: Sequence[Sample]) -> Settled:
    """Join outcomes, in order, with what is `there` by their ids. Raises `InvalidInput` for what JSON cannot say."""
    store = {i: s for i, s in enumerate(samples) if s.kind != "feedback"}
    before = {s.id: s for s in store.values()} | dict(there)
    now, first, told = dict(before), dict[str, int](), dict[int, bool]()
    for i, sample in enumerate(samples):
        if i not in store:
            said, known = as_json(sample), now.get(sample.id)
            after = said if known is None else joined(known, said)
            told[i] = after is not None
            if after is not None:
                now[after.id] = after
                first.setdefault(after.id, i)
    counts: Counter[tuple[str, str]] = Counter()
    traffic: dict[str, Tally] = {}
    for id in first:
        for one, n in ((before[id], -1), (now[id], 1)) if id in before else ():
            if (name := counted_as(one)) is not None:
                counts[one.origin, name] += n
        model, more = now[id].model, judged(now[id], before.get(id))
        if model is not None and more != Tally():
            traffic[model] = traffic.get(model, Tally()) + more
    store |= {i: now[id] for id, i in first.items() if id not in before}
    changed = [now[id] for id in first if id in before]
    return Settled(told, dict(sorted(store.items())), changed, counts, traffic)
