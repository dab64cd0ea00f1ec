"""SqlLedger keeps the promises of a ledger in a SQLite file, whatever happens to the processes that use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evergreen.core.config import Use
from evergreen.core.plugins import make
from evergreen.core.ports import Ledger
from evergreen.testing.ledger import LedgerContract


def opened(folder: Path, **options: str) -> Ledger:
    ledger: Ledger = make(
        "ledgers", Use(use="sql", **options), home=folder, state=folder / "state", now=lambda: datetime.now(UTC)
    )
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
