"""Commands that start a worker where there is a free graphics card: write a notebook, or begin one on Colab by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from evergreen.cli import terminal
from evergreen.cli.opening import Misuse
from evergreen.core.config import store_at
from evergreen.core.errors import ConfigError, Conflict, Unavailable

#: The recipes of which a worker may be asked; a project's own package is given with --package.
_EXTRAS = ("intent", "tabular")

UrlArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[STORE_URL]", help="The shared folder: dropbox:///…, gdrive:///…, s3://…; else EVERGREEN_STORE."
    ),
]
PackageOption = Annotated[
    str | None, typer.Option("--package", help="What pip installs there; else this version with its recipes.")
]
HoursOption = Annotated[float, typer.Option("--hours", min=0.1, help="How long a session lives there.")]


def notebook(
    url: UrlArgument = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("evergreen_worker.ipynb"),
    hours: HoursOption = 11.5,
    stay: Annotated[bool, typer.Option("--stay", help="Take one training after the other, not just one.")] = False,
    package: PackageOption = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a notebook that trains on Colab or Kaggle, through nothing but the shared folder."""
    from evergreen.job.far.notebook import Plan
    from evergreen.job.far.notebook import notebook as made

    place = _shared(url)
    if out.exists() and not force:
        raise Conflict(
            f"{out} is there already", field="--out", hint="Choose another name, or write over with --force."
        )
    plan = Plan(url=place, package=package or requirement(place), hours=hours, once=not stay)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(made(plan), encoding="utf-8")
    from evergreen.job.far import session

    print(f"  {out}")
    needs = session.names(place)
    print("\nNext: open it on https://colab.research.google.com (File, Upload notebook)", end="")
    print(f",\nadd these to its secrets: {', '.join(needs)}" if needs else "", end="")
    print(",\nand choose Runtime, Run all.")


def colab(
    url: UrlArgument = None,
    gpu: Annotated[str, typer.Option("--gpu", help="T4, L4, A100 …; `none` for a machine without.")] = "T4",
    hours: HoursOption = 11.5,
    stay: Annotated[bool, typer.Option("--stay", help="Take one training after the other, not just one.")] = False,
    package: PackageOption = None,
) -> None:
    """Start a worker on Colab by the `colab` command (google-colab-cli), and end the session when it has trained."""
    place = _shared(url)
    command = shutil.which("colab")
    if command is None:
        raise ConfigError("the command `colab` is not installed",
                          hint="uv tool install google-colab-cli (it needs Python 3.12), then: colab auth")  # fmt: skip
    from evergreen.cli.borrowed_script import script
    from evergreen.job.far import session

    given = {name: value for name in session.names(place) if (value := os.environ.get(name))}
    text = script(place, package or requirement(place), given, hours=hours, once=not stay)
    with tempfile.TemporaryDirectory(prefix="evergreen-colab-") as folder:  # mode 700: it holds the credentials
        file = Path(folder) / "evergreen_worker.py"
        file.write_text(text, encoding="utf-8")
        card = [] if gpu == "none" else ["--gpu", gpu]
        terminal.say(f"Asking Colab for a machine{'' if gpu == 'none' else f' with a {gpu}'} …")
        # Its own limit is thirty seconds unless told otherwise.
        code = subprocess.call([command, "run", *card, "--timeout", str(int(hours * 3600)), str(file)])
    if code:
        raise Unavailable(
            f"`colab run` ended with {code}", hint="What it said stands above; `colab auth` signs in anew."
        )


def requirement(url: str) -> str:
    """Return what pip installs on the far side to open a store and train.

    >>> requirement("s3://models/app").partition("==")[0]
    'evergreen-ml[intent,s3,tabular]'
    """
    from evergreen import __version__

    extra = {"gdrive": "drive"}.get(store_at(url).use, store_at(url).use)
    wanted = sorted({*_EXTRAS, extra} - {"local"})
    return f"evergreen-ml[{','.join(wanted)}]=={__version__}"


def _shared(url: str | None) -> str:
    found = url or os.environ.get("EVERGREEN_STORE")
    if not found:
        raise Misuse("which folder is shared with the application?", field="STORE_URL",
                     hint="Give its URL, for example dropbox:///my-app, or set EVERGREEN_STORE.")  # fmt: skip
    return found
