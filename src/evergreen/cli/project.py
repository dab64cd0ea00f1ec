"""Commands about the project as a whole: begin one, serve it, see one at work."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from evergreen.cli import terminal
from evergreen.cli.opening import NAME, ConfigOption, find, opened
from evergreen.core.errors import Conflict, NotFound

SKIPPED = {"__pycache__"}


def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where; else here.")] = Path("."),
    template: Annotated[str | None, typer.Option("--template", "-t", help="Begin from this system.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    show: Annotated[bool, typer.Option("--list", help="List the templates and end.")] = False,
) -> None:
    """Lay a new project down."""
    if show:
        for name, home in sorted(_templates().items()):
            print(f"{name:<16}{_caption(home)}".rstrip())
        return
    laid = dict(_files(_template(template) / "files" if template else files("evergreen") / "cli" / "starter"))
    there = [str(path) for path in laid if (folder / path).exists()]
    if there and not force:
        raise Conflict(
            f"{folder} holds already: {', '.join(there)}", hint="Choose another folder, or write over with --force."
        )
    for path, source in laid.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
        print(f"  {target}")
    here = "" if folder == Path(".") else f"cd {folder}\n  "
    readme = "  # README.md says more" if Path("README.md") in laid else ""
    print(
        f"\nNext:\n  {here}evergreen doctor      # is all in order?{readme}\n  evergreen up          # serve, collect, train"
    )


def _templates() -> dict[str, Traversable]:
    """Find the templates by their folders; their code is not imported."""
    return {t.name: t for t in (files("evergreen") / "templates").iterdir() if t.is_dir() and (t / "files").is_dir()}


def _template(name: str) -> Traversable:
    found = _templates()
    if name not in found:
        there = ", ".join(sorted(found)) or "none"
        raise NotFound(f'there is no template "{name}"', field="--template", hint=f"There are: {there}")
    return found[name]


def _caption(template: Traversable) -> str:
    code = template / "__init__.py"
    doc = ast.get_docstring(ast.parse(code.read_text(encoding="utf-8"))) if code.is_file() else None
    return doc.splitlines()[0] if doc else ""


def _files(folder: Traversable, at: Path = Path()) -> Iterator[tuple[Path, Traversable]]:
    """Go through what is to be laid down; `dot_github` is laid down as `.github`, which no package could carry."""
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.name in SKIPPED:
            continue
        name = f".{entry.name[4:]}" if entry.name.startswith("dot_") else entry.name
        if entry.is_dir():
            yield from _files(entry, at / name)
        else:
            yield at / name, entry


def up(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; else `http.host`.")] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", "-p", min=0, max=65535, envvar="EVERGREEN_PORT", help="Port; else `http.port`."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, max=64, help="Processes on the port; else `http.processes`.")
    ] = None,
    config: ConfigOption = Path(NAME),
) -> None:
    """Serve the project: predictions, collection, training, pages."""
    from evergreen.core import plugins

    path = find(config)
    try:
        from evergreen.http.server import serve
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("evergreen"):
            raise
        raise plugins.missing("the server", e, extra="serve") from e
    with opened(path) as project:

        def ready(url: str) -> None:
            terminal.say(f"Evergreen is up at {url}")
            terminal.say(f"  loops: {', '.join(project.loops) or 'none yet; add a [loops.NAME] table to ' + path.name}")
            terminal.say(f"  data:  {project.state}")
            terminal.say("  stop:  Ctrl-C")

        serve(project, host=host, port=port, processes=processes, config=path, ready=ready)


def demo(
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Keep the project there; else it is thrown away.")
    ] = None,
    stay: Annotated[
        bool | None, typer.Option("--stay/--leave", help="Leave the pages up until Ctrl-C; else only on a terminal.")
    ] = None,
) -> None:
    """Watch the whole loop on made-up data: collect, train, judge, roll out, roll back."""
    from evergreen.cli.demo import run

    run(folder=folder, stay=stay)
