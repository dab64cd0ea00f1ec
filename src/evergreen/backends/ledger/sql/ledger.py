"""The ledger's promise, kept with a SQL database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import Connection, delete, func, select

from evergreen.backends.ledger import is_gone, noted
from evergreen.backends.ledger.sql import address, intake, reading, records
from evergreen.backends.ledger.sql.database import Database
from evergreen.backends.ledger.sql.tables import counters, leases, remembered, tallies
from evergreen.core.ports import Counts, CursorMove, Tally
from evergreen.core.recipe import PluginOptions
from evergreen.core.records import Event, Json, Mov, Rec, Reject, Sample, Side
from evergreen.core.states import SampleState, State


class SqlLedger:
    """Rows in SQLite or PostgreSQL. Any number of threads and processes may use one database."""

    Options: ClassVar[type[PluginOptions]] = address.Options

    def __init__(self, options: address.Options, *, home: Path, state: Path, now: Callable[[], datetime]) -> None:
        self._clock = now
        self._db = Database(address.locate(options, home, state))

    def append(
        self,
        loop: str,
        samples: Sequence[Sample],
        *,
        rejects: Sequence[Reject] = (),
        cursor: CursorMove | None = None,
        traffic: Mapping[str, Tally] | None = None,
    ) -> Sequence[bool]:
        """Store a batch in one transaction; say of each sample whether it was new."""
        batch = intake.prepare(samples)
        with self._db.write() as conn:
            return intake.append(conn, loop, batch, self._now(), rejects, cursor, traffic or {})

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
        return reading.pages(
            self._db,
            loop,
            side=side,
            state=state,
            labelled=labelled,
            after=after,
            upto=upto,
            origin=origin,
            newest_first=newest_first,
            limit=limit,
        )

    def sample(self, loop: str, id: str) -> Sample | None:
        """Return one sample."""
        with self._db.read() as conn:
            return reading.by_ids(conn, loop, [id]).get(id)

    def asked(self, loop: str, session: str, *, since: datetime, upto: datetime, but: str = "") -> Sample | None:
        """Return the newest sample of a session between two moments."""
        with self._db.read() as conn:
            return reading.asked(conn, loop, session, since, upto, but)

    def unsided(self, loop: str, *, upto: int, origin: str | None = None) -> Sequence[int]:
        """Return the seqs, rising, of usable samples that are on no side yet."""
        with self._db.read() as conn:
            return reading.unsided(conn, loop, upto, origin)

    def take_sides(self, loop: str, *, holdout_after: int, upto: int, origin: str | None = None) -> None:
        """Put usable samples that are on no side yet on one."""
        with self._db.write() as conn:
            reading.take_sides(conn, loop, holdout_after, upto, origin)

    def rejects(self, loop: str, *, limit: int = 100) -> Sequence[Reject]:
        """Return the newest quarantined rows, newest first."""
        with self._db.read() as conn:
            return reading.newest_rejects(conn, loop, limit)

    def counts(self, loop: str, *, origin: str | None = None) -> Counts:
        """Count samples, at a cost that does not grow with their number."""
        with self._db.read() as conn:
            return reading.counts(conn, loop, origin)

    def add(self, record: Rec, *, by: str, because: str) -> Rec:
        """Store a new record; return it with its `seq` and `at`."""
        with self._db.write() as conn:
            return records.add(conn, record, self._now(), by, because)

    def move(self, record: Mov, to: State, *, by: str, because: str, **changes: Any) -> Mov:
        """Change a record's state if it may be, and nobody was faster."""
        with self._db.write() as conn:
            return records.change(conn, record, to, self._now(), by, because, changes)

    def update(self, record: Mov, **changes: Any) -> Mov:
        """Change fields that are not states."""
        with self._db.write() as conn:
            return records.change(conn, record, None, self._now(), "", "", changes)

    def note(self, loop: str, what: str, *, by: str, because: str, details: Mapping[str, Json] | None = None) -> Event:
        """Write an event that changes no record."""
        with self._db.write() as conn:
            at = self._now()
            return records.store(conn, noted(loop, what, at, by, because, details), at)

    def get(self, kind: type[Rec], id: str) -> Rec:
        """Return one record or raise `NotFound`."""
        with self._db.read() as conn:
            return records.get(conn, kind, id)

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
        with self._db.read() as conn:
            return records.find(conn, kind, loop, states, after, limit, newest_first)

    def tally(self, model: str) -> Tally:
        """Sum up live traffic of one model version."""
        query = select(*(tallies.c[f.name] for f in fields(Tally))).where(tallies.c.model == model)
        with self._db.read() as conn:
            return Tally(*(conn.execute(query).one_or_none() or ()))

    def expose(self, experiment: str, units: Mapping[str, str]) -> None:
        """Keep which arm each unit met first."""
        with self._db.write() as conn:
            intake.expose(conn, experiment, units)

    def exposed(self, experiment: str) -> Mapping[str, int]:
        """Count the units that each arm met."""
        c = counters.c
        query = select(c.name, c.n).where(c.loop == experiment, c.origin == "exposed")
        with self._db.read() as conn:
            return dict(sorted((name, n) for name, n in conn.execute(query)))

    def recall(self, scope: str, key: str) -> str | None:
        """Return a remembered value."""
        with self._db.read() as conn:
            return intake.recall(conn, scope, key)

    def recall_all(self, scope: str) -> Mapping[str, str]:
        """Return everything remembered in a scope."""
        query = select(remembered.c.key, remembered.c.value).where(remembered.c.scope == scope)
        with self._db.read() as conn:
            return dict(sorted((key, value) for key, value in conn.execute(query)))

    def remember(self, scope: str, key: str, value: str | None) -> None:
        """Remember a value; None forgets it."""
        with self._db.write() as conn:
            if value is None:
                conn.execute(delete(remembered).where(remembered.c.scope == scope, remembered.c.key == key))
            else:
                intake.remember(conn, scope, key, value)

    def revision(self) -> int:
        """Return a number that rises with every change of a record."""
        return self._db.revision()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make every change inside the block at once, or none of them."""
        with self._db.write():
            yield

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew a named lease."""
        with self._db.write() as conn:
            now = self._wall(conn)
            found = conn.execute(select(leases.c.holder, leases.c.until).where(leases.c.name == name)).one_or_none()
            if found is not None and found[0] != holder and found[1] > now and not is_gone(found[0]):
                return False
            intake.upsert(conn, leases, {"name": name}, {"holder": holder, "until": now + seconds})
            return True

    def release(self, name: str, holder: str) -> None:
        """Give a lease back."""
        with self._db.write() as conn:
            conn.execute(delete(leases).where(leases.c.name == name, leases.c.holder == holder))

    def close(self) -> None:
        """Let go of connections."""
        self._db.close()

    def _now(self) -> datetime:
        return self._clock().astimezone(UTC)

    def _wall(self, conn: Connection) -> float:
        """Read the clock that all holders share: the database's, or this machine's where the database is a file on it."""
        if self._db.is_sqlite:
            return self._now().timestamp()
        return float(conn.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
