"""The tables: what is asked for by the database has a column, the rest of a record is JSON in `body`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeDecorator, TypeEngine

from evergreen.core.records import Dataset, Event, Experiment, Model, Record, Run, Upload

metadata = MetaData()
#: Rising by one per row. A plain integer on SQLite, where that is the row's own number.
Seq = BigInteger().with_variant(Integer(), "sqlite")


class Moment(TypeDecorator[datetime]):
    """A moment in UTC: a timestamp on PostgreSQL; on SQLite text of fixed width, which sorts as time does."""

    impl = String(32)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column's type."""
        return dialect.type_descriptor(String(32) if dialect.name == "sqlite" else TIMESTAMP(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Write a moment."""
        return as_text(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Read a moment."""
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        return None if value is None else value.astimezone(UTC)


def as_text(at: datetime) -> str:
    """Write a moment as SQLite keeps it."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


_USABLE = "state = 'accepted' AND label IS NOT NULL"


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


samples = Table(
    "samples",
    metadata,
    Column("seq", Seq, primary_key=True, autoincrement=True),
    Column("loop", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("input", Text, nullable=False),
    Column("output", Text),
    Column("label", Text),
    Column("weight", Float(53), nullable=False),
    Column("side", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("subject", Text),
    Column("group", Text),
    Column("model", Text),
    Column("at", Moment, nullable=False),
    Column("session", Text),
    Column("right", Boolean),
    Column("score", Float(53)),
    UniqueConstraint("loop", "id", name="samples_once"),
    # SQLite takes the index with the most equalities: so the state is named even where it is always the same.
    Index("samples_usable", "loop", "state", "seq", **_where(_USABLE)),
    Index("samples_unsided", "loop", "state", "side", "seq", **_where(f"{_USABLE} AND side = ''")),
    Index("samples_set_aside", "loop", "state", "seq", **_where("state <> 'accepted'")),
    Index("samples_by_loop", "loop", "seq"),
    Index("samples_by_session", "loop", "session", "seq", **_where("session IS NOT NULL")),
)

rejects = Table(
    "rejects",
    metadata,
    Column("seq", Seq, primary_key=True, autoincrement=True),
    Column("loop", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("where", Text, nullable=False),
    Column("raw", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Index("rejects_by_loop", "loop", "seq"),
)

counters = Table(
    "counters",
    metadata,
    Column("loop", Text, primary_key=True),
    Column("origin", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("n", BigInteger, nullable=False),
)

tallies = Table(
    "tallies",
    metadata,
    Column("model", Text, primary_key=True),
    Column("answered", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("judged", BigInteger, nullable=False),
    Column("right", BigInteger, nullable=False),
    Column("latency_ms", Float(53), nullable=False),
    Column("scored", BigInteger, nullable=False, server_default="0"),
    Column("score", Float(53), nullable=False, server_default="0"),
    Column("score_sq", Float(53), nullable=False, server_default="0"),
    Column("compared", BigInteger, nullable=False, server_default="0"),
    Column("agreed", BigInteger, nullable=False, server_default="0"),
    Column("latency_sq", Float(53), nullable=False, server_default="0"),
)

exposures = Table(
    "exposures",
    metadata,
    Column("experiment", Text, primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("arm", Text, nullable=False),
)

remembered = Table(
    "remembered",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", Float(53), nullable=False),
)

#: One row: how often any record was added or changed.
revision = Table("revision", metadata, Column("n", BigInteger, nullable=False))


def _records(name: str, *more: Any) -> Table:
    return Table(
        name,
        metadata,
        Column("seq", Seq, primary_key=True, autoincrement=True),
        Column("id", Text, nullable=False),
        Column("loop", Text, nullable=False),
        Column("at", Moment, nullable=False),
        *more,
        Column("body", Text, nullable=False),
        UniqueConstraint("id", name=f"{name}_id"),
    )


datasets = _records(
    "datasets",
    Column("version", Integer, nullable=False),
    UniqueConstraint("loop", "version", name="datasets_version"),
    Index("datasets_by_loop", "loop", "seq"),
)
runs = _records(
    "runs",
    Column("state", Text, nullable=False),
    Index("runs_by_loop", "loop", "seq"),
    Index("runs_by_state", "loop", "state", "seq"),
    Index("runs_one_waiting", "loop", unique=True, **_where("state IN ('requested', 'queued')")),
    Index("runs_one_running", "loop", unique=True, **_where("state = 'running'")),
)
models = _records(
    "models",
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False),
    UniqueConstraint("loop", "version", name="models_version"),
    Index("models_by_loop", "loop", "seq"),
    Index("models_by_state", "loop", "state", "seq"),
)
uploads = _records(
    "uploads",
    Column("state", Text, nullable=False),
    Index("uploads_by_loop", "loop", "seq"),
    Index("uploads_by_state", "loop", "state", "seq"),
)
experiments = _records(
    "experiments",
    Column("state", Text, nullable=False),
    Index("experiments_by_loop", "loop", "seq"),
    Index("experiments_by_state", "loop", "state", "seq"),
)
events = _records("events", Index("events_by_loop", "loop", "seq"))

of: dict[type[Record], Table] = {
    Dataset: datasets,
    Run: runs,
    Model: models,
    Upload: uploads,
    Experiment: experiments,
    Event: events,
}
