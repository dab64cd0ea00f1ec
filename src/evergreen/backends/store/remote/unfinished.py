"""Uploads that broke off: what the product called them, kept on this machine, so that a new process goes on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

#: Products forget uploads under way after a week.
_OLD_S = 8 * 86400.0


class Unfinished:
    """Notes of uploads under way, one small file each. Old ones are swept away."""

    def __init__(self, state: Path, store: str) -> None:
        self._folder, self._store = state / "uploads-under-way", store

    def recall(self, path: str, size: int) -> dict[str, str] | None:
        """Return what was noted of the upload of a file of this size to `path`."""
        try:
            noted = json.loads(self._place(path, size).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return noted if isinstance(noted, dict) and all(isinstance(v, str) for v in noted.values()) else None

    def note(self, path: str, size: int, **what: str) -> None:
        """Keep what is needed to go on. It may be a secret address: nobody else may read it."""
        place = self._place(path, size)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        draft = self._folder / f"{uuid4().hex}.tmp"
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as out:
            json.dump(what, out)
        draft.replace(place)

    def forget(self, path: str, size: int) -> None:
        """The upload is done, or cannot be gone on with."""
        with suppress(FileNotFoundError):
            self._place(path, size).unlink()

    def _place(self, path: str, size: int) -> Path:
        return self._folder / (hashlib.sha256(f"{self._store}\n{path}\n{size}".encode()).hexdigest()[:32] + ".json")

    def _sweep(self) -> None:
        for note in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if note.stat().st_mtime < time.time() - _OLD_S:
                    note.unlink()
