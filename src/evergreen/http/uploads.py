"""Models from devices over HTTP: a form is written to disk as it comes, and examined when it is its turn."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request

from evergreen import engine
from evergreen.core.errors import InvalidInput, Overloaded, TooLarge
from evergreen.core.loop import Loop
from evergreen.core.records import Upload
from evergreen.http import shapes
from evergreen.stages import collect

if TYPE_CHECKING:
    from evergreen.http.serving import Serving

#: Uploads that may wait for their turn, beside the one that is examined.
_WAITING = 4
#: Bytes of a form around its file; parts, and bytes of a field that is not the file.
_AROUND, _PARTS, _FIELD = 64 * 1024, 20, 8 * 1024


def room(loop: Loop) -> int:
    """Say how large a request with a model for this loop may be, in bytes."""
    return loop.config.collect.max_upload + _AROUND


class Queue:
    """Lets one upload be examined at a time, and a few wait."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)
        self._inside = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[asyncio.Semaphore]:
        """Take a place before the body is read; `async with` what is given to wait for one's turn.

        Raises `Overloaded` when all are taken.
        """
        if self._inside > _WAITING:
            raise Overloaded("too many models are waiting to be examined")
        self._inside += 1
        try:
            yield self._turn
        finally:
            self._inside -= 1


@dataclass
class Form:
    """What came in a form: one file, on disk, and texts."""

    path: Path
    name: str = ""  #: of the file, as its sender calls it
    fields: dict[str, str] = field(default_factory=dict)


async def take(serving: Serving, request: Request, loop: Loop, *, file: str = "model") -> tuple[Upload, dict[str, str]]:
    """Take in the model that a form brings in its part `file`; return it and the other fields.

    `description` and `subject` are heeded. For doors with paths of their own, which they add to `serving.roomy`.
    """
    async with serving.examinations.place() as turn, form(request, loop.state, file) as sent, turn:
        upload = await serving.act(
            engine.receive,
            loop,
            sent.path,
            name=sent.name,
            by=serving.require(request, "app"),
            subject=sent.fields.get("subject") or None,
            description=sent.fields.get("description", ""),
            about={k: v for k, v in sent.fields.items() if k not in ("subject", "description")},
        )
        return upload, sent.fields


@asynccontextmanager
async def form(request: Request, folder: Path, file: str) -> AsyncIterator[Form]:
    """Read a multipart form, its file straight into a file below `folder` that is gone afterwards.

    Raises `InvalidInput` for what is no such form.
    """
    handle, name = tempfile.mkstemp(prefix="upload-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as out:
            reader = _Reader(request.headers.get("content-type", ""), file, out)
            try:
                async for piece in request.stream():
                    await asyncio.to_thread(reader.feed, piece)
            except ClientDisconnect:
                raise InvalidInput("the body ended early") from None
            reader.end()
        yield Form(Path(name), reader.filename or "", reader.fields)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


class _Reader:
    """Takes a form apart as it comes."""

    def __init__(self, content_type: str, file: str, out: IO[bytes]) -> None:
        from python_multipart.multipart import MultipartParser, parse_options_header

        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise InvalidInput(
                "the body is not a form with a file (multipart/form-data)", hint=f"curl -F {file}=@FILE …"
            )
        self._options = parse_options_header
        self._file, self._out = file, out
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._part_end,
                "on_end": self._finished,
            },
        )
        self.filename: str | None = None
        self.fields: dict[str, str] = {}
        self._parts = 0
        self._done = False
        self._begin()

    def feed(self, piece: bytes) -> None:
        """Take in what has come."""
        from python_multipart.exceptions import FormParserError

        try:
            self._parser.write(piece)
        except FormParserError as e:
            raise InvalidInput(f"the form cannot be read: {e}") from e

    def end(self) -> None:
        """Make sure that all has come."""
        if not self._done:
            raise InvalidInput("the form ended early")
        if self.filename is None:
            raise InvalidInput(f"the file is missing: a part called {self._file}", field=self._file)

    def _begin(self) -> None:
        self._header, self._value, self._disposition = b"", b"", b""
        self._name, self._text, self._into_file = "", b"", False

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header = self._bounded(self._header, data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value = self._bounded(self._value, data[start:end])

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        self._parts += 1
        if self._parts > _PARTS:
            raise InvalidInput(f"the form has more than {_PARTS} parts")
        _, options = self._options(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name == self._file and self.filename is None:
            self._into_file = True
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        elif b"filename" in options:
            raise InvalidInput(f"the form has a file that nobody asked for: {self._name}", field=self._name[:80])

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._into_file:
            self._out.write(data[start:end])
        else:
            self._text = self._bounded(self._text, data[start:end])

    def _part_end(self) -> None:
        if not self._into_file:
            self.fields[self._name] = self._text.decode("utf-8", "replace")

    def _finished(self) -> None:
        self._done = True

    @staticmethod
    def _bounded(held: bytes, more: bytes) -> bytes:
        if len(held) + len(more) > _FIELD:
            raise TooLarge(f"a field of the form has more than {_FIELD} bytes")
        return held + more


def shape(upload: Upload) -> shapes.UploadOut:
    """Say what may be said of an upload."""
    return shapes.UploadOut(
        id=upload.id,
        name=upload.name,
        format=upload.format,
        state=upload.state.value,
        why=collect.why(upload),
        weight=upload.weight,
        scores=dict(upload.scores),
        size=upload.size,
        sha256=upload.sha256,
        description=upload.description,
        at=upload.at.isoformat() if upload.at else None,
        run=upload.run,
        model=upload.model,
        details=dict(upload.details),
    )
