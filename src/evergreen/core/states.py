"""Which record may be in which state, and which stage may move it on: the one table of moves."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from evergreen.core.errors import IllegalMove


class SampleState(StrEnum):
    """A collected datum."""

    PENDING = "pending"  #: waiting for review
    ACCEPTED = "accepted"  #: usable
    REJECTED = "rejected"  #: refused by a reviewer
    ERASED = "erased"  #: forgotten on request


class RunState(StrEnum):
    """One attempt at training."""

    REQUESTED = "requested"  #: somebody asked; the next tick decides
    QUEUED = "queued"  #: its dataset is frozen, it waits for the runner
    RUNNING = "running"  #: a runner has it
    SUCCEEDED = "succeeded"  #: it left a candidate
    FAILED = "failed"  #: it ended without one
    CANCELLED = "cancelled"  #: a person stopped it
    SKIPPED = "skipped"  #: it was asked for, and there was not enough to train on


class ModelState(StrEnum):
    """One model version, from candidate to champion and out again."""

    CANDIDATE = "candidate"  #: trained, not judged yet
    PASSED = "passed"  #: the gate let it through
    REJECTED = "rejected"  #: the gate turned it away
    UNDECIDED = "undecided"  #: the gate could not tell; the champion stays
    SHADOW = "shadow"  #: it answers, nobody hears it
    CANARY = "canary"  #: it answers a share of the traffic
    CHAMPION = "champion"  #: it answers
    RETIRED = "retired"  #: it was champion and had a successor
    ROLLED_BACK = "rolled_back"  #: it was taken back


class UploadState(StrEnum):
    """A model that a user's device trained and sent in."""

    PENDING = "pending"  #: checked, scored, waiting for a training
    PROCESSING = "processing"  #: a training has it
    INCORPORATED = "incorporated"  #: it has a weight in a model of ours
    FAILED = "failed"  #: it could not be used, or did not help


class ExperimentState(StrEnum):
    """Versions side by side in live traffic, at a person's wish."""

    RUNNING = "running"  #: its arms answer the units assigned to them
    FROZEN = "frozen"  #: its arms did not meet the shares promised: the champion answers all, nothing is decided
    ENDED = "ended"  #: by evidence, at its deadline, or at a person's word


State = SampleState | RunState | ModelState | UploadState | ExperimentState
S, R, M, U, X = SampleState, RunState, ModelState, UploadState, ExperimentState

#: Waiting or running: at most one waiting and one running run per loop.
WAITING = (R.REQUESTED, R.QUEUED)
OPEN_RUNS = (R.REQUESTED, R.QUEUED, R.RUNNING)
#: Passed, and on its way to become champion.
ON_THE_WAY = (M.PASSED, M.SHADOW, M.CANARY)
#: Loaded by the serving process.
IN_SERVICE = (M.SHADOW, M.CANARY, M.CHAMPION)

#: (from, to) -> the stage that may make the move. Nothing else changes a state.
MOVES: Mapping[tuple[State, State], str] = {
    (S.PENDING, S.ACCEPTED): "collect",
    (S.PENDING, S.REJECTED): "collect",
    (S.ACCEPTED, S.REJECTED): "collect",
    (S.PENDING, S.ERASED): "collect",
    (S.ACCEPTED, S.ERASED): "collect",
    (S.REJECTED, S.ERASED): "collect",
    (R.REQUESTED, R.QUEUED): "run",
    (R.REQUESTED, R.SKIPPED): "run",
    (R.REQUESTED, R.FAILED): "run",
    (R.REQUESTED, R.CANCELLED): "run",
    (R.QUEUED, R.RUNNING): "run",
    (R.QUEUED, R.FAILED): "run",
    (R.QUEUED, R.CANCELLED): "run",
    (R.RUNNING, R.QUEUED): "run",  # the worker went away: try again
    (R.RUNNING, R.SUCCEEDED): "run",
    (R.RUNNING, R.FAILED): "run",
    (R.RUNNING, R.CANCELLED): "run",
    (M.CANDIDATE, M.PASSED): "gate",
    (M.CANDIDATE, M.REJECTED): "gate",
    (M.CANDIDATE, M.UNDECIDED): "gate",
    (M.PASSED, M.SHADOW): "rollout",
    (M.PASSED, M.CANARY): "rollout",
    (M.PASSED, M.CHAMPION): "rollout",
    (M.PASSED, M.ROLLED_BACK): "rollout",  # overtaken by a newer candidate
    (M.SHADOW, M.CANARY): "rollout",
    (M.SHADOW, M.CHAMPION): "rollout",
    (M.CANARY, M.CANARY): "rollout",  # a larger share
    (M.CANARY, M.CHAMPION): "rollout",
    (M.CHAMPION, M.RETIRED): "rollout",
    (M.SHADOW, M.ROLLED_BACK): "rollout",
    (M.CANARY, M.ROLLED_BACK): "rollout",
    (M.CHAMPION, M.ROLLED_BACK): "rollout",
    (U.PENDING, U.PROCESSING): "run",
    (U.PROCESSING, U.PENDING): "run",  # the training ended without a model: the next one has it
    (U.PROCESSING, U.INCORPORATED): "run",
    (U.PROCESSING, U.FAILED): "run",
    (X.RUNNING, X.FROZEN): "rollout",
    (X.RUNNING, X.ENDED): "rollout",
    (X.FROZEN, X.ENDED): "rollout",
    # A person's word, with a name and a reason: forced promotion and rollback.
    (M.CANDIDATE, M.CHAMPION): "rollout",
    (M.REJECTED, M.CHAMPION): "rollout",
    (M.UNDECIDED, M.CHAMPION): "rollout",
    (M.RETIRED, M.CHAMPION): "rollout",
    (M.ROLLED_BACK, M.CHAMPION): "rollout",
}


def check(frm: State, to: State, by: str) -> None:
    """Raise `IllegalMove` unless stage `by` may move a record from `frm` to `to`.

    >>> check(RunState.QUEUED, RunState.RUNNING, "run")
    >>> check(RunState.QUEUED, RunState.RUNNING, "gate")
    Traceback (most recent call last):
    evergreen.core.errors.IllegalMove: queued -> running is made by run, not by gate
    """
    owner = MOVES.get((frm, to)) if type(frm) is type(to) else None  # a StrEnum equals its text
    if owner is None:
        raise IllegalMove(f"{frm} -> {to} is not a move")
    if owner != by:
        raise IllegalMove(f"{frm} -> {to} is made by {owner}, not by {by}")
