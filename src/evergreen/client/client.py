"""The Python client of a server: predict, collect, train; keeps what it could not deliver on disk until it can."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from evergreen.client.spool import Spool
from evergreen.core.errors import (
    EvergreenError,
    InvalidInput,
    JobFailed,
    NoConsent,
    Refused,
    Unauthorized,
    Unavailable,
)

_MB = 1 << 20
#: Spooled samples in one request.
_BATCH = 200
#: Sessions whose newest prediction is remembered.
_SESSIONS = 10_000


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
    if isinstance(said, dict) and status == 429:  # later, then: nothing is wrong with what was sent
        return Unavailable(said.get("message"), hint=said.get("hint"))
    if not isinstance(said, dict):
        return Unavailable(f"the server answered {status}", hint="Is the address that of an Evergreen server?")
    cls = _CLASSES.get(str(said.get("code")), EvergreenError if status >= 500 else InvalidInput)
    return cls(said.get("message"), field=said.get("field"), hint=said.get("hint"))


def _alike(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the samples of one loop that stand at the head, which go in one request; or the one record there."""
    head = records[0]["path"] if records else ""
    same = list(takewhile(lambda r: r["path"] == head, records))
    return same if head.endswith("/samples") else same[:1]


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
        self._asked: OrderedDict[tuple[str, str], str] = OrderedDict()  # (loop, session) -> id of its newest prediction
        self._thread: threading.Thread | None = None
        if self._spool is not None and background:
            self._thread = threading.Thread(target=self._deliver, name="evergreen-spool", daemon=True)
            self._thread.start()
            if len(self._spool):
                self._wake.set()

    def predict(
        self,
        loop: str,
        input: Any,
        *,
        unit: str | None = None,
        session: str | None = None,
        subject: str | None = None,
        consent: bool = False,
    ) -> dict[str, Any]:
        """Answer one input: `{"id", "output", "model"}`; feedback refers to the id, or an outcome to the session.

        `unit` keeps a user or device on the same model during a rollout, and is the session if none is given;
        `subject` and `consent` say whose data it is and that it may be kept.
        """
        body = {"input": input, "unit": unit, "session": session, "subject": subject, "consent": consent}
        said: dict[str, Any] = self._call("POST", f"/api/{quote(loop)}/predict", body)
        if session or unit:
            key = loop, session or unit or ""
            self._asked[key] = said["id"]
            self._asked.move_to_end(key)
            while len(self._asked) > _SESSIONS:
                self._asked.popitem(last=False)
        return said

    def sample(self, loop: str, row: Mapping[str, Any], *, id: str | None = None) -> str:
        """Give a sample as the loop's recipe reads it; return its id, by which feedback can join it."""
        id = id or str(row.get("id") or uuid.uuid4().hex)
        self._keep(f"/api/{quote(loop)}/samples", {**row, "id": id})
        return id

    def feedback(self, loop: str, id: str, label: Any = None, *, score: float | None = None, **more: Any) -> None:
        """Say what would have been the right answer to prediction or sample `id`, how well it did, or both.

        Another label or score replaces what was said before; the same counts once.
        """
        self._keep(f"/api/{quote(loop)}/feedback", {"id": id, "label": label, "score": score, **more})

    def outcome(self, loop: str, session: str, label: Any = None, *, score: float | None = None, **more: Any) -> None:
        """Say the same of the newest prediction of a session: the newest this client asked for, or else the newest that
        the server knows of, at most `collect.correction_within` old.
        """
        id = self._asked.get((loop, session))
        if id is not None:
            self.feedback(loop, id, label, score=score, **more)
        else:
            said = {"session": session, "label": label, "score": score, **more}
            self._keep(f"/api/{quote(loop)}/feedback", said)

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
        at = time.time()
        if not len(self._spool):
            try:
                self._call("POST", path, body)
                return
            except EvergreenError as e:
                if e.status < 500:
                    raise
        self._spool.put({"path": path, "body": body, "at": at})
        self._wake.set()

    def _send(self, batch: Sequence[Mapping[str, Any]]) -> None:
        body = batch[0]["body"] if len(batch) == 1 else {"samples": [record["body"] for record in batch]}
        if "session" in body:  # which prediction that is about depends on when it was said
            body = {**body, "ago": max(0.0, time.time() - batch[0]["at"])}
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
