"""Reading samples back: pages, sides, counts and what is in quarantine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, case, func, select, text, true, update

from evergreen.backends.ledger.sql.database import Database
from evergreen.backends.ledger.sql.tables import counters, rejects, samples
from evergreen.core.ports import Counts
from evergreen.core.records import Reject, Sample, Side
from evergreen.core.states import SampleState

_PAGE = 1000
# Written out, not bound, because an index over a part of a table is used only where its condition is seen to hold.
_USABLE = text("state = 'accepted' AND label IS NOT NULL")
_UNSIDED = text("state = 'accepted' AND label IS NOT NULL AND side = ''")
_SET_ASIDE = text("state <> 'accepted'")
_decode = msgspec.json.Decoder().decode
_COLUMNS = (
    "seq", "at", "loop", "id", "state", "kind", "input", "output", "label", "weight", "side", "origin", "subject",
    "group", "model", "session", "right", "score",
)  # fmt: skip
_ALL = tuple(samples.c[name] for name in _COLUMNS)


def pages(
    db: Database,
    loop: str,
    *,
    side: Side | None,
    state: SampleState,
    labelled: bool,
    after: int,
    upto: int | None,
    origin: str | None,
    newest_first: bool,
    limit: int | None,
) -> Iterator[Sample]:
    """Read samples a page at a time; between pages no connection is held."""
    wanted = _wanted(loop, side, state, labelled, origin)
    seq = samples.c.seq
    while limit is None or limit > 0:
        size = _PAGE if limit is None else min(_PAGE, limit)
        where = and_(wanted, seq > after, true() if upto is None else seq <= upto)
        query = select(*_ALL).where(where)
        with db.read() as conn:
            found = conn.execute(query.order_by(seq.desc() if newest_first else seq).limit(size)).all()
        for row in found:
            yield _sample(row)
        if len(found) < size:
            return
        limit = None if limit is None else limit - size
        after, upto = (after, found[-1][0] - 1) if newest_first else (found[-1][0], upto)


def by_ids(conn: Connection, loop: str, ids: Sequence[str]) -> dict[str, Sample]:
    """Return the samples that have these ids."""
    found: dict[str, Sample] = {}
    for at in range(0, len(ids), _PAGE):
        where = and_(samples.c.loop == loop, samples.c.id.in_(ids[at : at + _PAGE]))
        for row in conn.execute(select(*_ALL).where(where)):
            found[row[3]] = _sample(row)
    return found


def asked(conn: Connection, loop: str, session: str, since: datetime, upto: datetime, but: str) -> Sample | None:
    """Return the newest sample of a session between two moments."""
    c = samples.c
    where = and_(c.loop == loop, c.session == session, c.id != but, c.at <= upto)
    row = conn.execute(select(*_ALL).where(where).order_by(c.seq.desc()).limit(1)).one_or_none()
    # The newest decides: to look on for one that is late enough would be to read the whole session.
    return None if row is None or row[1] < since else _sample(row)


def _wanted(
    loop: str, side: Side | None, state: SampleState, labelled: bool, origin: str | None
) -> ColumnElement[bool]:
    c, said = samples.c, [samples.c.loop == loop, samples.c.state == state.value]
    if state is not SampleState.ACCEPTED:
        said.append(_SET_ASIDE)  # type: ignore[arg-type]
    elif labelled:
        said.append(_UNSIDED if side == "" else _USABLE)  # type: ignore[arg-type]
    if labelled:
        said.append(c.label.is_not(None))
    if side is not None:
        said.append(c.side == side)
    if origin is not None:
        said.append(c.origin == origin)
    return and_(*said)


def _sample(row: Any) -> Sample:
    (seq, at, loop, id, state, kind, input, output, label, weight, side, origin, subject, group, model, session, right,
     score) = row  # fmt: skip
    return Sample(
        id=id,
        loop=loop,
        state=SampleState(state),
        kind=kind,
        input=_decode(input),
        output=None if output is None else _decode(output),
        label=None if label is None else _decode(label),
        weight=weight,
        side=side,
        origin=origin,
        subject=subject,
        group=group,
        model=model,
        session=session,
        right=right,
        score=score,
        seq=seq,
        at=at,
    )


def _sideless(loop: str, upto: int, origin: str | None) -> ColumnElement[bool]:
    c = samples.c
    of = true() if origin is None else c.origin == origin
    return and_(c.loop == loop, _UNSIDED, c.seq <= upto, of)


def unsided(conn: Connection, loop: str, upto: int, origin: str | None) -> Sequence[int]:
    """Return the seqs of usable samples on no side yet."""
    query = select(samples.c.seq).where(_sideless(loop, upto, origin)).order_by(samples.c.seq)
    return list(conn.execute(query).scalars())


def take_sides(conn: Connection, loop: str, holdout_after: int, upto: int, origin: str | None) -> None:
    """Put them on one."""
    side = case((samples.c.seq > holdout_after, "holdout"), else_="train")
    conn.execute(update(samples).where(_sideless(loop, upto, origin)).values(side=side))


def newest_rejects(conn: Connection, loop: str, limit: int) -> Sequence[Reject]:
    """Return the newest quarantined rows, newest first."""
    c = rejects.c
    query = select(c.origin, c.where, c.raw, c.reason, c.at).where(c.loop == loop).order_by(c.seq.desc())
    return [
        Reject(origin=origin, where=where, raw=raw, reason=reason, at=at)
        for origin, where, raw, reason, at in conn.execute(query.limit(max(limit, 0)))
    ]


def counts(conn: Connection, loop: str, origin: str | None) -> Counts:
    """Sum the counters of a loop, or of one origin of it."""
    c = counters.c
    where = and_(c.loop == loop, true() if origin is None else c.origin == origin)
    found = conn.execute(select(c.name, func.sum(c.n)).where(where).group_by(c.name))
    return Counts(**{name: int(n) for name, n in found})
