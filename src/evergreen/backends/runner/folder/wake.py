"""Starts a command that brings a worker (a notebook on Colab, a workflow) when a training waits and nobody is there."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class Waker:
    """One command for all trainings of a loop: never twice at a time, never sooner than `every_s` after the last."""

    def __init__(
        self,
        command: Sequence[str],
        every_s: float,
        *,
        home: Path,
        log: Path,
        environment: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command, self._every_s, self._home, self._log = command, every_s, home, log
        self._environment, self._clock = environment, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._failed = ""

    def __call__(self) -> str:
        """Start the command if it is time; say, in a few words, what is to be known of it."""
        if not self._command:
            return ""
        name = Path(self._command[0]).name
        running = self._process is not None and self._process.poll() is None
        due = not self._started or self._clock() - self._started >= self._every_s
        if not running and due:
            self._started = self._clock()
            self._failed = self._start()
            running = not self._failed
        if self._failed:
            return f"; `{name}`, which is to bring one, cannot be started: {self._failed}"
        if running:
            return f"; `{name}` was started to bring one"
        code = self._process.returncode if self._process is not None else 0
        return f"; `{name}`, which was to bring one, ended with {code}{self._last_words() if code else ''}"

    def _start(self) -> str:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    list(self._command),
                    cwd=self._home,
                    env={**os.environ, **self._environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as e:
            return e.strerror or str(e)
        return ""

    def _last_words(self) -> str:
        lines = self._log.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""
