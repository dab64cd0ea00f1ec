"""The power is cut between any two lines of the corridor, and before any change; the next start finishes what was begun."""

from __future__ import annotations

import dis
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import evergreen
from evergreen import engine
from evergreen.core.loop import Loop
from evergreen.core.records import Dataset, Event, Model, Run, Upload
from evergreen.core.states import ModelState, RunState, UploadState

DRIVER = Path(__file__).with_name("driver.py")
spec = importlib.util.spec_from_file_location("driver", DRIVER)
assert spec is not None
assert spec.loader is not None
driver = importlib.util.module_from_spec(spec)
spec.loader.exec_module(driver)

TOML = """
[loops.l]
recipe = { use = "evergreen.testing.runner:Majority" }
runner = { use = "RUNNER" }
[loops.l.collect]
consent = false
sources = [{ use = "jsonl", path = "data/log.jsonl" }]
[loops.l.trigger]
min_new = 40
[loops.l.gate]
min_rows = 1
margin = 1.0
[loops.l.rollout]
steps = [0.0, 0.5, 1.0]
hold = "0s"
keep = 1
[loops.l.serve]
keep_warm = 1
"""
#: Where it matters that the training is a process of its own.
APART = ("tick", "start")
#: How many models there are when it happens, where that is not one: a champion who must never be missing.
BEFORE = {"tick": (0, 1), "queue": (0, 1), "sweep": (2,), "delete": (2,)}
#: Rows that come before each model.
ROWS = (50, 60, 70)


def lines_of(place: str) -> list[int]:
    """Return the lines of a function's body on which something happens, counted from its top."""
    code = driver.PLACES[place].__code__
    starts = {line for _, line in dis.findlinestarts(code) if line is not None}
    return sorted(line - code.co_firstlineno for line in starts if line > code.co_firstlineno)


CUTS = [(place, line) for place in driver.PLACES for line in lines_of(place)]


class Driver:
    """The driver, kept at hand."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, home: Path, *fault: str) -> tuple[int, str]:
        """Drive a project; return exit status and output."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(home / "evergreen.toml"), *fault]) + "\n")
        self.process.stdin.flush()
        code, said = json.loads(self.process.stdout.readline())
        return code, said

    def settles(self, home: Path) -> int:
        """Drive until nothing is left to do; return how often something was changed."""
        code, said = self(home)
        assert said.startswith("settled"), (code, said)
        return int(said.split()[1])


@pytest.fixture(scope="module")
def drive() -> Iterator[Driver]:
    with_driver = Driver()
    yield with_driver
    assert with_driver.process.stdin is not None
    assert with_driver.process.stdout is not None
    with_driver.process.stdin.close()
    with_driver.process.wait()
    with_driver.process.stdout.close()


@pytest.fixture(scope="module")
def before(drive: Driver, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, str], Path]:
    """Return a folder with a project in which so many models were made, and the rows for the next have come."""
    made: dict[tuple[int, str], Path] = {}

    def laid(models: int, runner: str) -> Path:
        if (models, runner) not in made:
            home = tmp_path_factory.mktemp(f"before-{models}-{runner}")
            if models == 0:
                (home / "evergreen.toml").write_text(TOML.replace("RUNNER", runner))
            else:
                shutil.copytree(laid(models - 1, runner), home, dirs_exist_ok=True)
                drive.settles(home)
            write(home / "data/log.jsonl", ROWS[models], sum(ROWS[:models]))
            upload(home, f"u{models}")
            made[models, runner] = home
        return made[models, runner]

    return laid


def write(path: Path, n: int, start: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for i in range(start, start + n):
            file.write(json.dumps({"input": {"i": i}, "label": "ab"[i % 3 == 0]}) + "\n")


def upload(home: Path, id: str) -> None:
    """Let a model from a device wait for the next training."""
    project = evergreen.open(home / "evergreen.toml")
    try:
        (home / id / "model").mkdir(parents=True)
        (home / id / "model" / "weights").write_text(id)
        project.store.put(f"uploads/l/{id}", home / id)
        sent = Upload(
            id=id, loop="l", state=UploadState.PENDING, name="m.onnx", format="onnx", sha256="0", size=1, key=f"uploads/l/{id}"
        )  # fmt: skip
        project.ledger.add(sent, by="phone", because="a test")
    finally:
        project.ledger.close()


@pytest.mark.parametrize(("place", "line"), CUTS, ids=[f"{p}+{n}" for p, n in CUTS])
def test_the_next_start_finishes_the_job(
    tmp_path: Path, drive: Driver, before: Callable[[int, str], Path], place: str, line: int
) -> None:
    for models in BEFORE.get(place, (1,)):
        home = tmp_path / str(models)
        shutil.copytree(before(models, "process" if place in APART else "inline"), home)
        code, said = drive(home, f"{place}:{line}:1")
        assert code in (-signal.SIGKILL, 0), said  # 0: the line was not on this path
        drive.settles(home)
        check(home, models=models + 1)


@pytest.mark.parametrize("models", range(len(ROWS)))
@pytest.mark.parametrize("part", range(4))
def test_before_any_change(
    tmp_path: Path, drive: Driver, before: Callable[[int, str], Path], models: int, part: int
) -> None:
    """First the last change is left out, and all before it are there; then the last two, and so on."""
    whole = tmp_path / "whole"
    shutil.copytree(before(models, "inline"), whole)
    n = drive.settles(whole)
    told = check(whole, models=models + 1)
    assert n >= 10
    for cut in range(1 + part, n + 1, 4):
        home = tmp_path / str(cut)
        shutil.copytree(before(models, "inline"), home)
        code, said = drive(home, f"change:{cut}")
        assert code == -signal.SIGKILL, said
        drive.settles(home)
        now = check(home, models=models + 1)
        lost = now.pop("run running → queued", 0)  # the power was cut in the middle of the training
        assert lost <= 1
        now["run queued → running"] -= lost
        assert now == told, cut
        shutil.rmtree(home)


def check(home: Path, *, models: int) -> Counter[str]:
    """Everything counted once, every attempt trained once, never a moment without a champion; return the history."""
    project = evergreen.open(home / "evergreen.toml")
    (loop,) = project.loops.values()
    try:
        assert loop.ledger.counts("l").usable == sum(ROWS[:models])
        runs = loop.ledger.find(Run, "l")
        assert [r.state for r in runs].count(RunState.SUCCEEDED) == models
        known = loop.ledger.find(Model, "l")
        assert [model.version for model in known] == list(range(1, models + 1))
        assert [model.state for model in known] == [ModelState.RETIRED] * (models - 1) + [ModelState.CHAMPION]
        there = [bool(loop.store.list(model.key)) for model in known]
        assert there == [False] * (models - 2) + [True] * min(models, 2)
        assert len({d.version for d in loop.ledger.find(Dataset, "l")}) >= models
        uploads = loop.ledger.find(Upload, "l")
        assert [(u.id, u.state) for u in uploads] == [(f"u{n}", UploadState.FAILED) for n in range(models)]  # of no use
        assert {u.run for u in uploads} == {r.id for r in runs if r.state is RunState.SUCCEEDED}
        folders = Counter(p.parent.name for p in (home / ".evergreen/runs").glob("*/begun"))
        assert set(folders.values()) == {1}
        assert len(folders) == sum(r.attempt for r in runs if r.handle)
        champions, told = 0, Counter[str]()
        for event in loop.ledger.find(Event, "l"):
            champions += (event.to == "champion") - (event.frm == "champion")
            assert champions in (0, 1)
            told[f"{event.noun} {event.frm} → {event.to}" if event.to else event.what] += 1
        assert champions == 1
        return told
    finally:
        project.ledger.close()


def test_a_trainer_that_is_killed_is_tried_again_under_the_next_attempt(tmp_path: Path) -> None:
    slow = TOML.replace(':Majority"', ':Majority", sleep_s = 600.0').replace("RUNNER", "process")
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
    """Tick until something is so, for two minutes at most."""
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        engine.tick(loop)
        time.sleep(0.05)
