"""Rows B1 to B3 and B12 of Backdoor AI: what its phones and operators meet over HTTP."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
from phones import INTENTS, Phones, onnx_model

VERSION = re.compile(r"1\.0\.\d{10}")
LEARNT = {"success", "message", "latestModelVersion", "modelDownloadURL"}
STATS = {
    "totalInteractions", "uniqueDevices", "averageFeedbackRating", "topIntents", "latestModelVersion", "lastTrainingDate",
    "totalModels", "incorporatedUserModels",
}  # fmt: skip

System = Any
LayDown = Callable[[str], AbstractContextManager[System]]


def collected(backdoor: System) -> dict[str, Any]:
    """Return the samples by their ids."""
    project = backdoor.open()
    with closing(project.ledger) as ledger:
        return {sample.id: sample for sample in ledger.samples("intent")}


# B1


def test_B1_interactions_are_taken_once(backdoor: System) -> None:
    batch = Phones(20).batch(5)
    before = len(collected(backdoor))
    said = backdoor.learn(batch)
    assert set(said) == LEARNT
    assert said["success"] is True
    assert VERSION.fullmatch(said["latestModelVersion"])
    assert said["modelDownloadURL"] == f"{backdoor.url}/api/ai/models/{said['latestModelVersion']}"
    again = backdoor.learn(batch)
    assert "known" in again["message"]
    backdoor.learn({**batch, "deviceId": "another"})  # an interaction is known by its own id
    assert len(collected(backdoor)) == before + 5


def test_B1_feedback_counts_and_only_what_is_needed_is_kept(backdoor: System) -> None:
    phones = Phones(21)
    batch = phones.batch(0, device=0)
    told = [
        (None, 1.0),
        ({"comment": "SECRET-COMMENT"}, 2.0),
        ({"rating": 1}, 2.0),
        ({"rating": 3.5, "comment": None}, 2.0),
        ({"rating": 4}, 3.0),
        ({"rating": 5, "comment": "SECRET-COMMENT"}, 3.0),
        ({}, 1.0),
    ]
    batch["interactions"] = [phones.interaction(**({} if f is None else {"feedback": f})) for f, _ in told]
    backdoor.learn(batch)
    known = collected(backdoor)
    samples = [known[one["id"]] for one in batch["interactions"]]
    assert [sample.weight for sample in samples] == [weight for _, weight in told]
    first, sent = samples[0], batch["interactions"][0]
    assert first.input == {"text": sent["userMessage"]}
    assert first.label == sent["detectedIntent"]
    assert first.subject == first.group != batch["deviceId"]
    assert len({sample.subject for sample in samples}) == 1
    for path in backdoor.home.joinpath(".evergreen").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for secret in (batch["deviceId"].encode(), b"SECRET-COMMENT", b"SECRET-ANSWER"):
                assert secret not in data, path


def spoilt(**changes: Any) -> dict[str, Any]:
    batch = Phones(22).batch(3, device=0)
    batch["interactions"][1] |= {key: value for key, value in changes.items() if value is not ...}
    for key in [key for key, value in changes.items() if value is ...]:
        del batch["interactions"][1][key]
    return batch


BAD: dict[str, tuple[Any, str]] = {
    "no JSON": (b'{"deviceId": ', "JSON"),
    "a list": ([], "object"),
    "no device": ({"interactions": []}, "deviceId"),
    "no interactions": ({"deviceId": "d"}, "interactions"),
    "interactions are none": ({"deviceId": "d", "interactions": "x"}, "interactions"),
    "a number in the list": ({"deviceId": "d", "interactions": [7]}, "interactions[0]"),
    "no message": (spoilt(userMessage=...), "interactions[1].userMessage"),
    "message is a number": (spoilt(userMessage=7), "interactions[1].userMessage"),
    "message is blank": (spoilt(userMessage="  "), "interactions[1].userMessage"),
    "message is long": (spoilt(userMessage="x" * 100_000), "interactions[1].userMessage"),
    "no intent": (spoilt(detectedIntent=...), "interactions[1].detectedIntent"),
    "intent is blank": (spoilt(detectedIntent=" "), "interactions[1].detectedIntent"),
    "no id": (spoilt(id=...), "interactions[1].id"),
    "id is blank": (spoilt(id=""), "interactions[1].id"),
    "id holds NUL": (spoilt(id="a\0b"), "interactions[1].id"),
    "rating is a text": (spoilt(feedback={"rating": "good"}), "interactions[1].feedback.rating"),
    "rating is too high": (spoilt(feedback={"rating": 6}), "interactions[1].feedback.rating"),
    "too many": ({"deviceId": "d", "interactions": [{}] * 1001}, "interactions"),
    "deep": (b"[" * 100_000, "nested"),
}


@pytest.mark.parametrize("name", BAD)
def test_B1_a_bad_request_is_refused_with_the_place_and_nothing_of_it_is_kept(backdoor: System, name: str) -> None:
    body, place = BAD[name]
    before = len(collected(backdoor))
    answer = backdoor.post("/api/ai/learn", body)
    said = answer.json()
    assert (answer.status_code, said["success"]) == (413 if name == "message is long" else 400, False)
    assert place in said["error"]
    assert said["message"] == said["error"]
    assert said["field"] == (place if "interactions[" in place else said["field"])
    assert len(collected(backdoor)) == before


def test_B1_who_does_not_agree_is_not_kept(backdoor: System) -> None:
    before = len(collected(backdoor))
    answer = backdoor.post("/api/ai/learn", {**Phones(23).batch(2), "consent": False})
    assert (answer.status_code, answer.json()["success"]) == (403, False)
    assert "agreed" in answer.json()["error"]
    assert len(collected(backdoor)) == before


def test_B1_too_large_and_wrong_ways_are_told_in_the_same_shape(backdoor: System) -> None:
    large = backdoor.post("/api/ai/learn", b"x" * (9 * 1024 * 1024))
    model = backdoor.http.post(backdoor.url + "/api/ai/upload-model", content=b"x" * (33 * 1024 * 1024))
    method = backdoor.http.delete(backdoor.url + "/api/ai/stats")
    nowhere = backdoor.http.get(backdoor.url + "/api/ai/nothing")
    page = backdoor.post("/api/ai/training/trigger", {}, headers={"origin": "https://elsewhere.example"})
    for answer, status in ((large, 413), (model, 413), (method, 405), (nowhere, 404), (page, 403)):
        assert (answer.status_code, answer.json()["success"]) == (status, False), answer.text
        assert answer.json()["error"]


# B2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_model(tmp_path_factory.mktemp("phone") / "mine.onnx")


def upload(backdoor: System, name: str, data: bytes, **fields: str) -> Any:
    about = {"deviceId": "DEVICE-UP", "appVersion": "1.4", "description": "from my phone", **fields}
    return backdoor.http.post(
        backdoor.url + "/api/ai/upload-model", files={"model": (name, data)}, data={k: v for k, v in about.items() if v}
    )


def test_B2_a_model_is_examined_and_waits_or_is_refused_with_the_reason(backdoor: System, model: Path) -> None:
    answer = upload(backdoor, "mine.onnx", model.read_bytes())
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert said.keys() >= {*LEARNT, "id", "status"}
    assert (said["success"], said["status"]) == (True, "pending")
    assert upload(backdoor, "mine.onnx", model.read_bytes()).json()["id"] == said["id"]  # sent twice it counts once
    mine = backdoor.get("/api/ai/uploads", params={"deviceId": "DEVICE-UP"})["uploads"]
    assert [(one["id"], one["status"], one["name"]) for one in mine] == [(said["id"], "pending", "mine.onnx")]
    assert backdoor.get("/api/ai/uploads", params={"deviceId": "another"})["uploads"] == []
    assert backdoor.get(f"/api/ai/uploads/{said['id']}")["status"] == "pending"
    assert backdoor.get("/api/ai/stats")["userModels"]["pending"] == 1
    for name, data, word in (
        ("mine.onnx", b"not a model", "damaged"),
        ("mine.pkl", model.read_bytes(), "kind"),
        ("mine.mlmodel", b"\0" * 100, ""),
        ("empty.onnx", b"", "empty"),
    ):
        bad = upload(backdoor, name, data)
        assert (bad.status_code, bad.json()["success"]) == (400, False), name
        assert word in bad.json()["error"], name
    assert "deviceId" in upload(backdoor, "mine.onnx", model.read_bytes(), deviceId="").json()["error"]
    no_form = backdoor.post("/api/ai/upload-model", {"model": "x"})
    assert (no_form.status_code, no_form.json()["success"]) == (400, False)


# B3


def test_B3_predictions_are_native(backdoor: System) -> None:
    phones = Phones(30)
    right = 0
    for intent in INTENTS * 4:
        output = backdoor.post("/api/intent/predict", {"text": phones.text(intent)}).json()["output"]
        right += output["intent"] == intent
        assert 0 < output["confidence"] <= 1
    assert right >= 0.8 * 4 * len(INTENTS)


def test_B3_the_newest_model_and_its_file(backdoor: System) -> None:
    said = backdoor.get("/api/ai/latest-model")
    assert VERSION.fullmatch(said["latestModelVersion"])
    answer = backdoor.http.get(said["modelDownloadURL"])
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].endswith('.mlmodel"')
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    again = backdoor.http.get(said["modelDownloadURL"], headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    part = backdoor.http.get(said["modelDownloadURL"], headers={"range": "bytes=0-99"})
    assert (part.status_code, part.content) == (206, answer.content[:100])
    assert backdoor.http.get(backdoor.url + "/api/ai/models/latest").content == answer.content
    missing = backdoor.http.get(backdoor.url + "/api/ai/models/1.0.7")
    assert (missing.status_code, missing.json()["success"]) == (404, False)
    assert "1.0.7" in missing.json()["error"]


def test_B3_stats(backdoor: System) -> None:
    said = backdoor.get("/api/ai/stats")
    assert said.keys() >= STATS
    known = collected(backdoor).values()
    assert said["totalInteractions"] == len(known)
    assert said["uniqueDevices"] == len({sample.subject for sample in known})
    ratings = [sample.output["rating"] for sample in known if "rating" in sample.output]
    assert said["averageFeedbackRating"] == pytest.approx(sum(ratings) / len(ratings), abs=0.01)
    top = Counter(sample.label for sample in known).most_common(5)
    assert sorted(map(tuple, ((one["intent"], one["count"]) for one in said["topIntents"]))) == sorted(top)
    assert said["latestModelVersion"] == backdoor.newest()
    assert said["totalModels"] >= 1
    assert said["lastTrainingDate"]


def test_B3_status_of_trainings(backdoor: System) -> None:
    said = backdoor.get("/api/ai/training/status")
    assert said["status"] in ("idle", "processing", "training")
    assert said["latestJob"] == said["allJobs"][0]
    first = said["allJobs"][-1]
    assert (first["status"], first["reason"], first["force"]) == ("completed", "the first", True)
    assert first["modelVersion"] in first["message"]
    assert said["modelInfo"]["version"] == backdoor.newest()
    assert backdoor.get("/health")["loops"]["intent"]["model_loaded"] is True
    for bad, word in (({"reason": 7}, "reason"), ({"force": "yes"}, "force"), ([], "object"), (b"{", "JSON")):
        answer = backdoor.post("/api/ai/training/trigger", bad)
        assert (answer.status_code, answer.json()["success"]) == (400, False)
        assert word in answer.json()["error"]


def test_B3_the_page_for_trainings(backdoor: System) -> None:
    page = backdoor.http.get(backdoor.url + "/admin/training")
    assert page.status_code == 200
    for words in (
        "Trigger a training",
        backdoor.newest(),
        "The first",
        "New interactions",
        "A training begins by itself",
    ):
        assert words in page.text
    token = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert token is not None
    forged = backdoor.http.post(backdoor.url + "/admin/training", data={"why": "forged"})
    assert forged.status_code == 403
    assert "forged" not in json.dumps(backdoor.get("/api/ai/training/status"))
    asked = backdoor.http.post(
        backdoor.url + "/admin/training", data={"why": "by the button", "force": "on", "csrf": token[1]}
    )
    assert asked.status_code == 303
    job = backdoor.get("/api/ai/training/status")["latestJob"]
    assert (job["reason"], job["force"]) == ("by the button", True)
    assert backdoor.ended(job["id"])["status"] == "completed"


def test_B3_who_may_do_what(lay_down: LayDown) -> None:
    with lay_down("backdoor") as laid:
        laid.edit('# anonymous = "app"', 'anonymous = "app"')
        key = laid.run("keys", "create", "me", "--role", "operator").split()
        (secret,) = [word for word in key if word.startswith("egk_")]
        laid.up()
        laid.learn(Phones(31).batch(3))
        operator = {"authorization": f"Bearer {secret}"}
        for method, path in (("POST", "/api/ai/training/trigger"), ("GET", "/api/ai/uploads")):
            answer = laid.http.request(method, laid.url + path)
            assert answer.status_code in (401, 403), path
            assert answer.json()["success"] is False
        assert laid.http.get(laid.url + "/admin/training").status_code in (303, 403)
        assert laid.http.get(laid.url + "/admin/training", headers=operator).status_code == 200
        unknown = laid.http.get(laid.url + "/api/ai/stats", headers={"authorization": "Bearer egk_nobody"})
        assert (unknown.status_code, unknown.json()["success"]) == (401, False)
        assert laid.get("/api/ai/latest-model")["latestModelVersion"] is None
        said = laid.http.post(laid.url + "/api/ai/training/trigger", json={"reason": "me"}, headers=operator)
        assert said.status_code == 200
        assert said.json()["job"]["triggered_by"] == "me"
