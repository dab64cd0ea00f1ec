"""Logs: JSON lines in a file for programs, plain lines on stderr for people; what they are about, and no secrets."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

import msgspec

#: Largest log file, and how many old ones are kept.
_BYTES, _KEPT = 10_000_000, 3
#: The logger of the history: for programs; people have `evergreen history`.
HISTORY = "evergreen.history"
#: What a line may say of what it is about.
FIELDS = ("loop", "run", "model", "event_id", "request_id", "subscriber")
_about: ContextVar[Mapping[str, str]] = ContextVar("evergreen_about")

#: Names of variables whose values are secrets, whatever they are for.
_SECRET = re.compile(
    r"(SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|PRIVATE|ACCESS_KEY|API_?KEY|APP_KEY|SERVICE_ACCOUNT)|(_|^)KEY$", re.I
)
#: user:password@ in an address, and what follows "Bearer".
_SHAPES = (
    (re.compile(r"(?<=://)[^/\s@:]*:[^/\s@]+(?=@)"), "***"),
    (re.compile(r"(?i)(?<=bearer )[\w.~+/-]{8,}=*"), "***"),
)
#: Shorter values are words, not secrets.
_SHORTEST = 6


@contextmanager
def concerning(**fields: str) -> Iterator[None]:
    """Let every line logged inside say what it is about: loop, run, model, event_id, request_id, subscriber."""
    token = _about.set({**_about.get({}), **fields})
    try:
        yield
    finally:
        _about.reset(token)


class Discreet:
    """Takes secrets out of text: values of the environment's variables that look like secrets, and what has their form."""

    def __init__(self, names: Iterable[str] = (), environ: Mapping[str, str] = os.environ) -> None:
        listed = {piece for name in names for piece in environ.get(name, "").split()}  # several in one variable
        known = {value for name, value in environ.items() if _SECRET.search(name)}
        pieces = {piece for value in listed | known for piece in _pieces(value) if len(piece) >= _SHORTEST}
        longest_first = sorted(pieces, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if pieces else None

    def clean(self, text: str) -> str:
        """Return text with every secret replaced by ***."""
        if self._known is not None:
            text = self._known.sub("***", text)
        for shape, instead in _SHAPES:
            text = shape.sub(instead, text)
        return text


def _pieces(value: str) -> Iterator[str]:
    """Yield what of a secret gives it away: all of it, the secrets in it if it is JSON, its lines if it has several."""
    yield value
    try:
        inside = msgspec.json.decode(value)
    except msgspec.DecodeError:
        inside = None
    if isinstance(inside, dict):
        for name, text in inside.items():
            if isinstance(text, str) and _SECRET.search(name):
                yield from _pieces(text)
    lines = value.splitlines()
    yield from (line for line in lines if len(lines) > 1 and not line.startswith("-----"))


class JsonLines(logging.Formatter):
    """One JSON object on each line: timestamp, level, logger, event, what it is about, exception where there is one."""

    def __init__(self, discreet: Discreet | None = None) -> None:
        super().__init__()
        self._clean = (discreet or Discreet()).clean

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": self._clean(record.getMessage()),
        }
        about = _about.get({})
        for name in FIELDS:
            if value := getattr(record, name, None) or about.get(name):
                line[name] = self._clean(str(value))
        if record.exc_info:
            line["exception"] = self._clean(self.formatException(record.exc_info))
        return msgspec.json.encode(line).decode()


class Plain(logging.Formatter):
    """A line for people."""

    def __init__(self, discreet: Discreet) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
        self._clean = discreet.clean

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        return self._clean(super().format(record))


def level(text: str | None) -> int:
    """Return the level called so; INFO where nobody says, or says what is none.

    >>> level("debug"), level(None), level("loud")
    (10, 20, 20)
    """
    return logging.getLevelNamesMapping().get((text or "").upper(), logging.INFO)


def configure(path: Path, secrets: Iterable[str] = ()) -> None:
    """Send everything Evergreen and its server log to `path` and to stderr; `secrets` names variables to keep quiet about.

    EVERGREEN_LOG sets the level of what is Evergreen's own: debug, info (the default), warning, error.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    discreet = Discreet(secrets)
    file = RotatingFileHandler(path, maxBytes=_BYTES, backupCount=_KEPT, encoding="utf-8")
    file.setFormatter(JsonLines(discreet))
    screen = logging.StreamHandler(sys.stderr)
    screen.setFormatter(Plain(discreet))
    screen.addFilter(lambda record: record.name != HISTORY)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(file)
    root.addHandler(screen)
    root.setLevel(logging.WARNING)
    logging.getLogger("evergreen").setLevel(level(os.environ.get("EVERGREEN_LOG")))
