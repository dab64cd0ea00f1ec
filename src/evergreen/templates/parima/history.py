"""The training history as PARIMA has always logged it: one line of JSON for each event, told from the ledger's events."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evergreen.core.errors import NotFound
from evergreen.core.loop import Loop
from evergreen.core.records import Dataset, Event, Model, Run
from evergreen.core.states import ModelState, RunState

#: Events looked at in one go.
PAGE = 200
#: How much of the end of the file is looked at for its last line, in bytes.
_TAIL = 1024 * 1024
#: Longest text of an error in a line, in characters.
_LONGEST = 2000
#: A model in one of these states was never loaded by the serving process.
_UNSERVED = (ModelState.CANDIDATE, ModelState.REJECTED, ModelState.UNDECIDED)
_SCOPE = "parima-history"

Line = dict[str, Any]


class Teller:
    """Makes lines of history of a loop's events; the same event always makes the same line."""

    def __init__(self, loop: Loop, csv_path: str) -> None:
        self._loop = loop
        self._csv = csv_path

    def line(self, event: Event) -> Line | None:
        """Return the line that tells of an event, or None where PARIMA's history has none for it."""
        if event.what == "skipped":
            return _line(event, "TRAINING_SKIPPED", event.because, dict(event.details))
        if event.what != "moved":
            return None
        kind, _, id = event.subject.partition(" ")
        try:
            if kind == "run":
                return self._run(event, self._loop.ledger.get(Run, id))
            if kind == "model" and event.to == ModelState.CHAMPION:
                return self._updated(event, self._loop.ledger.get(Model, id))
        except NotFound:  # it was cleared away since; what it did cannot be told any more
            return None
        return None

    def recent(self, most: int) -> list[Line]:
        """Return the newest lines, the oldest of them first."""
        limit = 8 * most
        while True:
            events = self._loop.ledger.find(Event, self._loop.name, newest_first=True, limit=limit)
            lines: list[Line] = []
            for event in events:
                if len(lines) < most and (line := self.line(event)) is not None:
                    lines.append(line)
            if len(lines) == most or len(events) < limit:
                return lines[::-1]
            limit *= 4

    def _run(self, event: Event, run: Run) -> Line | None:
        if event.to == RunState.RUNNING:
            return self._started(event, run)
        if event.to == RunState.SUCCEEDED:
            return self._completed(event, run)
        if event.to in (RunState.FAILED, RunState.CANCELLED):
            why = event.because[:_LONGEST]
            word = "failed" if event.to == RunState.FAILED else "was cancelled"
            details = {"error": why, "failure": run.failure or "cancelled", **self._source(run)}
            return _line(event, "TRAINING_FAILED", f"Model training {word}: {why}", details)
        return None

    def _started(self, event: Event, run: Run) -> Line:
        data = self._loop.ledger.get(Dataset, run.dataset or "")
        n = data.train + data.holdout
        again = "" if event.because.startswith("attempt 1 ") else f" ({event.because})"
        details = {"n_samples": n, "why": run.why, **self._source(run)}
        return _line(event, "TRAINING_STARTED", f"Starting model training with {n} samples{again}", details)

    def _completed(self, event: Event, run: Run) -> Line:
        data = self._loop.ledger.get(Dataset, run.dataset or "")
        details: Line = {"n_samples": data.train, "n_test_samples": data.holdout}
        model = next((m for m in self._models() if m.run == run.id), None)
        if model is not None:
            details = {"accuracy": model.scores.get("accuracy"), **details, "version": model.version}
            details["model_path"] = self.model_path(model)
            if model.verdict:
                details["verdict"] = {"outcome": model.verdict.get("outcome"), "because": model.verdict.get("because")}
        learnt = model.details.get("model") if model is not None else None  # what "auto" has picked
        details |= self._source(run) | ({"model_type": learnt} if learnt else {})
        return _line(event, "TRAINING_COMPLETED", "Model training completed successfully", details)

    def _updated(self, event: Event, model: Model) -> Line:
        details = {
            "version": model.version,
            "accuracy": model.scores.get("accuracy"),
            "model_path": self.model_path(model),
            "why": event.because,
        }
        return _line(event, "MODEL_UPDATED", f"Model version {model.version} is live: {event.because}", details)

    def model_path(self, model: Model) -> str:
        """Return the folder that a model is served from, or for one that never was its key in the store."""
        return model.key if model.state in _UNSERVED else str(folder_of(self._loop, model))

    def _source(self, run: Run) -> Line:
        """Say from which file a run learnt what kind of model."""
        return {
            "csv_path": run.file or self._csv,
            "model_type": run.overrides.get("model") or self._loop.config.recipe.options.get("model"),
        }

    def _models(self) -> Sequence[Model]:
        return self._loop.ledger.find(Model, self._loop.name, newest_first=True)


def folder_of(loop: Loop, model: Model) -> Path:
    """Return the folder that the serving process loads a model from."""
    return loop.state / "cache" / model.key


class History:
    """Keeps the log file in step with the ledger: each event once, whatever dies in between.

    The ledger remembers up to which event the file was written. A process may die after it wrote lines and before it
    remembered that; whoever goes on finds the last whole line in the file. What was being written when the power went
    is cut off. A file that was rotated or deleted is begun anew, with the next event.
    """

    def __init__(self, path: Path, csv_path: str) -> None:
        self.path = path
        self._csv = csv_path

    def write(self, loop: Loop) -> int:
        """Append what is new; return how many lines that is. Raises `OSError` if the file cannot be written."""
        teller = Teller(loop, self._csv)
        written = 0
        while True:
            done = int(loop.ledger.recall(_SCOPE, loop.name) or 0)
            events = loop.ledger.find(Event, loop.name, after=done, limit=PAGE)
            if not events:
                return written
            lines = [line for event in events if (line := teller.line(event)) is not None]
            if lines:
                written += self._append(lines)
            loop.ledger.remember(_SCOPE, loop.name, str(events[-1].seq))

    def _append(self, lines: Sequence[Line]) -> int:
        """Add the lines that are not in the file yet, in one write that is on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            last = _mend(fd)
            known = next((i + 1 for i, line in enumerate(lines) if _same(line, last)), 0)
            data = b"".join(json.dumps(line, allow_nan=False).encode() + b"\n" for line in lines[known:])
            while data:
                data = data[os.write(fd, data) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        return len(lines) - known


def _line(event: Event, kind: str, message: str, details: Line) -> Line:
    return {
        "timestamp": event.at.isoformat(timespec="microseconds") if event.at else None,
        "event_type": kind,
        "message": message,
        "details": {**details, "event": event.seq},
    }


def _mend(fd: int) -> Line:
    """Make the file end with a whole line, and return that line ({} if it is none of ours).

    What stands behind the last line's end is a line that lacks only its end, or one that was torn while it was
    written: the first is ended, the second cut off.
    """
    while True:
        size = os.fstat(fd).st_size
        whole, end, rest = os.pread(fd, _TAIL, max(0, size - _TAIL)).rpartition(b"\n")
        if not rest:
            return _parsed(whole.rpartition(b"\n")[2]) if end else {}
        if _parsed(rest):
            os.write(fd, b"\n")
        else:
            os.ftruncate(fd, size - len(rest))


def _parsed(text: bytes) -> Line:
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}


def _same(line: Line, other: Line) -> bool:
    """Say whether two lines tell of one event: another ledger may have given the same number to another."""
    details = other.get("details")
    return (
        isinstance(details, dict)
        and details.get("event") == line["details"]["event"]
        and other.get("timestamp") == line["timestamp"]
    )
