"""A project's far side as processes: a recipe that saves checkpoints, workers that can be killed, an app beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evergreen.core.config import Use
from evergreen.core.plugins import make
from evergreen.core.ports import Store, Ticket
from evergreen.testing.runner import put_dataset

RECIPE = '''
import json, os, time
from evergreen.testing.runner import Majority, MajorityOptions

class StepsOptions(MajorityOptions):
    steps: int = 100
    deaf: bool = False

class Steps(Majority):
    """Trains in steps of 30 ms, saves every fifth."""
    Options = StepsOptions

    def train(self, job):
        begin = 0
        if found := job.resume():
            begin = json.loads((found[1] / "state.json").read_text())
        with open("trained.log", "a") as log:
            print(os.getpid(), begin, file=log)
        for step in range(begin + 1, self.options.steps + 1):
            time.sleep(0.03)
            job.report("training", step, self.options.steps, {})
            if step == 5 if self.options.deaf else step % 5 == 0 or job.stopping():
                with job.checkpoint(step) as place:
                    (place / "state.json").write_text(json.dumps(step))
        return {**super().train(job), "begin": begin}
'''


class Hands:
    """One shared folder, one app with a folder runner, any number of workers."""

    def __init__(self, home: Path) -> None:
        self.home, self.shared = home, home / "shared"
        self.shared.mkdir(parents=True)
        (home / "far_steps.py").write_text(RECIPE)
        self.workers: list[subprocess.Popen[str]] = []
        self.store: Store = make("stores", Use(use="local", path=str(self.shared)), home=home, state=home / "state")
        self.ledger = make("ledgers", Use(use="sql"), home=home, state=home / "state", now=lambda: datetime.now(UTC))
        self.runner = self.app()

    def app(self, **options: Any) -> Any:
        """Begin as a new process of the app."""
        use = {"use": "folder", "beat": 0.1, "poll": 0.05, "lease": 1.5, **options}
        self.runner = make(
            "runners",
            Use.model_validate(use),
            ledger=self.ledger,
            store=self.store,
            store_use={},
            home=self.home,
            state=self.home / "state",
        )
        return self.runner

    def ticket(self, attempt: int = 1, run: str = "r1", **recipe: Any) -> Ticket:
        if attempt == 1:
            put_dataset(self.store, self.home / "data", "datasets/d1", "aaab", "ab")
        return Ticket(
            run, "l", attempt, {"use": "far_steps:Steps", **recipe}, "datasets/d1", f"models/l/{run}-{attempt}"
        )

    def worker(self, name: str, *more: str) -> subprocess.Popen[str]:
        """Start a worker's process; it works in a folder of its own."""
        place = self.home / name
        place.mkdir(exist_ok=True)
        (place / "far_steps.py").write_text(RECIPE)
        command = [sys.executable, "-m", "evergreen", "worker", str(self.shared), "--poll", "0.05", "--name", name]
        with (place / "out.txt").open("a") as out:
            worker = subprocess.Popen(
                [*command, *more],
                cwd=place,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                env={k: v for k, v in os.environ.items() if k != "EVERGREEN_STORE"},
            )
        self.workers.append(worker)
        return worker

    def said(self, name: str) -> str:
        return (self.home / name / "out.txt").read_text()

    def trained(self, name: str) -> list[tuple[int, int]]:
        """Return what was begun by a worker: the process that trained, and the step it began from."""
        log = self.home / name / "trained.log"
        return [tuple(map(int, line.split())) for line in log.read_text().splitlines()] if log.exists() else []  # type: ignore[misc]

    def checkpoints(self) -> list[str]:
        return [key for key in self.store.list("jobs") if "/checkpoints/" in key]

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.ledger.close()


def until(true: Callable[[], Any], what: str, timeout_s: float = 40.0) -> Any:
    """Wait until something is so; return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := true()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)
    return found


def gone(pid: int) -> bool:
    """Say whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
