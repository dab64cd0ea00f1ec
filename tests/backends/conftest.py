"""Tests of backends find the servers they talk to beside themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fake_drive import FakeDrive

sys.path.insert(0, str(Path(__file__).parent))  # for `fake_server`, `fake_dropbox` and `fake_drive`


@pytest.fixture
def drive_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDrive]:
    """Run a Google Drive on this machine, with the environment that leads there; no call of it may be wrong."""
    from fake_drive import fake_drive

    from evergreen.backends.store.remote import patience

    with fake_drive() as running:
        monkeypatch.delenv("GOOGLE_SERVICE_ACCOUNT", raising=False)
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(patience, "FIRST_S", 0.002)
        yield running
        assert running.wrong == []
