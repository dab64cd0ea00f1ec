"""What a story of a far-away training needs: workers as processes that can be killed and stopped, and a recipe that can be followed step by step.

For tests: this folder must be on PYTHONPATH of every process (`environment` sees to it).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from pydantic import Field

from evergreen.core.recipe import Job
from evergreen.core.records import Json
from evergreen.testing.runner import Majority, MajorityOptions

HERE = Path(__file__).parent
PROGRAM = Path(sys.executable).with_name("evergreen")


class StepperOptions(MajorityOptions):
    """How a `Stepper` trains."""

    steps: int = Field(20, ge=1)
    """Steps of a training."""
    step_s: float = Field(0.1, ge=0)
    """How long each takes."""
    every: int = Field(5, ge=1)
    """Save a checkpoint after so many."""
    log: str | None = None
    """A file to which every step adds a line: {"step", "by", "pid"}; it stands outside of the shared folder."""
    gate: str | None = None
    """A file written by a `Gate`: how far each machine may go; it stands outside of the shared folder, too."""


@dataclass(frozen=True)
class Gate:
    """How many steps each machine may take: so a machine is surely half-way when something happens to it."""

    path: Path

    def let(self, **steps: int) -> None:
        """Let machines go on until they have come so far; those not named as far as they like."""
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(steps))
        draft.replace(self.path)

    def lets(self, view: str) -> float:
        """Return the last step that a machine may take."""
        return float(json.loads(self.path.read_text()).get(view, "inf"))


class Stepper(Majority):
    """Trains step by step and writes down who did each: `{"use": "far_kit:Stepper"}`.

    The artifact has `steps.json`, the names of the views (EVERGREEN_VIEW) that trained step 1, 2, 3 …, taken over
    from checkpoint to checkpoint: what was trained again stands there once, what nobody trained cannot stand there.
    """

    Options = StepperOptions

    def train(self, job: Job) -> Mapping[str, Json]:
        """Go on from the newest checkpoint."""
        steps = self.take(job)
        (job.out / "steps.json").write_text(json.dumps(steps))
        return {**super().train(job), "steps": len(steps)}

    def take(self, job: Job) -> list[str]:
        """Take every step that was not taken yet; return who took each."""
        steps: list[str] = []
        if (left := job.resume()) is not None:
            steps = json.loads((left[1] / "steps.json").read_text())
            if left[0] != len(steps):
                raise ValueError(f"checkpoint {left[0]} tells of {len(steps)} steps")
        for step in range(len(steps) + 1, self.options.steps + 1):
            time.sleep(self.options.step_s)
            while self.options.gate and step > Gate(Path(self.options.gate)).lets(
                os.environ.get("EVERGREEN_VIEW", "?")
            ):
                job.report("training", step - 1, self.options.steps, {})
                time.sleep(0.05)
            steps.append(os.environ.get("EVERGREEN_VIEW", "?"))
            if self.options.log:
                with Path(self.options.log).open("a") as log:
                    log.write(json.dumps({"step": step, "by": steps[-1], "pid": os.getpid()}) + "\n")
            job.report("training", step, self.options.steps, {})
            if job.checkpoints is not None and (step % self.options.every == 0 or job.due()):
                with job.checkpoint(step) as folder:
                    (folder / "steps.json").write_text(json.dumps(steps))
        return steps


def environment(view: str, **more: str) -> dict[str, str]:
    """Return an environment in which the test's plugins are found and the shared folder is seen as `view` sees it."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("EVERGREEN_") and k != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    return clean | {"COLUMNS": "200", "PYTHONPATH": path, "EVERGREEN_VIEW": view, **more}


class Machine:
    """A worker on a machine of its own: a process and all it starts, with its own view of the shared folder."""

    def __init__(self, view: str, home: Path, store: str, *words: str, **env: str) -> None:
        self.view, self.home, self.log = view, home, home / "worker.log"
        home.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [PROGRAM, "worker", store, *words],
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment(view, **env),
                start_new_session=True,
            )

    def kill(self) -> None:
        """Pull the plug: nothing of it gets another word in."""
        self._signal(signal.SIGSTOP)  # so that nobody is started while the others die
        self._signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Let it stand still, as a laptop whose lid is closed."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on as if nothing had been."""
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Be rid of it, in whatever state it is."""
        if self.process.poll() is None:
            self.kill()

    def said(self) -> str:
        """Return what it has said."""
        return self.log.read_text(errors="replace")

    def _signal(self, which: signal.Signals) -> None:
        for process in self._all():
            try:
                process.send_signal(which)
            except psutil.NoSuchProcess:
                continue

    def _all(self) -> Sequence[psutil.Process]:
        """List the worker and what it started, the worker first; trainings live in sessions of their own."""
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def lines(log: Path) -> list[dict[str, Any]]:
    """Read what a `Stepper` has logged."""
    try:
        return [json.loads(line) for line in log.read_text().splitlines()]
    except FileNotFoundError:
        return []
