"""Of two processes that would change the same row one wins, on every ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import msgspec
import pytest
from folder_kit import TICKET

from evergreen.backends.runner.folder.book import Book, Row
from evergreen.core.config import Use
from evergreen.core.plugins import make
from evergreen.core.ports import Ledger, Progress

Open = Callable[[], Ledger]


@pytest.fixture(params=["sqlite", "postgresql"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens the same database anew, as another process would."""
    said = {} if request.param == "sqlite" else {"url": request.getfixturevalue("postgresql")}
    opened: list[Ledger] = []

    def opening() -> Ledger:
        use = Use.model_validate({"use": "sql", **said})
        ledger: Ledger = make("ledgers", use, home=tmp_path, state=tmp_path / "state", now=lambda: datetime.now(UTC))
        opened.append(ledger)
        return ledger

    yield opening
    for ledger in opened:
        ledger.close()


def test_one_of_many_wins(opening: Open) -> None:
    books = [Book(opening()) for _ in range(4)]
    row = Row(ticket=TICKET, opening="o", created=1.0)
    assert books[0].change(None, row)
    assert not books[1].change(None, row)
    for turn in range(10):
        known = books[0].row("r1")
        ready = Barrier(len(books))

        def grab(n: int, turn: int = turn, known: Row | None = known, ready: Barrier = ready) -> bool:
            assert known is not None
            now = msgspec.structs.replace(known, mark=f"{turn + 1}-{n}", marks=(*known.marks, f"{turn + 1}-{n}"))
            ready.wait(20)
            return books[n].change(known, now)

        with ThreadPoolExecutor(len(books)) as pool:
            won = list(pool.map(grab, range(len(books))))
        assert won.count(True) == 1
        now = books[0].row("r1")
        assert now is not None
        assert now.mark == f"{turn + 1}-{won.index(True)}"
        assert len(now.marks) == turn + 1
    books[0].forget(now)
    assert books[1].row("r1") is None


def test_the_outcome_is_written_with_the_row_or_not_at_all(opening: Open) -> None:
    one, two = Book(opening()), Book(opening())
    row = Row(ticket=TICKET, opening="o", created=1.0)
    assert one.change(None, row)
    ended = msgspec.structs.replace(row, state="done", closed="done")
    told = Progress("done", metrics={"accuracy": 0.5}, details={"text": "NUL \0 and ü"})
    assert two.change(row, ended, told)
    assert not one.change(row, msgspec.structs.replace(row, state="lost"), Progress("lost"))
    assert one.outcome("r1-1") == told
    assert one.row("r1") == ended
    one.forget(ended)
    assert two.outcome("r1-1") is None
