"""Rows B4 to B7 and B9 to B12 of Backdoor AI: from a wish in the shared folder to a version and its report."""

from __future__ import annotations

import importlib.util
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from phones import Phones, onnx_model

TRIGGER = {"created_at", "reason", "force", "status", "source", "triggered_by"}

System = Any
LayDown = Callable[[str], AbstractContextManager[System]]


def drop(backdoor: System, name: str, said: Any) -> Path:
    """Lay a file into the folder as a person does: with an editor, or by a synced folder."""
    place = backdoor.folder / "training_triggers"
    place.mkdir(exist_ok=True)
    path = place / name
    path.write_bytes(said if isinstance(said, bytes) else json.dumps(said).encode())
    return path


def ended(backdoor: System, path: Path) -> dict[str, Any]:
    """Wait until a trigger file says how it ended."""

    def over() -> Any:
        try:
            said = json.loads(path.read_text())
        except ValueError:
            return None
        return said if said.get("status") in ("completed", "failed") else None

    return dict(backdoor.wait(over, f"{path.name} is answered"))


# B4


def test_B4_a_file_is_taken_and_answered(backdoor: System) -> None:
    said = {"created_at": "2026-01-01T00:00:00", "reason": "from a file", "force": True, "status": "pending",
            "source": "script", "triggered_by": "ann", "mine": [1, 2]}  # fmt: skip
    path = drop(backdoor, "training_needed.json", said)
    seen = set()

    def over() -> Any:
        now = json.loads(path.read_text())
        seen.add(now["status"])
        return now if now["status"] in ("completed", "failed") else None

    answer = backdoor.wait(over, "the file is answered")
    assert answer["status"] == "completed", answer
    assert seen <= {"pending", "processing", "training", "completed"}
    assert {key: answer[key] for key in said if key != "status"} == {k: v for k, v in said.items() if k != "status"}
    assert answer["model_info"]["version"].startswith("1.0.")
    assert answer["message"]
    jobs = [job for job in backdoor.get("/api/ai/training/status")["allJobs"] if job["reason"] == "from a file"]
    assert [(job["status"], job["triggered_by"]) for job in jobs] == [("completed", "ann (trigger file)")]


def test_B4_what_cannot_be_read_is_told_and_kept(backdoor: System) -> None:
    bad = drop(backdoor, "training_needed_bad.json", b'{"reason": ')
    lacks = drop(backdoor, "training_needed_lacks.json", {"force": True, "mine": "x"})
    answer = ended(backdoor, bad)
    assert "not JSON" in answer["message"]
    assert (backdoor.folder / answer["original"]).read_bytes() == b'{"reason": '
    answer = ended(backdoor, lacks)
    assert (answer["mine"], "reason" in answer["message"]) == ("x", True)


# B6 and B7


def test_B6_triggers_from_python_and_from_the_shell(backdoor: System, tmp_path: Path) -> None:
    before = len(backdoor.triggers())
    said = backdoor.script("app_trigger_training.py", "--reason", "by the app's script", "--force")
    assert "training_triggers/training_needed" in said
    answer = ended(backdoor, backdoor.folder / said.split()[-1])
    assert (answer["reason"], answer["force"], answer["source"], answer["status"]) == (
        "by the app's script", True, "app", "completed",
    )  # fmt: skip
    assert answer.keys() >= TRIGGER
    # standalone: a copy of the script anywhere, and the folder's address
    alone = tmp_path / "create_training_trigger.py"
    alone.write_text((backdoor.home / "colab_integration/create_training_trigger.py").read_text())
    backdoor.env["EVERGREEN_STORE"] = backdoor.folder.as_uri()
    try:
        said = backdoor.script(str(alone), "--reason", "from elsewhere", "--force", cwd=tmp_path)
    finally:
        backdoor.env.clear()
    answer = ended(backdoor, backdoor.folder / said.split()[-1])
    assert (answer["reason"], answer["source"], answer["status"]) == ("from elsewhere", "script", "completed")
    # from Python, with the defaults
    spec = importlib.util.spec_from_file_location("app_trigger_training", backdoor.home / "app_trigger_training.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    key = module.create_trigger_file(reason="new_models", force=False)
    answer = ended(backdoor, backdoor.folder / key)
    assert (answer["reason"], answer["force"]) == ("new_models", False)
    assert len(backdoor.triggers()) == before + 3  # one for each, none for the trainings they began
    # without a folder it says so
    assert "EVERGREEN_STORE" in backdoor.script(str(alone), rc=1, cwd=tmp_path)


def test_B7_the_status_for_people_and_programs(backdoor: System) -> None:
    text = backdoor.script("colab_integration/get_training_status.py")
    assert backdoor.newest() in text
    said = json.loads(backdoor.script("colab_integration/get_training_status.py", "--json"))
    assert said["model"]["version"] == backdoor.newest()
    assert said["state"]["thresholds"]["pending_models"] == 3
    assert {t["status"] for t in said["triggers"]} <= {"pending", "processing", "training", "completed", "failed"}


# B5


def test_B5_a_training_begins_by_itself_and_has_a_trigger_file(lay_down: LayDown, tmp_path: Path) -> None:
    with lay_down("backdoor") as laid:
        laid.train_here()
        laid.up()
        status = "/api/ai/training/status"
        assert laid.get(status)["figures"]["thresholds"] == {
            "auto": True, "pending_models": 3, "min_new": 100, "every_hours": 12.0, "min_size": 50,
        }  # fmt: skip
        phones = Phones(50)
        laid.learn(phones.batch(99, device=0))
        time.sleep(3)
        assert laid.get(status)["allJobs"] == []
        laid.learn(phones.batch(1, device=1))
        (job,) = laid.wait(lambda: laid.get(status)["allJobs"], "the hundredth is one too many")
        assert job["reason"] == "100 new samples"
        assert laid.ended(job["id"])["status"] == "completed"
        (said,) = laid.wait(lambda: [t for t in laid.triggers() if t["status"] == "completed"], "the file is answered")
        assert said.keys() >= {*TRIGGER, "model_info", "message"}
        assert (said["source"], said["reason"]) == ("app", "100 new samples")
        for n in range(3):
            assert len(laid.get(status)["allJobs"]) == 1
            data = onnx_model(tmp_path / f"{n}.onnx", seed=n).read_bytes()
            about = {"deviceId": f"DEVICE-{n}", "appVersion": "1"}
            answer = laid.http.post(laid.url + "/api/ai/upload-model", files={"model": (f"{n}.onnx", data)}, data=about)
            assert answer.status_code == 200, answer.text
        job = laid.wait(lambda: laid.get(status)["allJobs"][:-1], "three models are one too many")[0]
        assert job["reason"] == "3 uploaded models pending"
        job = laid.ended(job["id"])
        assert job["status"] == "completed"
        # B2 and B10: what became of each, and why
        uploads = laid.get("/api/ai/uploads")["uploads"]
        assert len(uploads) == 3
        for one in uploads:
            assert one["status"] in ("incorporated", "failed")
            assert one["why"]
        report = (published(laid, job["modelVersion"]) / "report.md").read_text()
        assert "## Models from devices" in report
        for n in range(3):
            assert f"{n}.onnx" in report
        assert laid.get("/api/ai/stats")["incorporatedUserModels"] == sum(
            one["status"] == "incorporated" for one in uploads
        )


def test_B5_the_interval_counts_when_something_is_new(lay_down: LayDown) -> None:
    with lay_down("backdoor") as laid:
        laid.train_here()
        laid.edit('every = "12h"', 'every = "2s"')
        laid.up()
        phones = Phones(51)
        laid.learn(phones.batch(49, device=0))
        time.sleep(5)
        assert laid.get("/api/ai/training/status")["allJobs"] == []  # too few ever to train on
        laid.learn(phones.batch(5, device=1))
        (job,) = laid.wait(lambda: laid.get("/api/ai/training/status")["allJobs"], "the interval comes round")
        assert job["reason"] == "54 new samples at the interval"
        job = laid.ended(job["id"])
        assert job["status"] == "completed", job
        time.sleep(5)
        assert len(laid.get("/api/ai/training/status")["allJobs"]) == 1  # nothing is new


# B9 to B12


def test_B9_the_documented_model_is_trained(lay_down: LayDown) -> None:
    with lay_down("backdoor") as laid:
        laid.train_here('model = "random_forest"')
        laid.edit("min_new = 100 ", "auto = false\nmin_new = 100 ")
        laid.up()
        phones = Phones(90)
        laid.learn(phones.batch(49, device=0))
        job = laid.train(force=False)
        assert (job["status"], "49 < 50" in job["message"]) == ("failed", True)
        laid.learn(phones.batch(151, device=1))
        job = laid.train(force=False)
        assert job["status"] == "completed", job
        summary = json.loads((published(laid, job["modelVersion"]) / "summary.json").read_text())
        assert summary["training_rows"] + summary["holdout_rows"] <= 200
        assert summary["scores"]["accuracy"] > 0.7


def published(backdoor: System, version: str) -> Path:
    """Return the folder of a version, once it is there."""
    place = Path(backdoor.folder / "backdoor/models" / version)
    backdoor.wait(lambda: (place / "model_info.json").exists(), "the version is published")
    return place


@pytest.fixture(scope="module")
def seven(lay_down: LayDown) -> Iterator[System]:
    """A server that has trained seven versions."""
    with lay_down("backdoor") as laid:
        laid.train_here()
        laid.edit("min_new = 100 ", "auto = false\nmin_new = 100 ")
        laid.edit("margin = 0.02", "margin = 1.0")
        laid.edit("min_rows = 20", "min_rows = 1")
        laid.up()
        phones = Phones(120)
        laid.jobs = []
        for n in range(7):
            laid.learn(phones.batch(70, device=n % 4))
            laid.jobs.append(laid.train(f"round {n}"))
            assert laid.jobs[-1]["status"] == "completed", laid.jobs[-1]
        yield laid


def test_B11_the_file_for_phones_decides_as_the_trained_model_does(seven: System) -> None:
    version = seven.newest()
    info = json.loads((published(seven, version) / "model_info.json").read_text())
    (export,) = [one for one in info["exports"] if one["file"].endswith(".mlmodel")]
    assert export["agree"] == 1.0
    assert export["rows"] > 10
    data = seven.http.get(f"{seven.url}/api/ai/models/{version}").content
    coremltools = pytest.importorskip("coremltools")
    spec = coremltools.proto.Model_pb2.Model.FromString(data)
    assert spec.description.metadata.userDefined["evergreen.features"]  # how a phone counts as we do
    assert [p.name for p in published(seven, version).glob("*.mlmodel")]
    assert next(published(seven, version).glob("*.mlmodel")).read_bytes() == data


def test_B12_versions_reports_and_what_is_kept(seven: System) -> None:
    names = [job["modelVersion"] for job in seven.jobs]
    assert len(set(names)) == 7
    assert all(re.fullmatch(r"1\.0\.\d{10}", name) for name in names)
    last = published(seven, names[-1])
    summary = json.loads((last / "summary.json").read_text())
    assert summary["previous"] == names[-2]
    assert summary["change"].keys() >= {"accuracy"}
    report = (last / "report.md").read_text()
    for words in (f"# Intents {names[-1]}", f"previous ({names[-2]})", "accuracy", "## Models from devices"):
        assert words in report
    latest = json.loads((seven.folder / "backdoor/latest.json").read_text())
    assert latest["version"] == names[-1] == seven.newest()

    def kept() -> list[str]:
        said = json.loads((seven.folder / "backdoor/versions.json").read_text())["versions"]
        return [one["version"] for one in said if one["kept"]]

    assert seven.wait(lambda: len(kept()) == 6 and kept(), "old files are deleted") == names[:0:-1]
    gone = seven.http.get(f"{seven.url}/api/ai/models/{names[0]}")
    assert (gone.status_code, gone.json()["success"]) == (404, False)
    assert "kept" in gone.json()["error"]
    for name in names[1:]:
        assert seven.http.get(f"{seven.url}/api/ai/models/{name}").status_code == 200
    assert seven.http.get(seven.url + "/admin/training").text.count("deleted") == 1
