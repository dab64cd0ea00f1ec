"""Group commit: many requests, one durable transaction; who waits is told when it is safe on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from time import perf_counter, sleep

from evergreen.core.errors import InvalidInput, Overloaded, Unavailable
from evergreen.core.ports import Ledger, Tally
from evergreen.core.records import Sample

log = logging.getLogger(__name__)

#: Seconds that a commit waits for company where the last one had some; an fsync takes about as long.
GATHER = 0.001

Done = Callable[[Sequence[bool] | None, Exception | None], None]


@dataclass(frozen=True, slots=True)
class _Entry:
    loop: str
    samples: Sequence[Sample]
    traffic: Mapping[str, Tally] | None
    done: Done | None


class Intake:
    """One writer thread. What is put while it commits waits for the next transaction, all of it together."""

    def __init__(self, ledger: Ledger, *, max_waiting: int = 50_000) -> None:
        self._ledger = ledger
        self._max = max_waiting
        self._change = Condition()
        self._waiting: list[_Entry] = []
        self._count = 0
        self._stopping = False
        self.commits, self.seconds = 0, 0.0  #: transactions so far, and the time they took
        self._thread: Thread | None = None

    @property
    def waiting(self) -> int:
        """How many samples are not stored yet."""
        return self._count

    def start(self) -> None:
        """Begin to write."""
        self._thread = Thread(target=self._run, name="intake", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, then end."""
        with self._change:
            self._stopping = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join()

    def put(
        self,
        loop: str,
        samples: Sequence[Sample],
        traffic: Mapping[str, Tally] | None = None,
        done: Done | None = None,
    ) -> None:
        """Hand over samples and return at once; `done` is called, on the writer's thread, once they are durable.

        Raises `Overloaded` when too many wait, `Unavailable` after `stop`.
        """
        with self._change:
            if self._stopping:
                raise Unavailable("the server is stopping")
            if self._count + len(samples) > self._max:
                raise Overloaded(f"{self._count} samples wait to be stored; the most is {self._max}")
            self._waiting.append(_Entry(loop, samples, traffic, done))
            self._count += len(samples)
            if len(self._waiting) == 1:
                self._change.notify()

    def _run(self) -> None:
        crowd = 0  # how many came together last
        while True:
            with self._change:
                while not self._waiting and not self._stopping:
                    self._change.wait()
            if crowd > 1 and not self._stopping:
                sleep(GATHER)  # where several came at once, more are on their way: let them share the commit
            with self._change:
                batch, self._waiting = self._waiting, []
                self._count = 0
                if not batch:
                    return
            crowd = len(batch)
            self._store(batch)

    def _store(self, batch: Sequence[_Entry]) -> None:
        """Store entries in one transaction; one that cannot be stored does not take the others with it."""
        try:
            results = self._commit(batch)
        except InvalidInput as e:
            if len(batch) > 1:
                for entry in batch:
                    self._store([entry])
            else:
                _tell(batch[0], None, e)
        except Exception as e:  # noqa: BLE001 - whoever waits is told; the writer must live
            for entry in batch:
                _tell(entry, None, e)
        else:
            for entry, new in zip(batch, results, strict=True):
                _tell(entry, new, None)

    def _commit(self, batch: Sequence[_Entry]) -> list[Sequence[bool]]:
        """Store entries; say of each entry's samples whether they were new."""
        results: dict[int, Sequence[bool]] = {}
        began = perf_counter()
        with self._ledger.together():
            for loop in dict.fromkeys(e.loop for e in batch):
                mine = [(i, e) for i, e in enumerate(batch) if e.loop == loop]
                new = self._ledger.append(
                    loop, [s for _, e in mine for s in e.samples], traffic=_sum(e.traffic for _, e in mine)
                )
                at = 0
                for i, entry in mine:
                    results[i] = new[at : at + len(entry.samples)]
                    at += len(entry.samples)
        self.commits, self.seconds = self.commits + 1, self.seconds + perf_counter() - began
        return [results[i] for i in range(len(batch))]


def _tell(entry: _Entry, new: Sequence[bool] | None, error: Exception | None) -> None:
    """Tell who waits; that they cannot take it is no reason to write no more."""
    if entry.done is None:
        return
    try:
        entry.done(new, error)
    except Exception:
        log.exception("nobody could be told what became of %d samples of %s", len(entry.samples), entry.loop)


def _sum(parts: Iterable[Mapping[str, Tally] | None]) -> dict[str, Tally]:
    total: dict[str, Tally] = {}
    for part in parts:
        for model, tally in (part or {}).items():
            total[model] = total[model] + tally if model in total else tally
    return total
