"""A Python of their own for each serving framework, made once and kept in a cache: their requirements exclude each other's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evergreen-benchmarks"
#: The server's own needs; the loop and parser that uvicorn takes when they are there help all of them.
WANTED = {
    "litserve": ("litserve==0.2.19", "uvloop", "httptools"),
    "mlserver": ("mlserver==1.7.1", "uvloop==0.21.0", "httptools"),  # its workers crash with a later uvloop
    "bentoml": ("bentoml==1.4.39", "uvloop", "httptools"),
}


class NotInstallable(Exception):
    """A peer cannot be installed here; the text says why."""


def folder(name: str) -> Path:
    """Return the folder with a peer's programs, made if it is not there. All run the same onnxruntime as we do."""
    wanted = (*WANTED[name], *(f"{package}=={version(package)}" for package in ("onnxruntime", "numpy")))
    place = CACHE / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    done = place / "wanted.txt"
    if not done.is_file() or done.read_text() != "\n".join(wanted):
        shutil.rmtree(place, ignore_errors=True)
        _run([sys.executable, "-m", "venv", place])
        _run([place / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted])
        done.write_text("\n".join(wanted))
    return place / "bin"


def _run(command: list[str | Path]) -> None:
    said = subprocess.run(command, capture_output=True, text=True)
    if said.returncode:
        raise NotInstallable((said.stderr.strip().splitlines() or [f"exit code {said.returncode}"])[-1])
