"""What the ledger keeps of a loop's drift: references, counts, the alarm. Bounded, and without any row."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from evergreen.core.config import DriftConfig
from evergreen.core.loop import Loop
from evergreen.stages.observe.drift.alarm import Alarm
from evergreen.stages.observe.drift.compare import Finding, compare, judge
from evergreen.stages.observe.drift.sketch import Pane, Reference, empty, total
from evergreen.stages.observe.drift.stream import Quality

#: Parts that the window moves on by.
PANES = 10
_SCOPE = "drift"


class Looked(msgspec.Struct):
    """Where the last look ended; read at every turn, so it is small."""

    model: str  #: id of the champion that was looked after
    version: int
    began: int = 0  #: seq of the newest sample when it was looked at first
    cursor: int = 0  #: seq of the newest prediction that was counted
    answered: int = 0  #: of its tally, at the last look
    first: int = 0  #: of its tally, when it was looked at first
    judged: int = 0
    right: int = 0
    at: float = 0.0  #: seconds since the epoch
    unread: int = 0  #: predictions that the recipe could not describe
    unwritten: bool = False  #: the report in the store is not the newest
    why: str = ""  #: why there is nothing to compare with


class References(msgspec.Struct):
    """What the window is compared with; changes with the champion."""

    inputs: Reference | None = None
    outputs: Reference | None = None


class Window(msgspec.Struct):
    """The newest predictions as counts, part by part, the newest last."""

    inputs: list[Pane] = []
    outputs: list[Pane] = []
    drifted: list[str] = []  #: comparisons that had drifted at the last look


class State(msgspec.Struct):
    """Everything of one loop."""

    looked: Looked
    references: References
    window: Window
    quality: Quality
    alarm: Alarm | None = None


T = TypeVar("T")


def looked(loop: Loop) -> Looked | None:
    """Return where the last look ended."""
    return _read(loop, "looked", Looked)


def recall(loop: Loop) -> State | None:
    """Return what is remembered of a loop, or None where it was never looked at."""
    last = looked(loop)
    if last is None:
        return None
    return State(
        last,
        _read(loop, "references", References) or References(),
        _read(loop, "window", Window) or Window(),
        _read(loop, "quality", Quality) or Quality(),
        _read(loop, "alarm", Alarm),
    )


def keep(loop: Loop, state: State, *, references: bool = False) -> None:
    """Remember where a look ended and what it counted; the references only where they are new."""
    _write(loop, "looked", state.looked)
    _write(loop, "window", state.window)
    _write(loop, "quality", state.quality)
    if references:
        _write(loop, "references", state.references)


def keep_alarm(loop: Loop, alarm: Alarm | None) -> None:
    """Remember an alarm, where the trigger finds it; or that there is none."""
    _write(loop, "alarm", alarm)


def keep_figures(loop: Loop, found: list[Finding], quality: Quality) -> None:
    """Remember one figure for each feature, by the loop's name, for whoever draws curves."""
    figures: dict[str, float] = {}
    for f in found:
        name = f"{f.of}.{f.name}"
        figures[name] = max(figures.get(name, 0.0), round(f.effect, 4))
    if quality.level:
        figures["quality"] = round(max(quality.level - quality.share, 0.0), 4)
    loop.ledger.remember(_SCOPE, loop.name, msgspec.json.encode(figures).decode())


def forget(loop: Loop) -> None:
    """Remember nothing of a loop that is not watched any more."""
    for name in ("looked", "references", "window", "quality", "alarm"):
        loop.ledger.remember(_SCOPE, f"{loop.name}/{name}", None)
    loop.ledger.remember(_SCOPE, loop.name, None)


def pane_rows(rules: DriftConfig) -> int:
    """Return the rows of one part of the window."""
    return max(1, rules.window // PANES)


def whole(reference: Reference | None, panes: list[Pane]) -> Pane:
    """Return the window as a whole."""
    return total(reference, panes) if reference is not None else Pane(0, [])


def found(state: State, rules: DriftConfig) -> list[Finding]:
    """Compare the window with the references, inputs and outputs together; nothing while it is too short."""
    raw: list[Finding] = []
    inputs, outputs = state.references.inputs, state.references.outputs
    if inputs is not None and (window := whole(inputs, state.window.inputs)).n >= rules.min_rows:
        raw += compare("inputs", inputs, window)
    if outputs is not None and (window := whole(outputs, state.window.outputs)).n >= rules.min_rows:
        raw += compare("outputs", outputs, window)
    return judge(raw, rules, frozenset(state.window.drifted))


def filling(reference: Reference, panes: list[Pane], rows: int) -> Pane:
    """Return the newest part of the window, a new one when it is full; the oldest goes when there are too many."""
    if not panes or panes[-1].n >= rows:
        panes.append(empty(reference))
        del panes[: max(0, len(panes) - PANES)]
    return panes[-1]


def _read(loop: Loop, name: str, kind: type[T]) -> T | None:
    said = loop.ledger.recall(_SCOPE, f"{loop.name}/{name}")
    if said is None:
        return None
    try:
        return msgspec.json.decode(said, type=kind)
    except msgspec.ValidationError:  # written by another version of ours: it is learnt anew
        return None


def _write(loop: Loop, name: str, value: object) -> None:
    said = None if value is None else msgspec.json.encode(value).decode()
    loop.ledger.remember(_SCOPE, f"{loop.name}/{name}", said)
