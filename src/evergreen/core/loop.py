"""One loop, wired: what every stage is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from evergreen.core.config import LoopConfig
from evergreen.core.ports import Ledger, Runner, Source, Store
from evergreen.core.recipe import Recipe
from evergreen.core.records import Run


@dataclass(frozen=True)
class Loop:
    """A recipe, its configuration, and the backends it uses. Holds no state of its own."""

    name: str
    config: LoopConfig
    recipe: Recipe
    ledger: Ledger
    store: Store
    runner: Runner
    sources: Sequence[Source]
    home: Path  #: the project's folder
    state: Path  #: where it may write: caches, work in progress
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    #: Opens a file that a training was given of its own (`csv_path`) as a source.
    open_file: Callable[[Path], Source]

    def runs(self) -> Iterator[Run]:
        """Go back through the runs, the newest first; reads no further than it is followed, however many there are."""
        limit, seen = 8, 0
        while True:
            found = self.ledger.find(Run, self.name, newest_first=True, limit=limit)
            yield from found[seen:]
            if len(found) < limit:
                return
            limit, seen = 8 * limit, limit
