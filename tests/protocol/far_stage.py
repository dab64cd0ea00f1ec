"""The stage of the simulation: actors that take turns, one operation at a time, on one clock that only the stage moves."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from greenlet import GreenletExit, getcurrent, greenlet  # type: ignore[import-untyped]

#: What the clock of every stage begins with.
BEGIN = 1000.0


class Crash(GreenletExit):  # type: ignore[misc]
    """The machine of an actor is gone, or its process; nothing may catch this."""


@dataclass
class Actor:
    """Somebody who does one thing after the other."""

    name: str
    body: greenlet
    wake: float  #: when its turn comes next
    doing: str = "being born"
    failed: BaseException | None = None


@dataclass
class Stage:
    """Lets the actor whose turn it is take one step; how long each step takes is chance."""

    chance: Random
    now: float = BEGIN
    turns: int = 0
    actors: dict[str, Actor] = field(default_factory=dict)
    calm: bool = False  #: every operation is quick
    trace: list[tuple[float, str, str]] | None = None  #: what was done, if it is to be kept
    _queue: list[tuple[float, int, Actor]] = field(default_factory=list)
    _number: int = 0

    def enter(self, name: str, play: Callable[[], None], after: float = 0.0) -> None:
        """Let somebody begin; whoever had the name is gone."""
        self.crash(name)
        actor: Actor = Actor(name, greenlet(lambda: self._perform(actor, play)), self.now + after)
        self.actors[name] = actor
        self._call(actor)

    def crash(self, name: str) -> None:
        """End somebody in the middle of what it does."""
        actor = self.actors.pop(name, None)
        if actor is not None and actor.body:
            actor.body.parent = getcurrent()
            actor.body.throw(Crash)

    def pause(self, name: str, seconds: float) -> None:
        """Let somebody stand still where it is."""
        if (actor := self.actors.get(name)) is not None:
            actor.wake = max(actor.wake, self.now) + seconds
            self._call(actor)

    def turn(self, what: str) -> None:
        """Say, as an actor, what is done next; whoever is quicker comes first."""
        draw = self.chance.random()
        most = 0.05 if self.calm else 0.3 if draw < 0.7 else 2.0 if draw < 0.97 else 10.0
        self.sleep(self.chance.random() * most, what)

    def sleep(self, seconds: float, what: str = "sleep") -> None:
        """Let time pass, as an actor. On stage only: nothing passes for who is not an actor."""
        here = getcurrent()
        for actor in self.actors.values():
            if actor.body is here:
                actor.doing = what
                actor.wake = self.now + seconds
                self._call(actor)
                here.parent.switch()
                if self.trace is not None:
                    self.trace.append((self.now, actor.name, what))
                return
        if self._perished(here):
            raise Crash

    def play(self, until: Callable[[], bool], most: int) -> bool:
        """Let the actors act until something is so; give up after `most` turns."""
        stop = self.turns + most
        while not until():
            actor = self._next()
            if actor is None or self.turns >= stop:
                return False
            self.turns += 1
            actor.body.parent = getcurrent()
            actor.body.switch()
            if actor.failed is not None:
                raise actor.failed
        return True

    def _perform(self, actor: Actor, play: Callable[[], None]) -> None:
        try:
            play()
        except Crash:
            raise
        except BaseException as e:  # noqa: BLE001 - told to whoever directs
            actor.failed = e

    def _perished(self, here: greenlet) -> bool:
        return here.parent is not None and not any(actor.body is here for actor in self.actors.values())

    def _call(self, actor: Actor) -> None:
        self._number += 1
        heapq.heappush(self._queue, (actor.wake, self._number, actor))

    def _next(self) -> Actor | None:
        """Move the clock on to whose turn it is."""
        while self._queue:
            at, _, actor = heapq.heappop(self._queue)
            if self.actors.get(actor.name) is actor and actor.wake == at and not actor.body.dead:
                self.now = max(self.now, at)
                return actor
        return None
