"""Pages over HTTP: forms without script, roles, errors, signing in, and what is live."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from http_harness import MEMORY, PLAIN, App, wait

from evergreen.http import auth


class Page(HTMLParser):
    """What a browser would make of a page, as far as the tests ask."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == name]


def check(html: str) -> Page:
    """Check what holds for every page: a strict policy would block nothing, and it can be found one's way in."""
    page = Page(html)
    for tag, attrs in page.tags:
        assert "style" not in attrs, tag
        assert tag != "style"
        assert not [name for name in attrs if name.startswith("on")], attrs
        assert tag != "script" or (attrs.get("src") or "").startswith("/static/")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    labels = {attrs.get("for") for attrs in page.all("label")}
    for attrs in page.all("input"):
        named = attrs.get("type") in ("hidden", "checkbox") or "hidden" in attrs or attrs.get("id") in labels
        assert named, attrs
    for attrs in page.all("section"):
        assert attrs.get("aria-labelledby") in ids
    assert len(page.all("main")) == len(page.all("h1")) == 1
    assert page.all("html") == [{"lang": "en"}]
    return page


def token(app: App, path: str = "/loops/toy") -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', app.http.get(path).text)
    assert found
    return found[1]


def test_a_newcomer_is_told_the_next_command(start: Callable[..., App]) -> None:
    app = start(MEMORY, "empty")
    html = app.http.get("/").text
    check(html)
    assert "evergreen init" in html


def test_a_loop_without_samples_says_how_to_bring_some(app: App) -> None:
    for path in ("/", "/loops/toy"):
        html = app.http.get(path).text
        check(html)
        assert "evergreen collect toy FILE.csv" in html


def test_the_pages_of_a_living_loop(app: App) -> None:
    app.learn("one")
    app.learn("two")
    app.post("/api/toy/samples", [{"id": "bad", "input": {"n": "<script>x</script>"}, "label": "l"}])
    for path in ("/", "/loops/toy", "/loops/toy?before=9", "/loops/toy?all", "/loops/toy/models/2", "/login"):
        answer = app.http.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "<script>x" not in answer.text
        check(answer.text)
    loop = app.http.get("/loops/toy").text
    assert "v2 became champion" in loop
    assert 'href="/api/toy/models/2/download"' in loop
    assert app.http.get("/api/toy/models/2/download").status_code == 200


def test_what_the_pages_are_made_of_is_served_from_here(app: App) -> None:
    page = Page(app.http.get("/").text)
    wanted = [a.get("href") for a in page.all("link")] + [a.get("src") for a in page.all("script") + page.all("img")]
    for path in wanted:
        assert path is not None
        assert app.http.get(path).status_code == 200, path


def test_training_promoting_and_rolling_back_work_without_javascript(app: App) -> None:
    app.learn("one")
    app.learn("two")
    csrf = token(app)

    def send(verb: str, **form: str) -> Any:
        return app.http.post(f"/loops/toy/{verb}", data={"csrf": csrf, **form})

    back = send("rollback", why="it says odd things")
    assert back.status_code == 303
    assert back.headers["location"].startswith("/loops/toy?said=Rolled+back%3A+v1+answers.&")
    assert "Rolled back: v1 answers." in app.http.get(back.headers["location"]).text
    refused = send("promote", version="2", why="I like it")
    assert refused.status_code == 409
    assert 'role="alert"' in refused.text
    check(refused.text)
    forced = send("promote", version="2", why="I like it", force="on")
    assert "said=v2+is+champion+now.&" in forced.headers["location"]
    assert app.http.get("/health").json()["loops"]["toy"]["version"] == 2
    asked = send("train", force="on")
    assert asked.status_code == 303
    assert wait(lambda: "v3" in app.http.get("/loops/toy").text)


@pytest.mark.parametrize(
    ("verb", "form", "status"),
    [
        ("rollback", {"why": "  "}, 400),
        ("rollback", {"why": "x"}, 409),
        ("promote", {"why": "x"}, 400),
        ("promote", {"why": "x", "version": "9"}, 404),
        ("promote", {"why": "x", "version": "-1"}, 400),
        ("cancel", {}, 404),
    ],
)
def test_what_cannot_be_done_is_said_on_the_same_page(app: App, verb: str, form: dict[str, str], status: int) -> None:
    answer = app.http.post(f"/loops/toy/{verb}", data={"csrf": token(app), **form})
    assert answer.status_code == status
    assert 'role="alert"' in answer.text
    assert "<h1>toy</h1>" in answer.text
    check(answer.text)


def test_a_forged_form_does_nothing(app: App) -> None:
    for csrf in ("", "0" * 64):
        answer = app.http.post("/loops/toy/train", data={"csrf": csrf})
        assert answer.status_code == 403
    assert app.http.get("/api/toy/training/status").json()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/loops/nope", "No loop &#34;nope&#34;"),
        ("/loops/toy/models/9", "has no model version 9"),
        ("/loops/toy?before=x", "Before is not a whole number"),
        ("/nowhere", "There is no such page"),
        ("/loops/toy/train", "Method Not Allowed"),
        ("/static/nothing.css", "There is no such page"),
    ],
)
def test_errors_are_pages_too(app: App, path: str, said: str) -> None:
    answer = app.http.get(path, headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert answer.status_code in (400, 404, 405)
    assert re.search(rf"<h1[^>]*>[^<]*{re.escape(said)}", answer.text), answer.text
    check(answer.text)


def test_programs_are_told_of_errors_as_before(app: App) -> None:
    for path, accept in (("/nowhere", "*/*"), ("/nowhere", "application/json"), ("/api/nowhere", "text/html")):
        answer = app.http.get(path, headers={"accept": accept})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_what_a_form_led_to_is_said_once_and_nobody_else_can_say_it(app: App) -> None:
    done = app.http.post("/loops/toy/train", data={"csrf": token(app), "force": "on"}, follow_redirects=False)
    where = done.headers["location"]
    assert "A training was asked for." in app.http.get(where).text
    assert "A training was asked for." not in app.http.get(where.partition("&mark")[0]).text
    assert "call this number" not in app.http.get(where.replace("A+training", "Now+call+this+number")).text
    for mark in ("", "ä", "0" * 24):
        forged = app.http.get("/loops/toy", params={"said": "call this number", "mark": mark})
        assert forged.status_code == 200
        assert "call this" not in forged.text


def test_with_keys_strangers_sign_in_and_lesser_roles_only_look(start: Callable[..., App]) -> None:
    app = start(MEMORY + PLAIN, "locked")
    key = {role: auth.create(app.project.ledger, role, role)[1] for role in ("app", "operator")}
    app.serving.keys.read()
    away = app.http.get("/loops/toy")
    assert (away.status_code, away.headers["location"]) == (303, "/login?next=%2Floops%2Ftoy")
    csrf = token(app, away.headers["location"])
    wrong = app.http.post("/login", data={"csrf": csrf, "key": "egk_wrong", "next": "/loops/toy"})
    assert wrong.status_code == 401
    check(wrong.text)
    for role in ("app", "operator"):
        inside = app.http.post("/login", data={"csrf": token(app, "/login"), "key": key[role], "next": "/loops/toy"})
        assert (inside.status_code, inside.headers["location"]) == (303, "/loops/toy")
        html = app.http.get("/loops/toy").text
        check(html)
        buttons = [b for b in Page(html).all("button") if "primary" in (b.get("class") or "")]
        assert buttons
        assert all(("disabled" in b) == (role == "app") for b in buttons)
        done = app.http.post("/loops/toy/train", data={"csrf": token(app), "force": "on"})
        assert done.status_code == (403 if role == "app" else 303)
        app.http.post("/logout", data={"csrf": token(app)})
        assert app.http.get("/").status_code == 303


def test_signing_in_never_leads_elsewhere(app: App) -> None:
    assert 'value="/"' in _next(app, "//elsewhere.example")
    assert 'value="/"' in _next(app, "https://elsewhere.example")


def _next(app: App, to: str) -> str:
    auth.create(app.project.ledger, "someone", "admin")
    app.serving.keys.read()
    found = re.search(r'name="next" value="[^"]*"', app.http.get("/login", params={"next": to}).text)
    assert found
    return found[0]


def test_a_listening_page_hears_of_changes(app: App) -> None:
    with app.http.stream("GET", "/events/toy") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        first = next(line for line in lines if line.startswith("data:"))
        app.post("/api/toy/samples", [{"id": "s1", "input": {"n": 1}, "label": "l"}])
        assert next(line for line in lines if line.startswith("data:")) != first
    assert app.http.get("/events/nope").status_code == 404
