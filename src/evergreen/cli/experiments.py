"""The command about experiments: start one, read how it stands, end it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from evergreen.cli import terminal
from evergreen.cli.opening import ConfigOption, JsonOption, LoopArgument, Misuse, opened, pick, who


def experiment(
    loop: LoopArgument = None,
    versions: Annotated[
        str, typer.Option("--versions", "-v", help="Start one with these beside the champion: 3,4")
    ] = "",
    shares: Annotated[str, typer.Option("--shares", help="Their shares of the units: 0.2,0.2")] = "",
    metric: Annotated[
        str, typer.Option(help="accuracy (labels that were met) or score (outcomes in figures).")
    ] = "accuracy",
    deadline: Annotated[str, typer.Option(help="How long at most: 7d")] = "",
    promote: Annotated[
        bool, typer.Option("--promote", help="Make the best one champion at the end, if one is better.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End the one that is running.")] = False,
    why: Annotated[str, typer.Option("--why", help="Why; it goes into the history.")] = "",
    config: ConfigOption = Path("evergreen.toml"),
    as_json: JsonOption = False,
) -> None:
    """Compare versions in live traffic: start an experiment, stop it, or (without options) see how it stands."""
    from evergreen import engine
    from evergreen.stages import rollout

    if stop and versions:
        raise Misuse("either --versions, to start, or --stop", field="--stop")
    with opened(config) as project:
        one = pick(project, loop)
        if versions:
            engine.experiment(
                one,
                [_version(x) for x in versions.split(",")],
                [_share(x) for x in shares.split(",")] if shares else [],
                by=who(),
                why=why,
                metric=_metric(metric),
                deadline=rollout.length(deadline),
                promote=promote,
            )
        elif stop:
            engine.stop(one, by=who(), why=why)
        found = rollout.report(one)
    if as_json:
        terminal.put_json({k: v for k, v in found.items() if k != "markdown"})
    else:
        print(found["markdown"], end="")


def _version(text: str) -> int:
    digits = text.strip().removeprefix("v")
    if not digits.isdecimal():
        raise Misuse(f"{text!r} is not a version", field="--versions", hint="`evergreen models` lists them.")
    return int(digits)


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Misuse(f"{text!r} is not a share", field="--shares", hint="For example 0.2,0.2") from None


def _metric(text: str) -> Literal["accuracy", "score"]:
    if text == "accuracy":
        return "accuracy"
    if text == "score":
        return "score"
    raise Misuse(f"{text!r} is neither accuracy nor score", field="--metric")
