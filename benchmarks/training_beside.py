"""What a training costs those who ask meanwhile: a thread in the server (the seeds' way), and Evergreen's process."""

from __future__ import annotations

import csv
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import measure
from asking import Asked, asking, failed, quantile
from measure import free_port, process, report
from peers import FEATURES, flask_joblib
from stage import LOG, forest, project, quiet, serving, train, viewers

ROWS = 20_000
ROUNDS = 2
#: Seconds of each round without a training, and at least with one.
IDLE_S, BUSY_S = 10.0, 15.0
#: Requests a second: what Flask and scikit-learn can answer on one core with room to spare, and ten times that.
SLOW, FAST = 15, 150
#: Where the server and its training may run: on one core both, or on two, one of which the asking shares.
CORES = ("0", "0,1")

Server = Callable[[], AbstractContextManager[tuple[str, str, str]]]  #: addresses of predict, train and health


class Round(NamedTuple):
    """What was asked while a server was idle, what while it trained, and how long each training took."""

    idle: list[Asked]
    busy: list[Asked]
    seconds: list[float]


def main() -> None:
    """Measure and write `results/training_beside.md`."""
    quiet()
    questions = list(viewers.Viewers(seed=2).questions(100))
    table = []
    with tempfile.TemporaryDirectory() as tmp:
        home, model = project(Path(tmp, "project"), rows=ROWS), Path(tmp, "model")
        model.mkdir()
        forest(model)
        train(home)
        servers: Sequence[tuple[str, Server, int]] = (
            ("Flask + joblib, training in a thread", lambda: _seed(model, home / LOG), SLOW),
            ("Evergreen, training in its process", lambda: _ours(home), SLOW),
            ("Evergreen, training in its process", lambda: _ours(home), FAST),
        )
        for cores in CORES:
            measure.SERVER_CPU = cores
            rounds = [[_round(server, questions, rate) for _, server, rate in servers] for _ in range(ROUNDS)]
            for (title, _, rate), measured in zip(servers, zip(*rounds, strict=True), strict=True):
                table.append([title, len(cores.split(",")), rate, *_figures(measured)])
    columns = (
        "server", "cores", "requests/s", "idle p50 ms", "idle p99 ms", "training p50 ms", "training p99 ms", "training max ms",
        "p99, × idle", "training s", "failed",
    )  # fmt: skip
    notes = (
        f"A forest of 100 trees, trained on {ROWS:,} rows of PARIMA's log while it answers; asked from a process of its own, latency "
        f"from when a request was due; {ROUNDS} rounds in turn of {IDLE_S:.0f} s idle and {BUSY_S:.0f} s of training. With one "
        "core the server and what trains share it and the asking has the other; with two the asking shares one of them. The thread reads "
        "the log and fits; Evergreen's process reads the frozen dataset, compares half-lives and calibrates by cross-validation, fits, "
        "exports, proves the export, judges and draws a report, which is why it takes longer."
    )
    report("training_beside", "Answers while a training runs", columns, table, notes)


def _round(server: Server, questions: Sequence[Any], rate: float) -> Round:
    """Ask an idle server, and then one that trains again and again."""
    with server() as (predict, order, health), httpx.Client(timeout=60) as http:
        with asking(predict, questions, per_second=rate):
            time.sleep(2)  # to warm up
        with asking(predict, questions, per_second=rate) as idle:
            time.sleep(IDLE_S)
        trainings: list[tuple[float, float]] = []
        with asking(predict, questions, per_second=rate) as asked:
            while sum(end - begin for begin, end in trainings) < BUSY_S:
                begin = time.monotonic()
                http.post(order, json={"force": True}).raise_for_status()
                while http.get(health).json()["training_in_progress"]:
                    time.sleep(0.25)
                trainings.append((begin, time.monotonic()))
    busy = [a for a in asked if any(begin <= a.due < end for begin, end in trainings)]
    return Round(idle, busy, [end - begin for begin, end in trainings])


def _figures(rounds: Sequence[Round]) -> list[float]:
    idle = [a for r in rounds for a in r.idle]
    busy = [a for r in rounds for a in r.busy]
    calm, strained = quantile(idle, 0.99), quantile(busy, 0.99)
    return [
        quantile(idle, 0.5),
        calm,
        quantile(busy, 0.5),
        strained,
        max(a.ms for a in busy),
        strained / calm,
        statistics.median(s for r in rounds for s in r.seconds),
        failed(idle) + failed(busy),
    ]


@contextmanager
def _ours(home: Path) -> Iterator[tuple[str, str, str]]:
    with serving(home) as (_, url):
        yield f"{url}/api/parima/predict", f"{url}/api/parima/train", f"{url}/health"


@contextmanager
def _seed(model: Path, log: Path) -> Iterator[tuple[str, str, str]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    code = (
        "import logging; logging.getLogger('werkzeug').setLevel('ERROR'); "
        f"import training_beside; training_beside.seed().run(port={port}, threaded=True)"
    )
    here = Path(__file__).parent
    with process([sys.executable, "-c", code], f"{url}/state", cwd=here, MODEL=str(model), TRAIN_ON=str(log)):
        yield f"{url}/predict", f"{url}/train", f"{url}/state"


def seed() -> Any:
    """The seeds' way: the server of `peers.flask_joblib`, with a thread that reads the log and fits a new forest."""
    from flask import jsonify

    app = flask_joblib()
    busy = threading.Event()

    def work() -> None:
        try:
            fit(Path(os.environ["TRAIN_ON"]))
        finally:
            busy.clear()

    @app.post("/train")
    def start() -> Any:
        busy.set()
        threading.Thread(target=work).start()
        return jsonify({"success": True})

    @app.get("/state")
    def state() -> Any:
        return jsonify({"training_in_progress": busy.is_set()})

    return app


def fit(log: Path) -> float:
    """Read the log, split it at random, fit; return the accuracy on the part held out."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import train_test_split

    with log.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    x = [[float(row[name]) for name in FEATURES] for row in rows]
    y = [int(row["decisionLOD"]) for row in rows]
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
    model = RandomForestClassifier(n_estimators=100, random_state=0).fit(x_train, y_train)
    return float(model.score(x_test, y_test))


if __name__ == "__main__":
    main()
