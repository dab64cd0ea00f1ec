"""One loop, wired: what every stage is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from evergreen.core.config import LoopConfig
from evergreen.core.ports import Ledger, Runner, Source, Store
from evergreen.core.recipe import Recipe


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
