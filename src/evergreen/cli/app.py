"""The list of commands, in the order in which a newcomer meets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

from evergreen.cli import (
    audit,
    borrowed,
    data,
    doctor,
    drift,
    experiments,
    keys,
    loops,
    models,
    notify,
    project,
    uploads,
    worker,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from evergreen import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def evergreen(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Keep the machine-learning models inside live applications fresh: collect, train, judge, roll out, serve, watch."""


_PANELS: Mapping[str, Sequence[Callable[..., None]]] = {
    "Project": (project.init, project.up, project.demo, doctor.doctor),
    "Loops": (loops.status, loops.trigger, loops.train, loops.cancel, loops.history, drift.drift),
    "Models": (models.models, models.promote, models.rollback, experiments.experiment, models.evaluate),
    "Far side": (worker.worker, borrowed.notebook, borrowed.colab),
    "Data": (data.collect, uploads.upload, uploads.uploads),
}
for panel, commands in _PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(data.dataset, name="dataset", rich_help_panel="Data")
app.add_typer(keys.keys, name="keys", rich_help_panel="Access")
app.command(rich_help_panel="Access")(audit.audit)
app.add_typer(notify.notify, name="notify", rich_help_panel="Access")
