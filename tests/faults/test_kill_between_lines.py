"""The power is cut between any two lines of the corridor; the next start finishes what was begun."""

from __future__ import annotations

import dis
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import evergreen
from evergreen import engine
from evergreen.core.loop import Loop
from evergreen.core.records import Dataset, Event, Model, Run
from evergreen.core.states import ModelState, RunState

DRIVER = Path(__file__).with_name("driver.py")
spec = importlib.util.spec_from_file_location("driver", DRIVER)
assert spec is not None
assert spec.loader is not None
driver = importlib.util.module_from_spec(spec)
spec.loader.exec_module(driver)

TOML = """
[loops.l]
recipe = { use = "evergreen.testing.runner:Majority" }
[loops.l.collect]
consent = false
sources = [{ use = "jsonl", path = "data/log.jsonl" }]
[loops.l.trigger]
min_new = 40
"""


def lines_of(place: str) -> list[int]:
    """Return the lines of a function's body on which something happens, counted from its top."""
    code = driver.PLACES[place].__code__
    starts = {line for _, line in dis.findlinestarts(code) if line is not None}
    return sorted(line - code.co_firstlineno for line in starts if line > code.co_firstlineno)


CUTS = [(place, line) for place in driver.PLACES for line in lines_of(place)]


def write(path: Path, n: int, start: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for i in range(start, start + n):
            file.write(json.dumps({"input": {"i": i}, "label": "ab"[i % 3 == 0]}) + "\n")


def drive(home: Path, *fault: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DRIVER), str(home / "evergreen.toml"), *fault]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ})


@pytest.mark.parametrize(("place", "line"), CUTS, ids=[f"{p}+{n}" for p, n in CUTS])
def test_the_next_start_finishes_the_job(tmp_path: Path, place: str, line: int) -> None:
    (tmp_path / "evergreen.toml").write_text(TOML)
    write(tmp_path / "data/log.jsonl", 50, 0)
    cut = drive(tmp_path, f"{place}:{line}:1")
    assert cut.returncode in (-signal.SIGKILL, 0), cut.stderr  # 0: the line was not on this path

    ended = drive(tmp_path)
    assert ended.stdout.startswith("settled"), ended.stdout + ended.stderr
    check(tmp_path, models=1, samples=50)

    write(tmp_path / "data/log.jsonl", 60, 50)  # and again, now with a champion that must never be missing
    drive(tmp_path, f"{place}:{line}:1")
    ended = drive(tmp_path)
    assert ended.stdout.startswith("settled"), ended.stdout + ended.stderr
    check(tmp_path, models=2, samples=110)


def check(home: Path, *, models: int, samples: int) -> None:
    """Everything counted once, every attempt trained once, never a moment without a champion."""
    project = evergreen.open(home / "evergreen.toml")
    (loop,) = project.loops.values()
    try:
        assert loop.ledger.counts("l").usable == samples
        runs = loop.ledger.find(Run, "l")
        assert [r.state for r in runs].count(RunState.SUCCEEDED) == models
        assert len(loop.ledger.find(Model, "l")) == models
        assert len(loop.ledger.find(Model, "l", ModelState.CHAMPION)) == 1
        assert len({d.version for d in loop.ledger.find(Dataset, "l")}) >= models
        folders = Counter(p.parent.name for p in (home / ".evergreen/runs").glob("*/begun"))
        assert set(folders.values()) == {1}
        assert len(folders) == sum(r.attempt for r in runs if r.handle)
        champions = 0
        for event in loop.ledger.find(Event, "l"):
            champions += (event.to == "champion") - (event.frm == "champion")
            assert champions in (0, 1)
        assert champions == 1
    finally:
        project.ledger.close()


def test_a_trainer_that_is_killed_is_tried_again_under_the_next_attempt(tmp_path: Path) -> None:
    slow = TOML.replace(':Majority"', ':Majority", sleep_s = 20.0')
    (tmp_path / "evergreen.toml").write_text(slow)
    write(tmp_path / "data/log.jsonl", 50, 0)
    project = evergreen.open(tmp_path / "evergreen.toml")
    (loop,) = project.loops.values()
    try:
        until(loop, lambda: begun(tmp_path, 1) is not None)
        os.kill(begun(tmp_path, 1) or 0, signal.SIGKILL)
        until(loop, lambda: begun(tmp_path, 2) is not None)
        (run,) = loop.ledger.find(Run, "l")
        assert (run.state, run.attempt) == (RunState.RUNNING, 2)
        lost = [e.because for e in loop.ledger.find(Event, "l") if e.frm == "running"]
        assert len(lost) == 1
        assert "attempt 2 follows" in lost[0]
        engine.cancel(loop, by="ann", why="enough seen")
        until(loop, lambda: loop.ledger.last(Run, "l", RunState.CANCELLED) is not None)
    finally:
        project.ledger.close()


def begun(home: Path, attempt: int) -> int | None:
    """Return the trainer's pid once it has begun an attempt."""
    text = [p.read_text() for p in (home / ".evergreen/runs").glob(f"*-{attempt}/begun")]
    return int(text[0]) if text and text[0] else None


def until(loop: Loop, done: Callable[[], bool]) -> None:
    """Tick until something is so, for half a minute at most."""
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        engine.tick(loop)
        time.sleep(0.05)
