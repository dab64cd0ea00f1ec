"""Which file to read on in: what a cursor remembers of a file, and where that file is after a rotation."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from evergreen.core.errors import ConfigError, Corrupt, InvalidInput

#: Bytes at the start of a file, and right before the cursor, by which it is known again.
HEAD = 4096
TAIL = 256
#: Generations whose names are kept, so that a later one is never given the same.
PAST = 16


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far one file was read. Its JSON is the cursor."""

    dev: int
    ino: int
    at: int = 0  #: bytes done with
    line: int = 0  #: physical lines done with
    head: str = ""  #: digest of the first min(at, HEAD) bytes
    tail: str = ""  #: digest of the min(at, TAIL) bytes before `at`
    name: str = ""  #: names this generation of the file in the ids of its rows; empty until the first row
    past: tuple[str, ...] = ()  #: names of the generations before
    header: tuple[str, ...] = ()
    skip: bool = False  #: inside a line that is too long


@dataclass(frozen=True)
class Found:
    """An open file, where to read on, and the file that follows once this one is finished."""

    file: BinaryIO
    place: Place
    #: The next generation, if somebody has begun to write it: nobody appends to this one any more.
    heir: Path | None = None


def read_cursor(cursor: str | None, origin: str) -> Place | None:
    """Read a cursor; raises `Corrupt` for what was never one."""
    if cursor is None:
        return None
    try:
        return msgspec.json.decode(cursor, type=Place)
    except msgspec.MsgspecError as e:
        raise Corrupt(f"the cursor of {origin} cannot be read: {e}") from e


def digest(data: bytes) -> str:
    """Return a short name for some bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def locate(path: Path, place: Place | None) -> Found | None:
    """Find the file that `place` is in, under whatever name it has now; else the one at `path`, from its start.

    None if there is no file. The file moved on from is finished first: it is looked for by inode in the folder
    (renamed), then by content among names like `log.csv.1` and `log.csv-20240131` (copied, then truncated).
    A file that was replaced by a longer copy of itself (rsync, an editor) is the same file. What cannot be seen:
    a copy-and-truncate of which nothing but the header line had been read, once the file has that line again.
    """
    here = _open(path)
    if place is None:
        return Found(here, _fresh(here)) if here else None
    if here and _inode(here) == (place.dev, place.ino) and _is_in(here, place):
        return Found(here, place)
    # A folder that is being changed may hide a renamed file once, not twice.
    moved = _moved(path, place) or _moved(path, place)
    if moved is None and here and _inode(here) != (place.dev, place.ino) and place.at and _is_in(here, place):
        return Found(here, _known_as(here, place))
    moved = moved or _copied(path, place)
    if moved is None:
        return Found(here, _fresh(here, place.past)) if here else None
    old, file = moved
    begun = here is not None and os.fstat(here.fileno()).st_size > 0
    if here:
        here.close()
    return Found(file, _known_as(file, place), heir=(_between(path, old) or path) if begun else None)


def succeed(heir: Path, place: Place) -> Place | None:
    """Return the start of the generation after `place`; None if it is gone again."""
    file = _open(heir)
    if file is None:
        return None
    with file:
        past = (*place.past, place.name) if place.name else place.past
        return _fresh(file, past[-PAST:])


def advance(file: BinaryIO, place: Place, *, at: int, line: int, **changes: object) -> Place:
    """Move a place on to byte `at` of its file."""
    head = _slice(file, 0, min(at, HEAD))
    tail = _slice(file, max(0, at - TAIL), at)
    return msgspec.structs.replace(place, at=at, line=line, head=digest(head), tail=digest(tail), **changes)


def name_generation(file: BinaryIO, lines: int, past: tuple[str, ...]) -> str:
    """Name a generation by its first `lines` lines that are not blank: the same whenever and from wherever it is read.

    One that begins exactly like an earlier generation gets a number.
    """
    head = _slice(file, 0, HEAD)
    end = 0
    while lines and end < len(head):
        cut = head.find(b"\n", end) + 1 or len(head)
        lines -= bool(head[end:cut].strip())
        end = cut
    name = first = digest(head[:end])
    again = 1
    while name in past:
        again += 1
        name = f"{first}-{again}"
    return name


def _open(path: Path) -> BinaryIO | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidInput(f"{path} is not a file", field="path", hint="Give the path of the log itself.")
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror}", field="path") from e


def _inode(file: BinaryIO) -> tuple[int, int]:
    at = os.fstat(file.fileno())
    return at.st_dev, at.st_ino


def _fresh(file: BinaryIO, past: tuple[str, ...] = ()) -> Place:
    dev, ino = _inode(file)
    return Place(dev, ino, past=past)


def _known_as(file: BinaryIO, place: Place) -> Place:
    dev, ino = _inode(file)
    return msgspec.structs.replace(place, dev=dev, ino=ino)


def _slice(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _is_in(file: BinaryIO, place: Place) -> bool:
    """Say whether what was read up to `place` is still there."""
    if os.fstat(file.fileno()).st_size < place.at:
        return False
    if not place.at:
        return True
    head = _slice(file, 0, min(place.at, HEAD))
    tail = _slice(file, max(0, place.at - TAIL), place.at)
    return digest(head) == place.head and digest(tail) == place.tail


def _siblings(path: Path) -> Iterator[os.DirEntry[str]]:
    """List what lies beside the file, and beside what it links to."""
    for folder in {path.parent, path.resolve().parent}:
        try:
            with os.scandir(folder) as entries:
                yield from entries
        except FileNotFoundError:
            continue


def _moved(path: Path, place: Place) -> tuple[Path, BinaryIO] | None:
    for entry in _siblings(path):
        if not place.at and not entry.name.startswith(path.name):
            continue  # nothing was read by which to know it again: the inode may be somebody else's by now
        if entry.inode() == place.ino and entry.is_file() and Path(entry.path) != path:
            file = _open(Path(entry.path))
            if file and _inode(file) == (place.dev, place.ino) and _is_in(file, place):
                return Path(entry.path), file
            if file:
                file.close()
    return None


def _copied(path: Path, place: Place) -> tuple[Path, BinaryIO] | None:
    if not place.at:
        return None
    counted, dated = _rotated(path)
    for old in counted + dated:
        file = _open(old)
        if file and _is_in(file, place):
            return old, file
        if file:
            file.close()
    return None


def _rotated(path: Path) -> tuple[list[Path], list[Path]]:
    """List older generations, the newest first: `log.csv.1`, `.2`, …; and `log.csv-20240131`, `-20240130`, …"""
    counted: dict[int, Path] = {}
    dated: dict[str, Path] = {}
    for name in {path.name, path.resolve().name}:
        pattern = re.compile(re.escape(name) + r"[.-](\d[\dT:._-]*)")
        for entry in _siblings(path):
            found = pattern.fullmatch(entry.name)
            if not found or not entry.is_file():
                continue
            if found[1].isdigit() and len(found[1]) < 4:
                counted[int(found[1])] = Path(entry.path)
            else:
                dated[found[1]] = Path(entry.path)
    return [counted[n] for n in sorted(counted)], [dated[d] for d in sorted(dated, reverse=True)]


def _between(path: Path, old: Path) -> Path | None:
    """Return the generation right after `old`, where several rotations happened since."""
    for generations in _rotated(path):
        names = [generation.name for generation in generations]
        if old.name in names[1:]:
            return generations[names.index(old.name) - 1]
    return None
