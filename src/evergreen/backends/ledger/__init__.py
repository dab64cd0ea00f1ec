"""Where records are kept, and what every ledger of ours does alike."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import msgspec

from evergreen.core import states
from evergreen.core.errors import IllegalMove, InvalidInput, Stale
from evergreen.core.records import Event, Json, Model, Mov, Record, Sample
from evergreen.core.states import SampleState, State

#: What a change may never touch: who a record is, where it lies, and its state, which only `move` sets.
FIXED = ("id", "loop", "seq", "at", "state", "version")
#: What two holders of a record must agree on for the second to be heard.
_TURN = ("state", "attempt", "share", "since")

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
