"""Rows P2 to P4, P9, P11 and P12 of PARIMA: what trainings do, beside predictions, through kills, and in writing."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from evergreen.templates.parima.viewers import COLUMNS, FEATURES, Viewers

LOG = "data/training_logs/parima_decisions_log.csv"
HISTORY = "data/training_logs/training_history.log"
GOOD = {
    "frustumCoverage": 0.5, "occlusionRatio": 0.1, "meanVisibleDistance": 12.5, "deviceFPS": 58, "deviceCPULoad": 0.3
}  # fmt: skip
STARTED = {"success": True, "message": "Training started in background", "status": "training_in_progress"}

System = Any
LayDown = Callable[[str], AbstractContextManager[System]]


# P3


def test_P3_and_P7_the_worker_skips_then_trains(lay_down: LayDown) -> None:
    with lay_down("parima") as laid:
        laid.configure(autoTrain=True, autoTrainIntervalHours=0.0004, minSamplesForTraining=120)
        laid.edit('hold = "5m"', 'hold = "0.1s"')
        viewers = Viewers(4)
        laid.append(viewers.decisions(30))
        laid.up()
        # P1, P7 and P8 before there is a model
        answer = laid.post("/api/parima/predict", GOOD)
        assert (answer.status_code, answer.json()["success"], answer.json()["decision"]) == (503, False, {"lod": 1})
        assert "model" in answer.json()["error"]
        said = laid.get("/health")
        assert (said["status"], said["model_loaded"], said["model_path"]) == ("healthy", False, None)
        assert said["last_training_time"] is None
        assert laid.status()["last_training_time"] is None

        skipped = laid.wait(
            lambda: [line for line in laid.history() if line["details"].get("n_samples") == 30], "it skips"
        )[0]
        assert skipped["event_type"] == "TRAINING_SKIPPED"
        assert skipped["message"] == "Not enough samples: 30 < 120"
        assert skipped["details"]["min_required"] == 120
        laid.append(viewers.decisions(270))
        laid.wait(lambda: laid.post("/api/parima/predict", GOOD).status_code == 200, "a model is live")
        said = laid.status()
        assert said["auto_training_enabled"] is True
        assert (said["auto_training_interval_hours"], said["min_samples_required"]) == (0.0004, 120)
        told = Counter(line["event_type"] for line in laid.history())
        assert told["TRAINING_STARTED"] >= 1
        assert told["TRAINING_COMPLETED"] >= 1


# P4 and P11


class Witness(threading.Thread):
    """Asks for decisions one after the other, and notes what is answered."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.answers: list[tuple[float, int, int]] = []  # (time, status, version)
        self.ended = threading.Event()

    def run(self) -> None:
        questions = list(Viewers(5).questions(200))
        with httpx.Client(timeout=300) as http:
            while not self.ended.is_set():
                for question in questions[:20]:
                    answer = http.post(self.url + "/api/parima/predict", json=question)
                    self.answers.append((time.time(), answer.status_code, answer.json().get("model_version", 0)))
                    time.sleep(0.005)

    def end(self) -> None:
        self.ended.set()
        self.join()


def trainers(home: Path) -> list[int]:
    """List processes, other than the server, that train for the project in `home`."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if any("evergreen.job" in word for word in words) and any(str(home) in word for word in words):
            found.append(process.info["pid"])
    return found


@pytest.fixture(scope="module")
def changed(lay_down: LayDown) -> Iterator[dict[str, Any]]:
    """A poor model, then many good decisions, a training, and a better model, under the eyes of a witness."""
    with lay_down("parima") as laid:
        laid.configure(autoTrain=False)
        laid.edit('hold = "5m"', 'hold = "0.2s"')
        viewers = Viewers(6)
        laid.append(viewers.decisions(240, poison=True))
        laid.up()
        pid = laid.process.pid
        laid.wait(lambda: laid.collected()["collected"] == 240, "the log is read")
        laid.train(model_type="logistic")
        laid.wait(lambda: laid.get("/health")["model_loaded"], "the first model is live")
        witness = Witness(laid.url)
        witness.start()
        try:
            laid.append(viewers.decisions(2500))
            laid.wait(lambda: laid.collected()["collected"] == 2740, "the log is read on")
            laid.idle()
            begun = time.time()
            assert laid.post("/api/parima/train").json() == STARTED
            seen: set[int] = set()
            asked = ended = begun
            while laid.status()["training_in_progress"]:
                ended = asked  # it was under way at this moment still
                seen.update(trainers(laid.home))
                time.sleep(0.02)
                asked = time.time()
            laid.wait(
                lambda: laid.models()[0]["state"] in ("champion", "rejected", "undecided"), "the new model is judged"
            )
            assert laid.models()[0]["state"] == "champion", laid.models()[0]["verdict"]
            laid.wait(lambda: laid.get("/health")["loops"]["parima"]["version"] == 2, "the new model is live")
            live = time.time()
            laid.wait(lambda: sum(at > live for at, *_ in list(witness.answers)) > 5, "the witness saw it")
        finally:
            witness.end()
        yield {
            "answers": witness.answers, "begun": begun, "ended": ended, "live": live, "trainers": seen,
            "models": laid.models(), "same": laid.process.pid == pid, "server": pid, "health": laid.get("/health"),
        }  # fmt: skip


def test_P4_predictions_go_on_with_the_old_model_while_another_is_trained(changed: dict[str, Any]) -> None:
    assert changed["trainers"], "no process trained beside the server"
    assert changed["server"] not in changed["trainers"]
    during = [a for a in changed["answers"] if changed["begun"] <= a[0] < changed["ended"]]
    assert during
    assert {code for _, code, _ in changed["answers"]} == {200}
    assert {version for *_, version in during} == {1}


def test_P11_a_new_model_is_live_without_a_restart(changed: dict[str, Any]) -> None:
    assert changed["same"]
    newest = changed["models"][0]
    assert (newest["version"], newest["state"]) == (2, "champion"), newest["verdict"]
    after = [version for at, _, version in changed["answers"] if at > changed["live"]]
    assert set(after[1:]) == {2}  # the first may have been on its way
    assert changed["health"]["loops"]["parima"]["version"] == 2


# P9


def test_P9_the_history_has_its_lines_and_jq_reads_it(parima: System) -> None:
    parima.idle()
    lines = parima.history()
    if shutil.which("jq"):
        read = subprocess.run(
            ["jq", "-r", ".event_type", parima.home / HISTORY], capture_output=True, text=True, check=True
        )
        assert read.stdout.split() == [line["event_type"] for line in lines]
    first = {line["event_type"]: line for line in reversed(lines)}
    csv_path = "./" + LOG
    started, completed = first["TRAINING_STARTED"]["details"], first["TRAINING_COMPLETED"]["details"]
    assert first["TRAINING_STARTED"]["message"] == f"Starting model training with {started['n_samples']} samples"
    assert first["TRAINING_COMPLETED"]["message"] == "Model training completed successfully"
    for details in (started, completed):
        assert (details["csv_path"], details["model_type"]) == (csv_path, "random_forest")
    assert 0 < completed["accuracy"] <= 1
    assert completed["n_samples"] + completed["n_test_samples"] == started["n_samples"]
    assert completed["n_test_samples"] > 0
    assert Path(completed["model_path"]).is_dir()
    assert first["MODEL_UPDATED"]["details"]["version"] == 1
    assert first["MODEL_UPDATED"]["details"]["model_path"] == completed["model_path"]
    for line in lines:
        assert datetime.fromisoformat(line["timestamp"]).tzinfo


def test_P9_a_failed_training_is_told(parima: System) -> None:
    one = next(Viewers(13).decisions(1))
    (parima.home / "data/one_class.csv").write_text(parima.csv([{**one, "decisionLOD": 2}] * 40))
    line = parima.train(csv_path="data/one_class.csv", force=True)
    assert line["event_type"] == "TRAINING_FAILED", line
    assert line["details"]["error"]
    assert line["details"]["error"] in line["message"]


def spoilt(rows: list[dict[str, Any]]) -> dict[int, str]:
    """Spoil some rows; return the lines they will stand in, and what is wrong with each."""
    faults = [
        ("decisionLOD", "6"), ("decisionLOD", "-1"), ("decisionLOD", ""), ("decisionLOD", "fine"), ("decisionLOD", "2.5"),
        ("deviceFPS", "nan"), ("deviceFPS", "inf"), ("frustumCoverage", ""), ("occlusionRatio", "1.2"),
        ("deviceCPULoad", "-inf"), ("meanVisibleDistance", "far"),
    ]  # fmt: skip
    chance = random.Random(1)
    bad = {}
    for i in chance.sample(range(len(rows)), 120):
        column, value = faults[i % len(faults)]
        rows[i][column] = value
        bad[i + 2] = column  # the header is line 1
    return bad


WRITER = """
import os, random, sys, time
data, path = open(sys.argv[1], "rb").read(), sys.argv[2]
chance = random.Random(2)
out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while data:
    n = chance.randrange(1, 6000)
    os.write(out, data[:n])
    data = data[n:]
    time.sleep(chance.uniform(0, 0.03))
"""


def test_P2_and_P9_ten_thousand_rows_are_counted_once_through_ten_kills(lay_down: LayDown, tmp_path: Path) -> None:
    rows = [{**row, "rowId": f"r{i}"} for i, row in enumerate(Viewers(9).decisions(10_000))]
    bad = spoilt(rows)
    chance = random.Random(3)
    with lay_down("parima") as laid:
        (tmp_path / "rows.csv").write_text(laid.csv(rows, (*COLUMNS, "rowId")))
        laid.configure(autoTrain=True, autoTrainIntervalHours=0.0008, minSamplesForTraining=300, modelType="logistic")
        laid.hurry()
        writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "rows.csv", laid.home / LOG])
        for _ in range(10):
            laid.up()
            time.sleep(chance.uniform(0, 0.8))
            laid.kill()
            laid.history()  # each line is JSON
        assert writer.wait(60) == 0
        laid.up()
        want = {"collected": 10_000 - len(bad), "quarantined": len(bad)}
        laid.wait(lambda: {k: laid.collected()[k] for k in want} == want, "all rows are counted")
        laid.wait(lambda: any(line["event_type"] == "MODEL_UPDATED" for line in laid.history()), "a model is live")
        project = laid.open()
        with closing(project.ledger) as ledger:
            kept = Counter(sample.input["rowId"] for sample in ledger.samples("parima"))
            rejects = ledger.rejects("parima", limit=1000)
        assert kept == Counter(row["rowId"] for i, row in enumerate(rows) if i + 2 not in bad)
        assert {reject.where: True for reject in rejects} == {f"line {line}": True for line in bad}
        assert all(bad[int(reject.where.split()[1])] in reject.reason for reject in rejects)
        assert len(rejects) == len(bad)
        events = [line["details"]["event"] for line in laid.history()]
        assert events == sorted(set(events))
        assert laid.status()["recent_training_history"]


# P12


def test_P12_each_training_leaves_a_report(parima: System, tmp_path: Path) -> None:
    parima.idle()
    project = parima.open()
    with closing(project.ledger):
        for model in parima.models():
            folder = tmp_path / str(model["version"])
            project.store.get(model["details"]["evaluation"], folder)
            text = (folder / "report/report.md").read_text().lower()
            assert "class" in text
            assert "confusion" in text
            assert "importance" in text
            assert all(feature.lower() in text for feature in FEATURES)
