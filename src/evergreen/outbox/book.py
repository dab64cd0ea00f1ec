"""Where subscribers are in the history: kept in the ledger, read by whoever asks, set back to tell again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec

from evergreen.core.config import SubscriberConfig
from evergreen.core.errors import NotFound
from evergreen.core.ports import Ledger, Subscriber
from evergreen.core.records import Event
from evergreen.outbox import letters
from evergreen.outbox.letters import Place, Rules
from evergreen.project import Project

SCOPE = "tell"
#: Counting what waits stops here.
MOST = 1000


@dataclass(frozen=True)
class Standing:
    """How it is with one subscriber."""

    name: str
    use: str
    events: tuple[str, ...]
    loops: tuple[str, ...]
    place: Place
    waiting: int  #: messages to be told, at most `MOST` of the history looked at
    oldest: datetime | None  #: when the first of them happened

    def plain(self) -> Mapping[str, Any]:
        """Return it as plain data."""
        return {
            "name": self.name,
            "use": self.use,
            "events": list(self.events),
            "loops": list(self.loops),
            "waiting": self.waiting,
            "waiting_since": self.oldest,
            **letters.details(self.place),
        }


def rules(config: SubscriberConfig, subscriber: Subscriber) -> Rules:
    """Return what a subscriber is told: what the settings say, else what the plugin thinks fit."""
    collapse = timedelta(seconds=subscriber.collapse_s) if config.collapse is None else config.collapse
    return Rules(
        name=config.called,
        events=frozenset(config.events or subscriber.kinds),
        loops=frozenset(config.loops),
        collapse=collapse,
        give_up=config.give_up,
    )


def read(ledger: Ledger, name: str) -> tuple[Place | None, str | None]:
    """Return a subscriber's place, and the text it is kept as."""
    kept = ledger.recall(SCOPE, name)
    return (None if kept is None else msgspec.json.decode(kept, type=Place)), kept


def write(ledger: Ledger, name: str, was: str | None, place: Place) -> str | None:
    """Keep a place and return the text, or None if somebody has set another one meanwhile; for use in `together`."""
    if ledger.recall(SCOPE, name) != was:
        return None
    text = msgspec.json.encode(place).decode()
    ledger.remember(SCOPE, name, text)
    return text


def begin(ledger: Ledger, name: str) -> None:
    """Let a new subscriber begin at the present: what was before it came is told only if asked for."""
    with ledger.together():
        if ledger.recall(SCOPE, name) is None:
            newest = ledger.find(Event, None, newest_first=True, limit=1)
            write(ledger, name, None, Place(newest[0].seq if newest else 0))


def replay(ledger: Ledger, name: str, seq: int) -> None:
    """Tell everything from event `seq` on again. The subscriber may be told while this is asked."""
    with ledger.together():
        place, kept = read(ledger, name)
        place = place or Place(0)
        write(ledger, name, kept, Place(max(0, seq - 1), place.told, place.last))


def standing(project: Project) -> list[Standing]:
    """Say how it is with every subscriber."""
    return [_standing(project, config) for config in project.config.subscribers]


def find(project: Project, name: str) -> Subscriber:
    """Return a subscriber or raise `NotFound`, which lists them."""
    try:
        return project.subscribers[name]
    except KeyError:
        there = ", ".join(project.subscribers) or "none"
        raise NotFound(f'no subscriber "{name}"', field="name", hint=f"There are: {there}") from None


def _standing(project: Project, config: SubscriberConfig) -> Standing:
    mine = rules(config, project.subscribers[config.called])
    place, _ = read(project.ledger, config.called)
    if place is None:  # no server has run since it came
        n, since, place = 0, None, Place(0)
    else:
        n, since = letters.waiting(place, project.ledger.find(Event, None, after=place.seq, limit=MOST), mine)
    return Standing(config.called, config.use, tuple(sorted(mine.events)), config.loops, place, n, since)


def trial(project: Project, name: str, *, by: str) -> None:
    """Tell a subscriber of an event that never happened. Raises what it raises, and `NotFound`."""
    loop = next(iter(project.loops), "")
    event = Event(
        id=f"test-{uuid4().hex}", loop=loop, what="test", subject=loop, by=by, because="This is a test.",
        at=datetime.now(UTC),
    )  # fmt: skip
    find(project, name).tell(event, project.ledger)
