"""What a product must be able to do with files, and the store on top of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from evergreen.backends.store import (
    MANIFEST,
    MARK,
    Manifest,
    Stored,
    Told,
    checked,
    digest,
    fetch,
    key_of,
    listed,
    lost,
    manifest_of,
    names,
    read_manifest,
    same_or_conflict,
)
from evergreen.core.errors import Conflict, NotFound
from evergreen.core.ports import Moved


class Objects(Protocol):
    """Files by path, as one product keeps them. Paths are relative to the shared folder, "/" between parts.

    Each call asks again by itself when the product is busy or does not answer. Raises `ConfigError` for credentials
    and settings that are wrong (naming the variable, never its value), `Unavailable` when the product stays away,
    `Conflict` for a path below a file (or a file where a folder is) on products where that cannot be.
    """

    @property
    def exclusive(self) -> bool:
        """Say whether of two `create` of one path, also on two machines, exactly one wins."""
        ...

    @property
    def staleness_s(self) -> float:
        """Seconds after which every reader sees what was written."""
        ...

    def read(self, path: str) -> bytes | None:
        """Return a whole file; None if there is none by that path (a folder is none)."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Put a whole file in place of what was there; readers see the old one or the new one."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Put a whole file if there is none by that path; False if there is.

        A request whose answer was lost and that was sent again recognises its own file by its bytes.
        """
        ...

    def paths(self, prefix: str) -> Iterator[str]:
        """Name every file at `prefix` (if it is one) and below the folder of that name, all pages; "" is everything."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file; no error if there is none."""
        ...

    def upload(self, path: str, file: Path, told: Callable[[int], None]) -> None:
        """Store a file of any size; it appears whole or not at all.

        What broke off, also in a process that is no more, goes on where it stopped. `told` hears how many bytes of
        this file have been stored so far. A path is only ever used for one content, so several may upload it at once.
        """
        ...

    def download(self, path: str, file: Path, told: Callable[[int], None]) -> None:
        """Write a stored file to `file`, which is not there yet; `NotFound` if there is none by that path.

        A connection that breaks is taken up where it broke. `told` hears how many bytes have come so far.
        """
        ...


class RemoteStore:
    """Keeps the promises of `Store` with nothing but files at a product."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    @property
    def exclusive(self) -> bool:
        """Say what the product says."""
        return self.objects.exclusive

    @property
    def staleness_s(self) -> float:
        """Say what the product says."""
        return self.objects.staleness_s

    def put(self, key: str, folder: Path, moved: Moved | None = None) -> Mapping[str, str]:
        """Store a folder: its files, then the manifest. Files that an earlier try stored are not sent again."""
        place = checked(key) + MARK
        seen = {name: _seen(folder / name) for name in names(folder)}
        mine = manifest_of({name: digest(folder / name) for name in seen})
        told = Told(moved, mine.size)
        there = self._manifest(key)
        if there is None:
            told(0)
            self._upload(place, folder, mine, told)
            if any(_seen(folder / name) != before for name, before in seen.items()):
                raise Conflict(f"{folder} was changed while it was stored", hint="Store it again when it is done.")
            if not self.objects.create(f"{place}/{MANIFEST}", mine.encode()):
                there = self._manifest(key)
        if there is not None:
            same_or_conflict(key, there, mine)
        told.all()
        return mine.digests

    def _upload(self, place: str, folder: Path, mine: Manifest, told: Told) -> None:
        # What lies at these paths is of the very same content: their folder is named by the digest of all.
        tops = {file.at.partition("/")[0] for file in mine.files.values()}
        there = {path for top in tops for path in self.objects.paths(f"{place}/{top}")}
        for name, file in mine.files.items():
            path = f"{place}/{file.at}"
            if path not in there:
                self.objects.upload(path, folder / name, told)
                there.add(path)
            told.next(file.size)

    def get(self, key: str, folder: Path, moved: Moved | None = None) -> None:
        """Copy a folder out. `folder` is complete or untouched; it may be there already if it holds the same."""
        place = checked(key) + MARK
        manifest = self._manifest(key)
        if manifest is None:
            raise NotFound(f'the store has no folder "{key}"')

        def bring(file: Stored, target: Path, told: Callable[[int], None]) -> tuple[str, int]:
            try:
                self.objects.download(f"{place}/{file.at}", target, told)
            except NotFound:
                lost(key, file.at, deleted=self._manifest(key) is None)
            with target.open("rb") as out:
                os.fsync(out.fileno())
            return digest(target)

        fetch(key, manifest, folder, bring, moved)

    def write(self, key: str, data: bytes) -> None:
        """Store a small object in place of what was there."""
        self.objects.write(checked(key), data)

    def put_new(self, key: str, data: bytes) -> bool:
        """Store a small object unless the key is taken."""
        return self.objects.create(checked(key), data)

    def read(self, key: str) -> bytes:
        """Return a small object."""
        data = self.objects.read(checked(key))
        if data is None:
            raise NotFound(f'the store has no object "{key}"')
        return data

    def list(self, prefix: str = "") -> Sequence[str]:
        """List the keys at and below `prefix`, which ends where a segment ends."""
        prefix = prefix.rstrip("/")
        found = [key_of(path) for path in self.objects.paths(checked(prefix) if prefix else "")]
        if prefix and self.objects.read(f"{prefix}{MARK}/{MANIFEST}") is not None:
            found.append(prefix)
        return listed(found)

    def delete(self, key: str) -> None:
        """Forget a key: a folder is gone for readers at once, then its bytes go."""
        place = checked(key) + MARK
        self.objects.remove(key)
        self.objects.remove(f"{place}/{MANIFEST}")
        for path in list(self.objects.paths(place)):
            self.objects.remove(path)

    def _manifest(self, key: str) -> Manifest | None:
        data = self.objects.read(f"{key}{MARK}/{MANIFEST}")
        return None if data is None else read_manifest(key, data)


def _seen(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
