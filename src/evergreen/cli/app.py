"""The list of commands, in the order in which a newcomer meets them."""

from __future__ import annotations

from typing import Annotated

import typer

from evergreen.cli import data, doctor, keys, loops, models, project

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


for command in (project.init, project.up, project.demo, doctor.doctor):
    app.command(rich_help_panel="Project")(command)
for command in (loops.status, loops.trigger, loops.train, loops.cancel, loops.history):
    app.command(rich_help_panel="Loops")(command)
for command in (models.models, models.promote, models.rollback, models.evaluate):
    app.command(rich_help_panel="Models")(command)
app.command(rich_help_panel="Data")(data.collect)
app.add_typer(data.dataset, name="dataset", rich_help_panel="Data")
app.add_typer(keys.keys, name="keys", rich_help_panel="Access")
