"""The outside of the cell: starts the process, watches its time, memory, disk and talk, and ends it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from evergreen.core.errors import Unavailable

#: How often memory and disk are looked at, in seconds.
_LOOK_S = 0.02
#: How long a process may take to end once it has closed its pipe, in seconds.
_DYING_S = 2.0
#: Bytes that may come out of a cell; files and folders that may lie in it.
_TALK, _ENTRIES = 4 * 2**20, 200
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")
_SETTINGS = {
    "ORT_DISABLE_TELEMETRY": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # What is let go of goes back to the system at once.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "LC_ALL": "C.UTF-8",
}


class Ended(Enum):
    """How it ended."""

    ANSWERED = "answered"
    CRASHED = "crashed"
    TIME = "too long"
    MEMORY = "too much memory"
    DISK = "too much on disk"
    TALK = "too much talk"


@dataclass
class Watched:
    """What was seen from outside."""

    ended: Ended = Ended.CRASHED
    how: str = ""  #: the signal or exit status of a crash
    said: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, str] = field(default_factory=dict)
    memory_mb: int = 0  #: the most it had in memory, as far as was seen
    seconds: float = 0.0


def watch(asked: Mapping[str, Any], *, seconds: float, memory_mb: int, out_mb: int) -> Watched:
    """Run one request in a cell, to its end or to the end of its time, and say how it went. Leaves no process."""
    start = time.monotonic()
    seen, talk = Watched(), _Talk()
    ours, theirs = os.pipe()
    try:
        child = _spawn(theirs)
    except OSError as e:
        os.close(ours)
        raise Unavailable(f"No process could be started to examine it in: {e}") from e
    finally:
        os.close(theirs)
    try:
        assert child.stdin is not None
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps(asked).encode())
            child.stdin.close()
        over = _follow(child, ours, talk, seen, start + seconds, memory_mb, Path(asked["scratch"]), out_mb)
        if over is None and talk.result is None:
            with suppress(subprocess.TimeoutExpired):
                child.wait(_DYING_S)  # it says no more: how did it end?
    finally:
        os.close(ours)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        status = child.wait()
    seen.seconds = time.monotonic() - start
    seen.layers = talk.of("layers")
    if over is not None:
        seen.ended = over
    elif talk.result is not None:
        seen.ended, seen.said = Ended.ANSWERED, talk.result
    else:
        seen.ended, seen.how = _death(status)
    return seen


def _spawn(pipe: int) -> subprocess.Popen[bytes]:
    """Start the process with next to nothing of ours: no environment, no descriptor but its pipe."""
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-I", "-B", "-m", "evergreen.job.cell", str(pipe)],
        cwd="/",
        env={**_SETTINGS, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if not os.environ.get("EVERGREEN_DEBUG") else None,
        pass_fds=(pipe,),
        start_new_session=True,
    )


def _follow(
    child: subprocess.Popen[bytes],
    pipe: int,
    talk: _Talk,
    seen: Watched,
    deadline: float,
    memory_mb: int,
    scratch: Path,
    out_mb: int,
) -> Ended | None:
    """Listen until it has said all, is gone, or did too much of something: that is returned."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if selector.select(_LOOK_S):
                data = os.read(pipe, 1 << 16)
                if not data:
                    return None
                if not talk.heard(data):
                    return Ended.TALK
                if talk.result is not None:
                    return None
            seen.memory_mb = max(seen.memory_mb, _resident_mb(talk.pid or child.pid))
            if seen.memory_mb > memory_mb:
                return Ended.MEMORY
            if time.monotonic() > deadline:
                return Ended.TIME
            if _fills(scratch, out_mb * 2**20):
                return Ended.DISK


class _Talk:
    """What a cell says: lines of JSON, the last of them its result."""

    def __init__(self) -> None:
        self._data = b""
        self._total = 0
        self._said: dict[str, Any] = {}

    def heard(self, data: bytes) -> bool:
        """Take in some bytes; False if they are too many, or make no sense."""
        self._total += len(data)
        if self._total > _TALK:
            return False
        *lines, self._data = (self._data + data).split(b"\n")
        for line in lines:
            try:
                said = json.loads(line)
            except (ValueError, RecursionError):
                return False
            if not isinstance(said, dict):
                return False
            self._said = {**said, **self._said}  # what was said first, before there was a file, stands
        return True

    @property
    def pid(self) -> int | None:
        """The process to look at, if it is another one than was started."""
        found = self._said.get("pid")
        return found if isinstance(found, int) else None

    @property
    def result(self) -> dict[str, Any] | None:
        """The result, once it is there."""
        found = self._said.get("result")
        return found if isinstance(found, dict) else None

    def of(self, name: str) -> dict[str, str]:
        """Return a mapping of texts that was said under a name."""
        found = self._said.get(name)
        return {str(k): str(v)[:200] for k, v in found.items()} if isinstance(found, dict) else {}


def _resident_mb(pid: int) -> int:
    """Return the memory of a process, in MiB; 0 where that cannot be told."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE // 2**20
    except (OSError, IndexError, ValueError):
        return 0


def _fills(scratch: Path, most: int) -> bool:
    """Say whether there is too much in what a cell may write."""
    total = entries = 0
    todo = [scratch / "out", scratch / "tmp"]
    while todo:
        with suppress(OSError), os.scandir(todo.pop()) as found:
            for entry in found:
                entries += 1
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
                if entries > _ENTRIES or total > most:
                    return True
    return False


def _death(status: int) -> tuple[Ended, str]:
    """Read the exit status; the process that waits passes on a signal as 256 less its number."""
    number = -status if status < 0 else 256 - status if status > 191 else 0
    if number in (signal.SIGXCPU,):
        return Ended.TIME, ""
    if number == signal.SIGXFSZ:
        return Ended.DISK, ""
    if number:
        return Ended.CRASHED, signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
    return Ended.CRASHED, f"exit status {status}"
