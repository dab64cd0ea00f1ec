"""Doors: a system's own paths win over ours, on the fast path too, behind the same keys and origins."""

from __future__ import annotations

from collections.abc import Callable

from http_harness import PLAIN, App

MEMORY = '[ledger]\nuse = "memory"\n'
DOOR = 'doors = [{ use = "small_recipes:Door" }]\n'


def test_its_paths_win_over_ours(start: Callable[..., App]) -> None:
    app = start(DOOR + MEMORY + PLAIN)
    assert app.http.get("/api/toy/models").json() == {"door": "routes", "loops": ["toy"]}
    said = app.http.post("/api/toy/predict", content=b"hello")
    assert (said.status_code, said.json()) == (203, {"door": "hot", "heard": "hello"})
    assert app.http.get("/api/toy/history").status_code == 200  # what it does not claim stays ours


def test_its_fast_path_is_guarded_like_ours(start: Callable[..., App]) -> None:
    app = start(DOOR + MEMORY + '[http]\ncors = ["*"]\nmax_body = 1024\n' + PLAIN)
    elsewhere = {"origin": "https://x.example"}
    for path in ("/api/toy/predict", "/decide"):
        said = app.http.post(path, content=b"hello", headers=elsewhere)
        assert said.headers["access-control-allow-origin"] == "https://x.example"
        asked = app.http.options(path, headers={**elsewhere, "access-control-request-method": "POST"})
        assert asked.status_code == 204
        large = app.http.post(path, content=b"x" * 2000)
        assert (large.status_code, large.json()["door"]) == (413, "refused")
        assert app.http.post(path, headers={"host": "evil.example"}).status_code == 403
        assert app.http.post(path, headers={"x-api-key": "no"}).status_code == 401


def test_what_it_raises_it_explains_itself(start: Callable[..., App]) -> None:
    app = start(DOOR + MEMORY + PLAIN)
    said = app.http.post("/decide", content=b"raise")
    assert (said.status_code, said.json()["door"]) == (400, "refused")
