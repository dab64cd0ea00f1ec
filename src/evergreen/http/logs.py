"""Logs: JSON lines in a file for programs, plain lines on stderr for people."""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

#: Largest log file, and how many old ones are kept.
_BYTES, _KEPT = 10_000_000, 3


def configure(path: Path) -> None:
    """Send everything Evergreen and its server log to `path` and to stderr."""
    import structlog

    before: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    lines = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*before, structlog.processors.format_exc_info],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
    )
    plain = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    people = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, plain],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    file = RotatingFileHandler(path, maxBytes=_BYTES, backupCount=_KEPT, encoding="utf-8")
    file.setFormatter(lines)
    screen = logging.StreamHandler(sys.stderr)
    screen.setFormatter(people)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(file)
    root.addHandler(screen)
    root.setLevel(logging.WARNING)
    logging.getLogger("evergreen").setLevel(logging.INFO)
