"""The recipe of the simulation: every step it trains is written down by the world, so that none can be made up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

from evergreen.core.recipe import Job, Predictor, Recipe, Row, Scores
from evergreen.core.records import Json
from evergreen.testing.runner import Always

#: Name of this recipe in a ticket.
USE = "far_recipe:Counted"


@dataclass
class Shift:
    """One training on one machine, and the world's book of what was really done."""

    mark: str
    machine: str
    steps: int
    step_s: float
    every: int
    fails: bool
    trained: dict[str, int]  #: state -> the step it is after; shared by the whole world
    sleep: Callable[[float, str], None]
    accuse: Callable[[str], None]
    went_on: Callable[[], None]  #: told when a training goes on from a checkpoint


#: Who trains, by the actor that does.
SHIFTS: WeakKeyDictionary[greenlet, Shift] = WeakKeyDictionary()


class Counted(Recipe):
    """Each state is a digest of the one before, the step and the trainer: a chain that only training can make longer."""

    def train(self, job: Job) -> Mapping[str, Json]:
        """Go on from the newest checkpoint."""
        shift = SHIFTS[getcurrent()]
        state, done = "", 0
        if (left := job.resume()) is not None:
            state, done = self._read(left[1], shift), left[0]
            shift.went_on()
            if shift.trained.get(state) != done:
                shift.accuse(f"{shift.mark} resumed at step {done} from a state that nobody trained")
        for step in range(done + 1, shift.steps + 1):
            shift.sleep(shift.step_s, "trains")
            if shift.fails and step > shift.steps // 2:
                raise ValueError("this recipe was told to fail")
            state = hashlib.sha256(f"{state} {step} {shift.mark} {shift.machine}".encode()).hexdigest()
            shift.trained[state] = step
            job.report("training", step, shift.steps, {})
            if job.checkpoints is not None and (step % shift.every == 0 or job.stopping()):
                with job.checkpoint(step) as folder:
                    self._write(folder, state)
        (job.out / "answer.json").write_text(json.dumps({"mark": shift.mark, "machine": shift.machine, "state": state}))
        (job.out / "weights.txt").write_text(state)
        return {}

    def load(self, artifact: Path) -> Predictor:
        """Read the model."""
        return Always(json.loads((artifact / "answer.json").read_text())["mark"])

    def score(self, predictor: Predictor, rows: Sequence[Row]) -> Scores:
        """Find everything right."""
        return {"accuracy": [1.0] * len(rows)}

    def _write(self, folder: Path, state: str) -> None:
        """Write a checkpoint of two files, that half of it can be missing."""
        (folder / "state.txt").write_text(state)
        (folder / "again.txt").write_text(state)

    def _read(self, folder: Path, shift: Shift) -> str:
        try:
            state, again = (folder / "state.txt").read_text(), (folder / "again.txt").read_text()
        except FileNotFoundError:
            shift.accuse(f"{shift.mark} resumes from half a checkpoint: {sorted(p.name for p in folder.iterdir())}")
            raise
        if state != again:
            shift.accuse(f"{shift.mark} resumes from a torn checkpoint")
        return state
