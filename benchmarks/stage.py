"""Sets the stage: a PARIMA project with a trained champion, and the same kind of forest for the peers."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import psutil
from measure import free_port, process
from peers import FEATURES

import evergreen
from evergreen.core.records import Model

viewers = import_module("evergreen.templates.parima.viewers")
LOG = "data/training_logs/parima_decisions_log.csv"
LOD = """
[loops.lod]
recipe = { use = "tabular", target = "decisionLOD", features = FEATURES, required = FEATURES, classes = [0, 1, 2, 3, 4, 5] }
collect.consent = false
collect.sources = [{ use = "csv", path = "log.csv" }]
trigger.auto = false
gate.margin = 1.0
rollout.steps = [1.0]
serve.log = "all"
"""


def project(home: Path, *, rows: int = 2000) -> Path:
    """Lay the PARIMA template down, with a log of decisions that viewers have made."""
    with_demo = files("evergreen") / "templates" / "parima"
    shutil.copytree(str(with_demo / "files"), home, dirs_exist_ok=True)
    shutil.copytree(str(with_demo / "demo"), home, dirs_exist_ok=True)
    config = home / "config.json"
    config.write_text(
        config.read_text().replace('"autoTrain": true', '"autoTrain": false')
    )  # only when it is asked for
    if rows:
        viewers.append(home / LOG, viewers.Viewers(seed=1).decisions(rows))
    return home


def lod(home: Path, *, seed: int = 1, rows: int = 2000) -> None:
    """Make a project, or add to it: a forest of 100 trees on PARIMA's five numbers, trained, every answer logged."""
    home.mkdir(exist_ok=True)
    (home / "evergreen.toml").write_text(LOD.replace("FEATURES", json.dumps(FEATURES)))
    viewers.append(home / "log.csv", viewers.Viewers(seed=seed).decisions(rows))
    train(home, loop="lod")


def graph(home: Path, version: int, folder: Path) -> None:
    """Leave the graph of a version, as Evergreen serves it, in a folder for the peers."""
    project = evergreen.open(home / "evergreen.toml")
    with closing(project.ledger):
        (model,) = (m for m in project.ledger.find(Model, "lod") if m.version == version)
        project["lod"].store.get(model.key, folder)


def train(home: Path, *more: str, loop: str = "parima") -> None:
    """Train once in the foreground, so that there is a champion."""
    subprocess.run(
        [sys.executable, "-m", "evergreen", "train", loop, *more],
        cwd=home,
        check=True,
        stdout=subprocess.DEVNULL,
    )


@contextmanager
def serving(home: Path, *more: str) -> Iterator[tuple[psutil.Process, str]]:
    """Run `evergreen up` there; give the process and the address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "evergreen", "up", "--port", str(port), *more]
    with process(command, f"{url}/health", cwd=home) as server:
        deadline = time.monotonic() + 30
        while httpx.get(f"{url}/health").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        yield server, url


@contextmanager
def peer(name: str, model: Path, path: str = "/health", *, processes: int = 1) -> Iterator[tuple[psutil.Process, str]]:
    """Run one of the peers, no access log."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    here = Path(__file__).parent
    if name == "flask_joblib":
        code = f"import peers; peers.flask_joblib().run(port={port}, threaded=True)"
        command = [sys.executable, "-c", "import logging; logging.getLogger('werkzeug').setLevel('ERROR'); " + code]
    else:
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "--factory",
            f"peers:{name}",
            "--port",
            str(port),
            "--no-access-log",
            "--workers",
            str(processes),
        ]
    with process(command, url + path, cwd=here, MODEL=str(model)) as server:
        yield server, url


def forest(folder: Path, rows: int = 2000) -> None:
    """Train RandomForest(100) as the seed does, and leave it as joblib."""
    import joblib
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier

    people = list(viewers.Viewers(seed=1).decisions(rows))
    x = np.array([[float(r[f]) for f in FEATURES] for r in people], dtype=np.float32)
    y = np.array([int(r["decisionLOD"]) for r in people])
    joblib.dump(RandomForestClassifier(n_estimators=100, random_state=0).fit(x, y), folder / "model.joblib")


def question() -> dict[str, Any]:
    """Return what a viewer asks."""
    return next(iter(itertools.islice(viewers.Viewers(seed=2).questions(1), 1)))


def body() -> str:
    """Return what a viewer asks, as it is sent."""
    return json.dumps(question())


def quiet() -> None:
    """Say what would make the figures worth less."""
    if os.getloadavg()[0] > 1.0:
        print(f"note: something else is running here (load average {os.getloadavg()[0]:.1f})", file=sys.stderr)
