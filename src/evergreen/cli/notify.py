"""Commands about subscribers: who is told what happens, who is behind, tell again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evergreen.cli import terminal
from evergreen.cli.opening import ConfigOption, JsonOption, opened, who

notify = typer.Typer(no_args_is_help=True, help="Who is told what happens: list, tell again, try.")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As `evergreen notify list` shows it.")]


@notify.command("list")
def list_(config: ConfigOption = Path("evergreen.toml"), as_json: JsonOption = False) -> None:
    """List subscribers: how many events wait for each, since when, and what went wrong last."""
    from evergreen import outbox

    with opened(config) as project:
        found = [standing.plain() for standing in outbox.standing(project)]
    if as_json:
        terminal.put_json(found)
        return
    if not found:
        print("Nobody is told. Add [[subscribers]] to evergreen.toml.")
        return
    rows = [
        [
            f"{s['name']}" if s["name"] == s["use"] else f"{s['name']} ({s['use']})",
            ", ".join(s["events"]) or "all",
            s["waiting"],
            terminal.ago(s["waiting_since"]),
            s["told"],
            terminal.ago(s["last"]),
            s["seq"],
            s["error"],
        ]
        for s in found
    ]
    columns = ["subscriber", "events", ">waiting", "since", ">told", "last", ">up to event", "error"]
    terminal.table(columns, rows)


@notify.command()
def replay(
    name: NameArgument,
    start: Annotated[
        int, typer.Option("--from", min=0, help="`seq` of the first event, as `history --json` shows it.")
    ],
    config: ConfigOption = Path("evergreen.toml"),
) -> None:
    """Tell a subscriber everything from an event on, again; the running server does it."""
    from evergreen import outbox

    with opened(config) as project:
        outbox.find(project, name)
        outbox.replay(project.ledger, name, start)
    print(f"{name} is told again, from event {start} on.")


@notify.command("test")
def try_out(name: NameArgument, config: ConfigOption = Path("evergreen.toml")) -> None:
    """Tell a subscriber, now and from here, that this is a test."""
    from evergreen import outbox

    with opened(config) as project:
        outbox.trial(project, name, by=who())
    print(f"{name} took it.")
