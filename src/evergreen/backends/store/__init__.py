"""Where datasets and models are kept, and what every store of ours does alike: keys, manifests, fetching a folder.

An object is the file of its very name. A folder `a/b` is `a/b@/manifest.json`, written last, and its files below
`a/b@/<digest of all its files>/`, by their own names: whoever looks into the shared folder finds `Model.mlmodel` by its
name, and two writers with other content never write to one place.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path, PurePosixPath
from typing import NoReturn
from uuid import uuid4

import msgspec

from evergreen.core.errors import Conflict, Corrupt, InvalidInput, NotFound
from evergreen.core.ports import Moved

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
#: Ends the name of a stored folder. No key holds it, so that an object "a" and a folder "a" can both be stored.
MARK = "@"
MANIFEST = "manifest.json"
#: Below this lie files whose own names are not safe on every product, by their digests.
_UNNAMED = "by-sha256"
#: Names every product takes as they are; Dropbox refuses the two.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. +()-]{0,198}[A-Za-z0-9_+()-]|[A-Za-z0-9_]")
_REFUSED = ("desktop.ini", "thumbs.db")
BLOCK = 1024 * 1024
_DAY_S = 86400.0


class Stored(msgspec.Struct, frozen=True):
    """One file of a folder."""

    sha256: str
    size: int
    at: str = ""  #: where it lies below `key@/`


class Manifest(msgspec.Struct, frozen=True):
    """What makes a folder a folder: its files by name."""

    files: Mapping[str, Stored]
    v: int = 1

    @property
    def size(self) -> int:
        """Sum up the bytes of all files."""
        return sum(file.size for file in self.files.values())

    @property
    def digests(self) -> dict[str, str]:
        """Return {file: sha256}."""
        return {name: file.sha256 for name, file in self.files.items()}

    def encode(self) -> bytes:
        """Write it for people too: one line for each fact."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1)


def manifest_of(files: Mapping[str, tuple[str, int]]) -> Manifest:
    """Say where files, given as {name: (sha256, size)}, lie; the same files always lie at the same place.

    >>> manifest_of({"Model.mlmodel": ("ab", 3)}).files["Model.mlmodel"].at
    '34874940b68cb0dd46ba2e214f46a792/Model.mlmodel'
    """
    folder = hashlib.sha256(msgspec.json.encode(sorted(files.items()))).hexdigest()[:32]
    spelt = {str(part) for name in files for part in (PurePosixPath(name), *PurePosixPath(name).parents)}
    # Two names that differ in case only are one file on Dropbox and in many folders of desktops.
    clash = len({part.casefold() for part in spelt}) < len(spelt)
    places = {
        name: f"{folder}/{name}" if _plain(name) and not clash else f"{folder}/{_UNNAMED}/{sha256}"
        for name, (sha256, _) in files.items()
    }
    return Manifest({name: Stored(*files[name], places[name]) for name in sorted(files)})


def _plain(name: str) -> bool:
    parts = name.split("/")
    return parts[0] != _UNNAMED and all(_PLAIN.fullmatch(p) and p.casefold() not in _REFUSED for p in parts)


def read_manifest(key: str, data: bytes) -> Manifest:
    """Read a manifest, or raise `Corrupt`."""
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as e:
        raise Corrupt(f'"{key}": its manifest cannot be read: {e}', field=MANIFEST) from e
    files = {n: file if file.at else Stored(file.sha256, file.size, f"files/{n}") for n, file in found.files.items()}
    if not all(_harmless(name) and _harmless(file.at) for name, file in files.items()):
        raise Corrupt(f'"{key}": its manifest names files as no manifest does', field=MANIFEST)
    return Manifest(files)


def _harmless(name: str) -> bool:
    return bool(name) and not name.startswith("/") and ".." not in name.split("/") and "\\" not in name


def same_or_conflict(key: str, there: Manifest, mine: Manifest) -> None:
    """Accept that a key is taken only by the same files."""
    if there.digests != mine.digests:
        raise Conflict(
            f'"{key}" is stored already, with other content',
            hint="What is stored never changes: choose another key.",
        )


def checked(key: str) -> str:
    """Return the key, or raise `InvalidInput`."""
    if not is_key(key):
        raise InvalidInput(
            f"{key!r} is not a key",
            field="key",
            hint='Keys are like "a/b-c_1.2": letters, digits, - _ . and / between parts.',
        )
    return key


def is_key(path: str) -> bool:
    """Say whether a path can be a key."""
    return len(path) <= 1000 and all(_SEGMENT.fullmatch(part) for part in path.split("/"))


def key_of(path: str) -> str | None:
    """Return the key that a file of the shared folder stands for: an object, or a folder's manifest.

    >>> key_of("a/b.json"), key_of("a/b@/manifest.json"), key_of("a/b@/9f0c/model.onnx"), key_of("My notes.txt")
    ('a/b.json', 'a/b', None, None)
    """
    key = path.removesuffix(f"{MARK}/{MANIFEST}")
    return key if is_key(key) else None


def names(folder: Path) -> list[str]:
    """List the files below a folder, sorted; refuse what is no plain file."""
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder} to store")
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise InvalidInput(f"{path} is not a plain file; the store keeps files only", field=name)
        if not name.isprintable() or "\\" in name:
            raise InvalidInput(f"the file name {name!r} cannot be stored", field=name)
        if path.is_file():
            found.append(name)
    return found


def digest(path: Path) -> tuple[str, int]:
    """Return a file's sha256 and size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


class Told:
    """Adds up what was moved of several files, and tells it. Never goes back: a part sent again is not told again."""

    def __init__(self, moved: Moved | None, total: int) -> None:
        self._moved, self._total, self._before, self._most = moved, total, 0, -1

    def __call__(self, of_this_file: int) -> None:
        """Say how many bytes of the present file have been moved."""
        so_far = min(self._before + of_this_file, self._total)
        if self._moved is not None and so_far > self._most:
            self._moved(so_far, self._total)
        self._most = max(self._most, so_far)

    def next(self, size: int) -> None:
        """A file of this size is done."""
        self(size)
        self._before += size

    def all(self) -> None:
        """Everything is done, or was there already."""
        self(self._total)


#: Brings one file of a folder to a path, telling how many bytes came; returns its sha256 and size as they came.
Bring = Callable[[Stored, Path, Callable[[int], None]], tuple[str, int]]


def fetch(key: str, manifest: Manifest, folder: Path, bring: Bring, moved: Moved | None) -> None:
    """Bring every file, verified. `folder` is complete or untouched; it may be there already if it holds the same."""
    told = Told(moved, manifest.size)
    told(0)
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent.glob(f".{escape(folder.name)}.*.tmp"))
    draft = folder.parent / f".{folder.name}.{uuid4().hex[:12]}.tmp"
    draft.mkdir()
    try:
        for name, file in manifest.files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            if bring(file, draft / name, told) != (file.sha256, file.size):
                raise Corrupt(f'"{key}": the file {name} is not what was stored (its sha256 differs)', field=name)
            told.next(file.size)
        try:
            draft.rename(folder)
        except OSError as e:
            if not folder.exists():
                raise
            _same_files(folder, manifest, e)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def lost(key: str, at: str, *, deleted: bool) -> NoReturn:
    """Say why a file of a stored folder is not there."""
    if deleted:
        raise NotFound(f'"{key}" was deleted from the store while it was read')
    name = at.partition("/")[2]
    raise Corrupt(
        f'"{key}" has lost its file {name}',
        field=name,
        hint="Where the folder is kept in step by another program, it may not have come yet: look again.",
    )


def _same_files(folder: Path, manifest: Manifest, cause: OSError) -> None:
    """Accept a folder that was there before (or that somebody fetched meanwhile) only if it holds the same."""
    there = names(folder) if folder.is_dir() else None
    if there != sorted(manifest.files) or any(digest(folder / n)[0] != d for n, d in manifest.digests.items()):
        raise Conflict(
            f"{folder} holds something else", hint="Give an empty folder, or one that is not there."
        ) from cause


def copy(source: Path, target: Path, told: Callable[[int], None]) -> tuple[str, int]:
    """Copy a file, return its digest and size as read; it is on the disk when this returns."""
    hashed, size = hashlib.sha256(), 0
    with source.open("rb") as came, target.open("xb") as out:
        while block := came.read(BLOCK):
            hashed.update(block)
            size += len(block)
            out.write(block)
            told(size)
        out.flush()
        os.fsync(out.fileno())
    return hashed.hexdigest(), size


def sweep(drafts: Iterable[Path]) -> None:
    """Remove what crashes left half done a day ago or longer."""
    for draft in drafts:
        with suppress(FileNotFoundError):  # its owner has just finished
            if draft.stat().st_mtime < time.time() - _DAY_S:
                shutil.rmtree(draft, ignore_errors=True)


def listed(keys: Iterable[str | None]) -> Sequence[str]:
    """Sort keys, each once; None is no key."""
    return sorted({key for key in keys if key is not None})
