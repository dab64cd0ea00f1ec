"""The hot path: a batch of samples into the database, by the driver itself, and which of them were new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, bindparam, insert, select, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from evergreen.backends.ledger import check_figures, counted_as, settle, to_json, which_new
from evergreen.backends.ledger.sql import reading
from evergreen.backends.ledger.sql.tables import as_text, counters, exposures, rejects, remembered, tallies
from evergreen.backends.ledger.sql.tables import samples as table
from evergreen.core.errors import Stale
from evergreen.core.ports import CursorMove, Tally
from evergreen.core.records import Reject, Sample

_FIGURES = {"weight": "float8", "right": "boolean", "score": "float8"}
_TEXTS = ("id", "state", "kind", "input", "output", "label", "side", "origin", "subject", "group", "model", "session")
_COLUMNS = ", ".join(f'"{name}"' for name in ("loop", "at", *_FIGURES, *_TEXTS))
_ARRAYS = ", ".join(f"%s::{kind}[]" for kind in (*_FIGURES.values(), *["text"] * len(_TEXTS)))
_SQLITE = f"INSERT INTO samples ({_COLUMNS}) VALUES ({', '.join('?' * (2 + len(_FIGURES) + len(_TEXTS)))}) ON CONFLICT (loop, id) DO NOTHING"  # noqa: S608
_POSTGRESQL = (
    f"INSERT INTO samples ({_COLUMNS}) SELECT %s, %s, rows.* FROM "  # noqa: S608
    f"unnest({_ARRAYS}) AS rows ON CONFLICT (loop, id) DO NOTHING RETURNING id"
)


class Batch(NamedTuple):
    """Samples, and the same as rows of text."""

    samples: Sequence[Sample]
    rows: Sequence[tuple[str | None, ...]]


def prepare(samples: Sequence[Sample]) -> Batch:
    """Write samples as rows, before the writer's turn is taken. Raises `InvalidInput`."""
    return Batch(samples, [_texts(sample) for sample in samples])


def append(
    conn: Connection,
    loop: str,
    batch: Batch,
    at: datetime,
    rejects_: Sequence[Reject],
    cursor: CursorMove | None,
    traffic: Mapping[str, Tally],
) -> list[bool]:
    """Store a batch with all that belongs to it, in the caller's transaction."""
    if cursor is not None:
        _move_cursor(conn, loop, cursor)
    samples = batch.samples
    outcomes = [s.id for s in samples if s.kind == "feedback"]
    if outcomes:
        new, counts, traffic = _settle(conn, loop, batch, at, outcomes, traffic)
    else:
        new = _store(conn, loop, batch, at)
        counts = _counted(samples, new)
    if rejects_:
        conn.execute(
            insert(rejects),
            [
                {"loop": loop, "origin": r.origin, "where": r.where, "raw": r.raw, "reason": r.reason, "at": at}
                for r in rejects_
            ],
        )
        counts.update((r.origin, "quarantined") for r in rejects_)
    for (origin, name), n in sorted(counts.items()):
        add_up(conn, counters, {"loop": loop, "origin": origin, "name": name}, {"n": n})
    for model, t in traffic.items():
        add_up(conn, tallies, {"model": model}, asdict(t))
    return new


def upsert(conn: Connection, table: Table, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Insert a row, or replace the values of the one that has its key."""
    statement = _upsert(conn.dialect.name, table, tuple(key), tuple(values), adding=False)
    conn.execute(statement, {**key, **values})


def add_up(conn: Connection, table: Table, key: Mapping[str, str], more: Mapping[str, float]) -> None:
    """Add figures to those of a row, which starts at nothing."""
    statement = _upsert(conn.dialect.name, table, tuple(key), tuple(more), adding=True)
    conn.execute(statement, {**key, **more})


@cache
def _upsert(dialect: str, table: Table, key: tuple[str, ...], names: tuple[str, ...], *, adding: bool) -> Any:
    """Make the statement once: making it costs more than running it."""
    statement = (sqlite_insert if dialect == "sqlite" else pg_insert)(table)
    new = {name: table.c[name] + statement.excluded[name] if adding else statement.excluded[name] for name in names}
    return statement.on_conflict_do_update(index_elements=list(key), set_=new)


def expose(conn: Connection, experiment: str, units: Mapping[str, str]) -> None:
    """Store whom nobody had met yet, and count them by arm."""
    if not units:
        return
    make = sqlite_insert if conn.dialect.name == "sqlite" else pg_insert
    met = make(exposures).on_conflict_do_nothing().returning(exposures.c.arm)
    rows = [{"experiment": experiment, "unit": unit, "arm": arm} for unit, arm in sorted(units.items())]
    new = Counter(arm for (arm,) in conn.execute(met, rows))
    for arm, n in sorted(new.items()):
        add_up(conn, counters, {"loop": experiment, "origin": "exposed", "name": arm}, {"n": n})


def remember(conn: Connection, scope: str, key: str, value: str) -> None:
    """Keep a value under a scope and key."""
    upsert(conn, remembered, {"scope": scope, "key": key}, {"value": value})


def recall(conn: Connection, scope: str, key: str) -> str | None:
    """Return what is kept there."""
    where = (remembered.c.scope == scope) & (remembered.c.key == key)
    found: str | None = conn.execute(select(remembered.c.value).where(where)).scalar()
    return found


def _move_cursor(conn: Connection, loop: str, cursor: CursorMove) -> None:
    key = f"{loop}/{cursor.origin}"
    if (at := recall(conn, "cursor", key)) != cursor.was:
        raise Stale(f"source {cursor.origin} was read meanwhile: it is at {at}, not at {cursor.was}")
    remember(conn, "cursor", key, cursor.now)


def _counted(samples: Iterable[Sample], new: Iterable[bool]) -> Counter[tuple[str, str]]:
    """Count those that are new by origin and by what they count as."""
    fresh = (sample for sample, is_new in zip(samples, new, strict=True) if is_new)
    return Counter((sample.origin, name) for sample in fresh if (name := counted_as(sample)))


def _settle(
    conn: Connection, loop: str, batch: Batch, at: datetime, outcomes: Sequence[str], traffic: Mapping[str, Tally]
) -> tuple[list[bool], Counter[tuple[str, str]], dict[str, Tally]]:
    """Store a batch with outcomes in it; say of each whether it was new, and what to add to counters and tallies."""
    settled = settle(reading.by_ids(conn, loop, outcomes), batch.samples)
    store = [batch.rows[i] if s is batch.samples[i] else _texts(s) for i, s in settled.store.items()]
    added = _store(conn, loop, Batch(list(settled.store.values()), store), at)
    _change(conn, loop, settled.changed)
    told = {**settled.told, **dict(zip(settled.store, added, strict=True))}
    total = dict(traffic)
    for model, more in settled.traffic.items():
        total[model] = total.get(model, Tally()) + more
    counts = _counted(settled.store.values(), added)
    counts.update(settled.counts)
    return [told[i] for i in range(len(told))], counts, total


def _change(conn: Connection, loop: str, changed: Sequence[Sample]) -> None:
    """Write what is known of outcomes now."""
    if not changed:
        return
    names = ("input", "output", "label", "origin", "model", *_FIGURES)
    where = (table.c.loop == loop) & (table.c.id == bindparam("this"))
    statement = update(table).where(where).values({name: bindparam(f"new_{name}") for name in names})
    rows = [dict(zip(_TEXTS, _texts(s), strict=True)) | {n: getattr(s, n) for n in _FIGURES} for s in changed]
    conn.execute(statement, [{"this": row["id"], **{f"new_{name}": row[name] for name in names}} for row in rows])


def _store(conn: Connection, loop: str, batch: Batch, at: datetime) -> list[bool]:
    samples, rows = batch
    if not samples:
        return []
    raw: Any = conn.connection.driver_connection
    if conn.dialect.name == "sqlite":
        when = as_text(at)
        (before,) = raw.execute("SELECT coalesce(max(seq), 0) FROM samples").fetchone()
        changes = raw.total_changes
        raw.executemany(
            _SQLITE, [(loop, when, s.weight, s.right, s.score, *row) for s, row in zip(samples, rows, strict=True)]
        )
        if raw.total_changes - changes == len(samples):
            return [True] * len(samples)
        stored = raw.execute("SELECT id FROM samples WHERE seq > ?", (before,)).fetchall()
    else:
        columns = [list(column) for column in zip(*rows, strict=True)]
        figures = [[getattr(s, name) for s in samples] for name in _FIGURES]
        stored = raw.execute(_POSTGRESQL, (loop, at, *figures, *columns)).fetchall()
    return which_new(samples, {id for (id,) in stored})


def _texts(sample: Sample) -> tuple[str | None, ...]:
    check_figures(sample)
    return (
        sample.id,
        sample.state.value,
        sample.kind,
        to_json(sample.input, "input"),
        None if sample.output is None else to_json(sample.output, "output"),
        None if sample.label is None else to_json(sample.label, "label"),
        sample.side,
        sample.origin,
        sample.subject,
        sample.group,
        sample.model,
        sample.session,
    )
