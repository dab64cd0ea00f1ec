"""Errors on the wire: whatever goes wrong is said in one shape, `{"error": {"code", "message", "field", "hint"}}`."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import ValidationError

from evergreen.core.config import problems
from evergreen.core.errors import EvergreenError, InvalidInput, TooMany, Unavailable

log = logging.getLogger("evergreen.http")

_encode = msgspec.json.Encoder().encode
_plain = msgspec.json.Decoder().decode
_FRAMEWORK = {400: "invalid_input", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}

Headers = dict[str, str]


def shape(code: str, message: str, field: str | None = None, hint: str | None = None) -> dict[str, Any]:
    """Return the one shape of errors."""
    return {"error": {"code": code, "message": message, "field": field, "hint": hint}}


def explain(exc: BaseException) -> tuple[int, dict[str, Any], Headers]:
    """Turn whatever was raised into status, body and headers; what nobody expected is logged under an id."""
    if isinstance(exc, msgspec.ValidationError | msgspec.DecodeError | ValidationError):
        exc = invalid(exc)
    if isinstance(exc, EvergreenError):
        if exc.status >= 500 and not isinstance(exc, Unavailable):
            log.error("%s", exc, exc_info=exc)
        return exc.status, shape(exc.code, str(exc), exc.field, exc.hint), advice(exc)
    hint = "GET /docs lists what there is."
    status = getattr(exc, "status_code", None)
    if isinstance(status, int):  # an HTTPException of the framework
        headers: Mapping[str, str] = getattr(exc, "headers", None) or {}
        return (
            status,
            shape(_FRAMEWORK.get(status, "error"), str(getattr(exc, "detail", exc)), None, hint),
            dict(headers),
        )
    return _unexpected(exc)


def decode(body: bytes, type: Any = Any) -> Any:
    """Read JSON. Raises msgspec's errors, which `explain` knows, and `InvalidInput` for what is too deep to read."""
    try:
        return _plain(body) if type is Any else msgspec.json.decode(body, type=type)
    except RecursionError:
        raise InvalidInput("the body is nested too deeply") from None
    except UnicodeDecodeError as e:  # inside a text; msgspec lets it out as it is
        raise msgspec.DecodeError(f"a text in it is not UTF-8: {e.reason}") from None


def answer(exc: BaseException) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Do as `explain`, encoded for raw ASGI; the headers are complete."""
    status, body, extra = explain(exc)
    data = _encode(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in extra.items()]
    return status, data, headers


def invalid(exc: Exception) -> InvalidInput:
    """Say in our words what a parser found wrong, and where."""
    if isinstance(exc, ValidationError):
        field = ".".join(str(part) for part in exc.errors(include_url=False)[0]["loc"])
        return InvalidInput(problems(exc), field=field or None)
    message, _, path = str(exc).partition(" - at `")
    if not path:
        return InvalidInput(message if isinstance(exc, msgspec.ValidationError) else f"the body is not JSON: {message}")
    field = path.rstrip("`").removeprefix("$").lstrip(".")
    return InvalidInput(message, field=None if "..." in field else field or None)  # "[...]": it does not say which


def advice(exc: Exception) -> Headers:
    """Return the headers that say what to do: send a key, try again later."""
    if not isinstance(exc, EvergreenError):
        return {}
    if exc.status == 401:
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(exc, TooMany):
        return {"Retry-After": str(max(1, math.ceil(exc.after_s)))}
    return {"Retry-After": "1"} if exc.status == 503 else {}


def _unexpected(exc: BaseException) -> tuple[int, dict[str, Any], Headers]:
    id = secrets.token_hex(6)
    log.error("error %s: %s: %s", id, type(exc).__name__, exc, exc_info=exc)
    body = shape("internal", f"something went wrong in the server (error {id})", None, f"Look for {id} in server.log.")
    return 500, body, {}
