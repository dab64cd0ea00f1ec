"""The folder by which a runner and the process that trains speak of one attempt, and outlive each other."""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from evergreen.core.errors import InvalidInput
from evergreen.core.ports import Progress, Ticket

_BEAT_S = 0.2
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


class RunFolder:
    """Names, and the few rules, of the files of one attempt.

    `lock` is held by whoever trains for exactly as long as it lives; `begun` (its pid) says that the attempt
    was begun and must never be begun again; `result.json` is written once, last.
    `cancel` asks for an end, `drain` for a checkpoint first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ticket = path / "ticket.json"
        self.store = path / "store.json"
        self.limits = path / "limits.json"
        self.lock = path / "lock"
        self.begun = path / "begun"
        self.beat = path / "beat.json"
        self.result = path / "result.json"
        self.cancelled = path / "cancel"
        self.draining = path / "drain"
        self.log = path / "log.txt"
        self.work = path / "work"

    @staticmethod
    def name(ticket: Ticket) -> str:
        """Return the name of the folder of a run's attempt: the handle."""
        if not _RUN.fullmatch(ticket.run):
            raise InvalidInput(f"{ticket.run!r} is not the id of a run", field="run")
        return f"{ticket.run}-{ticket.attempt}"

    @staticmethod
    def below(runs: Path, handle: str) -> RunFolder:
        """Return the folder that a handle names. Raises `InvalidInput` for what was never a handle."""
        if not _RUN.fullmatch(handle):
            raise InvalidInput(f"{handle!r} is not a handle", field="handle")
        return RunFolder(runs / handle)

    def checkpoints(self, run: str) -> Path:
        """Return the folder in which a run's attempts leave checkpoints for the next one."""
        return self.path.parent.parent / "checkpoints" / run

    def take(self) -> int | None:
        """Take the lock; return its descriptor, or None when somebody has it."""
        fd = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def held(self) -> bool:
        """Say whether somebody lives who has the lock."""
        try:
            fd = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def begin(self) -> bool:
        """Note, so that a power cut does not undo it, that the attempt begins in this process; False if it had begun."""
        try:
            fd = os.open(self.begun, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(fd, "w") as file:
            file.write(str(os.getpid()))
            file.flush()
            os.fsync(file.fileno())
        _sync(self.path)
        _sync(self.path.parent)
        return True

    def pid(self) -> int | None:
        """Return the process that began it, once that is written."""
        try:
            return int(self.begun.read_text() or 0) or None
        except FileNotFoundError:
            return None

    def write(self, file: Path, value: Any) -> None:
        """Write a file that readers see whole or not at all."""
        self._draft(file, value).replace(file)

    def end(self, progress: Progress) -> None:
        """Write the result; of several the first one stands."""
        draft = self._draft(self.result, progress, sync=True)
        with suppress(FileExistsError):
            os.link(draft, self.result)
        draft.unlink()
        _sync(self.path)

    def ended(self) -> Progress | None:
        """Return the result, if there is one."""
        return _read(self.result)

    def pulse(self) -> Progress | None:
        """Return what was last heard."""
        return _read(self.beat)

    def _draft(self, file: Path, value: Any, *, sync: bool = False) -> Path:
        draft = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
        with draft.open("wb") as out:
            out.write(msgspec.json.encode(value))
            if sync:
                out.flush()
                os.fsync(out.fileno())
        return draft


def _sync(folder: Path) -> None:
    """Make new names in a folder outlive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(file: Path) -> Progress | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Progress)
    except FileNotFoundError:
        return None


class Beat:
    """Writes progress to `beat.json`, at most five times a second and whenever the phase changes."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._phase: str | None = None
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        """Write it, or let it pass."""
        now = time.monotonic()
        if progress.phase == self._phase and now < self._next:
            return
        self._phase, self._next = progress.phase, now + _BEAT_S
        self._folder.write(self._folder.beat, progress)
