"""The lock holds even if a file has taken over the process that reads it."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import evil
import pytest
from models import linear

from evergreen.core.errors import InvalidInput
from evergreen.job.cell import Limits, examine, layers

LIMITS = Limits(seconds=4, memory_mb=200, out_mb=64)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the lock is Linux's")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to read; the server has a secret in its environment and one on disk, which it alone can read."""
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "hush")
    secret = tmp_path / "server" / "secret.txt"
    secret.parent.mkdir()
    secret.write_text("hush")
    (tmp_path / "settings").mkdir()
    beside = tmp_path / "settings" / ".env"  # as in a project's folder, from which recipes are imported
    beside.write_text("hush")
    (tmp_path / "settings" / "evil_places.py").write_text(f"SECRET = {str(secret)!r}\nBESIDE = {str(beside)!r}")
    monkeypatch.syspath_prepend(str(tmp_path / "settings"))
    (tmp_path / "m.onnx").write_bytes(linear().SerializeToString())
    return tmp_path / "m.onnx"


def reason(file: Path, name: str, limits: Limits = LIMITS) -> str:
    with pytest.raises(InvalidInput) as refused:
        examine(
            file,
            format=f"evil:{name}",
            recipe={"use": "takers:Taker"},
            rows=None,
            out=file.parent / "out",
            limits=limits,
        )
    assert not list(file.parent.glob("cell-*"))
    return str(refused.value)


def test_every_layer_that_this_machine_has_is_in_force() -> None:
    found = layers()
    assert {"namespaces", "own root", "own user", "no privileges", "landlock", "limits", "seccomp"} <= set(found)
    assert not found["limits"]
    assert not found["no privileges"]
    if platform.machine() in ("x86_64", "aarch64"):
        assert not found["seccomp"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls are those of x86_64")
@pytest.mark.parametrize("name", evil.ATTEMPTS)
def test_what_is_tried_is_prevented(file: Path, name: str) -> None:
    assert reason(file, name).startswith("prevented: ")
    assert not Path("/tmp/evergreen-was-harmed").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("spin", "longer than"),
        ("sleep", "longer than"),
        ("ignore_signals", "longer than"),
        ("eat", "memory"),
        ("eat_quietly", "memory|longer than"),
        ("fill", "wrote more than|could not be read"),
        ("many_files", "wrote more than|very many files"),
        ("talk", "without end"),
        ("threads", "could not be read|memory|crashed"),
        ("crash", "SIGSEGV"),
        ("abort", "SIGABRT|SIGSEGV"),  # the first process of a namespace is deaf to its own signals
        ("x32_exec", "SIGSYS"),
        ("leave", "exit status 0"),
        ("leave_badly", "exit status 7"),
        ("system_exit", "crashed"),
        ("interrupt", "crashed"),
        ("forge_nothing", "cannot be opened"),
        ("forge_folder", "not a file"),
        ("forge_nan", "not numbers|no sound answer"),
        ("forge_shape", "no sound answer"),
    ],
)
def test_what_is_done_is_bounded_and_told(file: Path, name: str, says: str) -> None:
    import re

    said = reason(file, name)
    assert re.search(says, said), said
    assert not _others(), "a process was left"


def _others() -> list[str]:
    """Cells that still live."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = place.read_bytes()
            status = (place.parent / "stat").read_text()
        except OSError:
            continue
        if b"evergreen.job.cell" in line and f" {os.getpid()} " in status:
            found.append(line.decode())
    return found
