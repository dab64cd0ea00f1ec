"""Datasets, runs, models and events: stored with their line of history, changed only by compare-and-set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, exc, insert, select, update

from evergreen.backends.ledger import added, changed, check_change, in_utc, moved, noun, to_json
from evergreen.backends.ledger.sql.tables import of, revision
from evergreen.core.errors import AlreadyWaiting, Conflict, EvergreenError, NotFound
from evergreen.core.records import Event, Mov, Rec, Record, Run
from evergreen.core.states import State

_R = TypeVar("_R", bound=Record)


def store(conn: Connection, record: _R, at: datetime) -> _R:
    """Insert a record; the database gives its seq. Raises `AlreadyWaiting` or `Conflict`."""
    table = of[type(record)]
    record = replace(in_utc(record), seq=0, at=at)
    values = _spread(record)
    try:
        # In a block of its own, because after an error PostgreSQL would answer nothing more in the outer one.
        with conn.begin_nested():
            (seq,) = conn.execute(insert(table).values(**values).returning(table.c.seq)).one()
    except exc.IntegrityError as e:
        raise _taken(conn, record) from e
    _rise(conn)
    return _gather(type(record), {**values, "seq": seq})


def add(conn: Connection, record: Rec, at: datetime, by: str, because: str) -> Rec:
    """Insert a record and the event that tells of it."""
    stored = store(conn, record, at)
    if not isinstance(stored, Event):
        store(conn, added(stored, at, by, because), at)
    return stored


def change(
    conn: Connection, known: Mov, to: State | None, at: datetime, by: str, because: str, changes: Mapping[str, Any]
) -> Mov:
    """Change what is stored, if it still is as the caller knew it, and tell of it if it moved."""
    check_change(known, changes, to, by)
    before = get(conn, type(known), known.id)
    wanted = changed(known, before, to, changes)
    table, values = of[type(known)], _spread(wanted)
    try:
        with conn.begin_nested():
            conn.execute(update(table).where(table.c.id == known.id).values(**values))
    except exc.IntegrityError as e:
        raise _taken(conn, wanted) from e
    _rise(conn)
    after = _gather(type(known), {**values, "seq": before.seq})
    if to is not None:
        store(conn, moved(before, after, at, by, because), at)
    return after


def get(conn: Connection, kind: type[Rec], id: str) -> Rec:
    """Return one record or raise `NotFound`."""
    table = of[kind]
    row = conn.execute(select(table).where(table.c.id == id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no {noun(kind)} {id}")
    return _gather(kind, row._mapping)


def find(
    conn: Connection,
    kind: type[Rec],
    loop: str | None,
    states: Sequence[State],
    after: int,
    limit: int | None,
    newest_first: bool,
) -> Sequence[Rec]:
    """Return records in ledger order or backwards."""
    table = of[kind]
    query = select(table).where(table.c.seq > after)
    if loop is not None:
        query = query.where(table.c.loop == loop)
    if states:
        if "state" not in table.c:
            return []
        query = query.where(table.c.state.in_([str(s) for s in states]))
    query = query.order_by(table.c.seq.desc() if newest_first else table.c.seq)
    return [_gather(kind, row._mapping) for row in conn.execute(query.limit(limit))]


def _rise(conn: Connection) -> None:
    conn.execute(update(revision).values(n=revision.c.n + 1))


def _spread(record: Record) -> dict[str, Any]:
    """Lay a record out for its table: columns for what is asked for, the rest as JSON in `body`."""
    values = {f.name: getattr(record, f.name) for f in fields(record) if f.name != "seq"}
    columns = {name: values.pop(name) for name in list(values) if name in of[type(record)].c}
    if "state" in columns:
        columns["state"] = str(columns["state"])
    plain = {name: to_json(value, name) for name, value in values.items()}
    return {**columns, "body": "{" + ",".join(f'"{name}":{text}' for name, text in plain.items()) + "}"}


def _gather(kind: type[_R], row: Mapping[Any, Any]) -> _R:
    """Make a record of a row; it shares nothing with what the row was made of."""
    values = {str(name): value for name, value in row.items()}
    return msgspec.convert({**msgspec.json.decode(values.pop("body")), **values}, kind)


def _taken(conn: Connection, record: Record) -> EvergreenError:
    """Say which of a table's promises a record would break."""
    table, kind = of[type(record)], noun(type(record))
    if not record.seq and conn.execute(select(table.c.seq).where(table.c.id == record.id)).first():
        return Conflict(f"there is already a {kind} {record.id}")
    if isinstance(record, Run):
        others = select(table.c.id, table.c.state).where(table.c.loop == record.loop, table.c.id != record.id)
        for id, state in conn.execute(others.where(table.c.state.in_(("requested", "queued", "running")))):
            if (state == "running") == (record.state == "running"):
                return AlreadyWaiting(f"loop {record.loop} already has run {id}, which is {state}")
    version = getattr(record, "version", None)
    return Conflict(f"{kind} version {version} of {record.loop} is taken", field="version")
