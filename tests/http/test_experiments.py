"""Experiments through the door of programs and of people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from http_harness import App, wait


def test_one_is_started_read_and_stopped(start: Callable[..., App]) -> None:
    app = start()
    first, second = app.learn("a"), app.learn("b")
    assert app.http.get("/api/toy/experiment").status_code == 404
    body = {"versions": [first], "shares": [0.5], "why": "is it as good?", "deadline": "7d"}
    said = app.post("/api/toy/experiment", body)
    assert said.status_code == 201, said.text
    began = said.json()
    assert (began["state"], [a["version"] for a in began["arms"]]) == ("running", [second, first])
    assert app.post("/api/toy/experiment", body).status_code == 409

    marks = {}
    for unit in map(str, range(60)):
        answer = app.post("/api/toy/predict", {"input": {"n": 1}, "unit": unit}).json()
        marks[unit] = answer["output"]["mark"]
    assert set(marks.values()) == {"a", "b"}
    for unit, mark in marks.items():  # the same meets the same
        again = app.post("/api/toy/predict", {"input": {"n": 1}, "unit": unit}).json()
        assert again["output"]["mark"] == mark

    def exposed() -> Any:
        arms = app.http.get("/api/toy/experiment").json()["arms"]
        return {a["version"]: a["exposed"] for a in arms} if sum(a["exposed"] for a in arms) == 60 else None

    counted = wait(exposed)
    assert counted == {second: list(marks.values()).count("b"), first: list(marks.values()).count("a")}

    ended = app.post("/api/toy/experiment/stop", {"why": "enough"}).json()
    assert (ended["state"], ended["because"]) == ("ended", "stopped by local: enough")
    assert "| v1 |" in ended["markdown"]
    assert app.post("/api/toy/experiment/stop").status_code == 404
    assert app.post("/api/toy/predict", {"input": {"n": 1}, "unit": "0"}).json()["output"]["mark"] == "b"


def test_what_makes_no_sense_is_refused_in_words(app: App) -> None:
    app.learn("a")
    good = {"versions": [1], "shares": [0.5], "why": "a test"}
    for wrong, field in (
        ({"deadline": "soon"}, "deadline"),
        ({"deadline": "9" * 150 + "d"}, "deadline"),
        ({"shares": [2.0]}, "shares"),
        ({"shares": []}, "shares"),
        ({"versions": [1]}, "versions"),
        ({"why": ""}, "why"),
    ):
        said = app.post("/api/toy/experiment", good | wrong)
        assert said.status_code == 400, said.text
        assert said.json()["error"]["field"] == field


def test_a_person_starts_one_on_the_page_and_ends_it(app: App) -> None:
    app.learn("a")
    app.learn("b")
    page = app.http.get("/loops/toy").text
    assert "No versions have been compared in live traffic." in page
    csrf = page.split('name="csrf" value="')[1].split('"')[0]

    def send(verb: str, **form: str) -> str:
        return app.http.post(f"/loops/toy/{verb}", data={"csrf": csrf, **form}, follow_redirects=True).text

    assert "shares are numbers" in send("experiment", versions="1", shares="half", why="a test").replace(
        "Shares", "shares"
    )
    begun = send("experiment", versions="v1", shares="0.5", deadline="7d", why="which is better?")
    assert "The experiment has begun." in begun
    assert "Which is better?" in begun
    assert "Experiment started" in begun
    assert 'action="/loops/toy/stop"' in begun
    ended = send("stop", why="seen enough")
    assert "Stopped by local: seen enough" in ended
    assert "Experiment ended" in ended
    assert app.http.get("/api/toy/experiment").json()["state"] == "ended"
