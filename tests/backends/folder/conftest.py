"""Fixtures of the tests of the folder runner."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evergreen.core.config import Use
from evergreen.core.plugins import make
from evergreen.core.ports import Ledger, Store

sys.path.insert(0, str(Path(__file__).parent))

from folder_kit import TICKET, Far


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made: Store = make("stores", Use(use="local"), home=tmp_path, state=tmp_path / "state")
    return made


@pytest.fixture(params=["memory", "sql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    made: Ledger = make(
        "ledgers", Use(use=request.param), home=tmp_path, state=tmp_path / "state", now=lambda: datetime.now(UTC)
    )
    yield made
    made.close()


@pytest.fixture
def far(tmp_path: Path, store: Store, ledger: Ledger) -> Far:
    far = Far(tmp_path, store, ledger)
    far.runner.start(TICKET)
    return far
