"""A small project, and the command line called as a person calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evergreen.cli import main

LOOP = """
recipe = { use = "evergreen.testing.runner:Majority" }
runner = { use = "RUNNER" }
collect.consent = false
trigger = { auto = false, min_size = 10 }
gate = { min_rows = 1, margin = 0.5 }
rollout.steps = [1.0]
"""


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


def lay_down(folder: Path, *loops: str, runner: str = "inline") -> Path:
    """Write a project with these loops."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = [f"[loops.{name}]{LOOP.replace('RUNNER', runner)}" for name in loops]
    (folder / "evergreen.toml").write_text("\n".join(["[http]\nport = 0\n", *tables]))
    return folder


def rows(path: Path, n: int, label: str = "yes", start: int = 0) -> Path:
    """Write samples as JSON lines."""
    lines = [json.dumps({"input": {"n": i}, "label": label}) for i in range(start, start + n)]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def call(*argv: str) -> Said:
        capsys.readouterr()
        code = main([str(a) for a in argv])
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one loop, which is also where we are."""
    monkeypatch.chdir(lay_down(tmp_path / "home", "toy"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "home"
