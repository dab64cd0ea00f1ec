"""The Python client of a server: predict, collect, train; keeps what it could not deliver on disk until it can."""

from __future__ import annotations

import json
import os
import random
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from evergreen.core.errors import (
    Conflict,
    EvergreenError,
    InvalidInput,
    JobFailed,
    NoConsent,
    Overloaded,
    Refused,
    Unauthorized,
    Unavailable,
)

try:
    import fcntl
except ImportError:  # Windows: there a second process is not noticed
    fcntl = None  # type: ignore[assignment]

_MB = 1 << 20
#: Spooled samples in one request.
_BATCH = 200


def _tree(cls: type[EvergreenError]) -> Iterator[type[EvergreenError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _tree(sub)


_CLASSES = {
    cls.code: cls
    for cls in _tree(EvergreenError)
    if cls is not JobFailed and cls.__module__ == EvergreenError.__module__
}


def error_of(status: int, body: Any) -> EvergreenError:
    """Turn an error's shape on the wire back into the class the server raised."""
    said = body.get("error") if isinstance(body, dict) else None
    if not isinstance(said, dict) or status == 429:
        return Unavailable(f"the server answered {status}", hint="Is the address that of an Evergreen server?")
    cls = _CLASSES.get(str(said.get("code")), EvergreenError if status >= 500 else InvalidInput)
    return cls(said.get("message"), field=said.get("field"), hint=said.get("hint"))


def _alike(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the samples of one loop that stand at the head, which go in one request; or the one record there."""
    head = records[0]["path"] if records else ""
    same = list(takewhile(lambda r: r["path"] == head, records))
    return same if head.endswith("/samples") else same[:1]


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


@dataclass(frozen=True)
class Flushed:
    """What became of the spool."""

    sent: int
    refused: int  #: the server will never take them; kept in `refused.txt`
    left: int


class Client:
    """Talks to a server. Thread-safe.

    With `spool`, samples and feedback are kept in that folder while the server is away, and sent in order, once it is
    back, by a background thread (or `flush()`). Ids are made here, so that sending twice never counts twice.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        spool: Path | str | None = None,
        *,
        timeout: float = 10.0,
        most: int = 64 * _MB,
        background: bool = True,
        first_wait: float = 0.5,
        longest_wait: float = 60.0,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)
        self._spool = Spool(Path(spool), most=most) if spool is not None else None
        self._waits = first_wait, longest_wait
        self._sending = threading.Lock()  # one at a time, so that order is kept
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if self._spool is not None and background:
            self._thread = threading.Thread(target=self._deliver, name="evergreen-spool", daemon=True)
            self._thread.start()
            if len(self._spool):
                self._wake.set()

    def predict(
        self, loop: str, input: Any, *, unit: str | None = None, subject: str | None = None, consent: bool = False
    ) -> dict[str, Any]:
        """Answer one input: `{"id", "output", "model"}`; feedback refers to the id.

        `unit` keeps a user or device on the same model during a rollout; `subject` and `consent` say whose data it
        is and that it may be kept.
        """
        body = {"input": input, "unit": unit, "subject": subject, "consent": consent}
        said: dict[str, Any] = self._call("POST", f"/api/{quote(loop)}/predict", body)
        return said

    def sample(self, loop: str, row: Mapping[str, Any], *, id: str | None = None) -> str:
        """Give a sample as the loop's recipe reads it; return its id, by which feedback can join it."""
        id = id or str(row.get("id") or uuid.uuid4().hex)
        self._keep(f"/api/{quote(loop)}/samples", {**row, "id": id})
        return id

    def feedback(self, loop: str, id: str, label: Any, **more: Any) -> None:
        """Say what would have been the right answer to prediction or sample `id`."""
        self._keep(f"/api/{quote(loop)}/feedback", {"id": id, "label": label, **more})

    def train(self, loop: str, *, force: bool = False, why: str = "") -> dict[str, Any]:
        """Ask for a training; raises `AlreadyWaiting` if one waits or runs."""
        said: dict[str, Any] = self._call("POST", f"/api/{quote(loop)}/train", {"force": force, "why": why})
        return said

    def status(self, loop: str) -> dict[str, Any]:
        """Say where a loop stands."""
        said: dict[str, Any] = self._call("GET", f"/api/{quote(loop)}/training/status")
        return said

    def models(self, loop: str) -> list[dict[str, Any]]:
        """List the model versions of a loop, newest first."""
        said: list[dict[str, Any]] = self._call("GET", f"/api/{quote(loop)}/models")["models"]
        return said

    def history(self, loop: str, *, limit: int = 50) -> list[dict[str, Any]]:
        """List what happened, newest first."""
        said: list[dict[str, Any]] = self._call("GET", f"/api/{quote(loop)}/history?limit={limit}")["events"]
        return said

    def health(self) -> dict[str, Any]:
        """Say whether the server is well and which versions it serves."""
        said: dict[str, Any] = self._call("GET", "/health")
        return said

    @property
    def waiting(self) -> int:
        """How many records are kept for a server that is away."""
        return len(self._spool) if self._spool is not None else 0

    def flush(self) -> Flushed:
        """Send what is kept, in order, until nothing is left or the server is away again.

        Raises `Unauthorized` or `Refused` when the key is the trouble; nothing is lost then.
        """
        if self._spool is None:
            return Flushed(0, 0, 0)
        sent = refused = alone = 0
        with self._sending:
            while not self._stop.is_set() and (batch := _alike(self._spool.first(1 if alone else _BATCH))):
                try:
                    self._send(batch)
                except EvergreenError as e:
                    if e.status >= 500:
                        break
                    if isinstance(e, Unauthorized | Refused) and not isinstance(e, NoConsent):
                        raise
                    if len(batch) > 1:  # one of them is to blame: look at each
                        alone = len(batch)
                        continue
                    self._spool.refuse(batch[0], f"{e.code}: {e}")
                    refused += 1
                else:
                    self._spool.drop(len(batch))
                    sent += len(batch)
                alone = max(0, alone - len(batch))
        return Flushed(sent, refused, len(self._spool))

    def close(self) -> None:
        """Stop; what was not delivered stays in the spool for the next process."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        if self._spool is not None:
            self._spool.close()
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, path: str, body: Mapping[str, Any]) -> None:
        """Send now, or spool if the server is away or others wait already."""
        if self._spool is None:
            self._call("POST", path, body)
            return
        if not len(self._spool):
            try:
                self._call("POST", path, body)
                return
            except EvergreenError as e:
                if e.status < 500:
                    raise
        self._spool.put({"path": path, "body": body})
        self._wake.set()

    def _send(self, batch: Sequence[Mapping[str, Any]]) -> None:
        body = batch[0]["body"] if len(batch) == 1 else {"samples": [record["body"] for record in batch]}
        self._call("POST", batch[0]["path"], body)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as e:
            raise Unavailable(f"the server at {self._http.base_url} cannot be reached: {e}") from e
        try:
            said = answer.json()
        except ValueError:
            said = None
        if answer.is_success:
            return said
        raise error_of(answer.status_code, said)

    def _deliver(self) -> None:
        """Flush whenever something is kept; wait longer after each failure, up to the longest wait."""
        wait, longest = self._waits
        pause = wait
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            while not self._stop.is_set() and self.waiting:
                try:
                    left = self.flush().left
                except EvergreenError:  # the key is not good: whoever gives the next sample or calls flush() is told
                    left = self.waiting
                if not left:
                    pause = wait
                    break
                self._stop.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 – only spreads load
                pause = min(pause * 2, longest)
