"""`evergreen audit`: who did what, when, from where, and how it ended."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from evergreen.cli import terminal
from evergreen.cli.opening import ConfigOption, JsonOption, Misuse, opened
from evergreen.core.config import duration


def audit(
    since: Annotated[
        str | None, typer.Option("--since", metavar="24h", help="Only this far back, or since a date: 2026-01-31.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most this many lines.")] = 100,
    config: ConfigOption = Path("evergreen.toml"),
    as_json: JsonOption = False,
) -> None:
    """Show who did what over HTTP, and with keys; newest first. What loops did themselves is in `evergreen history`."""
    from evergreen.http.audit import read

    start = _moment(since) if since else None
    with opened(config) as project:
        lines = read(project.ledger, since=start, limit=limit)
    if as_json:
        terminal.put_json([{**asdict(line), "outcome": line.outcome} for line in lines])
        return
    if not lines:
        print("Nothing was changed and nobody was refused.")
        return
    rows = [
        [
            line.at[:19].replace("T", " "),
            line.who,
            line.role,
            line.via,
            line.address or "–",
            line.what,
            line.loop or "–",
            f"{line.outcome} {line.status or ''}".strip(),
            line.n,
        ]
        for line in lines
    ]
    terminal.table(["when (UTC)", "who", "role", "by", "from", "what", "loop", "outcome", ">times"], rows)


def _moment(text: str) -> datetime:
    """Read how far back, or since when."""
    back = duration(text)
    if isinstance(back, timedelta):
        return datetime.now(UTC) - back
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Misuse(
            f"{text!r} is neither a duration nor a date", field="--since", hint='Write "24h", "7d" or "2026-01-31".'
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
