"""How the command line speaks: errors, tables, JSON and progress, on the right stream."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

#: Called with a phase, how much is done, and of how much (0: nobody knows).
Show = Callable[[str, int, int], None]


def say(text: str) -> None:
    """Tell a person something that is not the answer itself (stderr)."""
    print(text, file=sys.stderr, flush=True)


def fail(message: str, *, field: str | None = None, hint: str | None = None) -> None:
    """Print what is wrong, where, and what to do about it."""
    lines = [f"error: {message}"]
    if field:
        lines.append(f"where: {field}")
    if hint:
        lines.append(f"try:   {hint}")
    say("\n".join(lines))


def put_json(value: Any) -> None:
    """Print the answer for a machine."""
    print(json.dumps(value, indent=2, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def console(*, err: bool = False) -> Console:
    """Return a rich console; where nobody sees it, wide enough not to cut anything."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else 200)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None) -> None:
    """Print a table; columns named with a leading ">" are set right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        drawn.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        drawn.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console().print(drawn)


def figure(value: Any) -> str:
    """Write a score, briefly."""
    return f"{value:.4g}" if isinstance(value, int | float) else "–" if value is None else str(value)


def ago(then: datetime | str | None, now: datetime | None = None) -> str:
    """Say how long ago something was.

    >>> ago("2026-01-01T00:00:00+00:00", datetime(2026, 1, 1, 2, tzinfo=UTC))
    '2 h ago'
    """
    if not then:
        return "–"
    if isinstance(then, str):
        then = datetime.fromisoformat(then)
    s = max(0, int(((now or datetime.now(UTC)) - then).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if s >= size:
            return f"{s // size} {unit} ago"
    return f"{s} s ago"


@contextmanager
def progress() -> Iterator[Show]:
    """Give a function that shows progress: a bar where somebody watches, else a line for every phase."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(err=True), transient=True) as bars:
        bar = bars.add_task("…", total=None, count="")

        def show(phase: str, done: int, total: int) -> None:
            count = f"{done}/{total}" if total else str(done or "")
            bars.update(bar, description=phase or "…", completed=done if total else 0, total=total or None, count=count)

        yield show


def _lines() -> Show:
    last = ""

    def show(phase: str, _done: int, _total: int) -> None:
        nonlocal last
        if phase and phase != last:
            last = phase
            say(f"{phase} …")

    return show
