"""Tests of backends find the servers they talk to beside themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

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


@pytest.fixture
def url(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give a test a schema of its own in the one PostgreSQL database."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.engine import make_url
    from sqlalchemy.pool import NullPool

    monkeypatch.delenv("EVERGREEN_LEDGER", raising=False)
    schema, server = f"t{uuid4().hex}", make_url(postgresql).set(drivername="postgresql+psycopg")
    engine = create_engine(server, poolclass=NullPool)  # tests cut connections
    with engine.begin() as conn:
        conn.execute(text(f"CREATE SCHEMA {schema}"))
    url = server.set(drivername="postgresql").update_query_dict({"options": f"-csearch_path={schema}"})
    yield url.render_as_string(hide_password=False)
    with engine.begin() as conn:
        conn.execute(text("SET client_min_messages TO warning"))
        conn.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()
