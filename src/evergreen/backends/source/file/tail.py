"""Reading the lines of a growing file: each whole line once, in order, whatever happens to the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol
from zlib import crc32

import msgspec

from evergreen.backends.source.file.place import Found, Place, advance, locate, name_generation, read_cursor, succeed
from evergreen.core.errors import Unavailable
from evergreen.core.ports import Incoming, Pulled
from evergreen.core.records import Json, Reject

#: Longest line, in bytes without its end.
MAX_LINE = 1024 * 1024
#: Longest excerpt of a line that is kept, in characters.
MAX_RAW = 2000
#: A record is expected to have about this many bytes.
USUAL = 256
#: Texts by which a cell says that its subject has agreed.
_YES = ("true", "yes", "1")


@dataclass(frozen=True, slots=True)
class Item:
    """What one record of the file turned out to be: a row, or the reason why it is none."""

    line: int  #: index of its first line among those parsed
    lines: int  #: how many physical lines it has
    row: Mapping[str, Json] | None
    reason: str = ""


@dataclass(frozen=True)
class Parsed:
    """What some lines hold. Lines from `used` on were not looked at, or wait for the rest of their record."""

    items: Sequence[Item]
    used: int
    header: tuple[str, ...] = ()


class Format(Protocol):
    """How lines become rows."""

    encoding: str
    prelude: int  #: lines that a file must have before it can have a row

    def parse(self, lines: Sequence[bytes], header: tuple[str, ...], room: int, *, final: bool) -> Parsed:
        """Make at most `room` items of whole lines; `final` says that a record cannot go on behind them."""
        ...


class Tail:
    """A growing file of rows. Keeps no state: the cursor says where to go on."""

    def __init__(self, path: Path, origin: str, form: Format, *, whole: bool = False) -> None:
        self.path, self.origin, self.form, self.whole = path, origin, form, whole

    def pull(self, cursor: str | None, limit: int) -> Pulled:
        """Return new rows and unreadable lines, together at most `limit`, from one generation of the file.

        Raises `InvalidInput` if the path is a folder or a device, `ConfigError` if it may not be read, `Corrupt`
        if the cursor is none. A file that is not there (yet) has no rows.
        """
        place = read_cursor(cursor, self.origin)
        try:
            found = locate(self.path, place)
            if found is None:
                return Pulled((), (), cursor)
            with found.file:
                return self._pull(found, limit)
        except OSError as e:
            raise Unavailable(f"{self.path} cannot be read just now: {e.strerror}", field="path") from e

    def _pull(self, found: Found, limit: int) -> Pulled:
        reading = _Reading(self, found)
        reading.fill(limit)
        more, place = reading.has_more(), reading.place()
        heir = succeed(found.heir, place) if found.heir and not more else None
        return Pulled(
            reading.rows, reading.rejects, msgspec.json.encode(heir or place).decode(), more or heir is not None
        )


class _Reading:
    """One pull: what was read so far, and up to where."""

    def __init__(self, tail: Tail, found: Found) -> None:
        self.origin, self.form, self.file = tail.origin, tail.form, found.file
        self.began = found.place
        self.at, self.line = found.place.at, found.place.line
        self.name, self.header, self.skip = found.place.name, found.place.header, found.place.skip
        #: A last line without an end: whole if the file is said to be, lost if nobody will ever end it.
        self.whole, self.over = tail.whole, tail.whole or found.heir is not None
        self.rows: list[Incoming] = []
        self.rejects: list[Reject] = []
        self.dry = False  #: there was no whole record left

    def fill(self, limit: int) -> None:
        """Read until there are `limit` rows and rejects, or no whole record is left."""
        size = min(MAX_LINE, max(1 << 16, limit * USUAL))
        while (room := limit - len(self.rows) - len(self.rejects)) > 0:
            before = self.at
            self.file.seek(before)
            data = self.file.read(size)
            ended = len(data) < size
            if self.skip:
                self._skip(data)
            else:
                self._take(data, room, last=ended and self.over)
            self.at = min(self.at, before + len(data))
            if self.at == before:
                if ended:
                    self.dry = True
                    return
                size *= 2

    def has_more(self) -> bool:
        """Say whether there is something left that can be read now."""
        if self.dry:
            return False
        self.file.seek(self.at)
        data = self.file.read(MAX_LINE + 1)
        return b"\n" in data or len(data) > MAX_LINE or bool(data and self.over)

    def place(self) -> Place:
        """Return the place after what was read."""
        return advance(
            self.file, self.began, at=self.at, line=self.line, name=self.name, header=self.header, skip=self.skip
        )

    def _take(self, data: bytes, room: int, *, last: bool) -> None:
        """Read the whole lines in `data`; `last` says that nothing will come behind it."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if rest and last and self.whole:
            lines.append(rest)
            rest = b""
        fit = len(lines)
        if len(data) > MAX_LINE:
            fit = next((i for i, line in enumerate(lines) if len(line) > MAX_LINE), fit)
        final = last or fit < len(lines) or len(rest) > MAX_LINE
        if fit:
            self._keep(self.form.parse(lines[:fit], self.header, room, final=final), lines)
        elif lines:
            self._refuse(lines[0], 0, "the line is longer than 1 MiB")
            self._pass(len(lines[0]) + 1)
        elif len(rest) > MAX_LINE:
            self._refuse(rest, 0, "the line is longer than 1 MiB")
            self.at += len(rest)
            self.skip = True
        elif last and rest:
            self._refuse(rest, 0, "the file was rotated before this line was complete")
            self._pass(len(rest))

    def _skip(self, data: bytes) -> None:
        """Go past the rest of a line that is too long, as far as it is there."""
        end = data.find(b"\n") + 1
        if end:
            self._pass(end)
            self.skip = False
        else:
            self.at += len(data)

    def _keep(self, parsed: Parsed, lines: Sequence[bytes]) -> None:
        """Make rows and rejects of what was parsed."""
        self.header = parsed.header
        starts = list(accumulate((len(line) + 1 for line in lines[: parsed.used]), initial=self.at))
        for item in parsed.items:
            raw = lines[item.line] if item.lines == 1 else b"\n".join(lines[item.line : item.line + item.lines])
            if item.row is None:
                self._refuse(raw, item.line, item.reason)
            else:
                self.rows.append(self._incoming(item.row, raw, starts[item.line], self.line + item.line + 1))
        self.at = starts[-1]
        self.line += parsed.used

    def _incoming(self, row: Mapping[str, Json], raw: bytes, start: int, line: int) -> Incoming:
        self.name = self.name or name_generation(self.file, self.form.prelude, self.began.past)
        subject, consent = row.get("subject"), row.get("consent", False)
        return Incoming(
            id=f"{self.name}:{start}:{crc32(raw):08x}",
            row=row,
            where=f"line {line}",
            raw=self._text(raw),
            subject=subject if isinstance(subject, str) and subject else None,
            consent=consent is True or (isinstance(consent, str) and consent.strip().lower() in _YES),
        )

    def _refuse(self, raw: bytes, line: int, reason: str) -> None:
        where = f"line {self.line + line + 1}"
        self.rejects.append(Reject(origin=self.origin, where=where, raw=self._text(raw), reason=reason))

    def _pass(self, size: int) -> None:
        self.at += size
        self.line += 1

    def _text(self, raw: bytes) -> str:
        """Return the beginning of a line as text that can be stored anywhere."""
        return (
            raw[: 4 * MAX_RAW]
            .decode(self.form.encoding, "replace")
            .replace("\0", "\N{SYMBOL FOR NULL}")
            .rstrip("\r")[:MAX_RAW]
        )
