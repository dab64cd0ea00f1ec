"""What the ledger knows of runs in the folder: the one place where it is decided who trains and what counted."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from evergreen.core.errors import NotFound
from evergreen.core.ports import Ledger, Progress, Ticket
from evergreen.core.records import Run
from evergreen.core.states import OPEN_RUNS
from evergreen.job.far.protocol import marked

_SCOPE = "folder"
_OUTCOMES = "folder/outcome"


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a run in the folder stands. Written before anything of it is published."""

    ticket: Ticket  #: of the newest attempt, without nonce
    opening: str
    created: float
    mark: str = ""  #: the attempt that counts; empty while nobody has the job
    worker: str = ""
    boot: str = ""
    marks: tuple[str, ...] = ()  #: every attempt that anybody ever had, `mark` among them
    kin: tuple[str, ...] = ()  #: those of them whose checkpoints fit the ticket
    resume: tuple[str, ...] = ()  #: checkpoints that the holder was told of
    cancelled: bool = False
    state: str = ""  #: how the attempt ended; empty while it is open
    why: str = ""
    closed: str = ""  #: set when nothing more will be tried
    tidy: bool = False  #: what nobody needs any more is gone from the folder

    @property
    def held(self) -> Ticket:
        """Return the ticket as the holder has it."""
        attempt, _, nonce = self.mark.partition("-")
        return marked(self.ticket, int(attempt), nonce)

    @property
    def newest(self) -> int:
        """Return the highest number that any attempt had."""
        return max((int(mark.partition("-")[0]) for mark in self.marks), default=0)


class Book:
    """Reads and changes rows; of two processes that would change the same row one wins."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def row(self, run: str) -> Row | None:
        """Return what is known of a run."""
        said = self._ledger.recall(_SCOPE, run)
        return None if said is None else msgspec.json.decode(said, type=Row)

    def rows(self) -> Mapping[str, Row]:
        """Return all of them, by run."""
        return {run: msgspec.json.decode(said, type=Row) for run, said in self._ledger.recall_all(_SCOPE).items()}

    def change(self, was: Row | None, now: Row, outcome: Progress | None = None) -> bool:
        """Write a row, and how its attempt ended, if the row is still as it was; False if somebody was faster."""
        run = now.ticket.run
        with self._ledger.together():
            if self.row(run) != was:
                return False
            self._ledger.remember(_SCOPE, run, msgspec.json.encode(now).decode())
            if outcome is not None:
                handle = f"{run}-{now.ticket.attempt}"
                self._ledger.remember(_OUTCOMES, handle, msgspec.json.encode(outcome).decode())
        return True

    def outcome(self, handle: str) -> Progress | None:
        """Return how an attempt ended, if it has."""
        said = self._ledger.recall(_OUTCOMES, handle)
        return None if said is None else msgspec.json.decode(said, type=Progress)

    def forget(self, row: Row) -> None:
        """Forget a run that is over."""
        with self._ledger.together():
            if self.row(row.ticket.run) == row:
                self._ledger.remember(_SCOPE, row.ticket.run, None)
                for attempt in range(1, row.ticket.attempt + 1):
                    self._ledger.remember(_OUTCOMES, f"{row.ticket.run}-{attempt}", None)

    def over(self, run: str) -> str | None:
        """Return the state of a run of which nothing more is wanted; None while something is, or nobody knows it."""
        try:
            found = self._ledger.get(Run, run)
        except NotFound:
            return None
        return None if found.state in OPEN_RUNS else str(found.state)

    def wanted(self, run: str) -> bool:
        """Say whether somebody may still ask how a run went."""
        try:
            return self._ledger.get(Run, run).state in OPEN_RUNS
        except NotFound:
            return False
