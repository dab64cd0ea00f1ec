"""Trains wherever somebody runs `evergreen worker`: the two sides share nothing but a folder."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal

import msgspec
from pydantic import Field

from evergreen.backends.runner.folder.book import Book, Row
from evergreen.backends.runner.folder.wake import Waker
from evergreen.backends.runner.folder.watch import Pace, Watch
from evergreen.core.config import Duration
from evergreen.core.errors import ConfigError
from evergreen.core.ports import Ledger, Progress, Store, Ticket
from evergreen.core.recipe import PluginOptions
from evergreen.job.far import protocol
from evergreen.job.far.protocol import Needs

log = logging.getLogger(__name__)

#: The shortest lease that is meant for people and machines over the internet.
_LEASE_S = 90.0
#: How often to see whether another process left something undone.
_TEND_S = 60.0


def _nonce() -> str:
    return token_hex(6)


class NeedsOptions(PluginOptions):
    """What a worker's machine must have."""

    gpu: bool = False
    """A graphics card."""
    memory_gb: float = Field(0.0, ge=0)
    """So much memory."""
    cpus: int = Field(0, ge=0)
    """So many processors."""


class FolderOptions(PluginOptions):
    """At what pace the two sides speak, and who may train."""

    beat: Duration = timedelta(seconds=10)
    """How often a worker says that it lives."""
    poll: Duration = timedelta(seconds=5)
    """How often each side looks into the folder."""
    lease: Duration | None = None
    """How long a worker may be silent; if not set 90 s, or more where the store is slow to show what was stored."""
    mode: Literal["grant", "direct"] = "grant"
    """Does the app choose the worker, or (for an app that may be asleep) does a worker help itself?"""
    needs: NeedsOptions = NeedsOptions()
    """What a worker's machine must have."""
    wake: tuple[str, ...] = ()
    """Command that brings a worker, started when a training waits and none is there; it finds EVERGREEN_STORE set."""
    wake_every: Duration = timedelta(minutes=30)
    """Time between two starts of that command."""
    keep: int = Field(20, ge=0)
    """So many ended runs stay readable in the folder."""


class FolderRunner:
    """Publishes tickets below `jobs/` of the store and follows them; one thread looks for each open run."""

    Options = FolderOptions

    def __init__(
        self,
        options: FolderOptions,
        *,
        ledger: Ledger,
        store: Store,
        store_use: Mapping[str, Any],
        home: Path,
        state: Path,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        nonce: Callable[[], str] = _nonce,
        spawn: Callable[[Watch], None] | None = None,
    ) -> None:
        self.pace = _pace(options, store)
        self._book, self._store = Book(ledger), store
        self._scratch = state / "far"
        place = str(store_use.get("url") or store_use.get("path") or state / "store")
        self._wake = Waker(
            options.wake,
            options.wake_every.total_seconds(),
            home=home,
            log=self._scratch / "wake.log",
            environment={"EVERGREEN_STORE": place if "://" in place else str(home / place)},
            clock=clock,
        )
        self._clock, self._wall, self._nonce = clock, wall, nonce
        self._spawn = spawn or self._in_a_thread
        self._watches: dict[str, Watch] = {}
        self._tend_at = float("-inf")
        self._lock = threading.Lock()
        self._wakes: dict[str, threading.Event] = {}
        #: Called, from a thread of its own, when an attempt has ended.
        self.on_change: Callable[[], None] | None = None

    def start(self, ticket: Ticket) -> str:
        """Open the run for workers, or open it again for its next attempt."""
        handle = protocol.handle(ticket)
        while (row := self._book.row(ticket.run)) is None or row.ticket.attempt < ticket.attempt:
            if self._book.change(row, self._opened(row, ticket)):
                break
        self._watch(handle)
        return handle

    def tend(self) -> None:
        """See to what another process, or this one before it died, did not come to: words not said, things not swept."""
        if self._clock() < self._tend_at:
            return
        self._tend_at = self._clock() + _TEND_S
        for run, row in self._book.rows().items():
            if not row.tidy and (row.state or self._book.over(run)):
                self._watch(f"{run}-{row.ticket.attempt}")

    def poll(self, handle: str) -> Progress:
        """Say how it goes, as far as the last look showed."""
        run, attempt = protocol.parse(handle)
        if ended := self._book.outcome(handle):
            return ended
        row = self._book.row(run)
        if row is None or row.ticket.attempt != attempt:
            return Progress("lost", error="This attempt is not known, or another took its place.", failure="lost")
        return self._watch(handle).news

    def cancel(self, handle: str) -> None:
        """Ask the worker, if there is one, to stop."""
        run, attempt = protocol.parse(handle)
        while (row := self._book.row(run)) is not None and row.ticket.attempt >= attempt and not row.closed:
            # Also an attempt that was lost a moment ago: the next one is not to begin.
            if row.cancelled or self._book.change(row, msgspec.structs.replace(row, cancelled=True)):
                break
        for wake in list(self._wakes.values()):
            wake.set()

    def _opened(self, row: Row | None, ticket: Ticket) -> Row:
        opened = Row(ticket=ticket, opening=self._nonce(), created=self._wall())
        if row is None:
            return opened
        kin = row.kin if _same_work(row.ticket, ticket) else ()
        return msgspec.structs.replace(
            opened,
            created=row.created,
            worker=row.worker,
            boot=row.boot,
            marks=row.marks,
            kin=kin,
            cancelled=row.cancelled and not row.closed,
        )

    def _watch(self, handle: str) -> Watch:
        with self._lock:
            watch = self._watches.get(handle)
            if watch is not None:
                return watch
            watch = Watch(
                handle,
                self._book,
                self._store,
                self.pace,
                scratch=self._scratch,
                clock=self._clock,
                nonce=self._nonce,
                changed=self._tell,
                wake=self._wake,
            )
            self._watches[handle] = watch
        self._spawn(watch)
        return watch

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _in_a_thread(self, watch: Watch) -> None:
        threading.Thread(target=self._attend, args=(watch,), name=f"watch {watch.handle}", daemon=True).start()

    def _attend(self, watch: Watch) -> None:
        """Look again and again, until there is nothing more to see."""
        told, wake = "", self._wakes.setdefault(watch.handle, threading.Event())
        while True:
            try:
                if not watch.look():
                    break
            except Exception as e:
                if told != (told := f"{type(e).__name__}: {e}"):
                    log.exception("looking after %s failed; told once, tried again", watch.handle)
            wake.wait(self.pace.poll_s)
            wake.clear()
        with self._lock:
            self._watches.pop(watch.handle, None)
            self._wakes.pop(watch.handle, None)


def _pace(options: FolderOptions, store: Store) -> Pace:
    beat_s, poll_s = options.beat.total_seconds(), options.poll.total_seconds()
    least_s = 3 * (beat_s + poll_s + store.staleness_s)
    lease_s = max(_LEASE_S, least_s) if options.lease is None else options.lease.total_seconds()
    if lease_s < least_s:
        raise ConfigError(
            f"a lease of {lease_s:g} s is too short: living workers would be taken for dead",
            field="lease",
            hint=f"Leave it out, or give at least {least_s:g} s (3 × beat, poll and the store's delay).",
        )
    if options.mode == "direct" and not store.exclusive:
        raise ConfigError(
            "this store cannot say which of two workers was first, so workers cannot help themselves",
            field="mode",
            hint='Use mode = "grant", or another store.',
        )
    needs = Needs(**options.needs.model_dump())
    return Pace(beat_s, poll_s, lease_s, store.staleness_s, options.mode, needs, options.keep)


def _same_work(old: Ticket, new: Ticket) -> bool:
    """Say whether what was learnt for one ticket may be gone on from for another."""
    return (old.recipe, old.dataset, old.base, old.seed) == (new.recipe, new.dataset, new.base, new.seed)
