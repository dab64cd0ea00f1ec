"""Keeps a server process in step with the others: loads what is to come, swaps when the ledger says so, and tells."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from time import monotonic

from evergreen.core.errors import Unavailable
from evergreen.core.ports import Ledger
from evergreen.core.records import Model
from evergreen.http.roster import LEASE_SECONDS, Roster, Standing
from evergreen.stages.serve import Live

log = logging.getLogger("evergreen.http")

#: How often to look whether the ledger has changed; while another process waits for this one.
GLANCE_SECONDS, HASTE_SECONDS = 0.1, 0.02
#: How often to look who else is there.
ROLL_CALL_SECONDS = 3.0
#: Longest that a promotion waits for the other processes, before and after the change.
PATIENCE_SECONDS = 30.0


class Follower:
    """A thread that follows the ledger, and the two halves of a promotion: all load, then all swap."""

    def __init__(
        self,
        ledger: Ledger,
        lives: Mapping[str, Live],
        refresh: Callable[[], None],
        beside: Callable[[], None],
        *,
        id: str,
        holder: str,
    ) -> None:
        self.roster = Roster(ledger, id, holder)
        self._ledger = ledger
        self._lives = lives
        self._refresh = refresh
        self._beside = beside  # done at every look, whether the ledger can be reached or not
        self._seen = -1
        self._next_renewal = self._next_roll_call = 0.0
        self._company = False  # somebody else is there
        self._planned: list[str] = []
        self._troubles: dict[str, str] = {}
        self._telling = Lock()
        self._ended = Event()
        self._away = False
        self._thread = Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Step in line, then bring the models up to date (blocking), then follow."""
        self.roster.renew()
        self._next_renewal = monotonic() + LEASE_SECONDS / 3
        self._tell()  # from now on whoever promotes waits for us
        self._refresh()
        self._tell()
        self._thread.start()

    def stop(self) -> None:
        """Follow no more, and step out."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(Exception):  # the ledger may be away; the others find out by the lease
            self.roster.leave()

    @contextmanager
    def prepared(self, loop: str, model: Model) -> Iterator[None]:
        """Have a model loaded by every process, then let the block put it in service.

        Raises `Unavailable` when another process cannot load it: then nothing has changed anywhere.
        """
        if not self.roster.others():
            self._lives[loop].warm(model)
            yield
            return
        key = self.roster.plan(loop, model.id)
        try:
            self._lives[loop].warm(model)
            self._wait(loop, lambda standing: model.id in standing.ready or model.id in standing.troubles)
            for standing in self.roster.others().values():
                if why := standing.troubles.get(model.id):
                    raise Unavailable(f"another server process cannot load v{model.version}: {why}")
            yield
        finally:
            self.roster.withdraw(key)

    def generations(self) -> Mapping[str, int]:
        """Return the generation of each line-up that answers here."""
        return {name: live.lineup.generation for name, live in self._lives.items()}

    def settled(self, before: Mapping[str, int]) -> None:
        """Wait until every process serves at least what this one does, where that is newer than `before`."""
        self._tell()
        for loop, generation in self.generations().items():
            if generation > before[loop]:
                self._wait(loop, lambda standing, at=generation, of=loop: standing.serves[of] >= at)  # type: ignore[misc]

    def _wait(self, loop: str, done: Callable[[Standing], bool]) -> None:
        """Wait until the others that serve a loop and live have done something; not for ever."""
        began = monotonic()
        ask_after = began + 1.0
        while True:
            late = [id for id, s in self.roster.others().items() if loop in s.serves and not done(s)]
            if not late:
                return
            now = monotonic()
            if now - began > PATIENCE_SECONDS:
                log.warning("%d server processes are not in step with %s; not waited for any longer", len(late), loop)
                return
            if now > ask_after:
                ask_after = now + 1.0
                self.roster.living()
            self._ended.wait(HASTE_SECONDS)
            if self._ended.is_set():
                return

    def _run(self) -> None:
        while not self._ended.wait(HASTE_SECONDS if self._planned else GLANCE_SECONDS):
            try:
                self._beside()
                self._look()
            except Exception:
                if not self._away:
                    log.exception("the ledger cannot be followed; told once, tried again")
                self._away = True
            else:
                if self._away:
                    log.warning("the ledger can be followed again")
                self._away = False

    def _look(self) -> None:
        now = monotonic()
        if now >= self._next_renewal:
            self.roster.renew()
            self._next_renewal = now + LEASE_SECONDS / 3
        if now >= self._next_roll_call:
            self._company = bool(self.roster.others()) and bool(self.roster.living())
            self._next_roll_call = now + ROLL_CALL_SECONDS
        if self._company:
            self._prepare()
        revision = self._ledger.revision()
        if revision != self._seen:
            self._refresh()
            self._seen = revision
        self._tell()

    def _prepare(self) -> None:
        """Load what another process is about to put in service."""
        plans = [plan for plan in self.roster.plans().values() if plan.by != self.roster.id]
        self._planned = [plan.model for plan in plans]
        self._troubles = {id: why for id, why in self._troubles.items() if id in self._planned}
        for plan in plans:
            live = self._lives.get(plan.loop)
            if live is None or live.holds(plan.model) or plan.model in self._troubles:
                continue
            try:
                live.warm(self._ledger.get(Model, plan.model))
            except Exception as e:  # noqa: BLE001 - told to whoever planned it
                self._troubles[plan.model] = str(e) or type(e).__name__

    def _tell(self) -> None:
        with self._telling:
            ready = [id for id in self._planned if any(live.holds(id) for live in self._lives.values())]
            self.roster.say(Standing(dict(self.generations()), ready, dict(self._troubles)))
