"""What stands in a trigger file: read with care, for people and scripts write it, and never lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from evergreen.core.records import Json

#: What a request consists of; the rest of a file (status, message, …) is the answer.
_REQUEST = ("created_at", "reason", "force", "source", "triggered_by")
_STATUSES = ("pending", "processing", "training", "completed", "failed")
#: Largest trigger file, in bytes, and longest reason, in characters.
_LARGEST, _LONGEST = 64 * 1024, 500


@dataclass(frozen=True)
class Wish:
    """A trigger file as it was read."""

    mark: str  #: the same for the same request, whatever status it has by now
    status: str = "pending"
    reason: str = ""
    force: bool = False
    by: str = ""
    problem: str = ""  #: why it cannot be used, if so
    raw: Mapping[str, Json] = field(default_factory=dict)  #: everything in it; empty if it is not a JSON object


def read(data: bytes) -> Wish:
    """Read a trigger file. Never raises: what is wrong is said in `problem`."""
    mark = hashlib.sha256(data).hexdigest()[:24]
    if len(data) > _LARGEST:
        return Wish(mark, problem=f"it is larger than {_LARGEST} bytes")
    try:
        raw = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        return Wish(mark, problem=f"it is not UTF-8 (byte {e.start + 1})")
    except (ValueError, RecursionError) as e:
        return Wish(mark, problem=f"it is not JSON: {e}")
    if not isinstance(raw, dict):
        return Wish(mark, problem="it is not a JSON object")
    status = raw.get("status", "pending")
    if problem := _problem(raw, status):
        return Wish(mark, status if isinstance(status, str) else "pending", problem=problem, raw=raw)
    by = str(raw.get("triggered_by") or raw.get("source") or "somebody")
    return Wish(mark_of(raw), status, raw["reason"].strip(), raw.get("force", False), by[:80], raw=raw)


def mark_of(raw: Mapping[str, Json]) -> str:
    """Return what tells one request from another."""
    request = {key: raw[key] for key in _REQUEST if key in raw}
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:24]


def _problem(raw: Mapping[str, Json], status: Json) -> str:
    reason = raw.get("reason")
    if "reason" not in raw:
        return 'it has no "reason"'
    if not isinstance(reason, str) or not 0 < len(reason.strip()) <= _LONGEST:
        return f"reason is {_shown(reason)}, not a text of 1 to {_LONGEST} characters"
    if not isinstance(raw.get("force", False), bool):
        return f"force is {_shown(raw['force'])}, neither true nor false"
    if status not in _STATUSES:
        return f"status is {_shown(status)}; a new trigger has the status pending"
    for key in ("created_at", "source", "triggered_by"):
        if not isinstance(raw.get(key, ""), str | None):
            return f"{key} is {_shown(raw[key])}, not a text"
    return ""


def _shown(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
