"""Commands about models: list them, measure one, put one in service, take one back."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evergreen.cli import terminal
from evergreen.cli.following import until_served
from evergreen.cli.opening import ConfigOption, JsonOption, LoopArgument, Misuse, ReasonOption, opened, pick, shift, who
from evergreen.core.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from evergreen.core.loop import Loop
    from evergreen.core.recipe import Row
    from evergreen.core.records import Model


def models(
    loop: LoopArgument = None,
    version: Annotated[str | None, typer.Option("--version", "-v", help="One version, 3 or v3.")] = None,
    report: Annotated[bool, typer.Option("--report", help="What the gate decided on it and why, as Markdown.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write the report and its pictures to a folder.")] = None,
    config: ConfigOption = Path("evergreen.toml"),
    as_json: JsonOption = False,
) -> None:
    """List the model versions of a loop, newest first; or tell why the gate decided so on one."""
    from evergreen.core.records import Model

    with opened(config) as project:
        one = pick(project, loop)
        if report or out is not None:
            _report(one, _model(one, version), out)
            return
        if version is not None:
            found = [_model(one, version)]
        else:
            found = list(one.ledger.find(Model, one.name, newest_first=True))
    if as_json:
        terminal.put_json([_plain(m) for m in found])
    elif not found:
        print(f"{one.name} has no model yet: `evergreen train {one.name}`.")
    else:
        terminal.table(["version", "state", ">share", "scores", "verdict", "made"], [_line(m) for m in found])


def _report(loop: Loop, model: Model, out: Path | None) -> None:
    """Print the gate's report on a version, or write it to a folder with its pictures."""
    from evergreen.stages.gate.report import markdown

    if out is None:
        print(markdown(model), end="")
        return
    from evergreen.http.pages import gate

    out.mkdir(parents=True, exist_ok=True)
    drawn = gate.pictures(model, loop.config.gate)
    for name, svg in drawn.items():
        (out / f"{name}.svg").write_text(svg, encoding="utf-8")
    (out / "report.md").write_text(markdown(model, {name: f"{name}.svg" for name in drawn}), encoding="utf-8")
    terminal.say(f"{out / 'report.md'}")


def _plain(m: Model) -> dict[str, object]:
    return {
        "version": m.version,
        "state": m.state,
        "share": m.share,
        "scores": dict(m.scores),
        "rival_scores": dict(m.rival_scores),
        "verdict": dict(m.verdict),
        "details": dict(m.details),
        "run": m.run,
        "dataset": m.dataset,
        "at": m.at,
        "since": m.since,
    }


def _line(m: Model) -> list[object]:
    scores = ", ".join(f"{k} {terminal.figure(v)}" for k, v in list(m.scores.items())[:3])
    share = f"{m.share:.0%}" if m.share else ""
    return [f"v{m.version}", m.state.replace("_", " "), share, scores, m.verdict.get("because", ""), terminal.ago(m.at)]


Words = Annotated[list[str], typer.Argument(metavar="[LOOP] VERSION", help="As `evergreen models` lists it, 3 or v3.")]


def promote(
    words: Words,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; it goes into the history.")],
    force: Annotated[bool, typer.Option("--force", help="Even one that the gate did not pass.")] = False,
    config: ConfigOption = Path("evergreen.toml"),
    as_json: JsonOption = False,
) -> None:
    """Make a version champion, now."""
    from evergreen import engine

    with opened(config) as project:
        one, (version, *more) = shift(project, words, "VERSION")
        if more:
            raise Misuse(f"{more[0]} is one word too many", field="VERSION", hint="evergreen promote [LOOP] VERSION")
        model = engine.promote(one, _number(version), by=who(), why=reason, force=force)
        until_served(project, one)
    if as_json:
        terminal.put_json(_plain(model))
    else:
        print(f"v{model.version} is champion of {one.name}.")


def rollback(
    loop: LoopArgument = None,
    reason: ReasonOption = "",
    config: ConfigOption = Path("evergreen.toml"),
    as_json: JsonOption = False,
) -> None:
    """Take the latest step back: an experiment, a challenger, or else the champion."""
    from evergreen import engine
    from evergreen.core.records import Experiment
    from evergreen.core.states import ExperimentState

    with opened(config) as project:
        one = pick(project, loop)
        open_before = one.ledger.last(Experiment, one.name, ExperimentState.RUNNING, ExperimentState.FROZEN)
        model = engine.rollback(one, by=who(), why=reason)
        until_served(project, one)
    if as_json:
        terminal.put_json(_plain(model))
    else:
        print(("The experiment has ended. " if open_before else "") + f"v{model.version} answers for {one.name}.")


def evaluate(
    loop: LoopArgument = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A version; else the champion.")] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="A file; else the last dataset's holdout.")] = None,
    config: ConfigOption = Path("evergreen.toml"),
    as_json: JsonOption = False,
) -> None:
    """Score a model on the last dataset's holdout or on a file of labelled rows."""
    with opened(config) as project, tempfile.TemporaryDirectory() as temporary:
        one, folder = pick(project, loop), Path(temporary)
        version = _model(one, model)
        rows, source, unusable = _of_file(one, data) if data else _of_holdout(one, folder / "dataset")
        if not rows:
            raise InvalidInput(f"{source} has no labelled row", field="data")
        terminal.say(f"v{version.version} on {len(rows)} rows of {source} …")
        one.store.get(version.key, folder / "model")
        predictor = one.recipe.load(folder / "model")
        try:
            scores = one.recipe.score(predictor, rows)
        finally:
            predictor.close()
    means = {name: math.fsum(figures) / len(figures) for name, figures in scores.items() if figures}
    if as_json:
        said = {"loop": one.name, "version": version.version, "data": source, "rows": len(rows), "unusable": unusable}
        terminal.put_json({**said, "scores": means})
        return
    errors = {name: _error(figures) for name, figures in scores.items() if figures}
    terminal.table(
        ["metric", ">mean", ">± 95 %"],
        [[name, terminal.figure(mean), terminal.figure(errors[name])] for name, mean in means.items()],
    )
    if unusable:
        terminal.say(f"{unusable} rows could not be used.")


def _error(figures: Sequence[float]) -> float | None:
    """Return half the width of the normal 95 % interval of a mean."""
    n = len(figures)
    if n < 2:
        return None
    mean = math.fsum(figures) / n
    return 1.96 * math.sqrt(math.fsum((x - mean) ** 2 for x in figures) / (n - 1) / n)


def _model(loop: Loop, version: str | None) -> Model:
    from evergreen.core.records import Model
    from evergreen.core.states import ModelState

    if version is not None:
        number = _number(version)
        for model in loop.ledger.find(Model, loop.name, newest_first=True):
            if model.version == number:
                return model
        raise NotFound(f"{loop.name} has no model v{number}", field="--model", hint=f"evergreen models {loop.name}")
    champion = loop.ledger.last(Model, loop.name, ModelState.CHAMPION)
    if champion is None:
        raise NotFound(f"{loop.name} has no champion yet", hint=f"evergreen train {loop.name}")
    return champion


def _of_holdout(loop: Loop, folder: Path) -> tuple[list[Row], str, int]:
    from evergreen.core.recipe import read_rows
    from evergreen.core.records import Dataset

    last = loop.ledger.last(Dataset, loop.name)
    if last is None:
        raise NotFound(f"{loop.name} has no dataset yet", hint="Give a file: --data FILE")
    loop.store.get(last.key, folder)
    held = folder / "holdout" / "holdout.jsonl"
    return list(read_rows(held)) if held.exists() else [], f"the holdout of dataset {last.version}", 0


def _of_file(loop: Loop, path: Path) -> tuple[list[Row], str, int]:
    from evergreen.core.recipe import Row

    if not path.is_file():
        raise Misuse(f"there is no file {path}", field="--data")
    source = loop.open_file(path.resolve())
    rows: list[Row] = []
    unusable, cursor, more = 0, None, True
    while more:
        pulled = source.pull(cursor, 2000)
        cursor, more = pulled.cursor, pulled.more
        unusable += len(pulled.rejects)
        for incoming in pulled.rows:
            try:
                datum = loop.recipe.sample(incoming.row)
            except InvalidInput:
                unusable += 1
                continue
            if datum.label is None:
                unusable += 1
                continue
            rows.append(Row(incoming.id, datum.input, datum.label, datum.weight, datum.group))
    return rows, str(path), unusable


def _number(text: str) -> int:
    """Read "3" or "v3"."""
    digits = text.removeprefix("v")
    if not digits.isdecimal():
        raise Misuse(f"{text!r} is not a version", field="VERSION", hint="`evergreen models` lists them.")
    return int(digits)
