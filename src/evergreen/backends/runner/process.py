"""Trains in a process of its own that stands back behind serving and survives a restart of the server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from pydantic import Field

from evergreen.core.errors import ConfigError, Unavailable
from evergreen.core.ports import Ledger, Progress, Store, Ticket
from evergreen.core.recipe import PluginOptions
from evergreen.job.folder import RunFolder

_KEEP = 20
_GRACE_S = 10.0  #: from SIGTERM to SIGKILL
_SLACK_S = 30.0  #: how long after its time limit a child that did not end itself is killed
_TAIL_LINES = 5
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class ProcessOptions(PluginOptions):
    """How much of the machine a training may have."""

    nice: int | None = Field(None, ge=0, le=19)
    """Priority of the process: 19 gives way to everybody. Not set: what EVERGREEN_NICE says, or 19."""
    threads: int | None = Field(None, ge=1)
    """Threads it may compute with; all cores but one if not set."""
    memory_mb: int | None = Field(None, ge=64)
    """Most memory it may ask for, in MiB of address space."""
    leash: bool = False
    """End the training when the process that started it ends, instead of outliving it."""


class ProcessRunner:
    """Starts `python -m evergreen.job FOLDER` and reads in the folder how it goes.

    The lock of the folder is taken here and inherited by the child, which alone holds it from then on: it is
    held for exactly as long as the child lives, whatever becomes of this process. By it a child is found again
    after a restart, and by it an attempt is never trained twice.
    """

    Options = ProcessOptions

    def __init__(
        self,
        options: ProcessOptions,
        *,
        ledger: Ledger,  # noqa: ARG002  the folder says it all
        store: Store,  # noqa: ARG002  the child builds its own from `store_use`
        store_use: Mapping[str, Any],
        home: Path,
        state: Path,
    ) -> None:
        self._options = options
        self._nice = _niceness() if options.nice is None else options.nice
        self._threads = options.threads or max(1, _cores() - 1)
        self._store = {"use": dict(store_use), "home": str(home.absolute()), "state": str(state.absolute())}
        self._home = home.absolute()
        self._runs = state.absolute() / "runs"
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        #: Called, from a thread of its own, when a child of this process has ended.
        self.on_change: Callable[[], None] | None = None

    def start(self, ticket: Ticket) -> str:
        """Begin in a process of its own, unless this attempt is running, has ended or was begun before."""
        handle = RunFolder.name(ticket)
        folder = RunFolder.below(self._runs, handle)
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = _take(folder)
        if lock is None:
            return handle
        try:
            if not any(file.exists() for file in (folder.result, folder.begun, folder.cancelled)):
                folder.write(folder.ticket, replace(ticket, threads=self._threads))
                folder.write(folder.store, self._store)
                folder.write(folder.limits, {"nice": self._nice, "memory_mb": self._options.memory_mb})
                self._spawn(handle, folder, lock)
        finally:
            os.close(lock)  # the child has its own copy, and with it the lock
        self._sweep()
        return handle

    def poll(self, handle: str) -> Progress:
        """Say how it goes, from what lies in the folder."""
        folder = RunFolder.below(self._runs, handle)
        if result := folder.ended():
            return result
        if folder.held():
            if not folder.begun.exists():
                return Progress("waiting")
            if late := _late(folder):
                folder.end(late)
                _signal(folder, signal.SIGKILL)
                return folder.ended() or late  # the first result stands
            return folder.pulse() or Progress("running", "starting")
        if result := folder.ended():  # it ended between the two looks
            return result
        if folder.cancelled.exists():
            return Progress("cancelled", error="The training was cancelled.", failure="cancelled")
        return Progress("lost", error=self._obituary(handle, folder), failure="lost")

    def cancel(self, handle: str) -> None:
        """Ask the training to stop, insist after ten seconds. It is over when `poll` says so."""
        folder = RunFolder.below(self._runs, handle)
        if folder.path.is_dir() and not folder.result.exists():
            folder.cancelled.touch()
            threading.Thread(target=_stop, args=(folder,), name=f"cancel {handle}", daemon=True).start()

    def drain(self, handle: str) -> None:
        """Ask the training to save a checkpoint and end, so that another machine can go on from there."""
        folder = RunFolder.below(self._runs, handle)
        if folder.path.is_dir():
            folder.draining.touch()

    def _spawn(self, handle: str, folder: RunFolder, lock: int) -> None:
        command = [sys.executable, "-u", "-X", "faulthandler", "-m", "evergreen.job", str(folder.path), str(lock)]
        # The child reads from the pipe until nobody holds the other end: until this process is gone.
        leash = os.pipe() if self._options.leash else ()
        command += [str(end) for end in leash[:1]]
        with folder.log.open("ab") as log:
            try:
                child = subprocess.Popen(
                    command,
                    cwd=self._home,
                    env={**os.environ, **dict.fromkeys(_THREADS, str(self._threads))},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(lock, *leash[:1]),
                    start_new_session=True,
                )
            except OSError as e:
                for end in leash[1:]:
                    os.close(end)
                raise Unavailable(f"No process could be started to train in: {e}") from e
            finally:
                for end in leash[:1]:
                    os.close(end)
        self._children[handle] = child
        threading.Thread(target=self._await, args=(child, leash[1:]), name=f"await {handle}", daemon=True).start()

    def _await(self, child: subprocess.Popen[bytes], held: Sequence[int]) -> None:
        """Leave no zombie, and tell that something changed."""
        child.wait()
        for end in held:
            os.close(end)
        if self.on_change is not None:
            self.on_change()

    def _obituary(self, handle: str, folder: RunFolder) -> str:
        """Say what is known of a process that left no result."""
        child = self._children.get(handle)
        code = child.poll() if child is not None else None
        if code is None:
            said = "The training's process is gone; it was killed, or the machine was restarted."
        elif code == -signal.SIGKILL:
            said = "The training's process was killed (SIGKILL); the machine may have run out of memory."
        elif code < 0:
            said = f"The training's process was ended by signal {-code} ({signal.Signals(-code).name})."
        else:
            said = f"The training's process ended with exit status {code} and left no result."
        return "\n".join([said, *_tail(folder.log)])

    def _sweep(self) -> None:
        """Remove old folders and what dead attempts left lying about; touch nothing that lives."""
        folders = sorted((path for path in self._runs.iterdir() if path.is_dir()), key=_age_s)
        for place, path in enumerate(folders):
            if place >= _KEEP:
                _remove(RunFolder(path), path)
                self._children.pop(path.name, None)
            elif (work := RunFolder(path).work).exists():
                _remove(RunFolder(path), work)
        runs = {path.name.rpartition("-")[0] for path in self._runs.iterdir()}
        for left in self._runs.parent.glob("checkpoints/*"):
            if left.name not in runs:
                shutil.rmtree(left, ignore_errors=True)


def _age_s(path: Path) -> float:
    with suppress(FileNotFoundError):  # somebody else sweeps, too
        return time.time() - path.stat().st_mtime
    return 0.0


def _remove(folder: RunFolder, what: Path) -> None:
    """Remove a run's folder, or what is in it, unless somebody works there."""
    with suppress(FileNotFoundError):  # somebody else sweeps, too
        lock = folder.take()
        if lock is not None:
            shutil.rmtree(what, ignore_errors=True)
            os.close(lock)


def _niceness() -> int:
    said = os.environ.get("EVERGREEN_NICE") or "19"
    if not said.isdecimal() or int(said) > 19:
        raise ConfigError(f'it is "{said}", and not a whole number from 0 to 19', field="EVERGREEN_NICE")
    return int(said)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _take(folder: RunFolder) -> int | None:
    """Take the lock for a start. A `poll` holds it for a moment too, so try again while nothing was begun."""
    for _ in range(20):
        lock = folder.take()
        if lock is not None or folder.begun.exists():
            return lock
        time.sleep(0.01)
    return None


def _late(folder: RunFolder) -> Progress | None:
    """Say how it ends for a child that should have ended itself and did not."""
    with suppress(FileNotFoundError):
        if time.time() - folder.cancelled.stat().st_mtime > _GRACE_S:
            return Progress("cancelled", error="The training was cancelled.", failure="cancelled")
    limit_s = msgspec.json.decode(folder.ticket.read_bytes(), type=Ticket).limit_s
    if limit_s is not None and time.time() - folder.begun.stat().st_mtime > limit_s + _SLACK_S:
        return Progress("failed", error=f"The training took longer than {limit_s:g} s.", failure="time_limit")
    return None


def _stop(folder: RunFolder) -> None:
    """Ask a child to end, wait, and end it."""
    told, deadline = False, time.monotonic() + _GRACE_S
    while folder.held():
        if time.monotonic() > deadline:
            _signal(folder, signal.SIGKILL)
            return
        told = told or _signal(folder, signal.SIGTERM)
        time.sleep(0.05)


def _signal(folder: RunFolder, which: signal.Signals) -> bool:
    """Signal the child and all it started; only while it holds the lock, so that no stranger's pid is hit."""
    pid = folder.pid()
    if pid is None or not folder.held():
        return False
    with suppress(ProcessLookupError):
        os.killpg(pid, which)
    return True


def _tail(log: Path) -> list[str]:
    """Return the last lines of a log, however long it is."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4000))
            return file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
    except FileNotFoundError:
        return []
