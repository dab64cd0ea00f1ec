"""Several processes on one port: one that starts them, starts those again that die, and ends them in order."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from evergreen.core.errors import Unavailable
from evergreen.http.figures import FOLDER, cleared
from evergreen.http.metrics import newest
from evergreen.http.process import GRACE, Job
from evergreen.http.roster import expect, strike
from evergreen.project import Ids, Project

log = logging.getLogger("evergreen.http")

#: How often to look whether all live, in seconds.
_GLANCE = 0.1
#: A process that dies sooner than this after its start is started again more and more slowly, at most so slowly.
_YOUNG, _SLOWEST = 5.0, 30.0
#: Time to end, beside what running requests are given: what waits is written, models are let go.
_WRITING = 20


class Child:
    """One process that answers, and its successors."""

    def __init__(self, number: int, sock: socket.socket) -> None:
        self.number = number
        self.sock = sock
        self.id = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.answers = False
        self.began = 0.0
        self.again = 0.0  #: not to be started before
        self.pause = 0.0
        self._ready = -1

    def start(self, job: Job) -> None:
        """Start the process."""
        self.hush()
        self._ready, said = os.pipe()
        os.set_blocking(self._ready, False)
        job = msgspec.structs.replace(job, number=self.number, socket=self.sock.fileno(), ready=said)
        self.id, self.answers, self.began = job.id, False, time.monotonic()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "evergreen.http.process", msgspec.json.encode(job).decode()],
                pass_fds=(job.socket, job.ready, job.life),
                process_group=0,  # Ctrl-C is for the parent, which passes it on
            )
        finally:
            os.close(said)

    def look(self) -> None:
        """See whether it answers."""
        if not self.answers:
            with suppress(BlockingIOError):
                self.answers = os.read(self._ready, 1) == b"1"

    def died(self) -> int | None:
        """Return the exit code once it has ended."""
        return None if self.process is None else self.process.poll()

    def slow_down(self) -> None:
        """Say when it may be started again."""
        lived = time.monotonic() - self.began
        self.pause = 0.0 if lived > _YOUNG else min(_SLOWEST, self.pause * 2 or 0.5)
        self.again = time.monotonic() + self.pause
        self.process = None

    def hush(self) -> None:
        """Close the pipe it speaks through."""
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1


class Parent:
    """Holds the sockets and minds the processes; answers nothing itself."""

    def __init__(self, project: Project, config: Path, *, host: str, url: str) -> None:
        self._ledger = project.ledger
        self._job = Job("", 0, str(config.resolve()), host, url, -1, -1, -1)
        self._ids = Ids()
        self._figures = project.state / FOLDER
        self._stop = threading.Event()

    def run(self, socks: Sequence[socket.socket], processes: int, ready: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT. Raises `Unavailable` when a process ends before all have begun to answer."""
        children = [Child(n + 1, socks[n % len(socks)]) for n in range(processes)]
        cleared(self._figures, newest(self._ledger))
        life, held = os.pipe()
        self._job.life = life
        with self._signals():
            try:
                for child in children:
                    self._start(child)
                self._mind(children, ready)
            finally:
                self._end(children)
                os.close(held)
                os.close(life)
                log.info("ended")

    def _mind(self, children: Sequence[Child], ready: Callable[[], None]) -> None:
        told = False
        while not self._stop.wait(_GLANCE):
            for child in children:
                child.look()
                code = child.died()
                if code is not None:
                    if not told:
                        raise Unavailable(f"server process {child.number} ended before it answered, with code {code}")
                    log.error("server process %d ended with code %d; started again", child.number, code)
                    child.slow_down()
                    self._strike(child)
                elif child.process is None and time.monotonic() >= child.again:
                    self._start(child)
            if not told and all(child.answers for child in children):
                told = True
                log.info("%d processes answer", len(children))
                ready()

    def _start(self, child: Child) -> None:
        id = self._ids.new()
        try:
            expect(self._ledger, id)
        except Exception:
            log.exception("server process %d cannot be started now; tried again", child.number)
            child.slow_down()
            return
        child.start(msgspec.structs.replace(self._job, id=id))

    def _strike(self, child: Child) -> None:
        """Take a dead process off the roster at once: nobody is to wait for it."""
        try:
            strike(self._ledger, child.id)
        except Exception:
            log.warning("the ledger could not be told that server process %d ended", child.number, exc_info=True)

    def _end(self, children: Sequence[Child]) -> None:
        alive = [child.process for child in children if child.process is not None and child.process.poll() is None]
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + GRACE + _WRITING
        for process in alive:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("a server process did not end in time and is killed")
                process.kill()
                process.wait()
        for child in children:
            child.hush()
            self._strike(child)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def end(*_: Any) -> None:
            self._stop.set()

        before: dict[int, Any] = {s: signal.signal(s, end) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
