"""Pages from elsewhere: which may read, which may change something, on the hot path as on the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from http_harness import MEMORY, PLAIN, App
from hypothesis import given
from hypothesis import strategies as st

from evergreen.http import auth
from evergreen.http.origins import Origins

LISTED = '[http]\ncors = ["https://viewer.example", "http://dev.example:*"]\n'
EVERYONE = '[http]\ncors = ["*"]\n'
HOT, WARM, OPERATOR = "/api/toy/predict", "/api/toy/feedback", "/api/toy/promote"

# settings, origin, path, may it
TABLE = [
    ("", "https://evil.example", HOT, False),
    ("", "http://localhost:3000", HOT, True),
    ("", "http://127.0.0.1:3000", OPERATOR, True),
    ("", "http://localhost.evil.example", HOT, False),
    ("", "null", HOT, False),
    (LISTED, "https://viewer.example", HOT, True),
    (LISTED, "https://viewer.example", WARM, True),
    (LISTED, "https://viewer.example", OPERATOR, True),
    (LISTED, "http://viewer.example", HOT, False),
    (LISTED, "http://dev.example:8080", HOT, True),
    (LISTED, "http://dev.example.evil.example:8080", HOT, False),
    (EVERYONE, "https://evil.example", HOT, True),
    (EVERYONE, "https://evil.example", "/api/toy/samples", True),
    (EVERYONE, "https://evil.example", WARM, True),
    (EVERYONE, "https://evil.example", OPERATOR, False),
    (EVERYONE, "https://evil.example", "/api/toy/train", False),
    (EVERYONE, "null", HOT, True),
]


@pytest.mark.parametrize("conf", ["", LISTED, EVERYONE])
def test_who_may_call_from_a_browser(start: Callable[..., App], conf: str) -> None:
    app = start(MEMORY + conf + PLAIN)
    for _, origin, path, may in (row for row in TABLE if row[0] == conf):
        asked = app.http.options(path, headers={"origin": origin, "access-control-request-method": "POST"})
        assert (asked.status_code, asked.headers.get("access-control-allow-origin")) == (
            (204, origin) if may else (403, None)
        ), (origin, path)
        said = app.post(path, {}, headers={"origin": origin})
        assert (said.headers.get("access-control-allow-origin") == origin) == may, (origin, path)
        assert (said.status_code == 403) == (not may), (origin, path, said.text)


def test_the_own_pages_may(app: App) -> None:
    own = f"http://{app.http.base_url.host}:{app.http.base_url.port}"
    assert app.post(OPERATOR, {"version": 1}, headers={"origin": own}).status_code == 404


@pytest.mark.parametrize(
    ("origin", "may"),
    [
        (None, True),  # not a browser
        ("{own}", True),
        ("https://models.example", True),  # by a proxy that keeps the name to itself
        ("http://localhost:3000", False),
        ("https://viewer.example", False),
        ("http://dev.example:8080", False),
        ("https://evil.example", False),
        ("null", False),
    ],
)
@pytest.mark.parametrize("path", [HOT, OPERATOR, "/loops/toy/train"])
def test_only_the_own_pages_act_for_who_is_signed_in(
    start: Callable[..., App], path: str, origin: str | None, may: bool
) -> None:
    app = start(MEMORY + LISTED + 'hosts = ["models.example"]\n' + PLAIN)
    id, _ = auth.create(app.project.ledger, "ann", "admin")
    app.serving.keys.read()
    cookie = {"cookie": f"{app.serving.sessions.cookie}={app.serving.sessions.seal(id)}"}
    own = f"http://{app.http.base_url.host}:{app.http.base_url.port}"
    named = {"origin": origin.format(own=own)} if origin else {}
    said = app.post(path, {"version": 1}, headers=cookie | named)
    assert (said.status_code == 403 and "signed in here" in said.text) == (not may), said.text


def test_a_page_from_elsewhere_that_hides_its_origin_may_not(app: App) -> None:
    assert app.post(HOT, {}, headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_reading_needs_no_origin_but_is_only_shown_to_those_who_may(start: Callable[..., App]) -> None:
    app = start(MEMORY + LISTED + PLAIN)
    for origin, may in (("https://viewer.example", True), ("https://evil.example", False)):
        said = app.http.get("/api/toy/models", headers={"origin": origin})
        assert said.status_code == 200
        assert (said.headers.get("access-control-allow-origin") == origin) == may


def test_a_page_may_read_who_answered(start: Callable[..., App]) -> None:
    app = start(MEMORY + EVERYONE + PLAIN)
    app.learn("first")
    said = app.post(HOT, {"input": 1}, headers={"origin": "https://x.example"})
    assert "x-model-version" in said.headers["access-control-expose-headers"]
    assert said.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in said.headers


def test_pages_cannot_be_framed_and_run_only_our_scripts(app: App) -> None:
    for path in ("/", "/health", "/docs", "/login"):
        head = app.http.get(path).headers
        assert "frame-ancestors 'none'" in head["content-security-policy"], path
        assert "unsafe" not in head["content-security-policy"]
        assert head["x-content-type-options"] == "nosniff"
        assert head["referrer-policy"] == "same-origin"


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_header_makes_it_stumble(origin: bytes, host: bytes) -> None:
    rules = Origins(("https://a.example",), ())
    assert rules.cors(origin, open=False) == [] or rules.trusted(origin)
