"""The first schema."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0001"
down_revision = None

_Seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Moment = sa.String(32).with_variant(TIMESTAMP(timezone=True), "postgresql")
_USABLE = "state = 'accepted' AND label IS NOT NULL"


def _seq() -> sa.Column[int]:
    return sa.Column("seq", _Seq, primary_key=True, autoincrement=True)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _at() -> sa.Column[Any]:
    return sa.Column("at", _Moment, nullable=False)


def _index(table: str, name: str, *columns: str, unique: bool = False, where: str | None = None) -> None:
    partial: dict[str, Any] = (
        {} if where is None else {"sqlite_where": sa.text(where), "postgresql_where": sa.text(where)}
    )
    op.create_index(f"{table}_{name}", table, list(columns), unique=unique, **partial)


def upgrade() -> None:
    """Create every table."""
    _samples()
    _figures()
    _records("datasets", sa.Column("version", sa.Integer, nullable=False), unique=True)
    _records("runs", _text("state"))
    _records("models", _text("state"), sa.Column("version", sa.Integer, nullable=False), unique=True)
    _records("events")
    for table in ("runs", "models"):
        _index(table, "by_state", "loop", "state", "seq")
    _index("runs", "one_waiting", "loop", unique=True, where="state IN ('requested', 'queued')")
    _index("runs", "one_running", "loop", unique=True, where="state = 'running'")


def _samples() -> None:
    optional = [_text(name, nullable=True) for name in ("subject", "group", "model")]
    op.create_table(
        "samples",
        _seq(),
        *(_text(name) for name in ("loop", "id", "state", "kind", "input")),
        *(_text(name, nullable=True) for name in ("output", "label")),
        sa.Column("weight", sa.Float(53), nullable=False),
        *(_text(name) for name in ("side", "origin")),
        *optional,
        _at(),
        sa.UniqueConstraint("loop", "id", name="samples_once"),
    )
    _index("samples", "usable", "loop", "state", "seq", where=_USABLE)
    _index("samples", "unsided", "loop", "state", "side", "seq", where=f"{_USABLE} AND side = ''")
    _index("samples", "set_aside", "loop", "state", "seq", where="state <> 'accepted'")
    _index("samples", "by_loop", "loop", "seq")
    op.create_table("rejects", _seq(), *(_text(n) for n in ("loop", "origin", "where", "raw", "reason")), _at())
    _index("rejects", "by_loop", "loop", "seq")


def _figures() -> None:
    op.create_table("counters", *(_key(name) for name in ("loop", "origin", "name")), _number("n"))
    op.create_table(
        "tallies",
        _key("model"),
        *(_number(name) for name in ("answered", "failed", "judged", "right")),
        sa.Column("latency_ms", sa.Float(53), nullable=False),
    )
    op.create_table("remembered", _key("scope"), _key("key"), _text("value"))
    op.create_table("leases", _key("name"), _text("holder"), sa.Column("until", sa.Float(53), nullable=False))
    op.bulk_insert(op.create_table("revision", _number("n")), [{"n": 0}])


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=True)


def _records(table: str, *more: sa.Column[Any], unique: bool = False) -> None:
    versions = [sa.UniqueConstraint("loop", "version", name=f"{table}_version")] if unique else []
    op.create_table(
        table,
        _seq(),
        _text("id"),
        _text("loop"),
        _at(),
        *more,
        _text("body"),
        sa.UniqueConstraint("id", name=f"{table}_id"),
        *versions,
    )
    _index(table, "by_loop", "loop", "seq")
