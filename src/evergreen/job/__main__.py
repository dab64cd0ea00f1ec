"""`python -m evergreen.job FOLDER`: train what a runner laid down in a folder, and leave the result there."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from evergreen.core import plugins
from evergreen.core.config import Use
from evergreen.core.errors import EvergreenError
from evergreen.core.ports import Progress, Ticket
from evergreen.job import outcome
from evergreen.job.folder import Beat, RunFolder


def main(argv: Sequence[str]) -> int:
    """Train the ticket in folder `argv[0]`; `argv[1]` is the descriptor of its lock, if that was inherited.

    `argv[2]`, if given, is that of a pipe: when its other end is closed, this ends.
    """
    folder = RunFolder(Path(argv[0]).absolute())
    lock = int(argv[1]) if len(argv) > 1 else folder.take()
    if lock is None or not folder.begin():
        print(f"{folder.path.name} was begun before; an attempt is never trained twice", file=sys.stderr)
        return 1
    _keep(lock)
    if len(argv) > 2:
        threading.Thread(target=_leashed, args=(int(argv[2]),), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: _stop(folder))
    ticket = msgspec.json.decode(folder.ticket.read_bytes(), type=Ticket)
    if ticket.limit_s is not None:
        threading.Thread(target=_watch, args=(folder, ticket.limit_s), daemon=True).start()
    progress = _outcome(folder, ticket)
    if "traceback" in progress.details:
        print(progress.details["traceback"], file=sys.stderr)
    folder.end(progress)
    return 0 if progress.state == "done" else 1


def _outcome(folder: RunFolder, ticket: Ticket) -> Progress:
    _bound(**msgspec.json.decode(folder.limits.read_bytes()))
    said = msgspec.json.decode(folder.store.read_bytes())
    try:
        store = plugins.make("stores", Use(**said["use"]), home=Path(said["home"]), state=Path(said["state"]))
    except EvergreenError as e:
        return Progress("failed", error=str(e), failure="configuration")
    left = folder.checkpoints(ticket.run)
    return outcome(ticket, store, Beat(folder), folder.work, folder.cancelled.exists, left, folder.draining.exists)


def _keep(lock: int) -> None:
    """Let no child of this process hold the lock: it must be free when this process is gone."""
    os.set_inheritable(lock, False)
    held = [lock]
    os.register_at_fork(after_in_child=lambda: os.close(held.pop()) if held else None)


def _bound(nice: int, memory_mb: int | None) -> None:
    """Step back behind whoever answers requests, and stay within memory."""
    with suppress(OSError):  # a container may forbid any change
        os.setpriority(os.PRIO_PROCESS, 0, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))
    with suppress(OSError):  # Linux with autogroups weighs sessions first, and this is a session of its own
        Path("/proc/self/autogroup").write_text(str(nice))
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):  # a container may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    if memory_mb is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_mb * 2**20, memory_mb * 2**20))


def _stop(folder: RunFolder) -> NoReturn:
    """Leave on SIGTERM; without somebody's word to cancel it, the attempt is lost and may be tried again."""
    if folder.cancelled.exists():
        folder.end(Progress("cancelled", error="The training was cancelled.", failure="cancelled"))
    os._exit(128 + signal.SIGTERM)


def _leashed(pipe: int) -> NoReturn:
    """End everything when whoever started this is gone."""
    os.set_inheritable(pipe, False)
    os.read(pipe, 1)
    _end(128 + signal.SIGHUP)


def _end(status: int) -> NoReturn:
    """End this process and all that it started, now."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(status)


def _watch(folder: RunFolder, limit_s: float) -> NoReturn:
    """End everything at the time limit, whatever the recipe is doing."""
    time.sleep(limit_s)
    folder.end(Progress("failed", error=f"The training took longer than {limit_s:g} s.", failure="time_limit"))
    _end(124)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
