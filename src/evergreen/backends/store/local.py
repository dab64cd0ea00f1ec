"""Datasets and models as folders of a local (or shared) file system, complete or absent, every file with its sha256."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from evergreen.backends.store import (
    MANIFEST,
    MARK,
    Manifest,
    Stored,
    Told,
    checked,
    copy,
    fetch,
    key_of,
    listed,
    lost,
    manifest_of,
    names,
    read_manifest,
    same_or_conflict,
    sweep,
)
from evergreen.core.errors import ConfigError, Conflict, NotFound
from evergreen.core.ports import Moved
from evergreen.core.recipe import PluginOptions

#: What a program that keeps folders in step is given before its news counts as late, seconds.
SYNCED_S = 600.0
#: Held while a file is put that must be the first, where a file system cannot see to that.
_ONE = threading.Lock()
T = TypeVar("T")


class LocalOptions(PluginOptions):
    """Settings of the local store."""

    path: str | None = None
    """Folder to keep everything in, relative to the project's, or file:///folder; below the state folder if not set."""
    synced: bool = False
    """The folder is a mounted Drive or a Dropbox folder, kept in step by another program: what other machines write
    may be minutes late, and two of them can both believe that they were first. In a URL: file:///folder?synced=true."""


class LocalStore:
    """Keeps the promises of `Store` with rename, link and fsync; safe between processes of one machine."""

    Options = LocalOptions

    def __init__(self, options: LocalOptions, *, home: Path, state: Path) -> None:
        self.root, self._synced = _place(options, home, state)
        self.staleness_s = SYNCED_S if self._synced else 0.0
        self._can_link: bool | None = None
        self._drafts = self.root / ".tmp"

    @property
    def exclusive(self) -> bool:
        """Whether `put_new` has one winner: not among machines, and not where a file system has no hard links."""
        return not self._synced and self._links()

    def put(self, key: str, folder: Path, moved: Moved | None = None) -> Mapping[str, str]:
        """Store a folder; the manifest is written last, then everything appears by one rename."""
        place = self._folder(key)
        found = names(folder)
        told = Told(moved, sum((folder / name).stat().st_size for name in found))
        with self._draft() as draft:
            mine = _drafted(draft, folder, found, told)
            _write(draft / MANIFEST, mine.encode())
            _sync_folders(draft)
            try:
                self._settle(place, partial(draft.rename, place))
            except OSError:
                if not place.is_dir():
                    raise
                self._join(key, draft, place, mine)
        told.all()
        return mine.digests

    def _join(self, key: str, draft: Path, place: Path, mine: Manifest) -> None:
        """Store a folder where something is already: the same one, or one that was broken off or is on its way."""
        if (there := self._manifest(key)) is None:
            for at in {file.at for file in mine.files.values()}:
                _make((place / at).parent)
                (draft / at).replace(place / at)
                _sync((place / at).parent)
            if self._create(draft / MANIFEST, place / MANIFEST):
                return
            there = self._manifest(key)
        if there is not None:
            same_or_conflict(key, there, mine)

    def get(self, key: str, folder: Path, moved: Moved | None = None) -> None:
        """Copy a folder out. `folder` is complete or untouched; it may be there already if it holds the same."""
        place = self._folder(key)
        manifest = self._manifest(key)
        if manifest is None:
            raise NotFound(f'the store has no folder "{key}"')

        def bring(file: Stored, target: Path, told: Callable[[int], None]) -> tuple[str, int]:
            try:
                return copy(place / file.at, target, told)
            except FileNotFoundError:
                lost(key, file.at, deleted=self._manifest(key) is None)

        fetch(key, manifest, folder, bring, moved)

    def put_new(self, key: str, data: bytes) -> bool:
        """Store a small object unless the key is taken; `link` lets exactly one caller win."""
        place = self._object(key)
        with self._draft() as draft:
            _write(draft / "object", data)
            return self._settle(place, partial(self._create, draft / "object", place))

    def write(self, key: str, data: bytes) -> None:
        """Store a small object in place of what was there, by one rename."""
        place = self._object(key)
        with self._draft() as draft:
            _write(draft / "object", data)
            self._settle(place, partial((draft / "object").replace, place))

    def read(self, key: str) -> bytes:
        """Return a small object."""
        try:
            return self._object(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFound(f'the store has no object "{key}"') from None

    def list(self, prefix: str = "") -> Sequence[str]:
        """List the keys at and below `prefix`, which ends where a segment ends."""
        prefix = prefix.rstrip("/")
        found = []
        if prefix:
            at = self._object(prefix)
            found = [prefix] if at.is_file() or self._manifest_of(prefix).is_file() else []
        for parent, folders, files in os.walk(self.root / prefix):
            below = Path(parent).relative_to(self.root)
            paths = [*files, *(f"{name}/{MANIFEST}" for name in folders if Path(parent, name, MANIFEST).is_file())]
            found += filter(None, (key_of((below / path).as_posix()) for path in paths))
            folders[:] = [name for name in folders if not name.endswith(MARK) and not name.startswith(".")]
        return listed(found)

    def delete(self, key: str) -> None:
        """Forget a key: it is gone for readers at once, then its bytes go."""
        place, thing = self._folder(key), self._object(key)
        with self._draft() as draft, suppress(FileNotFoundError, NotADirectoryError):
            place.rename(draft / "gone")
            _sync(place.parent)
        if thing.is_file():
            thing.unlink(missing_ok=True)
            _sync(thing.parent)

    def _object(self, key: str) -> Path:
        return self.root / checked(key)

    def _folder(self, key: str) -> Path:
        return self.root / (checked(key) + MARK)

    def _manifest_of(self, key: str) -> Path:
        return self._folder(key) / MANIFEST

    def _manifest(self, key: str) -> Manifest | None:
        try:
            return read_manifest(key, self._manifest_of(key).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _settle(self, place: Path, step: Callable[[], T]) -> T:
        """Make the folder above `place` and take the step that fills it; empty folders in its way go."""
        for _ in range(20):
            try:
                _make(place.parent)
                done = step()
                _sync(place.parent)
                return done
            except (FileExistsError, NotADirectoryError) as e:
                if (file := self._file_above(place)) is None:
                    raise
                raise Conflict(
                    f'"{self._key(place)}" cannot be stored: "{self._key(file)}" is an object, and a file is no folder',
                    hint="Choose another key.",
                ) from e
            except IsADirectoryError as e:
                if not _rid_of_empty(place):
                    raise Conflict(
                        f'"{self._key(place)}" cannot be stored: there are keys below it, and a folder is no file',
                        hint="Choose another key.",
                    ) from e
            except FileNotFoundError:
                continue  # somebody has just removed the empty folder we made
        raise Conflict(f'"{self._key(place)}" could not be stored: the folders above it come and go')

    def _file_above(self, place: Path) -> Path | None:
        above = place.relative_to(self.root).parents
        return next((self.root / path for path in above if (self.root / path).is_file()), None)

    def _key(self, place: Path) -> str:
        return place.relative_to(self.root).as_posix().removesuffix(MARK)

    def _create(self, draft: Path, place: Path) -> bool:
        """Let a file appear unless there is one. Without hard links this has one winner in one process only."""
        if place.is_dir():
            raise IsADirectoryError(place)
        if self._links():
            try:
                os.link(draft, place)
            except FileExistsError:
                if place.is_dir():
                    raise IsADirectoryError(place) from None
                return False
            return True
        with _ONE:
            if place.exists():
                return False
            draft.replace(place)
        return True

    def _links(self) -> bool:
        """Try once whether the file system has hard links; a mounted Drive has none."""
        if self._can_link is None:
            with self._draft() as draft:
                (draft / "one").write_bytes(b"")
                try:
                    os.link(draft / "one", draft / "two")
                except OSError:
                    self._can_link = False
                else:
                    self._can_link = True
        return self._can_link

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        """Lend a folder to work in, on the store's file system; sweep what crashes left there."""
        self._drafts.mkdir(parents=True, exist_ok=True)
        sweep(self._drafts.iterdir())
        draft = self._drafts / uuid4().hex
        draft.mkdir()
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _place(options: LocalOptions, home: Path, state: Path) -> tuple[Path, bool]:
    """Return the folder, and whether it is kept in step: a setting, or said in a URL (file:///folder?synced=true)."""
    said, synced = options.path, options.synced
    if not said:
        return (state / "store").absolute(), synced
    if "://" in said:
        url = urlsplit(said)
        if url.scheme != "file" or url.netloc not in ("", "localhost") or url.query not in ("", "synced=true"):
            raise ConfigError(
                f"the local store cannot use {said}",
                field="path",
                hint="Give a path or file:///path to a folder (file:///path?synced=true if another program syncs it).",
            )
        said, synced = unquote(url.path), synced or bool(url.query)
    return (home / Path(said).expanduser()).absolute(), synced


def _drafted(draft: Path, folder: Path, found: Sequence[str], told: Told) -> Manifest:
    """Copy files into a draft, to where they will lie; their place is known once their digests are."""
    (draft / "in").mkdir()
    came = {}
    for n, name in enumerate(found):
        came[name] = copy(folder / name, draft / "in" / str(n), told)
        told.next(came[name][1])
    manifest = manifest_of(came)
    for n, name in enumerate(found):
        target = draft / manifest.files[name].at
        target.parent.mkdir(parents=True, exist_ok=True)
        (draft / "in" / str(n)).replace(target)  # two odd names of one content lie at one place
    (draft / "in").rmdir()
    return manifest


def _rid_of_empty(place: Path) -> bool:
    """Remove folders in which nothing is; say whether all went."""
    for parent, _, _ in os.walk(place, topdown=False):
        try:
            Path(parent).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


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
