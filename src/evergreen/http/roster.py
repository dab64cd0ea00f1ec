"""The server processes that answer from one ledger, as the ledger knows them: who is there, and what each serves."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from evergreen.core.ports import Ledger

_SERVERS, _PLANS, _EXPECTED = "server", "promotion", "server expected"
#: A process that is not heard of for so long is taken for dead (at once on the same machine).
LEASE_SECONDS = 15.0


class Standing(msgspec.Struct):
    """What one process says of itself."""

    serves: dict[str, int] = {}  #: loop -> generation of the line-up that answers
    ready: list[str] = []  #: ids of models that are to come into service, and are loaded
    troubles: dict[str, str] = {}  #: ids of those that could not be loaded -> why


class Plan(msgspec.Struct):
    """A model that is about to come into service everywhere."""

    loop: str
    model: str
    by: str  #: id of the process that asks for it


class Roster:
    """One process's line in the ledger, and the others'. A line holds for as long as its lease is renewed."""

    def __init__(self, ledger: Ledger, id: str, holder: str) -> None:
        self.id = id
        self._ledger = ledger
        self._holder = holder
        self._said: Standing | None = None

    def renew(self) -> None:
        """Say that this process lives (a durable write)."""
        self._ledger.lease(f"server/{self.id}", self._holder, LEASE_SECONDS)

    def say(self, standing: Standing) -> None:
        """Write down how this process stands, if that is news."""
        if standing != self._said:
            self._ledger.remember(_SERVERS, self.id, msgspec.json.encode(standing).decode())
            self._said = standing

    def leave(self) -> None:
        """Be no longer there."""
        strike(self._ledger, self.id, self._holder)

    def others(self) -> Mapping[str, Standing]:
        """Return every other process by its id, also one that died a moment ago."""
        found = self._ledger.recall_all(_SERVERS)
        if self.id not in found:
            self._said = None  # we were taken for dead: say it again
        return {id: msgspec.json.decode(said, type=Standing) for id, said in found.items() if id != self.id}

    def living(self) -> Mapping[str, Standing]:
        """Return the others that live; strike out those that do not, and what they had planned."""
        alive = {id: standing for id, standing in self.others().items() if not self._gone(id)}
        for key, plan in self.plans().items():
            if plan.by not in alive and plan.by != self.id:
                self._ledger.remember(_PLANS, key, None)
        return alive

    def plan(self, loop: str, model: str) -> str:
        """Ask every process to load a model; return the key to withdraw that by."""
        key = f"{self.id}/{model}"
        self._ledger.remember(_PLANS, key, msgspec.json.encode(Plan(loop, model, self.id)).decode())
        return key

    def withdraw(self, key: str) -> None:
        """Ask for it no more."""
        self._ledger.remember(_PLANS, key, None)

    def plans(self) -> Mapping[str, Plan]:
        """Return what is about to come into service."""
        return {key: msgspec.json.decode(said, type=Plan) for key, said in self._ledger.recall_all(_PLANS).items()}

    def _gone(self, id: str) -> bool:
        asking = f"{self.id} asks"
        if not self._ledger.lease(f"server/{id}", asking, 0):
            return False
        strike(self._ledger, id, asking)
        return True


def expect(ledger: Ledger, id: str) -> None:
    """Write down that a process is about to start."""
    ledger.remember(_EXPECTED, id, "yes")


def expected(ledger: Ledger, id: str) -> bool:
    """Say, once, whether it was written down in this very ledger that a process is about to start."""
    known = ledger.recall(_EXPECTED, id) is not None
    ledger.remember(_EXPECTED, id, None)
    return known


def strike(ledger: Ledger, id: str, holder: str = "") -> None:
    """Take a process that has ended off the roster."""
    ledger.remember(_SERVERS, id, None)
    ledger.remember(_EXPECTED, id, None)
    if holder:
        ledger.release(f"server/{id}", holder)
