"""A store for real processes that share one folder of this machine as if it were far away: every process sees it late.

`EVERGREEN_STORE=lagging:LaggingStore:///shared?lag_s=2&seed=1`. Whose view it is, says EVERGREEN_VIEW (children inherit
it: they are on the same machine as their parent), else the process's id. How late a key is in a view is drawn from
`seed`, the view, the key and the second. A view sees what it wrote itself at once.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from evergreen.core import plugins
from evergreen.core.errors import Corrupt, NotFound
from evergreen.core.ports import Moved
from evergreen.core.recipe import PluginOptions

_GONE = ".gone"


class LaggingOptions(PluginOptions):
    """Which folder, and how far away it is."""

    url: str
    """`lagging:LaggingStore://` and the path of the folder that all share, then perhaps `?lag_s=2&seed=1&exclusive=1`:
    the longest time until another view sees what was stored, the start of every random delay, and whether `put_new`
    has one winner, as over an object store's API."""


class LaggingStore:
    """Keeps the promises of `Store` and no more: late, out of order, in part."""

    Options = LaggingOptions

    def __init__(self, options: LaggingOptions, *, home: Path, state: Path) -> None:
        path, _, said = options.url.partition("://")[2].partition("?")
        settings = dict(parse_qsl(said))
        self._lag_s, self._seed = float(settings.get("lag_s", 1.0)), settings.get("seed", "0")
        self.exclusive, self.staleness_s = "exclusive" in settings, self._lag_s
        local = plugins.load("stores", "local")
        self._truth = local(local.Options(path=path), home=home, state=state)
        #: Every word ever written, by key, time and view: what the truth was at any moment.
        self._past = Path(path).absolute().with_name(Path(path).name + ".past")
        self._view = os.environ.get("EVERGREEN_VIEW") or str(os.getpid())

    def put(self, key: str, folder: Path, moved: Moved | None = None) -> Mapping[str, str]:
        """Store a folder."""
        digests: Mapping[str, str] = self._truth.put(key, folder, moved)
        self._note("folders/" + key, b"")
        return digests

    def get(self, key: str, folder: Path, moved: Moved | None = None) -> None:
        """Copy a folder out, if all of it has come through to this view."""
        late = self._late("folders/" + key)
        if self._seen("folders/" + key, late) is None:
            if self._seen("folders/" + key, late / 2) is not None:
                raise Corrupt(f'"{key}": not all files have come through')
            raise NotFound(f'the store has no folder "{key}"')
        self._truth.get(key, folder, moved)

    def write(self, key: str, data: bytes) -> None:
        """Store a small object in place of what was there."""
        self._truth.write(key, data)
        self._note("objects/" + key, data)

    def put_new(self, key: str, data: bytes) -> bool:
        """Store a small object if there is none: truly, or as far as this view can see."""
        if self.exclusive:
            won = bool(self._truth.put_new(key, data))
        elif won := self._seen("objects/" + key, self._late(key)) is None:
            self._truth.write(key, data)
        if won:
            self._note("objects/" + key, data)
        return won

    def read(self, key: str) -> bytes:
        """Return a small object as it was a moment ago."""
        data = self._seen("objects/" + key, self._late(key))
        if data is None:
            raise NotFound(f'the store has no object "{key}"')
        return data

    def list(self, prefix: str = "") -> Sequence[str]:
        """List what this view has heard of."""
        return [key for key in self._truth.list(prefix) if self._heard_of(key)]

    def delete(self, key: str) -> None:
        """Forget a key."""
        self._truth.delete(key)
        for kind in ("objects/", "folders/"):
            if (self._past / (kind + key + "@")).is_dir():
                self._note(kind + key, None)

    def _heard_of(self, key: str) -> bool:
        late = self._late(key)
        return any(self._seen(kind + key, late) is not None for kind in ("objects/", "folders/"))

    def _note(self, name: str, data: bytes | None) -> None:
        """Write into the past what begins to be true now."""
        folder = self._past / (name + "@")
        folder.mkdir(parents=True, exist_ok=True)
        word = folder / f"{time.monotonic_ns():020d}~{self._view}{_GONE if data is None else ''}"
        draft = folder / f".{os.getpid()}.{random.randrange(10**9)}"
        draft.write_bytes(data or b"")
        draft.replace(word)
        for old in sorted(w for w in folder.iterdir() if not w.name.startswith("."))[:-50]:
            old.unlink(missing_ok=True)

    def _seen(self, name: str, late_s: float) -> bytes | None:
        """Return what stood under a name `late_s` ago, or what this view wrote there since."""
        with suppress(NotFound):
            self._truth.read(name.partition("/")[2])  # refuses what is no key
        folder = self._past / (name + "@")
        moment = time.monotonic_ns() - int(late_s * 1e9)
        try:
            words = sorted((w for w in folder.iterdir() if not w.name.startswith(".")), reverse=True)
        except FileNotFoundError:
            return None
        for word in words:
            at, _, view = word.name.partition("~")
            if int(at) <= moment or view.removesuffix(_GONE) == self._view:
                try:
                    return None if view.endswith(_GONE) else word.read_bytes()
                except FileNotFoundError:  # so old that it was thrown away meanwhile
                    return self._seen(name, late_s)
        return None

    def _late(self, key: str) -> float:
        """Say how late a key is in this view now: another delay every second, so that keys overtake each other."""
        draw: Any = random.Random(f"{self._seed} {self._view} {key} {int(time.monotonic())}")
        return 0.0 if draw.random() < 0.3 else float(draw.random() * self._lag_s)
