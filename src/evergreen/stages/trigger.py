"""Stage 3. Is it time to train? Every decision is told, also the decision not to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile

from evergreen.core.config import TriggerConfig
from evergreen.core.loop import Loop
from evergreen.core.records import Dataset, Model, Run, Snapshot, Upload
from evergreen.core.states import ON_THE_WAY, OPEN_RUNS, RunState, UploadState

#: A training that failed is tried again after this long, then after twice as long, and so on up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=6)
#: Ended runs among which failures in a row are counted.
FEW = 12
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Facts:
    """What the decision rests on."""

    usable: int
    new: int  #: since a training was last queued
    since_look: timedelta | None  #: since the interval last came round; None: never
    since_start: timedelta | None  #: since the last training was queued; None: never
    unlearnt: int = 0  #: samples that no training has learnt from, because the last ones failed
    failures: int = 0  #: how many trainings in a row have failed
    since_failure: timedelta | None = None
    pending: int = 0  #: models from devices that wait to be used
    rollout: str = ""  #: the model that is taking its first steps now, if there is one
    drift: str = ""  #: what is wrong with live traffic, as long as it is
    answers: int = 0  #: trainings that were queued since that began


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
    again = facts.since_failure is not None and facts.since_failure >= pause(facts.failures)
    new = max(facts.new, facts.unlearnt) if again else facts.new
    looked = rules.every is not None and (facts.since_look is None or facts.since_look >= rules.every)
    plenty = rules.min_new is not None and new >= rules.min_new
    crowd = rules.pending_models is not None and facts.pending >= rules.pending_models
    if crowd and facts.failures and not again:
        crowd = False  # they were given back by a training that failed: wait as long as samples would
    drift = rules.drift and bool(facts.drift) and new >= rules.drift_min_new * 2 ** min(facts.answers, 30)
    if not rules.auto or not (looked or plenty or crowd or drift):
        return Decision(False, "", False)
    if facts.usable < rules.min_size:
        return Decision(False, f"Not enough samples: {facts.usable} < {rules.min_size}", looked)
    if new == 0 and facts.pending == 0:
        return Decision(False, f"No new samples among {facts.usable}", looked)
    if facts.since_start is not None and facts.since_start < rules.cooldown:
        return Decision(False, f"Cooling down for another {rules.cooldown - facts.since_start}", looked)
    if facts.rollout:
        return Decision(False, f"Waiting for {facts.rollout}, which is taking over just now", looked)
    because = " and ".join(
        [f"{new} new samples"] * (new > 0 or not facts.pending)
        + [f"{facts.pending} uploaded model{'s' if facts.pending > 1 else ''} pending"] * (facts.pending > 0)
    )
    if drift and not plenty and not crowd:
        because = f"drift: {facts.drift}; {because}"
    because += " at the interval" if looked and not plenty and not crowd and not drift else ""
    if new > facts.new:
        because += f", again after {facts.failures} failed training{'s' if facts.failures > 1 else ''}"
    return Decision(True, because, looked)


def pause(failures: int) -> timedelta:
    """Return how long to let things be after so many failures in a row.

    >>> [str(pause(n)) for n in (1, 2, 3, 99)]
    ['0:01:00', '0:02:00', '0:04:00', '6:00:00']
    """
    return min(FIRST_PAUSE * 2 ** min(failures - 1, 30), LONGEST_PAUSE) if failures else timedelta(0)


def look(loop: Loop, data: Snapshot) -> Run | None:
    """Return the run that is due (asked for, or new and not stored yet), or None."""
    asked = loop.ledger.last(Run, loop.name, RunState.REQUESTED)
    if asked is not None:
        return _asked(loop, asked, data)
    if not loop.config.trigger.auto or loop.ledger.last(Run, loop.name, *OPEN_RUNS) is not None:
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
    now = loop.now()
    said = loop.ledger.recall("looked", loop.name)
    looked = datetime.fromisoformat(said) if said else _LONG_AGO
    started = next((r.at for r in loop.runs() if r.dataset is not None), None)
    if loop.config.trigger.every is not None:  # the newest training of our own was a look, too
        own = next((r.at for r in loop.runs() if r.at and (r.by == "trigger" or r.at < looked)), None)
        looked = max(looked, own or _LONG_AGO)
    failures, failed, prepared = _failures(loop)
    drift, answers = _drift(loop)
    return Facts(
        usable=data.usable,
        new=data.new if prepared else 0,
        since_look=now - looked if looked > _LONG_AGO else None,
        since_start=now - started if started is not None else None,
        unlearnt=_unlearnt(loop, data) if failures else 0,
        failures=failures,
        since_failure=now - failed if failed is not None else None,
        pending=len(loop.ledger.find(Upload, loop.name, UploadState.PENDING)),
        rollout=_rollout(loop, now),
        drift=drift,
        answers=answers,
    )


def _failures(loop: Loop) -> tuple[int, datetime | None, bool]:
    """Count failures in a row; say when the last was, and whether it came as far as having a dataset."""
    ended = (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)
    runs = loop.ledger.find(Run, loop.name, *ended, newest_first=True, limit=FEW)
    failed = list(takewhile(lambda run: run.state is RunState.FAILED, runs))
    if not failed:
        return 0, None, True
    return len(failed), failed[0].ended or failed[0].at, failed[0].dataset is not None or failed[0].by != "trigger"


def _unlearnt(loop: Loop, data: Snapshot) -> int:
    """Count the samples that came since a training on all of them went well, or was stopped by a person."""
    learnt = (RunState.SUCCEEDED, RunState.CANCELLED)
    runs = loop.ledger.find(Run, loop.name, *learnt, newest_first=True, limit=FEW)
    last = next((r.dataset for r in runs if r.dataset is not None and r.origin is None), None)
    return max(0, data.usable - (loop.ledger.get(Dataset, last).collected if last else 0))


def _drift(loop: Loop) -> tuple[str, int]:
    """Say what is wrong with live traffic, and how many trainings were queued since.

    One that failed, or learnt from a single file, was no answer.
    Each answer must do with twice the new labels of the one before: a training's own outcome, whatever it is and
    whatever its model is compared with next, can never be the reason for another.
    """
    said = loop.ledger.recall("drift", f"{loop.name}/alarm") if loop.config.trigger.drift else None
    if said is None:
        return "", 0
    alarm = json.loads(said)
    since = datetime.fromisoformat(alarm["since"])
    runs = takewhile(lambda run: run.at is None or run.at >= since, islice(loop.runs(), FEW))
    answers = sum(run.dataset is not None and run.origin is None and run.state is not RunState.FAILED for run in runs)
    return str(alarm["because"]), answers


def _rollout(loop: Loop, now: datetime) -> str:
    """Name the model that is on its way, as long as it makes its way: a training now would only overtake it.

    One that has stood still for longer than its step lasts, for want of traffic say, is not waited for.
    """
    model = loop.ledger.last(Model, loop.name, *ON_THE_WAY)
    if model is None or model.since is None or now - model.since >= 2 * loop.config.rollout.hold:
        return ""
    return f"v{model.version}"
