"""SqlLedger keeps the promises of a ledger in a SQLite file, whatever happens to the processes that use it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from evergreen.core.config import Use
from evergreen.core.errors import ConfigError, InvalidInput, Unavailable
from evergreen.core.plugins import make
from evergreen.core.ports import Counts, Ledger
from evergreen.core.records import Event, Model
from evergreen.core.states import ModelState, SampleState
from evergreen.testing.ledger import LedgerContract
from evergreen.testing.ledger.given import WHO, a_model, a_sample, ids, some


def opened(folder: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC), **options: str) -> Ledger:
    ledger: Ledger = make("ledgers", Use(use="sql", **options), home=folder, state=folder / "state", now=now)
    return ledger


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.delenv("EVERGREEN_LEDGER", raising=False)
    ledger = opened(tmp_path)
    yield ledger
    ledger.close()


class TestSqlite(LedgerContract):
    @pytest.fixture
    def ledger_factory(self, tmp_path: Path) -> Callable[[], Ledger]:
        return lambda: opened(tmp_path)


_WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from evergreen.backends.ledger.sql import Options, SqlLedger
from evergreen.testing.ledger.given import some
folder, start, n = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
ledger = SqlLedger(Options(), home=folder, state=folder / "state", now=lambda: datetime.now(UTC))
for at in range(start, start + n, 10):
    print(sum(ledger.append("l", some(10, at))), flush=True)
"""


def writer(folder: Path, start: int, n: int) -> subprocess.Popen[str]:
    """Start a process that appends `n` samples, ten at a time, and says of each batch how many were new."""
    command = [sys.executable, "-c", _WRITER, str(folder), str(start), str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_that_open_and_write_at_once_store_each_sample_once(tmp_path: Path) -> None:
    writers = [writer(tmp_path, start, 300) for start in (0, 100, 200)]
    stored = sum(sum(map(int, w.communicate(timeout=60)[0].split())) for w in writers)
    assert (stored, [w.returncode for w in writers]) == (500, [0, 0, 0])
    with closing(opened(tmp_path)) as ledger:
        assert sorted(ids(ledger.samples("l"))) == sorted(f"s{i}" for i in range(500))
        assert ledger.counts("l") == Counts(usable=500)


@pytest.mark.parametrize("batches", [1, 7, 40])
def test_what_a_killed_writer_acknowledged_is_there(tmp_path: Path, batches: int) -> None:
    with writer(tmp_path, 0, 100_000) as killed:
        assert killed.stdout is not None
        for _ in range(batches):
            killed.stdout.readline()
        killed.kill()
        batches += len(killed.stdout.read().split())
    with closing(opened(tmp_path)) as ledger:
        there = ids(ledger.samples("l"))
        assert len(there) >= batches * 10
        assert there == [f"s{i}" for i in range(len(there))]
        assert len(there) % 10 == 0
        assert ledger.counts("l") == Counts(usable=len(there))
        assert list(ledger.append("l", some(1))) == [False]
    with closing(sqlite3.connect(tmp_path / "state" / "ledger.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_many_threads_open_a_new_file_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(4)
    ledgers: list[Ledger] = []

    def open_one() -> None:
        together.wait()
        ledgers.append(opened(tmp_path))

    threads = [threading.Thread(target=open_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ledger in ledgers:
        ledger.note("l", "hello", **WHO)
    assert len(ledgers[0].find(Event, "l")) == 4
    for ledger in ledgers:
        ledger.close()


def test_it_is_durable(ledger: Ledger, tmp_path: Path) -> None:
    raw = ledger._db.engine.raw_connection()  # type: ignore[attr-defined]
    try:
        found = [
            raw.driver_connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]
    finally:
        raw.close()
    assert found == ["wal", 2]


def test_where_the_file_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERGREEN_LEDGER", raising=False)
    elsewhere = tmp_path / "elsewhere.db"
    monkeypatch.setenv("OUR_DATABASE", f"sqlite:///{elsewhere}")
    for options, file in (
        ({}, tmp_path / "state" / "ledger.db"),
        ({"url": "sqlite:///kept here/ledger.db"}, tmp_path / "kept here" / "ledger.db"),
        ({"url": f"sqlite:///{tmp_path}/deep/ledger.db"}, tmp_path / "deep" / "ledger.db"),
        ({"url": "env:OUR_DATABASE"}, elsewhere),
    ):
        opened(tmp_path, **options).close()
        assert file.exists()
    monkeypatch.setenv("EVERGREEN_LEDGER", "sqlite:///override.db")
    opened(tmp_path, url="sqlite:///never.db").close()
    assert (tmp_path / "override.db").exists()
    assert not (tmp_path / "never.db").exists()


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://localhost/x", "nonsense", "env:NOT_SET_ANYWHERE", "oracel://x"]
)
def test_an_address_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.delenv("EVERGREEN_LEDGER", raising=False)
    with pytest.raises(ConfigError) as e:
        opened(tmp_path, url=url)
    assert (e.value.field, bool(e.value.hint)) == ("url", True)


def test_a_file_that_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, " * 500)
    with pytest.raises(ConfigError, match="not a ledger"):
        opened(tmp_path, url="sqlite:///notes.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        opened(tmp_path, url="sqlite:///file/ledger.db")


def test_the_clock_is_the_one_given(tmp_path: Path) -> None:
    zone = timezone(timedelta(hours=9))
    with closing(opened(tmp_path, now=lambda: datetime(2024, 5, 1, 3, tzinfo=zone))) as ledger:
        ledger.append("l", some(1))
        assert next(ledger.samples("l")).at == datetime(2024, 4, 30, 18, tzinfo=UTC)
        assert ledger.note("l", "x", **WHO).at == datetime(2024, 4, 30, 18, tzinfo=UTC)


def test_a_lease_runs_out(tmp_path: Path) -> None:
    clock = [datetime(2024, 5, 1, tzinfo=UTC)]
    with closing(opened(tmp_path, now=lambda: clock[0])) as ledger:
        assert ledger.lease("tick", "a:1:1", 30)
        clock[0] += timedelta(seconds=29)
        assert not ledger.lease("tick", "b:1:1", 30)
        clock[0] += timedelta(seconds=1)
        assert ledger.lease("tick", "b:1:1", 30)
        assert not ledger.lease("tick", "a:1:1", 30)


def test_text_that_is_not_unicode_is_refused(ledger: Ledger) -> None:
    with pytest.raises(InvalidInput):
        ledger.append("l", [a_sample("\ud800")])
    assert list(ledger.append("l", [a_sample("a")])) == [True]


def test_readers_do_not_wait_for_the_writer(ledger: Ledger) -> None:
    champion = ledger.add(a_model("m", 1, ModelState.CHAMPION), **WHO)
    seen: list[object] = []
    with ledger.together():
        ledger.move(champion, ModelState.RETIRED, by="rollout", because="t")
        reader = threading.Thread(target=lambda: seen.append(ledger.last(Model, "l", ModelState.CHAMPION)))
        reader.start()
        reader.join(10)
    assert seen == [champion]


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({}, "samples_usable"),
        ({"newest_first": True, "limit": 1}, "samples_usable"),
        ({"side": ""}, "samples_unsided"),
        ({"labelled": False}, "samples_by_loop"),
        ({"state": SampleState.PENDING, "labelled": False}, "samples_set_aside"),
        ({"id": "p"}, "(loop=? AND id=?)"),
        ({"session": "s"}, "samples_by_session"),
    ],
)
def test_reading_goes_by_an_index(ledger: Ledger, asked: dict[str, object], index: str) -> None:
    """Samples are found without looking at other loops', and without sorting."""
    raw = ledger._db.engine.raw_connection()  # type: ignore[attr-defined]
    said: list[str] = []
    raw.driver_connection.set_trace_callback(said.append)
    raw.close()
    if "id" in asked:
        ledger.sample("l", "p")
    elif "session" in asked:
        ledger.asked("l", "s", since=datetime.now(UTC), upto=datetime.now(UTC))
    else:
        list(ledger.samples("l", **asked))  # type: ignore[arg-type]
    (statement,) = [s for s in said if "FROM samples" in s]
    raw = ledger._db.engine.raw_connection()  # type: ignore[attr-defined]
    plan = " ".join(row[3] for row in raw.driver_connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
    raw.driver_connection.set_trace_callback(None)
    raw.close()
    assert index in plan
    assert "TEMP B-TREE" not in plan


def test_another_process_that_never_ends_its_turn(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evergreen.backends.ledger.sql.database.PATIENCE", 0.05)
    with (
        closing(opened(tmp_path)) as other,
        ledger.together(),
        pytest.raises(Unavailable, match="database is locked"),
    ):
        other.note("l", "x", **WHO)
    ledger.note("l", "y", **WHO)
    assert [e.what for e in ledger.find(Event, "l")] == ["y"]
