"""Open evergreen.toml: settings in, wired loops out. The only place where plugins are chosen."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from evergreen.core import config, plugins
from evergreen.core.config import Use
from evergreen.core.errors import ConfigError, NotFound
from evergreen.core.loop import Loop
from evergreen.core.ports import Ledger, Source, Store, Subscriber

#: How the files that a person hands over are read, by their ending.
FILES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class Ids:
    """Makes ids that rise with time, so that the ledger's indexes stay compact, and that nobody can guess."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pool = b""
        self._at = 0

    def new(self) -> str:
        """Return 32 hexadecimal digits: 12 of milliseconds, 20 of chance. From any thread."""
        with self._lock:
            if self._at >= len(self._pool):  # one call of the system for many ids
                self._pool, self._at = os.urandom(2560), 0
            self._at += 10
            chance = self._pool[self._at - 10 : self._at]
        return f"{int(time.time() * 1000):012x}{chance.hex()}"


@dataclass(frozen=True)
class Project:
    """A configuration file and what it opens."""

    config: config.Config
    loops: Mapping[str, Loop]
    ledger: Ledger
    store: Store
    doors: Sequence[Any]
    subscribers: Mapping[str, Subscriber]
    home: Path  #: the folder of evergreen.toml
    state: Path  #: where Evergreen keeps its own files

    def loop(self, name: str) -> Loop:
        """Return a loop or raise `NotFound`."""
        try:
            return self.loops[name]
        except KeyError:
            raise NotFound(
                f'no loop "{name}"', field="loop", hint=f"There are: {', '.join(self.loops) or 'none'}"
            ) from None

    def __getitem__(self, name: str) -> Loop:
        """Return a loop or raise `NotFound`."""
        return self.loop(name)


def open(path: str | Path = "evergreen.toml") -> Project:
    """Read the file, build the backends once, and every loop on top of them. Raises `ConfigError`."""
    path = Path(path).resolve()
    home = path.parent
    raw = config.read(path)
    if str(home) not in sys.path:  # a project's own recipes and backends: "module:Class"
        sys.path.append(str(home))
    doors = [plugins.make("doors", use, home=home) for use in _doors(raw, path.name)]
    for door in doors:
        raw = door.settings(raw)
    conf = config.parse(raw, path.name)
    state = home / conf.state
    state.mkdir(parents=True, exist_ok=True)
    ledger = plugins.make("ledgers", conf.ledger, home=home, state=state, now=_now)
    said = os.environ.get("EVERGREEN_STORE")
    store_use = config.store_at(said) if said else conf.store
    store = plugins.make("stores", store_use, home=home, state=state)
    ids = Ids()
    loops = {
        name: Loop(
            name=name,
            config=c,
            recipe=plugins.make("recipes", c.recipe),
            ledger=ledger,
            store=store,
            runner=plugins.make(
                "runners",
                c.runner,
                ledger=ledger,
                store=store,
                store_use=store_use.model_dump(),
                home=home,
                state=state,
            ),
            sources=[plugins.make("sources", use, home=home) for use in c.collect.sources],
            home=home,
            state=state,
            now=_now,
            new_id=ids.new,
            open_file=partial(_open_file, home),
        )
        for name, c in conf.loops.items()
    }
    told = {s.called: plugins.make("subscribers", s, home=home, store=store) for s in conf.subscribers}
    return Project(conf, loops, ledger, store, doors, told, home, state)


def _doors(raw: Mapping[str, Any], place: str) -> Sequence[Use]:
    """Read the one table that must be known before the rest can be checked."""
    return config.parse({"doors": raw.get("doors", ())}, place).doors


def _open_file(home: Path, path: Path) -> Source:
    kind = FILES.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"{path.name} is none of: {', '.join(FILES)}", field="file")
    name = path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)
    source: Source = plugins.make("sources", Use.model_validate({"use": kind, "path": name, "whole": True}), home=home)
    return source


def _now() -> datetime:
    return datetime.now(UTC)
