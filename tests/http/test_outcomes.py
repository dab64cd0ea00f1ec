"""Outcomes over HTTP: joined at any age, by id or session, by any server; counted once, corrected in their place."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_harness import MEMORY, PLAIN, App, Process, learn, wait

import evergreen
from evergreen.client import Client
from evergreen.core.records import Model, Sample
from evergreen.core.states import ModelState

REPEATS = PLAIN + "collect.repeat_is_correction = true\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def ask(app: App, n: Any = 4, **more: Any) -> dict[str, Any]:
    said: dict[str, Any] = app.post("/api/toy/predict", {"input": {"n": n}, **more}).json()
    return said


def tell(app: App, **said: Any) -> tuple[int, int]:
    answer = app.post("/api/toy/feedback", said)
    assert answer.status_code == 200, answer.text
    return answer.json()["accepted"], answer.json()["duplicates"]


def written(folder: Path, id: str) -> Sample | None:
    project = evergreen.open(folder / "evergreen.toml")
    with closing(project.ledger) as ledger:
        return ledger.sample("toy", id)


def champion(app: App) -> Model:
    (model,) = app.project.ledger.find(Model, "toy", ModelState.CHAMPION)
    return model


def judged(app: App) -> tuple[int, int]:
    tally = app.project.ledger.tally(champion(app).id)
    return tally.judged, tally.right


def outcomes(app: App) -> list[Sample]:
    return [s for s in app.project.ledger.samples("toy", labelled=False) if s.kind == "feedback"]


def test_a_label_joins_the_prediction_once_and_another_replaces_it(app: App) -> None:
    app.learn("first")
    output = ask(app, id="p-1")["output"]
    assert app.post("/api/toy/feedback", {"id": "p-1", "label": output}).json() == {
        "accepted": 1,
        "duplicates": 0,
        "id": "p-1",
    }
    assert judged(app) == (1, 1)
    assert tell(app, id="p-1", label=output) == (0, 1)
    assert tell(app, id="p-1", label="no") == (1, 0)
    assert judged(app) == (1, 0)
    (told,) = app.project.ledger.samples("toy", origin="feedback")
    assert (told.kind, told.input, told.label, told.output, told.right) == ("feedback", {"n": 4}, "no", output, False)
    assert app.project.ledger.counts("toy", origin="feedback").usable == 1


def test_figures_come_beside_labels_or_alone(app: App) -> None:
    app.learn("first")
    ids = [ask(app)["id"] for _ in range(3)]
    assert tell(app, id=ids[0], score=4) == (1, 0)
    assert tell(app, id=ids[0], score=4.0) == (0, 1)
    assert tell(app, id=ids[0], score=2) == (1, 0)
    assert tell(app, id=ids[1], score=-1.5, label="no") == (1, 0)
    assert tell(app, id=ids[2], label="no") == (1, 0)
    (served,) = app.http.get("/api/toy/rollout").json()["in_service"]
    traffic = served["traffic"]
    assert (traffic["judged"], traffic["right"], traffic["scored"], traffic["mean_score"]) == (2, 0, 2, 0.25)
    assert app.project.ledger.tally(champion(app).id).score_sq == 4 + 2.25
    assert len(list(app.project.ledger.samples("toy", origin="feedback"))) == 2  # what has no label teaches nothing
    assert app.project.ledger.counts("toy", origin="feedback").unlabelled == 0


@pytest.mark.parametrize("said", ["long", "é" * 100, "x" * 200, "x" * 199 + "y"])
def test_ids_of_any_length_are_told_apart(app: App, said: str) -> None:
    app.learn("first")
    for id in (said, said[:-1] + "z"):
        ask(app, id=id)
        assert tell(app, id=id, label="no") == (1, 0)
    assert judged(app) == (2, 0)


def test_labels_that_come_late_are_joined_after_a_restart_and_by_another_server(launch: Callable[..., Process]) -> None:
    first = launch(PLAIN)
    with httpx.Client(base_url=first.url, timeout=20) as http:
        learn(http, "first")
        said = http.post("/api/toy/predict", json={"input": {"n": 1}, "session": "s"}).json()
        second = launch(None, folder=first.folder)
        with httpx.Client(base_url=second.url, timeout=20) as other:
            told = other.post("/api/toy/feedback", json={"id": said["id"], "label": said["output"]})
            assert told.json() == {"accepted": 1, "duplicates": 0, "id": said["id"]}
            told = other.post("/api/toy/feedback", json={"session": "s", "score": 1})
            assert told.json()["id"] == said["id"]
            again = http.post("/api/toy/feedback", json={"id": said["id"], "label": said["output"]})
            assert again.json()["duplicates"] == 1
            assert other.post("/api/toy/predict", json={"input": {"n": 1}, "session": "s", "id": "newer"}).is_success
            wait(lambda: written(first.folder, "newer"))  # what another server has not written yet is not known here
            assert http.post("/api/toy/feedback", json={"session": "s", "score": 1}).json()["id"] == "newer"
        second.end()
    first.end(9)
    third = launch(None, folder=first.folder)
    with httpx.Client(base_url=third.url, timeout=20) as http:
        corrected = http.post("/api/toy/feedback", json={"id": said["id"], "label": "no", "score": 3})
        assert corrected.json()["accepted"] == 1
        (served,) = http.get("/api/toy/rollout").json()["in_service"]
        traffic = served["traffic"]
        assert [traffic[k] for k in ("judged", "right", "scored", "mean_score")] == [1, 0, 2, 2.0]


def test_what_is_not_written_down_yet_is_joined_all_the_same(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    app.learn("first")
    monkeypatch.setattr("evergreen.http.desk._PAUSE", 30.0)
    monkeypatch.setattr("evergreen.http.desk._RECENT", 1)
    app.serving.desks["toy"]._recent._most = 1
    for n in range(20):
        ask(app, id=f"p{n}", session=f"s{n % 5}")
    assert app.project.ledger.sample("toy", "p0") is None
    assert tell(app, id="p0", label="no") == (1, 0)
    assert app.post("/api/toy/feedback", {"session": "s3", "score": 1}).json()["id"] == "p18"
    app.serving.desks["toy"].flush()
    wait(lambda: app.project.ledger.sample("toy", "p0"))
    assert tell(app, id="p0", label="no") == (0, 1)
    assert judged(app) == (1, 0)


def test_a_session_stands_for_its_newest_prediction(app: App) -> None:
    app.learn("first")
    ids = [ask(app, session="s")["id"], ask(app, session="t")["id"], ask(app, unit="u")["id"]]
    joined = [app.post("/api/toy/feedback", {"session": s, "label": "no"}).json() for s in "stu"]
    assert [j["id"] for j in joined] == ids
    newest = ask(app, session="s")["id"]
    assert app.post("/api/toy/feedback", {"session": "s", "score": 1}).json()["id"] == newest
    said = app.post("/api/toy/feedback", {"session": "s", "id": "p", "score": 1})
    assert (said.status_code, said.json()["error"]["field"]) == (400, "id")


def test_a_session_is_forgotten_after_a_while_and_may_be_told_of_late(start: Callable[..., App]) -> None:
    app = start(MEMORY + PLAIN + 'collect.correction_within = "1h"\n')
    app.learn("first")
    id = ask(app, session="s")["id"]
    assert app.post("/api/toy/feedback", {"session": "s", "score": 1, "ago": 7200}).status_code == 404
    assert app.post("/api/toy/feedback", {"session": "s", "score": 1, "ago": 0}).json()["id"] == id
    late = start(MEMORY + PLAIN + 'collect.correction_within = "0s"\n', "other")
    late.learn("first")
    ask(late, session="s")
    said = late.post("/api/toy/feedback", {"session": "s", "score": 1})
    assert (said.status_code, said.json()["error"]["field"]) == (404, "session")


def test_all_of_a_session_meet_one_model(start: Callable[..., App]) -> None:
    app = start(MEMORY + PLAIN.replace("[1.0]", "[0.5, 1.0]"))
    app.learn("first")
    app.post("/api/toy/train", {"force": True, "overrides": {"mark": "second"}})
    wait(lambda: app.serving.lives["toy"].lineup.canary)
    met = {s: {ask(app, session=s)["model"]["version"] for _ in range(5)} for s in map(str, range(12))}
    assert {len(versions) for versions in met.values()} == {1}
    assert {min(versions) for versions in met.values()} == {1, 2}


def test_a_repeated_question_is_a_correction_only_where_that_is_wanted(start: Callable[..., App]) -> None:
    plain = start()
    plain.learn("first")
    for _ in range(2):
        ask(plain, text="turn on the light", session="s")
    app = start(MEMORY + REPEATS, "repeats")
    app.learn("first")

    def say(text: str, session: str | None = "s") -> str:
        about = {"session": session} if session else {}
        return str(app.post("/api/toy/predict", {"input": {"text": text}, **about}).json()["id"])

    first = say("Turn on the light")
    say("turn on the lights", session="t")
    say("Turn on the light", session=None)
    weather = say("what is the weather like?")
    assert tell(app, session="s", score=1) == (1, 0)
    again = say("What is the weather like")
    told = wait(lambda: app.project.ledger.sample("toy", f"{weather}.feedback"))
    assert (told.origin, told.right, told.label, told.score) == ("feedback", None, None, 1.0)  # it was spoken of before
    say("what's the weather like?")
    implied = wait(lambda: app.project.ledger.sample("toy", f"{again}.feedback"))
    assert (implied.origin, implied.right, implied.label, implied.model) == (
        "correction",
        False,
        None,
        champion(app).id,
    )
    assert judged(app) == (1, 0)
    assert tell(app, id=again, label="weather") == (1, 0)
    assert judged(app) == (1, 0)
    assert first + ".feedback" not in [s.id for s in outcomes(app)]
    assert outcomes(plain) == []


def test_feedback_finds_samples_too(app: App) -> None:
    app.post("/api/toy/samples", {"id": "old", "input": {"n": 8}})
    assert tell(app, id="old", label="yes") == (1, 0)
    (told,) = app.project.ledger.samples("toy", origin="feedback")
    assert (told.input, told.label, told.right, told.model) == ({"n": 8}, "yes", None, None)


def test_feedback_on_nothing_needs_the_input(app: App) -> None:
    said = app.post("/api/toy/feedback", {"id": "?", "label": "yes"})
    assert (said.status_code, said.json()["error"]["field"]) == (404, "id")
    assert tell(app, id="?", label="yes", input={"n": 1}) == (1, 0)


def test_without_consent_nothing_is_joined(start: Callable[..., App]) -> None:
    app = start(MEMORY + PLAIN.replace("collect.consent = false", ""))
    rows = [{"id": str(i), "input": {"n": i}, "label": "a", "consent": True} for i in range(9)]
    app.post("/api/toy/samples", rows)
    app.post("/api/toy/train", {"force": True})
    wait(lambda: app.http.get("/health").json()["loops"]["toy"]["version"])
    ask(app, id="p", session="s")
    assert app.post("/api/toy/feedback", {"id": "p", "label": "no"}).status_code == 404
    assert app.post("/api/toy/feedback", {"session": "s", "label": "no"}).status_code == 404
    assert app.post("/api/toy/feedback", {"id": "p", "label": "no", "input": {"n": 1}}).status_code == 403
    ask(app, id="q", session="s", consent=True)
    assert tell(app, session="s", label="no") == (1, 0)


def test_shadows_are_compared_with_the_answer_that_was_sent(start: Callable[..., App]) -> None:
    app = start(MEMORY + PLAIN.replace("[1.0]", "[0.0, 1.0]").replace(":Echo", ":Parrot"))
    app.learn("first")
    app.post("/api/toy/train", {"force": True, "overrides": {"mark": "second"}})
    ledger = app.project.ledger
    shadow = wait(lambda: ledger.last(Model, "toy", ModelState.SHADOW))
    wait(lambda: app.serving.lives["toy"].lineup.shadows)
    for n in range(6):
        ask(app, n)
    tally = wait(lambda: (t := ledger.tally(shadow.id)).compared == 6 and t)
    assert (tally.answered, tally.agreed) == (6, 2)
    served = app.http.get("/api/toy/rollout").json()["in_service"]
    assert [s["traffic"]["agreed"] for s in served] == [2, 0]


def test_a_spool_that_is_sent_twice_to_a_server_that_is_killed_counts_once(
    launch: Callable[..., Process], tmp_path: Path
) -> None:
    port = free_port()
    server = launch(PLAIN, port=port)
    with httpx.Client(base_url=server.url, timeout=20) as http:
        learn(http, "first")
        ids = [http.post("/api/toy/predict", json={"input": {"n": n}}).json()["id"] for n in range(20)]
        wait(lambda: http.get("/api/toy/status").json()["samples"]["unlabelled"] == 20)
    server.end(9)
    with Client(server.url, spool=tmp_path / "spool", background=False) as client:
        for n, id in enumerate(ids):
            client.feedback("toy", id, "no", score=n)
            client.feedback("toy", id, score=1)
        waiting = client.waiting
    for _ in range(2):
        server = launch(None, folder=server.folder, port=port)
        with Client(server.url, spool=tmp_path / "spool", background=False) as client:
            shutil.copytree(tmp_path / "spool", tmp_path / "kept")
            lost = client.flush()
            assert lost.refused == lost.left == 0
            traffic = client._call("GET", "/api/toy/rollout")["in_service"][0]["traffic"]
        server.end(9)
        shutil.rmtree(tmp_path / "spool")
        (tmp_path / "kept").rename(tmp_path / "spool")  # as after a power cut that undid what was not synced
        assert (waiting, traffic["judged"], traffic["scored"], traffic["mean_score"]) == (40, 20, 20, 1.0)
