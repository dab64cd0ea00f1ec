"""The protocol with one of its rules left out, each: what the simulation must notice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import msgspec
from far_folder import View
from far_plan import Fault, Kind, Plan, draw

from evergreen.backends.runner.folder import FolderRunner, book, watch
from evergreen.core.errors import NotFound
from evergreen.core.ports import Moved, Progress
from evergreen.job.far import hold, protocol
from evergreen.job.far.protocol import Beat, Keys, Result


def _any_result(self: Any, row: Any) -> bool:
    """Take the result of whichever attempt has one."""
    for mark in row.marks:
        result = protocol.read(self._store, self._keys.result(mark), Result)
        old = protocol.marked(row.ticket, int(mark.partition("-")[0]), mark.partition("-")[2])
        if result is None or result.again:
            continue
        if result.state != "done" or not self._verify(_as(row, mark), result):
            progress = result.progress()
            self._settle(row, progress if progress.artifact is None else _at(progress, old.out))
            return True
    return False


def _as(row: Any, mark: str) -> Any:
    return msgspec.structs.replace(row, mark=mark)


def _at(progress: Any, artifact: str) -> Any:
    return replace(progress, artifact=artifact)


def _stamped_beat(self: Any) -> None:
    """Beat with the time on the holder's clock."""
    beat = Beat(counter=int(self._clock()), where=self._me.where)
    self._store.write(self._keys.beat(self.mark), protocol.encode(beat))


def _follow_by_stamp(self: Any, row: Any) -> None:
    """Compare the holder's clock with the app's."""
    if self._listened != row.mark:
        self._listen(row)
    if self._believe(row):
        return
    beat = protocol.read(self._store, self._keys.beat(row.mark), Beat)
    stamp = self._heard if beat is None else beat.counter
    if self._clock() - stamp > self.pace.lease_s:
        self._settle(row, Progress("lost", error="its lease ran out", failure="lost"))


def _follow_any_beat(follow: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def follows(self: Any, row: Any) -> None:
        """Take every beat that can be read for a sign of life, also the same one again."""
        self._counter = -1
        follow(self, row)

    return follows


def _all_offers(self: Any) -> Any:
    """Trust every offer that ever was."""
    found = (protocol.read(self._store, key, protocol.Offer) for key in self._store.list(self._keys.offers))
    offers = [offer for offer in found if offer is not None]
    return offers, len(offers), ""


def _blind_change(self: Any, was: Any, now: Any, outcome: Any = None) -> bool:
    """Write a row whatever stands there."""
    run = now.ticket.run
    with self._ledger.together():
        self._ledger.remember("folder", run, msgspec.json.encode(now).decode())
        if outcome is not None:
            key = f"{run}-{now.ticket.attempt}"
            self._ledger.remember("folder/outcome", key, msgspec.json.encode(outcome).decode())
    return True


def _unmarked(ticket: Any, attempt: int, nonce: str) -> Any:
    """Let every attempt leave its model at the same place."""
    return replace(ticket, attempt=attempt, nonce=nonce)


def _check_then_write(self: View, key: str, data: bytes) -> bool:
    """Look, and then write: what a folder without put-if-absent would do."""
    try:
        self.read(key)
    except NotFound:
        self.write(key, data)
        return True
    return False


def _unverified_get(self: View, key: str, folder: Path, moved: Moved | None = None) -> None:
    """Copy what is there of a folder."""
    manifest = self._do(f"get {key}", lambda: self._read(key + "@/manifest.json"))
    if manifest is None:
        raise NotFound(f'the store has no folder "{key}"')
    folder.mkdir(parents=True, exist_ok=True)
    for name in json.loads(manifest)["files"]:
        data = self._read(f"{key}@/{name}")
        if data is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)


def _without_nonce(init: Callable[..., None]) -> Callable[..., None]:
    def initialise(self: Any, *given: Any, **named: Any) -> None:
        init(self, *given, **{**named, "nonce": lambda: "0"})

    return initialise


@dataclass(frozen=True)
class Mutant:
    """A rule left out."""

    about: str
    patches: tuple[tuple[Any, str, Any], ...]
    plan: Callable[[int], Plan] = draw

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Leave the rule out for a while."""
        with ExitStack() as stack:
            for where, name, instead in self.patches:
                stack.enter_context(patch.object(where, name, instead))
            yield


def _plans(*kinds: Kind, **fixed: Any) -> Callable[[int], Plan]:
    """Draw plans in which the rule matters: with these settings and, if any are named, these troubles early on."""

    def plan(seed: int) -> Plan:
        drawn = replace(draw(seed, fixed.get("mode"), fixed.get("weather")), **fixed)
        if not kinds:
            return drawn
        chance = Random(f"troubles {seed}")
        troubles = (
            Fault(chance.uniform(15, 120), chance.choice(kinds), chance.randrange(4), chance.choice((5.0, 40.0, 100.0)))
            for _ in range(6)
        )
        return replace(drawn, faults=tuple(sorted(troubles, key=lambda fault: fault.at)))

    return plan


MUTANTS: Mapping[str, Mutant] = {
    "no fencing": Mutant(
        "any attempt's result is taken",
        ((watch.Watch, "_believe", _any_result),),
        _plans("worker cut off", mode="grant", weather="synced", workers=2, loops=1, second_app="", steps=12, step_s=5.0),
    ),
    "no hash check": Mutant(
        "a result is believed before its files are seen",
        ((watch.Watch, "_verify", lambda *_: ""),),
        _plans("worker loss", weather="synced", mode="grant", brisk=True, step_s=1.0),
    ),
    "wall-clock leases": Mutant(
        "the holder's time stamps are compared with the app's clock",
        ((hold.Hold, "_beat", _stamped_beat), (watch.Watch, "_follow", _follow_by_stamp)),
        _plans(mode="grant"),
    ),
    "any beat is life": Mutant(
        "a beat read again counts as a new one",
        ((watch.Watch, "_follow", _follow_any_beat(watch.Watch._follow)),),
        _plans("worker loss", "worker crash", mode="grant", step_s=5.0, steps=12),
    ),
    "check-then-write claims": Mutant(
        "direct mode over a folder without put-if-absent",
        ((View, "put_new", _check_then_write),),
        _plans(mode="direct"),
    ),
    "grants to stale offers": Mutant(
        "an offer need not have risen lately", ((watch.Watch, "_fresh_offers", _all_offers),), _plans("worker loss", "worker crash", mode="grant", workers=1)
    ),
    "shared result path": Mutant(
        "all attempts write to one place",
        (
            (protocol, "marked", _unmarked),
            (book, "marked", _unmarked),
            (Keys, "result", lambda self, mark: f"{self.attempts}/result.json"),
        ),
        _plans(mode="grant"),
    ),
    "no compare in the ledger": Mutant(
        "a row is written whatever stands there",
        ((book.Book, "change", _blind_change),),
        _plans(second_app="same ledger"),
    ),
    "no nonce": Mutant(
        "attempts have numbers only",
        ((FolderRunner, "__init__", _without_nonce(FolderRunner.__init__)),),
        _plans(second_app="copied ledger", mode="grant"),
    ),
    "torn checkpoints": Mutant(
        "a stored folder is copied out unverified", ((View, "get", _unverified_get),), _plans("worker loss", "drain", weather="synced", mode="grant", workers=2, every=1, steps=12, step_s=5.0, brisk=True)
    ),
}  # fmt: skip
