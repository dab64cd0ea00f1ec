"""MemoryLedger keeps the promises of a ledger."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evergreen.core.config import Use
from evergreen.core.plugins import make
from evergreen.core.ports import Ledger
from evergreen.testing.ledger import LedgerContract


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Ledger:
        ledger: Ledger = make(
            "ledgers", Use(use="memory"), home=tmp_path, state=tmp_path, now=lambda: datetime.now(UTC)
        )
        return ledger


def test_it_needs_no_database() -> None:
    seen = "import sys, evergreen.backends.ledger.memory; sys.exit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", seen], check=True)
