"""A CSV log that somebody appends to, with a header line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from evergreen.backends.source.file.tail import Item, Parsed, Tail
from evergreen.core.errors import ConfigError
from evergreen.core.ports import Pulled
from evergreen.core.recipe import PluginOptions

#: A quote that is still open after so many lines or bytes is a mistake.
OPEN_LINES = 100
OPEN_BYTES = 64 * 1024
BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


class CsvSource:
    """Rows of a growing CSV file, each once; a row is a mapping from column name to text.

    The first line has the column names. A line like it further down (every application start writes one) is not a
    row; one with the same names in another order, or with names added or taken away, holds for the lines after it.
    A first line that has a number in it, or a name twice, is no header: it is quarantined, as is every
    line up to one that is a header. Columns `subject` and `consent` (yes, true, 1), if there are any, say whom the row is about.
    """

    class Options(PluginOptions):
        """Settings of a `csv` source."""

        path: str
        """The file, below the project's folder or absolute. It need not exist yet."""
        encoding: str = "utf-8"
        """How its text is encoded: any encoding that contains ASCII."""
        delimiter: str = ","
        """What stands between two cells."""
        whole: bool = False
        """The file is complete: its last line counts even without a line end."""

    def __init__(self, options: Options, *, home: Path) -> None:
        self.origin = f"csv:{options.path}"
        form = _Csv(options.encoding, options.delimiter)
        self._tail = Tail(home / options.path, self.origin, form, whole=options.whole)

    def pull(self, cursor: str | None, limit: int) -> Pulled:
        """Return at most `limit` rows that are new since `cursor`, and the next cursor."""
        return self._tail.pull(cursor, limit)


class _Unclosed(Exception):
    """A quote was opened and not closed in time."""


class _Dry(Exception):
    """There are no more lines."""


class _Feed:
    """Hands lines to the csv module, as text, and stops it where a quote stays open for too long."""

    def __init__(self, lines: Sequence[bytes], encoding: str, *, final: bool) -> None:
        self.lines, self.encoding, self.final = lines, encoding, final
        self.first = 0  #: where the record at hand begins
        self.next = 0
        self.held = 0  #: bytes of the record at hand
        self.flaw = ""  #: why the record at hand cannot be used

    def begin(self, line: int) -> None:
        """Start a record."""
        self.first = self.next = line
        self.held, self.flaw = 0, ""

    def texts(self) -> Iterator[str]:
        """Yield the lines of one record after the other."""
        while True:
            going_on = self.next > self.first
            if going_on and (self.next - self.first >= OPEN_LINES or self.held >= OPEN_BYTES):
                raise _Unclosed
            if self.next == len(self.lines):
                raise _Unclosed if going_on and self.final else _Dry
            raw = self.lines[self.next]
            self.next += 1
            self.held += len(raw) + 1
            if b"\0" in raw:
                self.flaw = "there is a NUL byte in it"
            try:
                yield raw.decode(self.encoding).removeprefix(BOM) + "\n"
            except UnicodeDecodeError as e:
                self.flaw = f"byte {e.start + 1} of the line is not {self.encoding}"
                yield raw.decode(self.encoding, "replace") + "\n"


class _Csv:
    """How lines become rows."""

    prelude = 2  # the header and the first row

    def __init__(self, encoding: str, delimiter: str) -> None:
        self.encoding, self.delimiter = encoding, delimiter
        try:
            ascii_inside = ',"\n0'.encode(encoding) == b',"\n0'
        except LookupError:
            raise ConfigError(f'encoding "{encoding}" is not known', field="encoding") from None
        if not ascii_inside:
            raise ConfigError(f'encoding "{encoding}" cannot be read line by line', field="encoding", hint="Use utf-8.")
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
            raise ConfigError(f"delimiter {delimiter!r} is not one ASCII character", field="delimiter")

    def parse(self, lines: Sequence[bytes], header: tuple[str, ...], room: int, *, final: bool) -> Parsed:
        """Read records until the lines or the room are used up.

        Of a record over several lines that cannot be used only the first line is given up, since a stray quote
        may have joined good lines to it.
        """
        items: list[Item] = []
        known = frozenset(header)
        feed = _Feed(lines, self.encoding, final=final)
        records = csv.reader(feed.texts(), delimiter=self.delimiter, strict=True)
        while len(items) < room:
            cells: list[str] = []
            try:
                cells = next(records)
                reason = feed.flaw
            except _Dry:
                break
            except _Unclosed:
                reason = f"a quote that opens in it is not closed within {OPEN_LINES} lines or 64 KiB"
            except csv.Error as e:
                reason = f"not CSV: {e}"
            if not reason and (not known or not known.isdisjoint(cells)) and (names := _header(cells, known)):
                header, known = names, frozenset(names)
            elif not reason and not _blank(cells):
                reason = _misfit(cells, header)
                if not reason:
                    items.append(Item(feed.first, feed.next - feed.first, dict(zip(header, cells, strict=True))))
            if reason:
                items.append(Item(feed.first, 1, None, reason))
                feed.begin(feed.first + 1)
                records = csv.reader(feed.texts(), delimiter=self.delimiter, strict=True)
            else:
                feed.begin(feed.next)
        return Parsed(items, feed.first, header)


def _blank(cells: Sequence[str]) -> bool:
    return not cells or (len(cells) == 1 and not cells[0].strip())


def _misfit(cells: Sequence[str], header: tuple[str, ...]) -> str:
    """Say why cells are not a row under `header`; nothing if they are."""
    if not header:
        return f"expected a header line first: column names, each once, none a number; found {', '.join(cells)[:100]}"
    if len(cells) != len(header):
        return f"expected {len(header)} cells, found {len(cells)}"
    return ""


def _header(cells: Sequence[str], known: frozenset[str]) -> tuple[str, ...]:
    """Return the column names if the cells are a header, else nothing.

    The first header: names, each once, none a number; one may be empty (an index without a name).
    A later one: two or more of the names known so far and no others, or all of them and some more.
    """
    names = tuple(cell.strip() for cell in cells)
    distinct = set(names)
    if _blank(cells) or len(distinct) < len(names):
        return ()
    if not known:
        return () if any(_is_number(name) for name in names) else names
    same = distinct == known
    return names if same or (len(distinct & known) > 1 and (distinct < known or distinct > known)) else ()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
