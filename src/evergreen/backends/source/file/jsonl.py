"""A log of JSON objects, one on each line, that somebody appends to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from evergreen.backends.source.file.tail import Item, Parsed, Tail
from evergreen.core.ports import Pulled
from evergreen.core.recipe import PluginOptions

BOM = b"\xef\xbb\xbf"
#: The escaped NUL character, which PostgreSQL stores in no text.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class JsonlSource:
    """Rows of a growing JSON-lines file, each once. Keys `subject` and `consent`, if there are any, say whom a row is about."""

    class Options(PluginOptions):
        """Settings of a `jsonl` source."""

        path: str
        """The file, below the project's folder or absolute. It need not exist yet."""
        whole: bool = False
        """The file is complete: its last line counts even without a line end."""

    def __init__(self, options: Options, *, home: Path) -> None:
        self.origin = f"jsonl:{options.path}"
        self._tail = Tail(home / options.path, self.origin, _Jsonl(), whole=options.whole)

    def pull(self, cursor: str | None, limit: int) -> Pulled:
        """Return at most `limit` rows that are new since `cursor`, and the next cursor."""
        return self._tail.pull(cursor, limit)


class _Jsonl:
    """How lines become rows."""

    encoding = "utf-8"
    prelude = 1

    def parse(
        self,
        lines: Sequence[bytes],
        header: tuple[str, ...],  # noqa: ARG002 - JSON lines have none
        room: int,
        *,
        final: bool,  # noqa: ARG002 - every line is complete by itself
    ) -> Parsed:
        """Read lines until they or the room are used up."""
        items: list[Item] = []
        used = 0
        for line in lines:
            if len(items) == room:
                break
            text = line.removeprefix(BOM).strip()
            if text:
                row, reason = _read(text)
                items.append(Item(used, 1, row, reason))
            used += 1
        return Parsed(items, used)


def _read(text: bytes) -> tuple[dict[str, Any] | None, str]:
    """Return the object that stands in a line, or why there is none."""
    try:
        row = msgspec.json.decode(text)
    except RecursionError:
        return None, "not JSON that can be read: it is nested too deeply"
    except (msgspec.MsgspecError, ValueError) as e:
        return None, f"not JSON: {e}"
    if b"u0000" in text and _NUL.search(text):
        return None, "there is a NUL character in it"
    if isinstance(row, dict):
        return row, ""
    return None, f"expected a JSON object, found {type(row).__name__}"
