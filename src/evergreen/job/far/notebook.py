"""The notebook that trains through a shared folder, cell by cell. All that it does is in the package; it only tells and calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: (kind, source): `text` is Markdown, `parameters` may be overridden by tools, `code` is run.
Cell = tuple[str, str]

_TITLE = """\
# Train {what} here

This notebook lends this machine to an application that keeps a model fresh. The two share nothing but a folder{place}.

When you choose **Runtime → Run all** it

1. installs Evergreen,
2. takes the folder's credentials from this notebook's secrets (they are not shown, and not stored in the notebook),
3. looks into the folder for a training that waits, trains, and puts the new model back,
4. says what it did.

It changes nothing else in the folder, and it does not mount your Drive. If the connection breaks, run it again: it goes on
from the last checkpoint, here or on another machine. The application judges the new model before it uses it.
"""

_PARAMETERS = """\
STORE_URL = {url}  # the folder that the application and this notebook share; empty: the secret EVERGREEN_STORE
PACKAGE = {package}  # what pip installs here
HOURS = {hours!r}  # how long this session may live; before that the training is handed over
ONCE = {once!r}  # one training, then end; False: stay and take the next one, too
WAIT = {wait!r}  # minutes to wait for a training before ending, where ONCE is True
"""

_INSTALL = """\
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("evergreen") is None:
    print(f"Installing {PACKAGE} …")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", PACKAGE], check=True)
import evergreen

print(f"Evergreen {evergreen.__version__} on Python {sys.version.split()[0]}.")
"""

_SECRETS = """\
from evergreen.job.far import session

STORE_URL = session.folder(STORE_URL)
session.machine();
"""

_WORK = """\
from evergreen.job.far import attend

done = attend(STORE_URL, once=ONCE, hours=HOURS, wait_minutes=WAIT if ONCE else None){condition}
"""

_END = """\
for training in done:
    print(training)
if not done:
    print("No training waited. Nothing was done.")
"""


@dataclass(frozen=True)
class Plan:
    """What a notebook is for."""

    url: str
    package: str
    hours: float = 11.5
    once: bool = True
    wait: float = 10.0
    what: str = "a model"
    more: str = ""  #: further parameters of one system
    condition: str = ""  #: name of what a cell of that system found: train only if it is true
    before: Sequence[Cell] = ()  #: cells of one system, before the training
    after: Sequence[Cell] = ()  #: and after it


def cells(plan: Plan) -> list[Cell]:
    """Return the cells in order."""
    return [
        ("text", _TITLE.format(what=plan.what, place=f": `{plan.url}`" if plan.url else "")),
        (
            "parameters",
            _PARAMETERS.format(
                url=json.dumps(plan.url),
                package=json.dumps(plan.package),
                hours=plan.hours,
                once=plan.once,
                wait=plan.wait,
            )
            + plan.more,
        ),
        ("text", "## 1. Install"),
        ("code", _INSTALL),
        ("text", "## 2. Credentials and machine"),
        ("code", _SECRETS),
        *plan.before,
        ("text", "## 3. Train\n\nTo stop early use the stop button: what was learnt is saved first."),
        ("code", _WORK.format(condition=f" if {plan.condition} else []" if plan.condition else "")),
        ("text", "## 4. What was done"),
        ("code", _END),
        *plan.after,
    ]


def notebook(plan: Plan) -> str:
    """Return the text of the notebook (nbformat 4.5), with a T4 asked for; the same plan gives the same text."""
    made = []
    for n, (kind, source) in enumerate(cells(plan)):
        metadata: Mapping[str, Any] = {"tags": ["parameters"]} if kind == "parameters" else {}
        cell: dict[str, Any] = {"id": f"cell-{n}", "metadata": dict(metadata), "source": source.strip("\n")}
        if kind == "text":
            made.append({"cell_type": "markdown", **cell})
        else:
            made.append({"cell_type": "code", "execution_count": None, "outputs": [], **cell})
    whole = {
        "cells": made,
        "metadata": {
            "accelerator": "GPU",
            "colab": {"gpuType": "T4", "provenance": []},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
