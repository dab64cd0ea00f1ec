"""Write docs/reference/ from the code: settings, commands, errors, states. `--check` fails where a page is out of date."""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import types
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from evergreen.cli.app import app
from evergreen.core import errors, plugins, states
from evergreen.core.config import Config, Use

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- Written by tools/reference.py; change the code, then run `make reference`. -->"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Write a Markdown table."""
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [columns, ["---"] * len(columns), *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# Settings


def kind(annotation: Any) -> str:
    """Say in words what may stand there."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{a!r}`".replace("'", '"') for a in args)
    if origin in (Union, types.UnionType):
        return " or ".join(kind(a) for a in args if a is not type(None))
    if origin in (tuple, list):
        inner = [a for a in args if a is not Ellipsis]
        return f"list of {kind(inner[0])}" if len(set(inner)) == 1 else f"[{', '.join(map(kind, inner))}]"
    if origin is dict:
        return f"table of {kind(args[1])}"
    if hasattr(annotation, "__metadata__"):
        return kind(args[0])
    words = {
        str: "text",
        bool: "true or false",
        int: "whole number",
        float: "number",
        timedelta: "duration",
        Path: "path",
    }
    if annotation is Use:
        return '`{ use = "NAME", … }`'
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table, see below"
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def default(field: FieldInfo) -> str:
    """Say what holds when it is not set."""
    if field.is_required():
        return "**needed**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Use):
        return f"`{value.use}`"
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
        size, unit = next((n, u) for n, u in ((86400, "d"), (60, "m"), (1, "s")) if seconds >= n or n == 1)
        return f"`{seconds / size:g}{unit}`"
    if isinstance(value, BaseModel) or value in ((), {}):
        return "–"
    if value is None:
        return "not set"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def rows_of(model: type[BaseModel]) -> list[list[str]]:
    """List the settings of a table that are no tables themselves."""
    return [
        [f"`{name}`", kind(field.annotation), default(field), field.description or ""]
        for name, field in model.model_fields.items()
        if part_of(field) is None
    ]


def part_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the table behind a setting, if it is one."""
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel) and candidate is not Use:
            return candidate
    return None


def tables(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Write a section for a table and each table in it."""
    if rows := rows_of(model):
        yield f"### `{f'[{path}]' if path else 'evergreen.toml'}`\n"
        yield f"{(model.__doc__ or '').strip().splitlines()[0]}\n"
        yield table(["setting", "kind", "default", "what it does"], rows) + "\n"
    for name, field in model.model_fields.items():
        if (inner := part_of(field)) is not None:
            step = f"{name}.NAME" if get_origin(field.annotation) is dict else name
            yield from tables(inner, f"{path}.{step}".lstrip("."))


def settings() -> str:
    """Write the page of settings, the plugins' own included."""
    parts = [
        "# Settings\n",
        NOTE + "\n",
        'Durations are written `"90s"`, `"10m"`, `"1.5h"`, `"3d"`. An unknown key is an error. '
        "`evergreen doctor` checks the file.\n",
        "## The project\n",
        *tables(Config),
        "## Plugins\n",
        '`{ use = "NAME", … }` chooses a plugin; the other keys are its own settings.\n',
    ]
    for group in plugins.GROUPS:
        for name in plugins.names(group):
            options = plugins.load(group, name).Options
            parts.append(f"### {group[:-1]} `{name}`\n")
            rows = [
                [f"`{key}`", kind(f.annotation), default(f), f.description or ""]
                for key, f in options.model_fields.items()
            ]
            parts.append(
                (table(["setting", "kind", "default", "what it does"], rows) if rows else "No settings.") + "\n"
            )
            for key, field in options.model_fields.items():
                if (inner := part_of(field)) is not None:
                    parts.append(f"`{key}` is a table:\n")
                    parts.append(table(["setting", "kind", "default", "what it does"], rows_of(inner)) + "\n")
    return "\n".join(parts)


# Commands


def commands(command: Any, path: str) -> Iterator[str]:
    """Write a section for a command and each command in it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
        usage = " ".join([path, *(p.metavar or p.name.upper() for p in arguments), *(["[OPTIONS]"] if options else [])])
        yield f"## `{path}`\n\n{(command.help or '').strip()}\n\n```text\n{usage}\n```\n"
        rows = [[f"`{p.metavar or p.name.upper()}`", getattr(p, "help", None) or ""] for p in arguments]
        rows += [[f"`{', '.join([*p.opts, *p.secondary_opts])}`", option(p)] for p in options]
        if rows:
            yield table(["", "what it means"], rows) + "\n"
        return
    for name, sub in inner.items():
        yield from commands(sub, f"{path} {name}")


def option(p: Any) -> str:
    """Say what an option means, and what holds without it."""
    said = (p.help or "").strip()
    if p.default not in (None, False, "") and not callable(p.default):
        said += f" Default: `{p.default}`."
    if p.envvar:
        said += f" Also `{p.envvar if isinstance(p.envvar, str) else p.envvar[0]}` in the environment."
    return said + (" Needed." if p.required else "")


def cli() -> str:
    """Write the page of commands."""
    intro = (
        "`[LOOP]` may be left out where a project has one loop. `--json` prints JSON on standard output; progress and notes "
        "go to standard error. Exit codes: 0 done, 1 failed, 2 wrong settings or usage, 130 Ctrl-C. "
        "An error is one block: `error:` what is wrong, `where:` the setting, `try:` what to do.\n"
    )
    return "\n".join(["# Commands\n", NOTE + "\n", intro, *commands(typer.main.get_command(app), "evergreen")])


# Errors


def tree(cls: type[errors.EvergreenError]) -> Iterator[type[errors.EvergreenError]]:
    """Yield a class and all below it, in the order of the source."""
    yield cls
    for sub in cls.__subclasses__():
        if sub.__module__ == errors.__name__:
            yield from tree(sub)


def errors_page() -> str:
    """Write the page of errors."""
    doc = inspect.cleandoc(errors.__doc__ or "")
    drawn = "\n".join(line for line in doc.splitlines() if re.match(r"\s*(EvergreenError$|[│├└ ]+──|│)", line))
    rows = [
        [f"`{c.code}`", str(c.status), (c.__doc__ or "").strip().splitlines()[0], c.remedy, f"`{c.__name__}`"]
        for c in tree(errors.EvergreenError)
    ]
    return "\n".join(
        [
            "# Errors\n",
            NOTE + "\n",
            'Over HTTP every error is `{"error": {"code", "message", "field", "hint"}}`; in Python and in the client it is the class.\n',
            table(["code", "HTTP", "meaning", "remedy", "class"], rows) + "\n",
            f"```text\n{inspect.cleandoc(drawn)}\n```\n",
        ]
    )


# States


def captions() -> dict[tuple[str, str], str]:
    """Read the sentence behind each state from the source."""
    found, current = {}, ""
    for line in inspect.getsource(states).splitlines():
        if m := re.match(r"class (\w+)\(StrEnum\)", line):
            current = m[1]
        elif m := re.match(r'    \w+ = "(\w+)"  #: (.+)', line):
            found[current, m[1]] = m[2]
    return found


def states_page() -> str:
    """Write the page of states: a diagram and a table for each noun."""
    said = captions()
    parts = [
        "# States\n",
        NOTE + "\n",
        "Every move is made by one stage, in one transaction with the event that tells of it. There are no others.\n",
    ]
    for noun, title in ((states.SampleState, "Sample"), (states.RunState, "Run"), (states.ModelState, "Model")):
        moves = [(str(frm), str(to), by) for (frm, to), by in states.MOVES.items() if type(frm) is noun]
        arrows = [f"    {frm} --> {to}: {by}" for frm, to, by in moves]
        parts += [f"## {title}\n", "```mermaid", "stateDiagram-v2", *arrows, "```\n"]
        rows = []
        for state in noun:
            onward = ", ".join(f"`{to}` ({by})" for frm, to, by in moves if frm == state) or "–"
            rows.append([f"`{state}`", said[noun.__name__, state], onward])
        parts.append(table(["state", "meaning", "may become (by)"], rows) + "\n")
    return "\n".join(parts)


def main() -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    check = parser.parse_args().check
    stale = 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, write in (("settings", settings), ("cli", cli), ("errors", errors_page), ("states", states_page)):
        page, text = FOLDER / f"{name}.md", write()
        if page.exists() and page.read_text(encoding="utf-8") == text:
            continue
        if check:
            print(f"error: {page.relative_to(ROOT)} is out of date: make reference", file=sys.stderr)
            stale = 1
        else:
            page.write_text(text, encoding="utf-8")
            print(f"wrote {page.relative_to(ROOT)}")
    return stale


if __name__ == "__main__":
    raise SystemExit(main())
