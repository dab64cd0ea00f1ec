"""Commands about models that devices trained: send one in, see what became of them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from evergreen.cli import terminal
from evergreen.cli.opening import ConfigOption, JsonOption, LoopArgument, Misuse, opened, pick, shift, who


def upload(
    words: Annotated[list[str], typer.Argument(metavar="[LOOP] FILE", help="A model: .onnx or .mlmodel.")],
    description: Annotated[str, typer.Option("--description", "-d", help="What it is.")] = "",
    subject: Annotated[
        str | None, typer.Option("--subject", help="Pseudonym of the person whose device trained it.")
    ] = None,
    config: ConfigOption = Path("evergreen.toml"),
    as_json: JsonOption = False,
) -> None:
    """Take in a model that a device trained: it is examined, scored, and waits for the next training."""
    from evergreen import engine

    with opened(config) as project:
        loop, files = shift(project, words, "FILE")
        if len(files) > 1:
            raise Misuse("one file at a time", field="FILE")
        file = Path(files[0])
        if not file.exists():
            raise Misuse(f"there is no file {file}", field="FILE", hint=f"The loops are: {', '.join(project.loops)}")
        taken = engine.receive(loop, file.resolve(), name=file.name, by=who(), subject=subject, description=description)
    if as_json:
        terminal.put_json(asdict(taken))
        return
    scores = ", ".join(f"{name} {terminal.figure(score)}" for name, score in taken.scores.items())
    said = f"{len(taken.details['labels'])} labels, {scores or 'not scored: there is no holdout yet'}"
    print(f"{taken.name}: {taken.state} ({said})")


def uploads(
    loop: LoopArgument = None, config: ConfigOption = Path("evergreen.toml"), as_json: JsonOption = False
) -> None:
    """List the models that devices sent, and what became of each."""
    from evergreen.stages import collect

    with opened(config) as project:
        one = pick(project, loop)
        found = collect.received(one)
    if as_json:
        terminal.put_json([{**asdict(u), "why": collect.why(u)} for u in found])
    elif found:
        rows = [
            [u.name, u.state, terminal.figure(u.weight), collect.why(u), u.description[:40], terminal.ago(u.at)]
            for u in found
        ]
        terminal.table(["file", "state", ">weight", "why", "description", "came"], rows)
    else:
        print(f"No device has sent a model to {one.name} yet: evergreen upload {one.name} FILE")
