"""The audit log: who did what, when, from where, and how it ended. Nothing that was sent goes into it.

What a person changes is written down before it is answered. What comes in masses (data sent in, calls that are refused) is
counted, and written as one line for each caller, path and outcome every few seconds.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Event, Lock, Thread

from evergreen.core.ports import Ledger

log = logging.getLogger("evergreen.http")

#: Seconds between two writings of what was counted.
PAUSE_S = 5.0
#: Lines of different kinds in one such writing; the rest are counted as one.
_KINDS = 500
#: Scopes in the ledger: the days there are, and the lines of each.
_DAYS, _DAY = "audit", "audit/{}"
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what one caller did on one path with one outcome, `n` times."""

    who: str  #: name of the key, of the person at the command line, "local", "anonymous" or "unknown"
    role: str
    via: str  #: key, session, open, anonymous, command
    what: str  #: method and path as the API describes it, or the command
    status: int  #: as answered over HTTP; 0 for a command that was carried out
    address: str = ""  #: from where
    loop: str = ""
    key: str = ""  #: id of the key
    n: int = 1
    at: str = ""  #: when, or when the first of `n`

    @property
    def outcome(self) -> str:
        """Say how it ended: done, refused or failed.

        >>> [Line("ann", "app", "key", "POST /x", status).outcome for status in (0, 202, 303, 403, 429, 404, 500)]
        ['done', 'done', 'done', 'refused', 'refused', 'failed', 'failed']
        """
        if self.status < 400:
            return "done"
        return "refused" if self.status in REFUSED else "failed"


#: Statuses of calls that were not let in.
REFUSED = frozenset({401, 403, 429})


class Audit:
    """Writes lines into the ledger, some at once and some in passing; throws away what is too old."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        keep: timedelta = timedelta(days=90),
        also: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._keep = keep
        self._also = also  # what else is written now and then
        self._now = now
        self._lock = Lock()
        self._counted: dict[Line, list[str | int]] = {}  # -> [since when, how often]
        self._waiting: list[Line] = []  # could not be written yet
        self._days: set[str] = set()
        self._mark = secrets.token_hex(4)  # tells processes that write in the same microsecond apart
        self._numbers = count()
        self._stop = Event()
        self._thread = Thread(target=self._run, name="audit", daemon=True)
        self._losing = False

    def start(self) -> None:
        """Begin to write what is counted."""
        self._thread.start()

    def stop(self) -> None:
        """Write what was counted and end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def count(self, line: Line) -> None:
        """Count what happens often. From any thread; takes no time."""
        with self._lock:
            known = self._counted.get(line)
            if known is None:
                if len(self._counted) >= _KINDS:
                    line = replace(line, who="(many)", address="", key="", loop="")
                    known = self._counted.get(line)
                known = known or self._counted.setdefault(line, [_text(self._now()), 0])
            known[1] += 1  # type: ignore[operator]

    def write(self, line: Line) -> None:
        """Write a line at once (blocking). If that cannot be done now, it is done later."""
        self._put([replace(line, at=_text(self._now()))])

    def flush(self) -> None:
        """Write what was counted (blocking)."""
        with self._lock:
            counted, self._counted = self._counted, {}
            waiting, self._waiting = self._waiting, []
        lines = [replace(line, at=str(at), n=int(n)) for line, (at, n) in counted.items()]
        if waiting or lines:
            self._put([*waiting, *lines])

    def _put(self, lines: Sequence[Line]) -> None:
        try:
            self._store(lines)
        except Exception as e:
            if not self._losing:
                log.exception("the audit log cannot be written; %d lines wait", len(lines))
            self._losing = True
            with self._lock:
                self._waiting = [*lines, *self._waiting][-_KINDS * 20 :]
            del e
        else:
            self._losing = False

    def _store(self, lines: Sequence[Line]) -> None:
        at = self._now()
        day = at.date().isoformat()
        with self._ledger.together():
            if day not in self._days:
                self._ledger.remember(_DAYS, day, "1")
            key = f"{_text(at)} {self._mark} {next(self._numbers):06d}"
            self._ledger.remember(_DAY.format(day), key, json.dumps([_brief(line) for line in lines]))
        self._days.add(day)

    def _run(self) -> None:
        swept = ""
        while not self._stop.wait(PAUSE_S):
            self.flush()
            try:
                self._also()
                if (today := self._now().date().isoformat()) != swept:
                    sweep(self._ledger, self._now() - self._keep)
                    swept = today
            except Exception:
                log.exception("keys and old lines of the audit log could not be looked after; tried again")


def read(ledger: Ledger, *, since: datetime | None = None, limit: int | None = None) -> list[Line]:
    """Return lines, newest first."""
    found: list[Line] = []
    first = since.astimezone(UTC).date().isoformat() if since else ""
    for day in sorted(ledger.recall_all(_DAYS), reverse=True):
        if day < first or (limit is not None and len(found) >= limit):
            break
        of_day = list(_lines(ledger.recall_all(_DAY.format(day)).values()))
        found += sorted(of_day, key=lambda line: line.at, reverse=True)
    kept = [line for line in found if since is None or line.at >= _text(since)]
    return kept[:limit]


def sweep(ledger: Ledger, before: datetime) -> None:
    """Throw whole days away that are older."""
    for day in ledger.recall_all(_DAYS):
        if day >= before.date().isoformat():
            continue
        with ledger.together():
            for key in ledger.recall_all(_DAY.format(day)):
                ledger.remember(_DAY.format(day), key, None)
            ledger.remember(_DAYS, day, None)


def _lines(kept: Iterable[str]) -> Iterator[Line]:
    for some in kept:
        for raw in json.loads(some):
            yield Line(**raw)


def _brief(line: Line) -> dict[str, str | int]:
    """Leave out what is empty, and cut what a caller may have made long."""
    said = {name: value[:_LONGEST] if isinstance(value, str) else value for name, value in asdict(line).items()}
    return {name: value for name, value in said.items() if value != "" or name in ("who", "role", "via", "what")}


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
