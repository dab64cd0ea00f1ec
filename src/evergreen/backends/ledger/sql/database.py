"""Connections and transactions: one writer at a time, any number of readers, errors in our words."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, event, exc, text
from sqlalchemy.engine import URL, Engine

from evergreen.backends.ledger.sql import migrate
from evergreen.core.errors import ConfigError, Corrupt, InvalidInput, MissingExtra, Unavailable

#: Longest that a transaction waits for another process's, in seconds.
PATIENCE = 30
#: Every writer takes this lock on PostgreSQL, so that rows become visible in the order of their seq.
_WRITER = text("SELECT pg_advisory_xact_lock(6928141)")


class Database:
    """An engine, and the transaction that the calling thread is in."""

    def __init__(self, url: URL) -> None:
        self.name = url.render_as_string(hide_password=True)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.engine = _sqlite(url) if self.is_sqlite else _postgresql(url)
        self._turn = threading.Lock()
        self._mine = threading.local()
        try:
            with self.explained():
                if self.is_sqlite:
                    _write_ahead(self.engine)
                with self.engine.connect() as conn:
                    current = migrate.is_current(conn)
                if not current:
                    with self.write() as conn:
                        migrate.prepare(conn)
        except BaseException:
            self.close()
            raise

    @property
    def current(self) -> Connection | None:
        """The connection whose transaction the calling thread is in, if it is in one."""
        found: Connection | None = getattr(self._mine, "conn", None)
        return found

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Be the one writer for a block; inside another such block be part of it, undone alone if it fails."""
        with self.explained():
            if (outer := self.current) is not None:
                with outer.begin_nested():
                    yield outer
                return
            # Threads of this process queue here, where waiting is cheap and fair, not at the database.
            with self._turn, self.engine.connect() as conn:
                conn.execution_options(evergreen_writes=True)
                with conn.begin():
                    if not self.is_sqlite:
                        conn.execute(_WRITER)
                    self._mine.conn = conn
                    try:
                        yield conn
                    finally:
                        self._mine.conn = None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Read; inside a `write` block see its changes."""
        with self.explained():
            if (outer := self.current) is not None:
                yield outer
            else:
                with self.engine.connect() as conn:
                    yield conn

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say in our words what a database says in its own."""
        try:
            yield
        except exc.TimeoutError as e:
            raise Unavailable(f"no connection to the ledger {self.name} came free") from e
        except exc.DBAPIError as e:
            raise self._translated(e.orig or e) from e
        except self.engine.dialect.loaded_dbapi.Error as e:
            raise self._translated(e) from e
        except UnicodeEncodeError as e:
            raise InvalidInput(f"text that is not Unicode cannot be stored: {e.reason}") from e

    def _translated(self, e: BaseException) -> Exception:
        dbapi, said = self.engine.dialect.loaded_dbapi, " ".join(str(e).split())
        if isinstance(e, dbapi.OperationalError | dbapi.InterfaceError):
            return Unavailable(f"the ledger {self.name} cannot be used now: {said}")
        if isinstance(e, dbapi.DataError | dbapi.IntegrityError):
            return InvalidInput(f"the ledger cannot store this: {said}")
        if "not a database" in said:
            return ConfigError(f"{self.name} is not a ledger: {said}", field="url")
        if "malformed" in said:
            return Corrupt(f"the ledger {self.name} is damaged: {said}")
        return Unavailable(f"the ledger {self.name} cannot do this: {said}")

    def revision(self) -> int:
        """Return how often any record was changed: asked ten times a second, so by the driver itself."""
        with self.read() as conn:
            raw: Any = conn.connection.driver_connection
            (n,) = raw.execute("SELECT n FROM revision").fetchone()
            return int(n)

    def close(self) -> None:
        """Close every connection that is not at work."""
        self.engine.dispose()


def _sqlite(url: URL) -> Engine:
    # Reads and writes come from any thread; each has a connection of the pool to itself for that time.
    engine = create_engine(
        url,
        pool_size=4,
        max_overflow=-1,
        pool_reset_on_return=None,
        connect_args={"check_same_thread": False, "timeout": PATIENCE, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _settle(raw: Any, _: Any) -> None:
        raw.execute("PRAGMA synchronous=FULL")  # acknowledged is on disk
        raw.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(conn: Connection) -> None:
        # A transaction that begins by reading and then writes can fail half-way; one that begins as a writer waits.
        # Single reads need none at all.
        if conn.get_execution_options().get("evergreen_writes"):
            conn.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _write_ahead(engine: Engine) -> None:
    """Let readers and the writer not wait for each other. Several processes may do this at the same moment."""
    import sqlite3

    give_up = time.monotonic() + PATIENCE
    with engine.connect() as conn:
        while True:
            try:
                if conn.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal":
                    return
                conn.exec_driver_sql("PRAGMA journal_mode=WAL")
            except exc.OperationalError as e:
                # SQLite does not wait by itself here.
                busy = isinstance(e.orig, sqlite3.OperationalError) and e.orig.sqlite_errorname.startswith(
                    "SQLITE_BUSY"
                )
                if not busy or time.monotonic() > give_up:
                    raise
                time.sleep(0.02)


def _postgresql(url: URL) -> Engine:
    try:
        return create_engine(url, pool_size=8, max_overflow=8, pool_timeout=PATIENCE, pool_pre_ping=True)
    except ImportError as e:
        raise MissingExtra(
            f"a ledger on PostgreSQL needs a package that is not installed: {e.name}",
            hint="pip install 'evergreen-ml[postgresql]'",
        ) from e
