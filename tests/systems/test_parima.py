"""Rows P1 to P13: the hand-built PARIMA backend's users notice nothing but that it works."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evergreen.core.records import Event
from evergreen.templates.parima.viewers import COLUMNS, FEATURES, Viewers

LOG = "data/training_logs/parima_decisions_log.csv"
HISTORY = "data/training_logs/training_history.log"
GOOD = {
    "frustumCoverage": 0.5, "occlusionRatio": 0.1, "meanVisibleDistance": 12.5, "deviceFPS": 58, "deviceCPULoad": 0.3
}  # fmt: skip
POINT = {"velocity": 1.5, "acceleration": -0.2, "angularVelocity": 0.1}
STARTED = {"success": True, "message": "Training started in background", "status": "training_in_progress"}
MODELS = ("random_forest", "svm", "logistic", "gradient_boosting", "auto")
STATUS_KEYS = {
    "training_in_progress", "last_training_time", "auto_training_enabled", "auto_training_interval_hours",
    "min_samples_required", "recent_training_history",
}  # fmt: skip
HEALTH_KEYS = {
    "status", "model_loaded", "model_path", "last_training_time", "training_in_progress", "auto_training_enabled"
}  # fmt: skip
#: The seed's own example, comments and all.
SEED_CONFIG = """{
  "parima": {
    "training": {
      "autoTrain": true,                    // Enable automatic training
      "autoTrainIntervalHours": 24,         // Check every 24 hours
      "minSamplesForTraining": 100,         // Minimum samples required
      "logFile": "./data/training_logs/parima_decisions_log.csv",
      "modelType": "random_forest",         // Model type to train
      "trainingLogFile": "./data/training_logs/training_history.log"
    }
  }
}
"""

System = Any
LayDown = Callable[[str], AbstractContextManager[System]]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes with SIGKILL")


def configure(system: System, **training: Any) -> None:
    (system.home / "config.json").write_text(json.dumps({"parima": {"training": training}}))


def as_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str] = COLUMNS, *, header: bool = True) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def append(system: System, rows: Iterator[dict[str, Any]] | Sequence[dict[str, Any]]) -> None:
    """Append decisions to the log, as the viewer does."""
    log = system.home / LOG
    with log.open("a") as file:
        file.write(as_csv(list(rows), header=not log.exists() or not log.stat().st_size))


def status(system: System) -> Any:
    return system.get("/api/parima/training/status")


def history(system: System) -> list[dict[str, Any]]:
    path = system.home / HISTORY
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def models(system: System) -> list[dict[str, Any]]:
    return system.get("/api/parima/models")["models"]


def collected(system: System) -> dict[str, int]:
    return json.loads(system.run("status", "parima", "--json"))["samples"]


def idle(system: System) -> None:
    system.wait(lambda: not status(system)["training_in_progress"], "no training is under way")


def train(system: System, **wish: Any) -> dict[str, Any]:
    """Train to the end; return the last line of history but for updates."""
    idle(system)
    before = len(history(system))
    answer = system.post("/api/parima/train", wish)
    assert (answer.status_code, answer.json()) == (200, STARTED)
    ends = ("TRAINING_COMPLETED", "TRAINING_FAILED", "TRAINING_SKIPPED")
    return system.wait(
        lambda: next((line for line in history(system)[before:] if line["event_type"] in ends), None), "a training ends"
    )


@pytest.fixture(scope="module")
def system(lay_down: LayDown) -> Iterator[System]:
    """A server that trains when it is asked to, with 400 decisions in its log and one model live."""
    with lay_down("parima") as laid:
        configure(laid, autoTrain=False, minSamplesForTraining=100)
        laid.edit('hold = "5m"', 'hold = "0.1s"')
        append(laid, Viewers(3).decisions(400))
        laid.up()
        laid.wait(lambda: collected(laid)["collected"] == 400, "the log is read")
        assert train(laid)["event_type"] == "TRAINING_COMPLETED"
        laid.wait(lambda: laid.get("/health")["model_loaded"], "the model is live")
        yield laid


# P1


@pytest.mark.parametrize("points", [None, 0, 1, 10])
def test_P1_predict_decides(system: System, points: int | None) -> None:
    body = GOOD if points is None else {**GOOD, "viewportTrajectory": [POINT] * points}
    answer = system.post("/api/parima/predict", body)
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert answer.json()["decision"]["lod"] in range(6)


def test_P1_the_trajectory_makes_35_features(system: System) -> None:
    with closing(system.open().ledger):
        artifacts = sorted((system.home / ".evergreen/cache/models/parima").glob("*/manifest.json"))
    columns = json.loads(artifacts[0].read_text())["layout"]
    sequence = columns["sequence"]
    assert len(columns["columns"]) + sequence["length"] * len(sequence["fields"]) == 35


BAD = {
    "missing": ({k: v for k, v in GOOD.items() if k != "deviceFPS"}, "deviceFPS"),
    "null": ({**GOOD, "occlusionRatio": None}, "occlusionRatio"),
    "text": ({**GOOD, "deviceFPS": "60"}, "deviceFPS"),
    "bool": ({**GOOD, "deviceFPS": True}, "deviceFPS"),
    "list": ({**GOOD, "deviceFPS": [60]}, "deviceFPS"),
    "above": ({**GOOD, "frustumCoverage": 1.01}, "frustumCoverage"),
    "below": ({**GOOD, "deviceCPULoad": -0.01}, "deviceCPULoad"),
    "negative": ({**GOOD, "meanVisibleDistance": -1}, "meanVisibleDistance"),
    "huge": (json.dumps({**GOOD, "deviceFPS": 10**400}).encode(), "deviceFPS"),
    "NaN": (json.dumps({**GOOD, "deviceFPS": float("nan")}).encode(), "deviceFPS"),
    "infinite": (json.dumps({**GOOD, "meanVisibleDistance": float("inf")}).encode(), "meanVisibleDistance"),
    "NaN elsewhere": (json.dumps({**GOOD, "deviceGPULoad": float("nan")}).encode(), "NaN"),
    "eleven points": ({**GOOD, "viewportTrajectory": [POINT] * 11}, "viewportTrajectory"),
    "no points": ({**GOOD, "viewportTrajectory": {"velocity": 1}}, "viewportTrajectory"),
    "half a point": ({**GOOD, "viewportTrajectory": [POINT, {"velocity": 1}]}, "viewportTrajectory[1].acceleration"),
    "point of text": ({**GOOD, "viewportTrajectory": [{**POINT, "velocity": "1"}]}, "viewportTrajectory[0].velocity"),
    "no JSON": (b'{"frustumCoverage": 0.5', "JSON"),
    "no UTF-8": (b'{"frustumCoverage": "\xff"}', "JSON"),
    "empty": (b"", "JSON"),
    "an array": ([GOOD], "object"),
    "a number": (b"7", "object"),
    "deep": (b"[" * 100_000, "JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_P1_a_bad_body_is_told_and_has_the_fallback(system: System, name: str) -> None:
    body, named = BAD[name]
    answer = system.post("/api/parima/predict", body)
    said = answer.json()
    assert (answer.status_code, said["success"], said["decision"]) == (400, False, {"lod": 1})
    assert named in said["error"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(body=st.dictionaries(st.sampled_from([*FEATURES, "viewportTrajectory", "features", "x"]), json_values))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_P1_whatever_is_sent_can_be_drawn(system: System, body: dict[str, Any]) -> None:
    answer = system.post("/api/parima/predict", json.dumps({**GOOD, **body}).encode())
    assert answer.status_code in (200, 400)
    assert answer.json()["success"] is (answer.status_code == 200)
    assert answer.json()["decision"]["lod"] in range(6)


# P2 (appending by a second process through ten kills is below, with P9)


def test_P2_rows_are_taken_over_http_once(system: System) -> None:
    before = collected(system)["collected"]
    rows = [{**row, "id": f"http-{i}"} for i, row in enumerate(Viewers(11).decisions(5))]
    assert system.post("/api/parima/samples", rows).json() == {"accepted": 5, "duplicates": 0}
    assert system.post("/api/parima/samples", rows[:3]).json() == {"accepted": 0, "duplicates": 3}
    ndjson = "\n".join(json.dumps({**row, "id": f"line-{i}"}) for i, row in enumerate(rows)).encode()
    answer = system.post("/api/parima/samples", ndjson, headers={"content-type": "application/x-ndjson"})
    assert answer.json() == {"accepted": 5, "duplicates": 0}
    assert collected(system)["collected"] == before + 10


@pytest.mark.parametrize("bad", [{"decisionLOD": 6}, {"decisionLOD": 2.5}, {"decisionLOD": None}, {"deviceFPS": None}])
def test_P2_bad_rows_are_refused_over_http(system: System, bad: dict[str, Any]) -> None:
    answer = system.post("/api/parima/samples", {**GOOD, "decisionLOD": 2, **bad})
    assert answer.status_code == 400
    assert next(iter(bad)) in json.dumps(answer.json())


# P3


def test_P3_and_P7_the_worker_skips_then_trains(lay_down: LayDown) -> None:
    with lay_down("parima") as laid:
        configure(laid, autoTrain=True, autoTrainIntervalHours=0.0004, minSamplesForTraining=120)
        laid.edit('hold = "5m"', 'hold = "0.1s"')
        viewers = Viewers(4)
        append(laid, viewers.decisions(30))
        laid.up()
        # P1, P7 and P8 before there is a model
        answer = laid.post("/api/parima/predict", GOOD)
        assert (answer.status_code, answer.json()["success"], answer.json()["decision"]) == (503, False, {"lod": 1})
        assert "model" in answer.json()["error"]
        said = laid.get("/health")
        assert (said["status"], said["model_loaded"], said["model_path"]) == ("healthy", False, None)
        assert said["last_training_time"] is None
        assert status(laid)["last_training_time"] is None

        skipped = laid.wait(
            lambda: [line for line in history(laid) if line["details"].get("n_samples") == 30], "it skips"
        )[0]
        assert skipped["event_type"] == "TRAINING_SKIPPED"
        assert skipped["message"] == "Not enough samples: 30 < 120"
        assert skipped["details"]["min_required"] == 120
        append(laid, viewers.decisions(270))
        laid.wait(lambda: laid.post("/api/parima/predict", GOOD).status_code == 200, "a model is live")
        said = status(laid)
        assert said["auto_training_enabled"] is True
        assert (said["auto_training_interval_hours"], said["min_samples_required"]) == (0.0004, 120)
        told = Counter(line["event_type"] for line in history(laid))
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
        with httpx.Client(timeout=30) as http:
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
        configure(laid, autoTrain=False)
        laid.edit('hold = "5m"', 'hold = "0.2s"')
        viewers = Viewers(6)
        append(laid, viewers.decisions(240, poison=True))
        laid.up()
        pid = laid.process.pid
        laid.wait(lambda: collected(laid)["collected"] == 240, "the log is read")
        train(laid, model_type="logistic")
        laid.wait(lambda: laid.get("/health")["model_loaded"], "the first model is live")
        witness = Witness(laid.url)
        witness.start()
        try:
            append(laid, viewers.decisions(2500))
            laid.wait(lambda: collected(laid)["collected"] == 2740, "the log is read on")
            idle(laid)
            begun = time.time()
            assert laid.post("/api/parima/train").json() == STARTED
            seen: set[int] = set()
            while status(laid)["training_in_progress"]:
                seen.update(trainers(laid.home))
                time.sleep(0.02)
            ended = time.time()
            laid.wait(
                lambda: models(laid)[0]["state"] in ("champion", "rejected", "undecided"), "the new model is live"
            )
            live = time.time()
            laid.wait(lambda: witness.answers and witness.answers[-1][0] > live + 0.2, "the witness saw it")
        finally:
            witness.end()
        yield {
            "answers": witness.answers, "begun": begun, "ended": ended, "live": live, "trainers": seen,
            "models": models(laid), "same": laid.process.pid == pid, "server": pid, "health": laid.get("/health"),
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
    after = [version for at, _, version in changed["answers"] if at > changed["live"] + 0.1]
    assert set(after) == {2}
    assert changed["health"]["loops"]["parima"]["version"] == 2


# P5


@pytest.mark.parametrize("kind", MODELS)
def test_P5_every_kind_of_model_is_trained(system: System, kind: str) -> None:
    line = train(system, model_type=kind)
    assert line["event_type"] == "TRAINING_COMPLETED", line
    learnt = models(system)[0]["details"]["model"]
    assert line["details"]["model_type"] == learnt
    assert learnt == kind or (kind == "auto" and learnt in MODELS[:4])
    started = [line for line in history(system) if line["event_type"] == "TRAINING_STARTED"][-1]
    assert started["details"]["model_type"] == kind


# P6


def runs(system: System) -> int:
    project = system.open()
    with closing(project.ledger) as ledger:
        events = ledger.find(Event, "parima")
    return sum(e.what == "added" and e.subject.startswith("run ") for e in events)


def test_P6_a_second_call_starts_nothing(system: System) -> None:
    idle(system)
    before = runs(system)
    answer = system.http.post(system.url + "/api/parima/train")  # no body, no content type
    assert (answer.status_code, answer.json()) == (200, STARTED)
    assert status(system)["training_in_progress"] is True
    again = system.post("/api/parima/train", {"force": True})
    assert again.status_code == 409
    assert (again.json()["success"], again.json()["status"]) == (False, "training_in_progress")
    assert again.json()["error"]
    assert runs(system) == before + 1
    idle(system)
    assert runs(system) == before + 1


WRONG = {
    "model": (400, {"model_type": "lstm"}, MODELS),
    "model of another type": (400, {"model_type": ["svm"]}, MODELS),
    "missing file": (400, {"csv_path": "data/nothing.csv"}, ["data/nothing.csv"]),
    "folder": (400, {"csv_path": "data"}, ["data"]),
    "no CSV": (400, {"csv_path": "data/notes.txt"}, [".csv"]),
    "number for a path": (400, {"csv_path": 7}, ["csv_path"]),
    "empty path": (400, {"csv_path": ""}, ["csv_path"]),
    "NUL in a path": (400, {"csv_path": "data/a\0.csv"}, ["csv_path"]),
    "long path": (400, {"csv_path": "data/" + "a" * 5000}, ["csv_path"]),
    "outside": (403, {"csv_path": "/etc/passwd"}, ["data"]),
    "above": (403, {"csv_path": "data/../config.json"}, ["data"]),
    "by a link": (403, {"csv_path": "data/link.csv"}, ["data"]),
    "force": (400, {"force": "yes"}, ["force"]),
    "array": (400, [1], ["object"]),
    "no JSON": (400, b'{"force": tru', ["JSON"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_P6_what_cannot_be_done_is_refused(system: System, name: str) -> None:
    (system.home / "data/notes.txt").write_text("notes")
    if not (system.home / "data/link.csv").is_symlink():
        (system.home / "secret.csv").write_text("x\n1\n")
        (system.home / "data/link.csv").symlink_to(system.home / "secret.csv")
    idle(system)
    before = runs(system)
    code, wish, named = WRONG[name]
    answer = system.post("/api/parima/train", wish)
    assert answer.status_code == code, answer.text
    assert set(answer.json()) == {"success", "error"}
    assert answer.json()["success"] is False
    assert all(word in answer.json()["error"] for word in named), answer.json()
    assert runs(system) == before


def test_P6_a_file_of_ones_own_is_trained_on_alone_and_force_lifts_the_minimum(system: System) -> None:
    rows = list(Viewers(12).decisions(60))
    (system.home / "data/training_logs/custom_data.csv").write_text(as_csv(rows))
    wish = {"csv_path": "./data/training_logs/custom_data.csv"}
    skipped = train(system, **wish)
    assert skipped["event_type"] == "TRAINING_SKIPPED"
    assert (skipped["details"]["n_samples"], skipped["details"]["min_required"]) == (60, 100)
    done = train(system, **wish, force=True, model_type="svm")
    assert done["event_type"] == "TRAINING_COMPLETED", done
    assert done["details"]["csv_path"].endswith("data/training_logs/custom_data.csv")
    assert done["details"]["n_samples"] + done["details"]["n_test_samples"] <= 60
    assert done["details"]["n_samples"] > 30


# P7 and P8


def test_P7_the_training_status_has_its_keys(system: System) -> None:
    idle(system)
    said = status(system)
    assert set(said) == STATUS_KEYS
    assert said["training_in_progress"] is False
    assert datetime.fromisoformat(said["last_training_time"])
    assert said["auto_training_enabled"] is False
    assert (said["auto_training_interval_hours"], said["min_samples_required"]) == (24, 100)
    system.wait(lambda: status(system)["recent_training_history"] == history(system)[-10:], "the log is written")
    for line in said["recent_training_history"]:
        assert set(line) == {"timestamp", "event_type", "message", "details"}


def test_P8_health_has_its_keys(system: System) -> None:
    idle(system)
    said = system.get("/health")
    assert set(said) >= HEALTH_KEYS
    assert (said["status"], said["model_loaded"], said["training_in_progress"]) == ("healthy", True, False)
    assert Path(said["model_path"]).is_dir()
    assert said["last_training_time"] == status(system)["last_training_time"]
    assert said["auto_training_enabled"] is False


# P9


def test_P9_the_history_has_its_lines_and_jq_reads_it(system: System) -> None:
    idle(system)
    lines = history(system)
    if shutil.which("jq"):
        read = subprocess.run(
            ["jq", "-r", ".event_type", system.home / HISTORY], capture_output=True, text=True, check=True
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


def test_P9_a_failed_training_is_told(system: System) -> None:
    one = next(Viewers(13).decisions(1))
    (system.home / "data/one_class.csv").write_text(as_csv([{**one, "decisionLOD": 2}] * 40))
    line = train(system, csv_path="data/one_class.csv", force=True)
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
    (tmp_path / "rows.csv").write_text(as_csv(rows, (*COLUMNS, "rowId")))
    chance = random.Random(3)
    with lay_down("parima") as laid:
        configure(laid, autoTrain=True, autoTrainIntervalHours=0.0008, minSamplesForTraining=300, modelType="logistic")
        laid.edit('hold = "5m"', 'hold = "0.1s"')
        writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "rows.csv", laid.home / LOG])
        for _ in range(10):
            laid.up()
            time.sleep(chance.uniform(0, 0.8))
            laid.kill()
            history(laid)  # each line is JSON
        assert writer.wait(60) == 0
        laid.up()
        want = {"collected": 10_000 - len(bad), "quarantined": len(bad)}
        laid.wait(lambda: {k: collected(laid)[k] for k in want} == want, "all rows are counted")
        laid.wait(lambda: any(line["event_type"] == "MODEL_UPDATED" for line in history(laid)), "a model is live")
        project = laid.open()
        with closing(project.ledger) as ledger:
            kept = Counter(sample.input["rowId"] for sample in ledger.samples("parima"))
            rejects = ledger.rejects("parima", limit=1000)
        assert kept == Counter(row["rowId"] for i, row in enumerate(rows) if i + 2 not in bad)
        assert {reject.where: True for reject in rejects} == {f"line {line}": True for line in bad}
        assert all(bad[int(reject.where.split()[1])] in reject.reason for reject in rejects)
        assert len(rejects) == len(bad)
        events = [line["details"]["event"] for line in history(laid)]
        assert events == sorted(set(events))
        assert status(laid)["recent_training_history"]


# P10


def trigger(system: System) -> Any:
    return json.loads(system.run("status", "parima", "--json"))["trigger"]


def test_P10_the_seeds_own_config_is_read_and_wrong_values_are_refused(lay_down: LayDown) -> None:
    with lay_down("parima") as laid:
        (laid.home / "config.json").write_text(SEED_CONFIG)
        said = trigger(laid)
        assert (said["auto"], said["every_s"], said["min_size"]) == (True, 86400.0, 100)
        (laid.home / "config.json").unlink()  # the seed's defaults
        assert trigger(laid)["auto"] is False
        for key, value, allowed in (
            ("autoTrain", "yes", "true or false"),
            ("autoTrainIntervalHours", 0, "above 0"),
            ("minSamplesForTraining", 2.5, "whole number"),
            ("modelType", "lstm", "gradient_boosting"),
            ("logFile", "", "path"),
            ("autotrain", True, "autoTrainIntervalHours"),
        ):
            configure(laid, **{key: value})
            said = laid.run("up", "--port", "0", rc=2)
            assert all(
                word in said.replace("\n", " ") for word in (key, json.dumps(value), allowed) if word != "true"
            ), said


# P12


def test_P12_each_training_leaves_a_report(system: System, tmp_path: Path) -> None:
    idle(system)
    project = system.open()
    with closing(project.ledger):
        for model in models(system):
            folder = tmp_path / str(model["version"])
            project.store.get(model["details"]["evaluation"], folder)
            text = (folder / "report/report.md").read_text().lower()
            assert "class" in text
            assert "confusion" in text
            assert "importance" in text
            assert all(feature.lower() in text for feature in FEATURES)


# P13


ELSEWHERE = {"origin": "https://viewer.example"}


@pytest.mark.parametrize("path", ["predict", "samples"])
def test_P13_the_viewers_page_may_ask(system: System, path: str) -> None:
    preflight = {**ELSEWHERE, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    asked = system.http.options(f"{system.url}/api/parima/{path}", headers=preflight)
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] in ("*", ELSEWHERE["origin"])
    answer = system.post(f"/api/parima/{path}", {**GOOD, "decisionLOD": 1, "id": "cors"}, headers=ELSEWHERE)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] in ("*", ELSEWHERE["origin"])
    bad = system.post(f"/api/parima/{path}", {}, headers=ELSEWHERE)
    assert bad.status_code == 400
    assert "access-control-allow-origin" in bad.headers


def test_P13_pages_from_elsewhere_may_read_but_not_train(system: System) -> None:
    for path in ("/health", "/api/parima/training/status"):
        assert "access-control-allow-origin" in system.http.get(system.url + path, headers=ELSEWHERE).headers
    idle(system)
    before = runs(system)
    assert system.post("/api/parima/train", {}, headers=ELSEWHERE).status_code == 403
    local = system.post("/api/parima/train", {"model_type": "none"}, headers={"origin": "http://localhost:8080"})
    assert local.status_code == 400  # heard, if not understood
    assert runs(system) == before
