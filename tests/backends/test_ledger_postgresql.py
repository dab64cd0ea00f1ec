"""SqlLedger keeps the promises of a ledger in PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from evergreen.core.config import Use
from evergreen.core.errors import ConfigError, InvalidInput, Unavailable
from evergreen.core.plugins import make
from evergreen.core.ports import Counts, Ledger
from evergreen.testing.ledger import LedgerContract
from evergreen.testing.ledger.given import WHO, a_sample, some


def opened(url: str) -> Ledger:
    here = Path("unused")
    ledger: Ledger = make("ledgers", Use(use="sql", url=url), home=here, state=here, now=lambda: datetime.now(UTC))
    return ledger


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    ledger = opened(url)
    yield ledger
    ledger.close()


class TestPostgresql(LedgerContract):
    @pytest.fixture
    def ledger_factory(self, url: str) -> Callable[[], Ledger]:
        return lambda: opened(url)


def test_many_open_a_new_database_at_once(url: str) -> None:
    together = threading.Barrier(4)
    ledgers: list[Ledger] = []

    def open_one() -> None:
        together.wait()
        ledgers.append(opened(url))

    threads = [threading.Thread(target=open_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ledger in ledgers:
        ledger.note("l", "hello", **WHO)
        ledger.close()
    assert len(ledgers) == 4


_WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from evergreen.backends.ledger.sql import Options, SqlLedger
from evergreen.testing.ledger.given import some
ledger = SqlLedger(Options(url=sys.argv[1]), home=Path(), state=Path(), now=lambda: datetime.now(UTC))
print(sum(sum(ledger.append("l", some(10, start))) for start in range(int(sys.argv[2]), int(sys.argv[2]) + 300, 10)))
"""


def test_processes_with_the_same_samples_store_each_once(ledger: Ledger, url: str) -> None:
    commands = [[sys.executable, "-c", _WRITER, url, start] for start in ("0", "100")]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    # Whoever reads on from the newest seq it has seen misses nothing: seqs become visible in their order.
    seen: list[int] = []
    while any(writer.poll() is None for writer in writers):
        seen += [s.seq for s in ledger.samples("l", after=seen[-1] if seen else 0)]
    seen += [s.seq for s in ledger.samples("l", after=seen[-1] if seen else 0)]
    stored = [int(writer.communicate()[0]) for writer in writers]
    assert (sum(stored), len(seen)) == (400, 400)
    assert ledger.counts("l") == Counts(usable=400)


def test_a_server_that_restarts_is_missed_only_once(ledger: Ledger, postgresql: str) -> None:
    ledger.append("l", some(1))
    engine = create_engine(make_url(postgresql).set(drivername="postgresql+psycopg"))
    with engine.connect() as conn:
        conn.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))
    engine.dispose()
    assert list(ledger.append("l", some(2))) == [False, True]


def test_a_connection_lost_in_a_block_loses_the_block(ledger: Ledger, postgresql: str) -> None:
    engine = create_engine(make_url(postgresql).set(drivername="postgresql+psycopg"))

    def broken() -> None:
        with ledger.together():
            ledger.append("l", some(1))
            with engine.connect() as conn:
                conn.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
                )
            ledger.append("l", some(1, 1))

    with pytest.raises(Unavailable):
        broken()
    engine.dispose()
    assert list(ledger.append("l", some(1))) == [True]


def test_text_that_the_server_cannot_hold_is_refused(ledger: Ledger) -> None:
    with pytest.raises(InvalidInput, match="NUL"):
        ledger.append("l", [a_sample("a\x00")])
    assert list(ledger.append("l", [a_sample("a")])) == [True]


def test_nobody_listens_there() -> None:
    with pytest.raises(Unavailable, match=r"postgresql\+psycopg://anna:\*\*\*@"):
        opened("postgresql://anna:secret@127.0.0.1:1/evergreen")
    with pytest.raises(ConfigError, match="mysql"):
        opened("mysql://localhost/x")
