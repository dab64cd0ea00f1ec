"""Stage 3. Is it time to train? Every decision is told, also the decision not to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from evergreen.core.config import TriggerConfig
from evergreen.core.loop import Loop
from evergreen.core.records import Run, Snapshot
from evergreen.core.states import OPEN_RUNS, RunState


@dataclass(frozen=True)
class Facts:
    """What the decision rests on."""

    usable: int
    new: int
    since_look: timedelta | None  #: since the interval last came round; None: never
    since_start: timedelta | None  #: since the last training was queued; None: never


@dataclass(frozen=True)
class Decision:
    """Train or not, why, and whether the answer is worth a line of history."""

    train: bool
    because: str
    looked: bool = False  #: the interval has come round


def due(rules: TriggerConfig, facts: Facts) -> Decision:
    """Decide by the rules. Pure.

    >>> due(TriggerConfig(every="1h", min_size=100), Facts(50, 50, None, None))
    Decision(train=False, because='Not enough samples: 50 < 100', looked=True)
    >>> due(TriggerConfig(min_new=20), Facts(120, 20, None, None)).because
    '20 new samples'
    """
    looked = rules.every is not None and (facts.since_look is None or facts.since_look >= rules.every)
    plenty = rules.min_new is not None and facts.new >= rules.min_new
    if not rules.auto or not (looked or plenty):
        return Decision(False, "", False)
    if facts.usable < rules.min_size:
        return Decision(False, f"Not enough samples: {facts.usable} < {rules.min_size}", looked)
    if facts.new == 0:
        return Decision(False, f"No new samples among {facts.usable}", looked)
    if facts.since_start is not None and facts.since_start < rules.cooldown:
        return Decision(False, f"Cooling down for another {rules.cooldown - facts.since_start}", looked)
    return Decision(True, f"{facts.new} new samples" + (" at the interval" if looked and not plenty else ""), looked)


def look(loop: Loop, data: Snapshot) -> Run | None:
    """Return the run that is due (asked for, or new and not stored yet), or None."""
    asked = loop.ledger.last(Run, loop.name, RunState.REQUESTED)
    if asked is not None:
        return _asked(loop, asked, data)
    if loop.ledger.last(Run, loop.name, *OPEN_RUNS) is not None:
        return None
    decision = due(loop.config.trigger, _facts(loop, data))
    if decision.train:  # the queued run itself is the memory of this look
        return Run(id=loop.new_id(), loop=loop.name, state=RunState.QUEUED, why=decision.because)
    if decision.looked:
        with loop.ledger.together():
            loop.ledger.remember("looked", loop.name, loop.now().isoformat())
            _skip(loop, decision.because, data.usable)
    return None


def _asked(loop: Loop, asked: Run, data: Snapshot) -> Run | None:
    """Let a request through, or say why not."""
    usable = loop.ledger.counts(loop.name, origin=asked.origin).usable if asked.origin else data.usable
    needed = 1 if asked.force else loop.config.trigger.min_size
    if usable >= needed:
        return asked
    because = f"Not enough samples: {usable} < {needed}"
    with loop.ledger.together():
        loop.ledger.move(asked, RunState.SKIPPED, by="run", because=because, error=because, ended=loop.now())
        _skip(loop, because, usable)
    return None


def _skip(loop: Loop, because: str, usable: int) -> None:
    details = {"n_samples": usable, "min_required": loop.config.trigger.min_size}
    loop.ledger.note(loop.name, "skipped", by="trigger", because=because, details=details)


def _facts(loop: Loop, data: Snapshot) -> Facts:
    looked = loop.ledger.recall("looked", loop.name)
    runs = loop.ledger.find(Run, loop.name, newest_first=True)
    queued = next((r.at for r in runs if r.dataset is not None and r.at is not None), None)
    own = next((r.at for r in runs if r.by == "trigger" and r.at is not None), None)
    looks = [t for t in (own, datetime.fromisoformat(looked) if looked else None) if t is not None]
    now = loop.now()
    return Facts(
        usable=data.usable,
        new=data.new,
        since_look=now - max(looks) if looks else None,
        since_start=now - queued if queued is not None else None,
    )
