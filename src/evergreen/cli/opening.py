"""What most commands begin with: find the configuration, open the project, pick the loop; and who is asking."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evergreen.core.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from evergreen.core.loop import Loop
    from evergreen.project import Project

NAME = "evergreen.toml"

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config", "-c", envvar="EVERGREEN_CONFIG", help="The project's file; also looked for in the folders above."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LoopArgument = Annotated[str | None, typer.Argument(metavar="[LOOP]", help="May be left out where there is only one.")]
ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Why; it goes into the history.")]


class Misuse(InvalidInput):
    """The command was used wrongly."""


def find(config: Path) -> Path:
    """Return the configuration file: where it was said, or (by its bare name) in this folder or one above."""
    if config.is_dir():
        return config / NAME
    if config.exists() or config != Path(config.name):
        return config
    for folder in Path.cwd().parents:
        if (folder / config).is_file():
            return folder / config
    return config


@contextmanager
def opened(config: Path) -> Iterator[Project]:
    """Open the project, and close its ledger afterwards."""
    from evergreen import project

    opened = project.open(find(config))
    try:
        yield opened
    finally:
        opened.ledger.close()


def pick(project: Project, name: str | None) -> Loop:
    """Return the loop of that name, or the only one. Raises `NotFound`, which lists them."""
    if name is not None:
        return project.loop(name)
    if len(project.loops) == 1:
        return next(iter(project.loops.values()))
    if not project.loops:
        raise NotFound("this project has no loop", hint="Add a [loops.NAME] table to evergreen.toml.")
    raise Misuse("which loop?", field="LOOP", hint=f"There are: {', '.join(project.loops)}")


def shift(project: Project, words: list[str], what: str) -> tuple[Loop, list[str]]:
    """Split `[LOOP] REST…`: the loop may be left out where there is only one."""
    if words and words[0] in project.loops:
        loop, rest = project.loops[words[0]], words[1:]
    elif len(words) > 1 and len(project.loops) != 1:
        loop, rest = project.loop(words[0]), words[1:]
    else:
        loop, rest = pick(project, None), words
    if not rest:
        raise Misuse(f"{what} is missing", field=what, hint="--help shows how the command is used.")
    return loop, rest


def who() -> str:
    """Name the person who types."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user, as in some containers
        return f"uid {os.getuid()}"


def server(project: Project) -> dict[str, Any] | None:
    """Return what the running server says of itself (pid, address), or None if none runs."""
    try:
        said = json.loads((project.state / "server.json").read_text())
        os.kill(int(said["pid"]), 0)
    except PermissionError:  # it lives, and belongs to somebody else
        return dict(said)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(said)
