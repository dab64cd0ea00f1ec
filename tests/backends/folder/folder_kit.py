"""Both sides of the shared folder in one test: the app's own code, and papers as a worker would write them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from evergreen.backends.runner.folder import FolderRunner
from evergreen.backends.runner.folder.watch import Watch
from evergreen.core.ports import Ledger, Progress, Store, Ticket
from evergreen.job.far import protocol
from evergreen.job.far.protocol import Beat, Grant, Keys, Offer, Paper, Result

KEYS = Keys("r1")
TICKET = Ticket("r1", "l", 1, {"use": "evergreen.testing.runner:Majority"}, "datasets/d1", "models/l/r1-1")
POLL_S, LEASE_S = 5.0, 90.0


class Killed(BaseException):
    """The process is gone."""


class Mortal:
    """Passes calls on, until the one at which its process dies: before it has had an effect, or after."""

    def __init__(self, real: Any, die: Callable[[], str]) -> None:
        self._real, self._die = real, die

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if not callable(found):
            return found

        def call(*given: Any, **named: Any) -> Any:
            when = self._die()
            if when == "before":
                raise Killed
            try:
                return found(*given, **named)
            finally:
                if when == "after":
                    raise Killed

        return call


class Far:
    """Both sides of the folder in one test: time, the app's watches, and papers as a worker would write them."""

    def __init__(self, home: Path, store: Store, ledger: Ledger, **options: Any) -> None:
        self.home, self.store, self.ledger, self.options = home, store, ledger, options
        self.now = 0.0
        self._numbers = count(1)
        self.runner = self.app()

    def app(self, store: Any = None, ledger: Any = None) -> FolderRunner:
        """Begin as a new process."""
        self.watches: dict[str, Watch] = {}
        options = FolderRunner.Options(**self.options)
        self.runner = FolderRunner(
            options,
            ledger=ledger or self.ledger,
            store=store or self.store,
            store_use={},
            home=self.home,
            state=self.home / "state",
            clock=lambda: self.now,
            wall=lambda: 1e9,
            nonce=lambda: f"n{next(self._numbers)}",
            spawn=lambda watch: self.watches.update({watch.handle: watch}),
        )
        return self.runner

    def look(self, seconds: float = POLL_S, handle: str = "r1-1") -> Progress:
        """Let time pass and the app look once."""
        self.now += seconds
        news = self.runner.poll(handle)
        if handle in self.watches:
            self.watches[handle].look()
            news = self.runner.poll(handle)
        return news

    def offer(self, counter: int, worker: str = "w", **more: Any) -> None:
        self.write(KEYS.offer(worker, "b"), Offer(worker=worker, boot="b", counter=counter, **more))

    def beat(self, mark: str, counter: int, **more: Any) -> None:
        self.write(KEYS.beat(mark), Beat(counter=counter, where="far", **more))

    def write(self, key: str, paper: Paper) -> None:
        self.store.write(key, protocol.encode(paper))

    def read(self, key: str, kind: Any) -> Any:
        return protocol.read(self.store, key, kind)

    def granted(self, attempt: int = 1, worker: str = "w") -> Grant:
        """Offer until there is a grant."""
        for counter in range(1, 4):
            self.offer(counter, worker)
            self.look(handle=f"r1-{attempt}")
        (key,) = [k for k in self.store.list(KEYS.grants) if k.startswith(f"{KEYS.grants}/{attempt}-")]
        grant: Grant = self.read(key, Grant)
        return grant

    def model(self, grant: Grant, answer: str = "a") -> Result:
        """Store a model and an evaluation as an attempt does; return its result, not yet published."""
        stored = []
        for n, key in enumerate((grant.ticket.out, KEYS.evaluation(grant.mark))):
            place = self.home / f"made{next(self._numbers)}"
            place.mkdir()
            (place / f"{n}.txt").write_text(answer)
            stored.append(dict(self.store.put(key, place)))
        return Result(
            attempt=grant.ticket.attempt,
            nonce=grant.ticket.nonce,
            worker=grant.worker,
            boot=grant.boot,
            state="done",
            metrics={"accuracy": 1.0},
            artifact=grant.ticket.out,
            files=stored[0],
            evaluation=KEYS.evaluation(grant.mark),
            evaluation_files=stored[1],
        )

    def checkpoint(self, mark: str, step: int) -> str:
        place = self.home / f"made{next(self._numbers)}"
        place.mkdir()
        (place / "state").write_text(str(step))
        self.store.put(KEYS.checkpoint(mark, step), place)
        return KEYS.checkpoint(mark, step)
