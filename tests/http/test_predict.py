"""Predictions: what may be sent, what comes back, what is written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from http_harness import MEMORY, PLAIN, App, wait

from evergreen.core.records import Model, Sample
from evergreen.core.states import ModelState


def stored(app: App, id: str) -> Sample | None:
    return next((s for s in app.project.ledger.samples("toy", labelled=False) if s.id == id), None)


def test_an_input_is_answered_by_a_version_that_is_named(app: App) -> None:
    version = app.learn("first")
    said = app.post("/api/toy/predict", {"input": {"n": 3}, "unit": "ann"})
    assert said.status_code == 200
    body = said.json()
    assert body["output"] == {"mark": "first", "asked": {"n": 3}}
    assert body["model"] == {"version": version, "variant": "champion"}
    assert len(body["id"]) == 32
    assert said.headers["x-model-version"] == str(version)


def test_an_object_without_input_is_the_input(app: App) -> None:
    app.learn("first")
    assert app.post("/api/toy/predict", {"n": 7, "x": None}).json()["output"]["asked"] == {"n": 7, "x": None}


def test_a_batch_is_answered_in_order(app: App) -> None:
    app.learn("first")
    said = app.post("/api/toy/predict", {"inputs": [{"n": i} for i in range(1000)]}).json()["predictions"]
    assert [one["output"]["asked"]["n"] for one in said] == list(range(1000))
    assert len({one["id"] for one in said}) == 1000


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"inputs": []}, "inputs"),
        ({"inputs": [1] * 1001}, "inputs"),
        ({"inputs": "many"}, "inputs"),
        ({"input": {"n": "three"}}, "n"),
        ({"input": 1, "unit": 7}, "unit"),
        ({"input": 1, "id": "x" * 201}, "id"),
        ([1, 2], "input"),
        (3, "input"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(app: App, body: Any, field: str) -> None:
    app.learn("first")
    said = app.post("/api/toy/predict", body)
    assert (said.status_code, said.json()["error"]["field"]) == (400, field)


def test_a_bad_input_in_a_batch_refuses_the_batch(app: App) -> None:
    app.learn("first")
    said = app.post("/api/toy/predict", {"inputs": [{"n": 1}, {"n": "two"}, {"n": 3}]})
    assert (said.status_code, said.json()["error"]["field"]) == (400, "[1].n")


def test_without_a_model_it_says_so_and_when_to_come_back(app: App) -> None:
    said = app.post("/api/toy/predict", {"input": 1})
    assert (said.status_code, said.json()["error"]["code"]) == (503, "no_model")
    assert said.headers["retry-after"]


def test_an_answer_is_written_down_with_its_traffic(app: App) -> None:
    app.learn("first")
    app.post("/api/toy/predict", {"input": {"n": 3}, "id": "p-1", "subject": "s-9"})
    sample = wait(lambda: stored(app, "p-1"))
    model = app.project.ledger.last(Model, "toy", ModelState.CHAMPION)
    assert model is not None
    assert (sample.kind, sample.label, sample.subject, sample.model) == ("example", None, "s-9", model.id)
    assert sample.output == {"mark": "first", "asked": {"n": 3}}
    assert app.project.ledger.tally(model.id).answered == 1


def test_where_consent_is_asked_for_only_what_has_it_is_written_down(start: Callable[..., App]) -> None:
    app = start(MEMORY + PLAIN.replace("collect.consent = false", ""))
    rows = [{"id": str(i), "input": i, "label": 1, "consent": True} for i in range(9)]
    assert app.post("/api/toy/samples", rows).status_code == 200
    app.post("/api/toy/train", {"force": True})
    wait(lambda: app.http.get("/health").json()["loops"]["toy"]["version"])
    app.post("/api/toy/predict", {"input": 1, "id": "silent"})
    app.post("/api/toy/predict", {"input": 1, "id": "agreed", "consent": True})
    wait(lambda: stored(app, "agreed"))
    assert stored(app, "silent") is None
    (model,) = app.project.ledger.find(Model, "toy")
    wait(lambda: app.project.ledger.tally(model.id).answered == 2)


def test_with_the_log_off_traffic_is_counted_all_the_same(start: Callable[..., App]) -> None:
    app = start(MEMORY + PLAIN + 'serve.log = "off"\n')
    app.learn("first")
    app.post("/api/toy/predict", {"input": 1, "id": "p-1"})
    (model,) = app.project.ledger.find(Model, "toy")
    wait(lambda: app.project.ledger.tally(model.id).answered == 1)
    assert stored(app, "p-1") is None


def test_a_slow_recipe_is_answered_in_a_thread(start: Callable[..., App]) -> None:
    app = start(MEMORY + PLAIN.replace("Echo", "SlowEcho"))
    app.learn("first")
    assert app.post("/api/toy/predict", {"input": 5}).json()["output"]["asked"] == 5


def test_a_model_that_fails_is_counted_and_said(app: App) -> None:
    app.learn("first")
    said = app.post("/api/toy/predict", {"input": {"fail": True}})
    assert (said.status_code, said.json()["error"]["code"]) == (500, "prediction_failed")
    (model,) = app.project.ledger.find(Model, "toy")
    wait(lambda: app.project.ledger.tally(model.id).failed == 1)


def test_shadows_are_asked_where_nobody_waits(start: Callable[..., App]) -> None:
    app = start(MEMORY + PLAIN.replace("[1.0]", "[0.0, 0.5, 1.0]"))
    app.learn("first")
    app.post("/api/toy/train", {"force": True, "overrides": {"mark": "second"}})
    ledger = app.project.ledger
    shadow = wait(lambda: ledger.last(Model, "toy", ModelState.SHADOW))
    wait(lambda: any(s.model.id == shadow.id for s in app.serving.lives["toy"].lineup.shadows))
    for n in range(5):
        assert app.post("/api/toy/predict", {"input": {"n": n}}).json()["output"]["mark"] == "first"
    wait(lambda: ledger.tally(shadow.id).answered == 5)


def test_a_unit_stays_with_one_variant(start: Callable[..., App]) -> None:
    app = start(MEMORY + PLAIN.replace("[1.0]", "[0.5, 1.0]"))
    app.learn("first")
    app.post("/api/toy/train", {"force": True, "overrides": {"mark": "second"}})
    wait(lambda: app.serving.lives["toy"].lineup.canary)
    said: dict[str, set[str]] = {}
    for _ in range(3):
        for unit in map(str, range(30)):
            answer = app.post("/api/toy/predict", {"input": 1, "unit": unit}).json()
            said.setdefault(unit, set()).add(f"{answer['output']['mark']} {answer['model']['variant']}")
    assert all(len(one) == 1 for one in said.values())
    assert set.union(*said.values()) == {"first champion", "second canary"}


def test_a_crowd_is_sent_away_rather_than_kept_waiting(
    start: Callable[..., App], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = start(MEMORY + PLAIN.replace("Echo", "SlowEcho"))
    app.learn("first")
    monkeypatch.setattr("evergreen.http.desk._CROWD", 0)
    said = app.post("/api/toy/predict", {"input": 5})
    assert (said.status_code, said.json()["error"]["code"]) == (503, "overloaded")
