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
from contextlib import contextmanager
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import psutil
from measure import free_port, process
from peers import FEATURES

viewers = import_module("evergreen.templates.parima.viewers")
LOG = "data/training_logs/parima_decisions_log.csv"


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


def train(home: Path, *more: str) -> None:
    """Train once in the foreground, so that there is a champion."""
    subprocess.run(
        [sys.executable, "-m", "evergreen", "train", "parima", *more],
        cwd=home,
        check=True,
        stdout=subprocess.DEVNULL,
    )


@contextmanager
def serving(home: Path) -> Iterator[tuple[psutil.Process, str]]:
    """Run `evergreen up` there; give the process and the address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "evergreen", "up", "--port", str(port)]
    with process(command, f"{url}/health", cwd=home) as server:
        deadline = time.monotonic() + 30
        while httpx.get(f"{url}/health").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        yield server, url


@contextmanager
def peer(name: str, model: Path, path: str = "/health") -> Iterator[tuple[psutil.Process, str]]:
    """Run one of the peers, one process, no access log."""
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
        ]
    with process(command, url + path, cwd=here, MODEL=str(model)) as server:
        yield server, url


def forest(folder: Path, rows: int = 2000) -> None:
    """Train RandomForest(100) as the seed does; leave it as joblib and as ONNX."""
    import joblib
    import numpy as np
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    people = list(viewers.Viewers(seed=1).decisions(rows))
    x = np.array([[float(r[f]) for f in FEATURES] for r in people], dtype=np.float32)
    y = np.array([int(r["decisionLOD"]) for r in people])
    model = RandomForestClassifier(n_estimators=100, random_state=0).fit(x, y)
    joblib.dump(model, folder / "model.joblib")
    onnx = to_onnx(model, x[:1], options={id(model): {"zipmap": False, "output_class_labels": False}})
    (folder / "model.onnx").write_bytes(onnx.SerializeToString())


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
