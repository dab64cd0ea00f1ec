"""Being a worker, in one call: from a notebook, a script or the command line."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

from evergreen.core import plugins
from evergreen.core.config import Use, store_at
from evergreen.core.errors import ConfigError
from evergreen.core.ports import Store
from evergreen.job.far.beside import Trainer
from evergreen.job.far.machine import machine
from evergreen.job.far.machine import name as named
from evergreen.job.far.news import News, Tell, Training
from evergreen.job.far.worker import Terms, Worker


def attend(
    store_url: str | None = None,
    *,
    once: bool = False,
    hours: float | None = None,
    wait_minutes: float | None = None,
    loops: Collection[str] = (),
    poll_s: float = 5.0,
    name: str | None = None,
    say: Callable[[str], None] = print,
    tell: Tell | None = None,
    stop: threading.Event | None = None,
) -> list[Training]:
    """Train for whoever shares the folder at `store_url` (EVERGREEN_STORE if not given); return what was done.

    Ends after one training (`once`), when the session's `hours` are over, when no training came for `wait_minutes`,
    or when interrupted: then, as before the end of the session, what is under way is saved and handed over first.
    `say` is given sentences as things change, `tell` everything, as `News`. From another thread, `stop` is an
    interrupt. Raises `ConfigError` for a folder that cannot be opened.
    """
    url = store_url or os.environ.get("EVERGREEN_STORE")
    if not url:
        raise ConfigError("which folder?", field="STORE_URL", hint="Give its URL or path, or set EVERGREEN_STORE.")
    home = Path.cwd()
    if str(home) not in sys.path:  # recipes of one's own: "module:Class"
        sys.path.append(str(home))
    use = store_at(url)
    scratch = Path(tempfile.mkdtemp(prefix="evergreen-worker-"))
    try:
        store: Store = plugins.make("stores", use, home=home, state=scratch)
        store.list("jobs")  # what is wrong with the address or the credentials is said now
        here = machine()
        woken = threading.Event()
        worker = Worker(
            store,
            lambda folder: _trainer(folder, store, use, home, woken),
            name=name or named(here.host),
            boot=token_hex(4),
            machine=here,
            terms=Terms(
                frozenset(loops),
                poll_s,
                once,
                None if hours is None else hours * 3600,
                None if wait_minutes is None else wait_minutes * 60,
            ),
            scratch=scratch,
            clock=time.monotonic,
            spawn=_beside,
            nonce=lambda: token_hex(6),
            tell=tell or Sentences(say),
        )
        with _signals(worker, woken):
            _work(worker, woken, stop or threading.Event())
        return worker.done
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _work(worker: Worker, woken: threading.Event, stop: threading.Event) -> None:
    """Let the worker act until it is over; whatever ends it early ends its training, too."""
    try:
        while True:
            if stop.is_set():
                worker.leave()
            pause = worker.step()
            if pause is None:
                return
            woken.wait(pause)
            woken.clear()
    except BaseException:
        worker.abandon()
        raise


def _trainer(folder: Path, store: Store, use: Use, home: Path, woken: threading.Event) -> Trainer:
    """Train in a process of its own, which ends when this one does."""
    made: Any = plugins.make(
        "runners",
        Use.model_validate({"use": "process", "nice": 0, "leash": True}),
        ledger=None,
        store=store,
        store_use=use.model_dump(),
        home=home,
        state=folder,
    )
    made.on_change = woken.set
    trainer: Trainer = made
    return trainer


def _beside(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="beside", daemon=True).start()


@contextmanager
def _signals(worker: Worker, woken: threading.Event) -> Iterator[None]:
    """Let an interrupt and SIGTERM hand over, a second one end at once. Only the main thread is told of them."""

    def go(*_: object) -> None:
        if worker.told:
            raise KeyboardInterrupt
        worker.leave()
        woken.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {which: signal.signal(which, go) for which in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


class Sentences:
    """Says what changed: each sentence once, progress every few seconds."""

    def __init__(self, say: Callable[[str], None], every_s: float = 10.0) -> None:
        self._say, self._every_s = say, every_s
        self._last, self._phase, self._at = "", "", 0.0

    def __call__(self, news: News) -> None:
        """Say it, or let it pass."""
        now = time.monotonic()
        if news.text == self._last:
            return
        if news.kind == "running" and news.phase == self._phase and now - self._at < self._every_s:
            return
        self._last, self._phase, self._at = news.text, news.phase, now
        self._say(news.text)
