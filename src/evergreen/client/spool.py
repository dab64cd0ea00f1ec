"""A queue on disk for what could not be delivered yet; what was put in survives a crash of the process."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from evergreen.core.errors import Conflict, Overloaded

try:
    import fcntl
except ImportError:  # Windows: there a second process is not noticed
    fcntl = None  # type: ignore[assignment]

_MB = 1 << 20


class Spool:
    """A queue on disk: append-only JSON lines in numbered files; what was put in survives a crash of the process.

    One process at a time may hold a folder (`Conflict` otherwise). `most` bounds it, in bytes.
    """

    def __init__(self, folder: Path, *, most: int = 64 * _MB, segment: int = _MB) -> None:
        self.folder, self.most, self.segment = folder, most, segment
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._hold = (folder / "lock").open("w")
        if fcntl is not None:
            try:
                fcntl.flock(self._hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._hold.close()
                raise Conflict(f"another process uses the spool {folder}", hint="Give each process its own.") from None
        self._recover()

    def _recover(self) -> None:
        numbers = sorted(int(p.stem) for p in self.folder.glob("*.jsonl") if p.stem.isdigit())
        self._read_at, self._offset = numbers[0] if numbers else 1, 0
        try:
            mark = json.loads((self.folder / "position").read_bytes())
            if mark["segment"] in numbers:
                self._read_at, self._offset = mark["segment"], mark["offset"]
        except (FileNotFoundError, ValueError):
            pass  # then all is sent again, which ids make harmless
        self._write_at = numbers[-1] if numbers else 1
        self._bytes = self._count = 0
        for number in numbers:
            data = self._path(number).read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):  # the process died while writing it; nobody was told it was kept
                with self._path(number).open("r+b") as f:
                    f.truncate(whole)
            if number < self._read_at:
                self._path(number).unlink()
                continue
            left = data[self._offset if number == self._read_at else 0 : whole]
            self._bytes += len(left)
            self._count += left.count(b"\n")
        self._out = self._path(self._write_at).open("ab")

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08}.jsonl"

    def __len__(self) -> int:
        return self._count

    def put(self, record: Mapping[str, Any]) -> None:
        """Append a record; it is on the disk when this returns. Raises `Overloaded` when the spool is full."""
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        with self._lock:
            if self._bytes + len(line) > self.most:
                raise Overloaded(
                    f"the spool {self.folder} is full: {self._count} records wait for the server",
                    hint="Bring the server back, or allow a larger spool.",
                )
            if self._out.tell() >= self.segment:
                self._turn()
            self._out.write(line)
            self._sync()
            self._bytes += len(line)
            self._count += 1

    def _turn(self) -> None:
        """Begin the next file."""
        self._out.close()
        self._write_at += 1
        self._out = self._path(self._write_at).open("ab")

    def _sync(self) -> None:
        self._out.flush()
        os.fsync(self._out.fileno())

    def first(self, most: int = 1) -> list[dict[str, Any]]:
        """Return the oldest records, at most so many of one file."""
        with self._lock:
            return [json.loads(line) for line in self._lines(most)]

    def _lines(self, most: int) -> list[bytes]:
        if not self._count:
            return []
        with self._path(self._read_at).open("rb") as f:
            f.seek(self._offset)
            return list(islice(f, most))

    def drop(self, n: int = 1) -> None:
        """Forget the oldest records: they were delivered."""
        with self._lock:
            lines = self._lines(n)
            size = sum(map(len, lines))
            self._offset += size
            self._bytes -= size
            self._count -= len(lines)
            if self._offset >= self._path(self._read_at).stat().st_size:
                done = self._path(self._read_at)
                if self._read_at == self._write_at:
                    self._turn()
                self._read_at, self._offset = self._read_at + 1, 0
                done.unlink()
            mark = self.folder / "position.new"
            mark.write_text(json.dumps({"segment": self._read_at, "offset": self._offset}))
            mark.replace(self.folder / "position")

    def refuse(self, record: Mapping[str, Any], why: str) -> None:
        """Put the oldest record aside, with the reason the server gave, and go on to the next."""
        with (self.folder / "refused.txt").open("a", encoding="utf-8") as out:
            out.write(json.dumps({"why": why, **record}) + "\n")
        self.drop()

    def close(self) -> None:
        """Let go of the folder; what is in it stays."""
        with self._lock:
            self._out.close()
            self._hold.close()
