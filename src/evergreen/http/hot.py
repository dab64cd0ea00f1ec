"""The two calls that come often, predict and samples, and what doors claim: raw ASGI, in front of everything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from evergreen.core.errors import EvergreenError, InvalidInput
from evergreen.core.records import Json, Model, Sample
from evergreen.http.audit import REFUSED
from evergreen.http.auth import Raw, Role, demand
from evergreen.http.desk import Desk, at_place
from evergreen.http.edge import fits, request_id, too_large
from evergreen.http.errors import advice, answer, decode
from evergreen.logs import concerning
from evergreen.stages.collect import admit

if TYPE_CHECKING:
    from evergreen.http.origins import Head
    from evergreen.http.serving import Serving
    from evergreen.http.ways import Endpoint

#: Inputs in one batch; rows that are admitted before others have their turn.
MAX_BATCH, _FEW = 1000, 100
_NDJSON = (b"application/x-ndjson", b"application/ndjson", b"application/jsonl")
_JSON = (b"content-type", b"application/json")

_encode = msgspec.json.Encoder().encode

Reply = tuple[int, bytes, "Head"]


@dataclass(frozen=True)
class Claim:
    """A path that a door answers in its own shape."""

    answer: Callable[[Scope, bytes], Awaitable[tuple[int, bytes]]]  #: (scope, body) -> status, body as JSON
    refuse: Callable[[Exception], tuple[int, bytes]]  #: what it says of an error, also of one before `answer`
    said: Endpoint  #: its line of the table; whoever calls has the role app


Handler = Callable[[Raw, bytes], Awaitable[Reply]]


class Hot:
    """Answers the paths it knows; hands everything else on."""

    def __init__(self, app: ASGIApp, serving: Serving, claims: Mapping[tuple[str, str], Claim]) -> None:
        self._app = app
        self._serving = serving
        self._max = serving.config.http.max_body
        self._paths: dict[tuple[str, str], Callable[[Scope, Receive, Send], Awaitable[None]]] = {}
        for name, desk in serving.desks.items():
            for operation, handler in (("predict", self._predict), ("samples", self._samples)):
                act = partial(self._answer, desk.meter.requests, operation, name, partial(handler, desk))
                self._paths["POST", f"/api/{name}/{operation}"] = act
        for place, claim in claims.items():
            self._paths[place] = partial(self._claimed, claim)
        self._marks: dict[int, tuple[Model, msgspec.Raw, bytes]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            act = self._paths.get((scope["method"], scope["path"]))
            if act is not None:
                await act(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _answer(
        self,
        counted: dict[tuple[str, int], int],
        operation: str,
        loop: str,
        handler: Handler,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        headers = dict(scope["headers"])
        try:
            await self._admitted(scope, headers)
            status, body, head = await handler(headers, await self._body(headers, receive))
        except Exception as e:  # noqa: BLE001 - explained to the caller, and logged where nobody expected it
            id = request_id(headers)
            with concerning(request_id=id, loop=scope["path"].split("/")[2]):
                status, body, head = answer(e)
            head.append((b"x-request-id", id.encode()))
        counted[operation, status] += 1
        if operation == "samples" or status in REFUSED:
            self._audited(scope, f"POST /api/{{loop}}/{operation}", status, loop)
        await self._reply(headers, send, status, body, head)

    async def _claimed(self, claim: Claim, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        again: Head = []
        try:
            await self._admitted(scope, headers)
            status, body = await claim.answer(scope, await self._body(headers, receive))
        except Exception as e:  # noqa: BLE001 - as above
            status, body = claim.refuse(e)
            again = [(name.lower().encode(), value.encode()) for name, value in advice(e).items()]
        if claim.said.changes or status in REFUSED:
            self._audited(scope, claim.said.name, status, claim.said.loop)
        await self._reply(headers, send, status, body, [_JSON, (b"content-length", b"%d" % len(body)), *again])

    def _audited(self, scope: Scope, what: str, status: int, loop: str) -> None:
        self._serving.audit.count(self._serving.line(scope, what, status, loop))

    async def _admitted(self, scope: Scope, headers: Raw) -> None:
        """Let callers with the role app in."""
        serving = self._serving
        if serving.keys.stale:
            await serving.keys.fresh()
        caller = scope["evergreen.caller"] = serving.screen(scope, headers, changes=True, open=True)
        demand(caller, Role.APP)

    async def _reply(self, headers: Raw, send: Send, status: int, body: bytes, head: Head) -> None:
        if b"origin" in headers:
            head = head + self._serving.origins.cors(headers[b"origin"], open=True)
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body})

    async def _body(self, headers: Raw, receive: Receive) -> bytes:
        """Read the whole body, or raise `TooLarge` as soon as it is."""
        fits(headers.get(b"content-length"), self._max)
        message = await receive()
        body: bytes = message.get("body", b"")
        parts, total = [body], len(body)
        while message.get("more_body"):
            if total > self._max:
                raise too_large(self._max)
            message = await receive()
            parts.append(message.get("body", b""))
            total += len(parts[-1])
        if message["type"] == "http.disconnect":  # half a body must not be taken for a whole one
            raise InvalidInput("the body ended early")
        if total > self._max:
            raise too_large(self._max)
        return body if len(parts) == 1 else b"".join(parts)

    # Predict

    async def _predict(self, desk: Desk, _: Raw, body: bytes) -> Reply:
        start = time.perf_counter()
        asked = _object(body)
        if "inputs" in asked:
            return await self._many(desk, asked)
        value: Json = asked  # the features themselves, if it does not say `input`
        id = unit = session = subject = None
        consent = False
        if "input" in asked:
            value, consent = asked["input"], asked.get("consent") is True
            id, unit, subject = _text(asked, "id"), _text(asked, "unit"), _text(asked, "subject")
            session = _text(asked, "session")
        if not id:
            id = self._serving.ids.new()
        (given,) = await desk.predict([value], [id], unit=unit, session=session, subject=subject, consent=consent)
        mark, version = self._mark(given.model)
        generation = b"%d" % given.generation
        out = _encode({"id": id, "output": given.output, "model": mark})
        desk.meter.took(time.perf_counter() - start)
        head = [
            _JSON,
            (b"content-length", b"%d" % len(out)),
            (b"x-model-version", version),
            (b"x-model-generation", generation),
        ]
        return 200, out, head

    async def _many(self, desk: Desk, asked: dict[str, Json]) -> Reply:
        start = time.perf_counter()
        values = asked["inputs"]
        if not isinstance(values, list) or not 0 < len(values) <= MAX_BATCH:
            raise InvalidInput(f"inputs is not a list of 1 to {MAX_BATCH} inputs", field="inputs")
        ids = [self._serving.ids.new() for _ in values]
        given = await desk.predict(
            values,
            ids,
            unit=_text(asked, "unit"),
            session=_text(asked, "session"),
            subject=_text(asked, "subject"),
            consent=asked.get("consent") is True,
        )
        outputs = [
            {"id": id, "output": one.output, "model": self._mark(one.model)[0]}
            for id, one in zip(ids, given, strict=True)
        ]
        out = _encode({"predictions": outputs})
        desk.meter.took(time.perf_counter() - start)
        return 200, out, [_JSON, (b"content-length", b"%d" % len(out))]

    def _mark(self, model: Model) -> tuple[msgspec.Raw, bytes]:
        """Say which model answered: encoded once for as long as the model is in one state."""
        known = self._marks.get(id(model))
        if known is None or known[0] is not model:
            if len(self._marks) > 100:
                self._marks.clear()
            said = {"version": model.version, "variant": model.state.value}
            known = self._marks[id(model)] = (model, msgspec.Raw(_encode(said)), b"%d" % model.version)
        return known[1], known[2]

    # Samples

    async def _samples(self, desk: Desk, headers: Raw, body: bytes) -> Reply:
        rows, single = _rows(headers, body)
        key = headers.get(b"idempotency-key")
        if key is not None and not single:
            raise InvalidInput(
                "an Idempotency-Key stands for one sample; give each its own id", field="Idempotency-Key"
            )
        own = None if key is None else key.decode("latin-1")
        samples: list[Sample] = []
        for at in range(0, len(rows), _FEW):
            if at:
                await asyncio.sleep(0)  # others have their turn; a thread would fight for the interpreter instead
            samples += _admit(desk, rows[at : at + _FEW], own, None if single else at)
        fresh = await self._serving.store(desk.loop.name, samples) if samples else ()
        accepted = sum(fresh)
        out = _encode({"accepted": accepted, "duplicates": len(samples) - accepted})
        return 200, out, [_JSON, (b"content-length", b"%d" % len(out))]


def _admit(desk: Desk, rows: Sequence[Json], id: str | None, first: int | None) -> list[Sample]:
    """Admit all rows or none; an error says which row it was, counted from `first` (None: it is the only one)."""
    samples = []
    for i, row in enumerate(rows, first or 0):
        try:
            samples.append(_storable(admit(desk.loop, row, origin="http", id=id)))
        except EvergreenError as e:
            raise e if first is None else at_place(e, i)  # noqa: B904 - the same error, with its place
    return samples


def _storable(sample: Sample) -> Sample:
    """Refuse what PostgreSQL cannot keep: it would spoil the transaction for everybody whose samples share it."""
    for name in ("id", "subject", "group"):
        if "\0" in (getattr(sample, name) or ""):
            raise InvalidInput(f"{name} holds the character NUL", field=name)
    return sample


def _rows(headers: Raw, body: bytes) -> tuple[list[Json], bool]:
    """Read one sample, several, or one on each line; say whether it was a single one."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind in _NDJSON:
        return [_line(i, line) for i, line in enumerate(body.split(b"\n")) if line.strip()], False
    said = decode(body)
    if isinstance(said, list):
        return said, False
    if isinstance(said, dict) and isinstance(said.get("samples"), list):
        return said["samples"], False
    return [said], True


def _line(i: int, line: bytes) -> Json:
    try:
        return decode(line)
    except msgspec.DecodeError as e:
        raise InvalidInput(f"line {i + 1} is not JSON: {e}", field=f"[{i}]") from e


def _object(body: bytes) -> dict[str, Json]:
    said = decode(body)
    if not isinstance(said, dict):
        raise InvalidInput('the body is not a JSON object: send {"input": …}', field="input")
    return said


def _text(asked: Mapping[str, Any], name: str) -> str | None:
    value = asked.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > 200 or "\0" in value):
        raise InvalidInput(f"{name} is not a text of at most 200 characters without NUL", field=name)
    return value
