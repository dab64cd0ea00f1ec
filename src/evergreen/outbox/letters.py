"""Which event is told next, and which are put together: pure decisions over a place in the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from evergreen.core.records import Event

#: The longest pause between two tries, in seconds.
LONGEST = 600.0
#: What is written into the history when an event is given up.
GIVEN_UP = "not told"


@dataclass(frozen=True)
class Rules:
    """What one subscriber is told."""

    name: str
    events: frozenset[str] = frozenset()  #: kinds; empty: all
    loops: frozenset[str] = frozenset()  #: empty: all
    collapse: timedelta = timedelta(0)
    give_up: timedelta = timedelta(days=3)

    def wants(self, event: Event) -> bool:
        """Say whether an event is told. That this subscriber was not told is not told to it: that would never end."""
        if event.what == GIVEN_UP and event.details.get("subscriber") == self.name:
            return False
        if self.loops and event.loop not in self.loops:
            return False
        return not self.events or not self.events.isdisjoint((event.kind, event.what, event.noun))


class Held(msgspec.Struct, frozen=True):
    """Events like one that was told, kept back until its window is over."""

    until: datetime
    n: int = 0  #: how many
    last: str = ""  #: id of the last of them


class Place(msgspec.Struct, frozen=True):
    """How far a subscriber was told. Kept in the ledger as JSON."""

    seq: int  #: of the last event that it was told, or that is not for it
    told: int = 0  #: messages that were taken
    last: datetime | None = None  #: when the last one was
    tries: int = 0  #: of the next message, all in vain so far
    since: datetime | None = None  #: when the first of them was made
    error: str = ""  #: what the last of them said
    held: dict[str, Held] = {}


@dataclass(frozen=True)
class Letter:
    """One message: an event, or the last of several that were kept back."""

    event: Event | None  #: None: look up `held.last`
    held: Held | None
    then: Place  #: where the subscriber is once it was taken


def group(event: Event) -> str:
    """Return what events that may become one message have in common."""
    return f"{event.loop} {event.kind}"


def plan(place: Place, events: Sequence[Event], now: datetime, rules: Rules) -> tuple[Place, Letter | None]:
    """Pass over what need not be told; return the new place, and the next message if there is one.

    `events` are the next of the history after `place.seq`, in order; none means that there are no more.
    """
    for event in events:
        assert event.at is not None
        if (due := _due(place, event.at)) is not None:
            return place, due
        kept = place.held.get(group(event))
        if not rules.wants(event):
            place = msgspec.structs.replace(place, seq=event.seq)
        elif kept is not None and event.at <= kept.until:
            more = Held(kept.until, kept.n + 1, event.id)
            place = msgspec.structs.replace(place, seq=event.seq, held={**place.held, group(event): more})
        else:
            then = msgspec.structs.replace(place, seq=event.seq)
            if rules.collapse:
                opened = Held(event.at + rules.collapse)
                then = msgspec.structs.replace(then, held={**then.held, group(event): opened})
            return place, Letter(event, None, _cleared(then))
    if events:
        return place, None
    if (due := _due(place, now)) is not None:
        return place, due
    return msgspec.structs.replace(place, held={k: held for k, held in place.held.items() if held.until >= now}), None


def _due(place: Place, at: datetime) -> Letter | None:
    """Return what was kept back in a window that was over before `at`, the oldest first."""
    over = sorted((held.until, key) for key, held in place.held.items() if held.until < at and held.n)
    if not over:
        return None
    key = over[0][1]
    left = {other: held for other, held in place.held.items() if other != key}
    return Letter(None, place.held[key], _cleared(msgspec.structs.replace(place, held=left)))


def _cleared(place: Place) -> Place:
    return msgspec.structs.replace(place, tries=0, since=None, error="")


def summed_up(last: Event, n: int) -> Event:
    """Let the last of `n` events stand for all of them.

    >>> summed_up(Event(id="e", loop="l", what="alarm", subject="l", by="observe", because="9 failed"), 42).because
    '9 failed (and 41 more)'
    """
    if n < 2:
        return last
    return replace(last, because=f"{last.because} (and {n - 1} more)", details={**last.details, "more": n - 1})


def pause(tries: int, chance: float) -> float:
    """Return how long to wait after so many tries in vain: 1 s, doubled each time up to 10 minutes, less a random half.

    `chance` is drawn from 0 to 1, so that many who failed together do not come back together.

    >>> [pause(n, 1.0) for n in (1, 2, 3, 20)], pause(3, 0.0)
    ([1.0, 2.0, 4.0, 600.0], 2.0)
    """
    return min(LONGEST, 2.0 ** min(tries - 1, 30)) * (0.5 + chance / 2)


def gives_up(place: Place, now: datetime, rules: Rules) -> bool:
    """Say whether a message was tried for long enough. Counted from the first try: a server that was off is no failure."""
    return place.since is not None and now - place.since >= rules.give_up


def failed(place: Place, now: datetime, error: str) -> Place:
    """Note a try in vain."""
    return msgspec.structs.replace(place, tries=place.tries + 1, since=place.since or now, error=error[:500])


def waiting(place: Place, events: Sequence[Event], rules: Rules) -> tuple[int, datetime | None]:
    """Count what is still to be told, those kept back included, and say since when the first waits."""
    mine = [e for e in events if rules.wants(e)]
    return len(mine) + sum(h.n for h in place.held.values()), mine[0].at if mine else None


def details(place: Place) -> Mapping[str, object]:
    """Return what a person wants to know of a place."""
    return {
        "seq": place.seq,
        "told": place.told,
        "last": place.last,
        "tries": place.tries,
        "failing_since": place.since,
        "error": place.error or None,
    }
