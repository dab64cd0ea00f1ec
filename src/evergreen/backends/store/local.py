"""Datasets and models as folders of a local (or shared) file system, complete or absent, every file with its sha256."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from evergreen.core.errors import ConfigError, Conflict, Corrupt, InvalidInput, NotFound
from evergreen.core.ports import Moved
from evergreen.core.recipe import PluginOptions

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
#: Ends the name of a stored folder or object. No key holds it, so that "a" and "a/b" can both be stored.
_MARK = "@"
_BLOCK = 1024 * 1024
_DAY_S = 86400.0


class LocalOptions(PluginOptions):
    """Settings of the local store."""

    path: str | None = None
    """Folder to keep everything in, relative to the project's; below the state folder if not set."""


class LocalStore:
    """Keeps the promises of `Store` with rename, link and fsync; safe between processes of one machine.

    `EVERGREEN_STORE`, a path or a file:// URL, goes before the setting `path`.
    """

    Options = LocalOptions

    exclusive, staleness_s = True, 0.0

    def __init__(self, options: LocalOptions, *, home: Path, state: Path) -> None:
        self.root = _root(options, home, state)
        self._drafts = self.root / ".tmp"

    def put(self, key: str, folder: Path, moved: Moved | None = None) -> Mapping[str, str]:
        """Store a folder; the manifest is written last, then everything appears by one rename."""
        place = self._place(key)
        names = _names(folder)
        with self._draft() as draft:
            (draft / "files").mkdir(parents=True)
            files = {name: _copy(folder / name, draft / "files" / name) for name in names}
            _write(draft / "manifest.json", json.dumps({"files": files}, indent=1, sort_keys=True).encode())
            _sync_folders(draft)
            _make(place.parent)
            try:
                draft.rename(place)
            except OSError as e:
                if not place.exists():
                    raise
                self._same_or_conflict(key, place, files, e)
            else:
                _sync(place.parent)
        return {name: entry["sha256"] for name, entry in files.items()}

    def get(self, key: str, folder: Path, moved: Moved | None = None) -> None:
        """Copy a folder out. `folder` is complete or untouched; it may be there already if it holds the same."""
        place = self._place(key)
        files = _manifest(key, place)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent.glob(f".{escape(folder.name)}.*.tmp"))
        draft = folder.parent / f".{folder.name}.{uuid4().hex[:12]}.tmp"
        draft.mkdir()
        try:
            for name, entry in files.items():
                _fetch(key, place, name, entry, draft / name)
            try:
                draft.rename(folder)
            except OSError as e:
                if not folder.exists():
                    raise
                _same_files(folder, files, e)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def put_new(self, key: str, data: bytes) -> bool:
        """Store a small object unless the key is taken; `link` lets exactly one caller win."""
        place = self._place(key)
        with self._draft() as draft:
            draft.mkdir(parents=True)
            _write(draft / "object", data)
            _make(place.parent)
            try:
                os.link(draft / "object", place)
            except FileExistsError:
                return False
            _sync(place.parent)
        return True

    def write(self, key: str, data: bytes) -> None:
        """Store a small object in place of what was there, by one rename."""
        place = self._place(key)
        with self._draft() as draft:
            draft.mkdir(parents=True)
            _write(draft / "object", data)
            _make(place.parent)
            (draft / "object").replace(place)
            _sync(place.parent)

    def read(self, key: str) -> bytes:
        """Return a small object."""
        try:
            return self._place(key).read_bytes()
        except FileNotFoundError:
            raise NotFound(f'the store has no object "{key}"') from None
        except IsADirectoryError:
            raise NotFound(f'"{key}" is a folder of the store, not an object', hint="Use get.") from None

    def list(self, prefix: str = "") -> Sequence[str]:
        """List the keys at and below `prefix`, which ends where a segment ends."""
        prefix = prefix.rstrip("/")
        start = self.root / _checked(prefix) if prefix else self.root
        found = [prefix] if prefix and self._place(prefix).exists() else []
        for parent, folders, objects in os.walk(start):
            below = PurePosixPath(Path(parent).relative_to(self.root).as_posix())
            found += [str(below / name.removesuffix(_MARK)) for name in (*folders, *objects) if _is_entry(name)]
            folders[:] = [name for name in folders if _SEGMENT.fullmatch(name)]
        return sorted(found)

    def delete(self, key: str) -> None:
        """Forget a key: it is gone for readers at once, then its bytes go."""
        place = self._place(key)
        with self._draft() as draft, suppress(FileNotFoundError):
            draft.mkdir(parents=True)
            place.rename(draft / "gone")
            _sync(place.parent)

    def _place(self, key: str) -> Path:
        return self.root / (_checked(key) + _MARK)

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        """Lend the name of a folder to work in, on the store's file system; sweep what crashes left there."""
        self._drafts.mkdir(parents=True, exist_ok=True)
        _sweep(self._drafts.iterdir())
        draft = self._drafts / uuid4().hex
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _same_or_conflict(self, key: str, place: Path, files: Mapping[str, Any], cause: OSError) -> None:
        if not place.is_dir() or _manifest(key, place) != files:
            raise Conflict(
                f'"{key}" is stored already, with other content',
                hint="What is stored never changes: choose another key.",
            ) from cause


def _sweep(drafts: Iterable[Path]) -> None:
    """Remove what crashes left half done a day ago or longer."""
    for draft in drafts:
        with suppress(FileNotFoundError):  # its owner has just finished
            if draft.stat().st_mtime < time.time() - _DAY_S:
                shutil.rmtree(draft, ignore_errors=True)


def _root(options: LocalOptions, home: Path, state: Path) -> Path:
    said = os.environ.get("EVERGREEN_STORE") or options.path
    if not said:
        return (state / "store").absolute()
    if "://" in said:
        url = urlsplit(said)
        if url.scheme != "file" or url.netloc not in ("", "localhost"):
            raise ConfigError(
                f"the local store cannot use {said}",
                field="path",
                hint="Give a path or file:///path (setting or EVERGREEN_STORE).",
            )
        said = unquote(url.path)
    return (home / Path(said).expanduser()).absolute()


def _checked(key: str) -> str:
    parts = key.split("/")
    if len(key) > 1000 or not all(_SEGMENT.fullmatch(part) for part in parts):
        raise InvalidInput(
            f"{key!r} is not a key",
            field="key",
            hint='Keys are like "a/b-c_1.2": letters, digits, - _ . and / between parts.',
        )
    return key


def _is_entry(name: str) -> bool:
    return name.endswith(_MARK) and _SEGMENT.fullmatch(name.removesuffix(_MARK)) is not None


def _names(folder: Path) -> list[str]:
    """List the files below a folder, sorted; refuse what is no plain file."""
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder} to store")
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise InvalidInput(f"{path} is not a plain file; the store keeps files only", field=name)
        if not name.isprintable():
            raise InvalidInput(f"the file name {name!r} cannot be stored", field=name)
        if path.is_file():
            names.append(name)
    return names


def _copy(source: Path, target: Path) -> dict[str, Any]:
    """Copy a file, return its digest and size as read; it is on the disk when this returns."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as came, target.open("xb") as out:
        while block := came.read(_BLOCK):
            digest.update(block)
            size += len(block)
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    return {"sha256": digest.hexdigest(), "size": size}


def _fetch(key: str, place: Path, name: str, entry: Mapping[str, Any], target: Path) -> None:
    try:
        found = _copy(place / "files" / name, target)
    except FileNotFoundError:
        if not place.exists():
            raise NotFound(f'"{key}" was deleted from the store while it was read') from None
        raise Corrupt(f'"{key}" has lost its file {name}', field=name) from None
    if found != entry:
        raise Corrupt(f'"{key}": the file {name} is not what was stored (its sha256 differs)', field=name)


def _same_files(folder: Path, files: Mapping[str, Any], cause: OSError) -> None:
    """Accept a folder that was there before (or that somebody fetched meanwhile) only if it holds the same."""
    there = _names(folder) if folder.is_dir() else None
    if there != sorted(files) or any(_digest(folder / name) != entry["sha256"] for name, entry in files.items()):
        raise Conflict(
            f"{folder} holds something else", hint="Give an empty folder, or one that is not there."
        ) from cause


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(key: str, place: Path) -> dict[str, Any]:
    try:
        files = json.loads((place / "manifest.json").read_bytes())["files"]
        if all(_harmless(name) and {"sha256", "size"} == set(entry) for name, entry in files.items()):
            return dict(files)
    except FileNotFoundError:
        if place.is_dir():
            raise Corrupt(f'"{key}" has lost its manifest', field="manifest.json") from None
        raise NotFound(f'the store has no folder "{key}"') from None
    except NotADirectoryError:
        raise NotFound(f'"{key}" is an object of the store, not a folder', hint="Use read.") from None
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise Corrupt(f'"{key}": its manifest cannot be read: {e}', field="manifest.json") from e
    raise Corrupt(f'"{key}": its manifest names files as no manifest does', field="manifest.json")


def _harmless(name: str) -> bool:
    return bool(name) and not name.startswith("/") and ".." not in name.split("/")


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _make(folder: Path) -> None:
    """Make a folder and those above it, to outlive a power cut."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in new:
        _sync(path.parent)


def _sync_folders(top: Path) -> None:
    for parent, _, _ in os.walk(top):
        _sync(Path(parent))


def _sync(folder: Path) -> None:
    """Make renames into a folder outlive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
