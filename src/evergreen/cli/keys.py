"""Commands about keys: who may call the server, as what, and for how long."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evergreen.cli import terminal
from evergreen.cli.opening import ConfigOption, JsonOption, Misuse, opened, who
from evergreen.core.config import duration

if TYPE_CHECKING:
    from evergreen.core.ports import Ledger

keys = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke keys.")

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `evergreen keys list` shows it.")]
ExpiresOption = Annotated[
    str | None, typer.Option("--expires", metavar="90d", help="How long it holds; else until it is revoked.")
]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is; it signs what is done with it.")],
    role: Annotated[str, typer.Option("--role", help="app, reviewer, operator or admin.")] = "app",
    expires: ExpiresOption = None,
    config: ConfigOption = Path("evergreen.toml"),
    as_json: JsonOption = False,
) -> None:
    """Make a key and show it, this once."""
    from evergreen.http import auth

    holds = span(expires, "--expires")
    with opened(config) as project:
        id, key = auth.create(project.ledger, name, role, holds)
        _noted(project.ledger, f"keys create {role}", id)
    _show(id, key, name, role, holds, as_json)


@keys.command("list")
def list_(config: ConfigOption = Path("evergreen.toml"), as_json: JsonOption = False) -> None:
    """List the keys, until when they hold and when they were last used; none of them is shown."""
    from evergreen.http import auth

    with opened(config) as project:
        found, used = auth.listing(project.ledger), auth.used(project.ledger)
    rows = [
        {
            "id": k.id,
            "name": k.name,
            "role": k.role.name.lower(),
            "ends_in": k.last4,
            "created": k.created,
            "expires": k.expires,
            "last_used": used.get(k.id),
        }
        for k in found
    ]
    if as_json:
        terminal.put_json(rows)
    elif rows:
        columns = ["id", "name", "role", "ends in", "created", "expires", "last used"]
        shown = [[*list(r.values())[:5], _until(r["expires"]), terminal.ago(r["last_used"])] for r in rows]
        terminal.table(columns, shown)
    else:
        print("There are no keys.")


@keys.command()
def rotate(
    id: IdArgument,
    grace: Annotated[
        str | None, typer.Option("--grace", metavar="24h", help="How long the old key goes on; else it ends at once.")
    ] = None,
    expires: ExpiresOption = None,
    config: ConfigOption = Path("evergreen.toml"),
    as_json: JsonOption = False,
) -> None:
    """Make a new key of the same name and role in place of one, and show it, this once."""
    from evergreen.http import auth

    on = span(grace, "--grace") or timedelta(0)
    holds = span(expires, "--expires")
    with opened(config) as project:
        made, key = auth.rotate(project.ledger, id, grace=on, expires=holds)
        _noted(project.ledger, f"keys rotate {id}", made)
        known = next(k for k in auth.listing(project.ledger) if k.id == made)
    _show(made, key, known.name, known.role.name.lower(), holds, as_json)
    terminal.say(f"The old key {id} {f'holds for {grace} more' if grace else 'is revoked'}.")


@keys.command()
def revoke(id: IdArgument, config: ConfigOption = Path("evergreen.toml")) -> None:
    """Take a key back; running servers heed it within a second, and its sessions end."""
    from evergreen.http import auth

    with opened(config) as project:
        auth.revoke(project.ledger, id)
        _noted(project.ledger, "keys revoke", id)
        last = not auth.listing(project.ledger)
    print(f"Key {id} is revoked.")
    if last:
        terminal.say("It was the last one: whoever can call from this machine may do everything now.")


def span(text: str | None, option: str) -> timedelta | None:
    """Read a duration. Raises `Misuse`."""
    if text is None:
        return None
    found = duration(text)
    if not isinstance(found, timedelta):
        raise Misuse(f"{text!r} is not a duration", field=option, hint='Write "90d", "12h" or "30m".')
    return found


def _until(expires: str | None) -> str:
    return expires[:16].replace("T", " ") if expires else "never"


def _show(id: str, key: str, name: str, role: str, holds: timedelta | None, as_json: bool) -> None:
    if as_json:
        terminal.put_json({"id": id, "name": name, "role": role, "key": key})
        return
    print(key)
    terminal.say(f"Key {id} for {name} ({role}). It is shown this once; send it as `Authorization: Bearer KEY`.")
    if holds is not None:
        terminal.say(f"It holds for {holds.total_seconds() / 86400:g} days.")


def _noted(ledger: Ledger, what: str, key: str) -> None:
    """Tell the audit log; of a key, its id."""
    from evergreen.http.audit import Audit, Line

    Audit(ledger).write(Line(who(), "admin", "command", f"evergreen {what}", 0, key=key))
