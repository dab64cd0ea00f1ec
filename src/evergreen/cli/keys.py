"""Commands about keys: who may call the server, and as what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evergreen.cli import terminal
from evergreen.cli.opening import ConfigOption, JsonOption, opened

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke keys.")


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is; it signs what is done with it.")],
    role: Annotated[str, typer.Option("--role", help="app, reviewer, operator or admin.")] = "app",
    config: ConfigOption = Path("evergreen.toml"),
    as_json: JsonOption = False,
) -> None:
    """Make a key and show it, this once."""
    from evergreen.http import auth

    with opened(config) as project:
        id, key = auth.create(project.ledger, name, role)
    if as_json:
        terminal.put_json({"id": id, "name": name, "role": role, "key": key})
        return
    print(key)
    terminal.say(f"Key {id} for {name} ({role}). It is shown this once; send it as `Authorization: Bearer KEY`.")


@keys.command("list")
def list_(config: ConfigOption = Path("evergreen.toml"), as_json: JsonOption = False) -> None:
    """List the keys; none of them is shown."""
    from evergreen.http import auth

    with opened(config) as project:
        found = auth.listing(project.ledger)
    rows = [
        {"id": k.id, "name": k.name, "role": k.role.name.lower(), "ends_in": k.last4, "created": k.created}
        for k in found
    ]
    if as_json:
        terminal.put_json(rows)
    elif rows:
        terminal.table(["id", "name", "role", "ends in", "created"], [list(r.values()) for r in rows])
    else:
        print("There are no keys.")


@keys.command()
def revoke(
    id: Annotated[str, typer.Argument(help="As `evergreen keys list` shows it.")],
    config: ConfigOption = Path("evergreen.toml"),
) -> None:
    """Take a key back; running servers heed it within a second."""
    from evergreen.http import auth

    with opened(config) as project:
        auth.revoke(project.ledger, id)
    print(f"Key {id} is revoked.")
