"""Rows P1 to P13 of PARIMA: its users notice nothing but that it works. What trainings do is in test_parima_trainings."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evergreen.templates.parima.viewers import FEATURES, Viewers

LOG = "data/training_logs/parima_decisions_log.csv"
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


# P1


@pytest.mark.parametrize("points", [None, 0, 1, 10])
def test_P1_predict_decides(parima: System, points: int | None) -> None:
    body = GOOD if points is None else {**GOOD, "viewportTrajectory": [POINT] * points}
    answer = parima.post("/api/parima/predict", body)
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert answer.json()["decision"]["lod"] in range(6)


def test_P1_the_trajectory_makes_35_features(parima: System) -> None:
    artifacts = sorted((parima.home / ".evergreen/cache/models/parima").glob("*/manifest.json"))
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
def test_P1_a_bad_body_is_told_and_has_the_fallback(parima: System, name: str) -> None:
    body, named = BAD[name]
    answer = parima.post("/api/parima/predict", body)
    said = answer.json()
    assert (answer.status_code, said["success"], said["decision"]) == (400, False, {"lod": 1})
    assert named in said["error"]


def test_P1_a_body_too_large_is_told_and_has_the_fallback(parima: System) -> None:
    answer = parima.post("/api/parima/predict", b"x" * (9 * 1024 * 1024))
    said = answer.json()
    assert (answer.status_code, said["success"], said["decision"]) == (413, False, {"lod": 1})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(body=st.dictionaries(st.sampled_from([*FEATURES, "viewportTrajectory", "features", "x"]), json_values))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_P1_whatever_is_sent_can_be_drawn(parima: System, body: dict[str, Any]) -> None:
    answer = parima.post("/api/parima/predict", json.dumps({**GOOD, **body}).encode())
    assert answer.status_code in (200, 400)
    assert answer.json()["success"] is (answer.status_code == 200)
    assert answer.json()["decision"]["lod"] in range(6)


# P2 (appending by a second process through ten kills is below, with P9)


def test_P2_rows_are_taken_over_http_once(parima: System) -> None:
    before = parima.collected()["collected"]
    rows = [{**row, "id": f"http-{i}"} for i, row in enumerate(Viewers(11).decisions(5))]
    assert parima.post("/api/parima/samples", rows).json() == {"accepted": 5, "duplicates": 0}
    assert parima.post("/api/parima/samples", rows[:3]).json() == {"accepted": 0, "duplicates": 3}
    ndjson = "\n".join(json.dumps({**row, "id": f"line-{i}"}) for i, row in enumerate(rows)).encode()
    answer = parima.post("/api/parima/samples", ndjson, headers={"content-type": "application/x-ndjson"})
    assert answer.json() == {"accepted": 5, "duplicates": 0}
    assert parima.collected()["collected"] == before + 10


@pytest.mark.parametrize("bad", [{"decisionLOD": 6}, {"decisionLOD": 2.5}, {"decisionLOD": None}, {"deviceFPS": None}])
def test_P2_bad_rows_are_refused_over_http(parima: System, bad: dict[str, Any]) -> None:
    answer = parima.post("/api/parima/samples", {**GOOD, "decisionLOD": 2, **bad})
    assert answer.status_code == 400
    assert next(iter(bad)) in json.dumps(answer.json())


# P5


@pytest.mark.parametrize("kind", MODELS)
def test_P5_every_kind_of_model_is_trained(parima: System, kind: str) -> None:
    line = parima.train(model_type=kind)
    assert line["event_type"] == "TRAINING_COMPLETED", line
    learnt = parima.models()[0]["details"]["model"]
    assert line["details"]["model_type"] == learnt
    assert learnt == kind or (kind == "auto" and learnt in MODELS[:4])
    started = [line for line in parima.history() if line["event_type"] == "TRAINING_STARTED"][-1]
    assert started["details"]["model_type"] == kind


# P6


def test_P6_a_second_call_starts_nothing(parima: System) -> None:
    parima.idle()
    before = parima.runs()
    answer = parima.http.post(parima.url + "/api/parima/train")  # no body, no content type
    assert (answer.status_code, answer.json()) == (200, STARTED)
    assert parima.status()["training_in_progress"] is True
    again = parima.post("/api/parima/train", {"force": True})
    assert again.status_code == 409
    assert (again.json()["success"], again.json()["status"]) == (False, "training_in_progress")
    assert again.json()["error"]
    assert parima.runs() == before + 1
    parima.idle()
    assert parima.runs() == before + 1


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
def test_P6_what_cannot_be_done_is_refused(parima: System, name: str) -> None:
    (parima.home / "data/notes.txt").write_text("notes")
    if not (parima.home / "data/link.csv").is_symlink():
        (parima.home / "secret.csv").write_text("x\n1\n")
        (parima.home / "data/link.csv").symlink_to(parima.home / "secret.csv")
    parima.idle()
    before = parima.runs()
    code, wish, named = WRONG[name]
    answer = parima.post("/api/parima/train", wish)
    assert answer.status_code == code, answer.text
    assert set(answer.json()) == {"success", "error"}
    assert answer.json()["success"] is False
    assert all(word in answer.json()["error"] for word in named), answer.json()
    assert parima.runs() == before


def test_P6_a_file_of_ones_own_is_trained_on_alone_and_force_lifts_the_minimum(parima: System) -> None:
    rows = list(Viewers(12).decisions(60))
    (parima.home / "data/training_logs/custom_data.csv").write_text(parima.csv(rows))
    wish = {"csv_path": "./data/training_logs/custom_data.csv"}
    skipped = parima.train(**wish)
    assert skipped["event_type"] == "TRAINING_SKIPPED"
    assert (skipped["details"]["n_samples"], skipped["details"]["min_required"]) == (60, 100)
    done = parima.train(**wish, force=True, model_type="svm")
    assert done["event_type"] == "TRAINING_COMPLETED", done
    assert done["details"]["csv_path"].endswith("data/training_logs/custom_data.csv")
    assert done["details"]["n_samples"] + done["details"]["n_test_samples"] <= 60
    assert done["details"]["n_samples"] > 30


def test_P6_the_log_itself_may_be_the_file(parima: System) -> None:
    line = parima.train(csv_path="./" + LOG, model_type="logistic")
    assert line["event_type"] == "TRAINING_COMPLETED", line
    assert line["details"]["n_samples"] + line["details"]["n_test_samples"] in range(380, 401)


# P7 and P8


def test_P7_the_training_status_has_its_keys(parima: System) -> None:
    parima.idle()
    said = parima.status()
    assert set(said) == STATUS_KEYS
    assert said["training_in_progress"] is False
    assert datetime.fromisoformat(said["last_training_time"])
    assert said["auto_training_enabled"] is False
    assert (said["auto_training_interval_hours"], said["min_samples_required"]) == (24, 100)
    parima.wait(lambda: parima.status()["recent_training_history"] == parima.history()[-10:], "the log is written")
    for line in said["recent_training_history"]:
        assert set(line) == {"timestamp", "event_type", "message", "details"}


def test_P8_health_has_its_keys(parima: System) -> None:
    parima.idle()
    said = parima.get("/health")
    assert set(said) >= HEALTH_KEYS
    assert (said["status"], said["model_loaded"], said["training_in_progress"]) == ("healthy", True, False)
    assert Path(said["model_path"]).is_dir()
    assert said["last_training_time"] == parima.status()["last_training_time"]
    assert said["auto_training_enabled"] is False


# P10


def trigger(parima: System) -> Any:
    return json.loads(parima.run("status", "parima", "--json"))["trigger"]


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
            laid.configure(**{key: value})
            said = laid.run("up", "--port", "0", rc=2)
            assert all(
                word in said.replace("\n", " ") for word in (key, json.dumps(value), allowed) if word != "true"
            ), said


# P13


ELSEWHERE = {"origin": "https://viewer.example"}


@pytest.mark.parametrize("path", ["predict", "samples"])
def test_P13_the_viewers_page_may_ask(parima: System, path: str) -> None:
    preflight = {**ELSEWHERE, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    asked = parima.http.options(f"{parima.url}/api/parima/{path}", headers=preflight)
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] in ("*", ELSEWHERE["origin"])
    answer = parima.post(f"/api/parima/{path}", {**GOOD, "decisionLOD": 1, "id": "cors"}, headers=ELSEWHERE)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] in ("*", ELSEWHERE["origin"])
    bad = parima.post(f"/api/parima/{path}", {}, headers=ELSEWHERE)
    assert bad.status_code == 400
    assert "access-control-allow-origin" in bad.headers


def test_P13_pages_from_elsewhere_may_read_but_not_train(parima: System) -> None:
    for path in ("/health", "/api/parima/training/status"):
        assert "access-control-allow-origin" in parima.http.get(parima.url + path, headers=ELSEWHERE).headers
    parima.idle()
    before = parima.runs()
    assert parima.post("/api/parima/train", {}, headers=ELSEWHERE).status_code == 403
    local = parima.post("/api/parima/train", {"model_type": "none"}, headers={"origin": "http://localhost:8080"})
    assert local.status_code == 400  # heard, if not understood
    assert parima.runs() == before
