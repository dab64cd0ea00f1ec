"""One thread for each subscriber, beside the clock: reads the history after its place, tells, tries again."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from threading import Event as Flag
from threading import Thread
from time import monotonic

import msgspec

from evergreen.core.errors import NotFound
from evergreen.core.ports import Ledger, Subscriber
from evergreen.core.records import Event
from evergreen.logs import concerning
from evergreen.outbox import book, letters
from evergreen.outbox.letters import Letter, Place, Rules
from evergreen.project import Project
from evergreen.worker import Troubles, holder

log = logging.getLogger(__name__)

#: A postman who was killed is replaced after this long (at once on the same machine); longer than a message takes.
LEASE_SECONDS = 60.0
#: How often to look whether anything was written, and the longest time between two looks at the history.
GLANCE_SECONDS, LOOK_SECONDS = 0.25, 2.0
#: Events read at once.
PAGE = 200
#: How long a message on its way may hold up the end of the server.
PATIENCE_SECONDS = 3.0


def _now() -> datetime:
    return datetime.now(UTC)


class Postman:
    """Tells one subscriber. Every step leaves the ledger so that another process can go on from there."""

    def __init__(
        self,
        ledger: Ledger,
        subscriber: Subscriber,
        rules: Rules,
        *,
        me: str,
        now: Callable[[], datetime] = _now,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.rules = rules
        self.given_up = 0  #: events left out since this process began
        self.failed = 0  #: tries in vain since then
        self._ledger = ledger
        self._subscriber = subscriber
        self._me = me
        self._now = now
        self._chance = chance
        self._held_until = 0.0
        self._troubled = False
        self._next = 0.0  # when to try again (monotonic)
        self._left: str | None = None  # the place as it was left after a try in vain

    def mine(self) -> bool:
        """Say whether this process is the one that tells; renews the lease in time."""
        if monotonic() < self._held_until:
            return True
        held = self._ledger.lease(f"tell/{self.rules.name}", self._me, LEASE_SECONDS)
        self._held_until = monotonic() + LEASE_SECONDS / 3 if held else 0.0
        return held

    def give_back(self) -> None:
        """Let another process tell."""
        self._held_until = 0.0
        self._ledger.release(f"tell/{self.rules.name}", self._me)

    def step(self) -> float:
        """Tell at most one message; return the seconds until it is worth looking again."""
        place, kept = book.read(self._ledger, self.rules.name)
        if place is None:
            book.begin(self._ledger, self.rules.name)
            return 0.0
        if kept == self._left and (left := self._next - monotonic()) > 0:  # a place set elsewhere is heeded at once
            return min(left, LOOK_SECONDS)
        events = self._ledger.find(Event, None, after=place.seq, limit=PAGE)
        passed, letter = letters.plan(place, events, self._now(), self.rules)
        if letter is None:
            if passed != place:
                self._keep(kept, passed)
            return 0.0 if len(events) == PAGE else LOOK_SECONDS
        return self._tell(letter, kept, passed)

    def _tell(self, letter: Letter, kept: str | None, passed: Place) -> float:
        """Tell one message and note that it was taken, or how it failed."""
        try:
            event = letter.event or letters.summed_up(*self._last(letter))
        except NotFound:  # the history was cut
            self._keep(kept, letter.then)
            return 0.0
        with concerning(subscriber=self.rules.name, event_id=event.id, loop=event.loop):
            try:
                self._subscriber.tell(event, self._ledger)
            except Exception as e:  # noqa: BLE001 - whatever a plugin raises means: not taken
                return self._vain(letter, kept, passed, event, f"{type(e).__name__}: {e}")
            if self._troubled:
                log.warning("%s takes events again", self.rules.name)
            self._troubled = False
        self._keep(kept, msgspec.structs.replace(letter.then, told=passed.told + 1, last=self._now()))
        return 0.0

    def _last(self, letter: Letter) -> tuple[Event, int]:
        assert letter.held is not None
        return self._ledger.get(Event, letter.held.last), letter.held.n

    def _vain(self, letter: Letter, kept: str | None, passed: Place, event: Event, error: str) -> float:
        self.failed += 1
        if not self._troubled:
            log.error("%s could not be told; told once, tried again: %s", self.rules.name, error)
        self._troubled = True
        place = letters.failed(passed, self._now(), error)
        if not letters.gives_up(place, self._now(), self.rules):
            self._next = monotonic() + letters.pause(place.tries, self._chance())
            self._left = self._keep(kept, place)
            return 0.0
        log.error("%s was not told of event %d: given up after %d tries", self.rules.name, event.seq, place.tries)
        self.given_up += 1
        with self._ledger.together():
            if book.write(self._ledger, self.rules.name, kept, letter.then):
                self._ledger.note(
                    event.loop,
                    letters.GIVEN_UP,
                    by="tell",
                    because=f"{self.rules.name} did not take event {event.seq} in {place.tries} tries: {error[:500]}",
                    details={"subscriber": self.rules.name, "event": event.id, "seq": event.seq},
                )
        return 0.0

    def _keep(self, kept: str | None, place: Place) -> str | None:
        """Keep the place; if somebody has set it elsewhere meanwhile, theirs holds. Return what is kept of ours."""
        with self._ledger.together():
            return book.write(self._ledger, self.rules.name, kept, place)


class Outbox:
    """All postmen of a server."""

    def __init__(self, project: Project) -> None:
        self._ledger = project.ledger
        self._stop = Flag()
        self._troubles = Troubles()
        self.postmen = {
            config.called: Postman(
                project.ledger,
                project.subscribers[config.called],
                book.rules(config, project.subscribers[config.called]),
                me=holder(),
            )
            for config in project.config.subscribers
        }
        self._threads: Sequence[Thread] = ()

    def start(self) -> None:
        """Begin to tell; what happens from now on is told even if the process dies first."""
        for name in self.postmen:
            self._troubles.tried(f"telling {name}", partial(book.begin, self._ledger, name))
        self._threads = [
            Thread(target=self._run, args=(postman,), name=f"tell-{name}", daemon=True)
            for name, postman in self.postmen.items()
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin no more messages and give the leases back; one on its way is waited for, but not for long."""
        self._stop.set()
        until = monotonic() + PATIENCE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - monotonic()))
        for name, postman in self.postmen.items():
            self._troubles.tried(f"giving back {name}", postman.give_back)

    def _run(self, postman: Postman) -> None:
        seen, again = -1, 0.0
        while not self._stop.is_set():
            wait = GLANCE_SECONDS

            def look() -> None:
                nonlocal seen, again, wait
                now = self._ledger.revision()
                if (now == seen and monotonic() < again) or not postman.mine():
                    return
                seen, pause = now, postman.step()
                again, wait = monotonic() + pause, min(GLANCE_SECONDS, pause)

            self._troubles.tried(f"telling {postman.rules.name}", look)
            self._stop.wait(wait)
