"""Keys, sessions, and strangers. The table of routes and roles has a file of its own: test_roles.py."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from http_harness import MEMORY, PLAIN, App, wait

from evergreen.core.errors import ConfigError, InvalidInput, NotFound
from evergreen.http import auth
from evergreen.http.server import serve
from evergreen.http.sessions import Sessions, cookies, secret

ROLES = ("none", "app", "reviewer", "operator", "admin")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def keys(app: App) -> dict[str, str]:
    made = {role: auth.create(app.project.ledger, f"the {role}", role)[1] for role in ROLES[1:]}
    app.serving.keys.read()
    return made


def test_the_history_names_who_asked(app: App, keys: dict[str, str]) -> None:
    app.post("/api/toy/samples", {"input": 1, "label": 1}, headers=bearer(keys["app"]))
    app.post("/api/toy/train", {"force": True, "why": "because"}, headers=bearer(keys["operator"]))
    events = app.http.get("/api/toy/history", headers=bearer(keys["app"])).json()["events"]
    assert any((e["by"], e["because"]) == ("the operator", "because") for e in events)


def test_a_key_is_kept_as_a_hash(app: App) -> None:
    ledger = app.project.ledger
    id, key = auth.create(ledger, "phone", "app")
    assert re.fullmatch(r"egk_[\w-]{43}", key)
    assert key not in str(ledger.recall_all("key"))
    (kept,) = auth.listing(ledger)
    assert (kept.id, kept.name, kept.role, kept.last4) == (id, "phone", auth.Role.APP, key[-4:])


@pytest.mark.parametrize(("name", "role"), [("x", "king"), ("x", "none"), ("", "app"), ("n" * 81, "app")])
def test_a_key_needs_a_name_and_a_role(app: App, name: str, role: str) -> None:
    with pytest.raises(InvalidInput):
        auth.create(app.project.ledger, name, role)


def test_either_header_carries_the_key(app: App, keys: dict[str, str]) -> None:
    for headers in (bearer(keys["app"]), {"authorization": f"bearer  {keys['app']}"}, {"X-API-Key": keys["app"]}):
        assert app.http.get("/api/toy/models", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/api/toy/models", "/api/toy/predict"])
def test_a_revoked_key_is_refused_soon(app: App, path: str) -> None:
    id, key = auth.create(app.project.ledger, "phone", "admin")
    auth.create(app.project.ledger, "other", "app")
    app.serving.keys.read()

    def status() -> int:
        return app.http.request("GET" if path.endswith("models") else "POST", path, headers=bearer(key)).status_code

    assert status() != 401
    auth.revoke(app.project.ledger, id)
    wait(lambda: status() == 401, 5)
    with pytest.raises(NotFound):
        auth.revoke(app.project.ledger, id)


def test_the_first_key_ends_what_strangers_may(app: App) -> None:
    assert app.http.get("/api/toy/models").status_code == 200
    auth.create(app.project.ledger, "phone", "app")
    wait(lambda: app.http.get("/api/toy/models").status_code == 401, 5)
    assert app.http.get("/health").status_code == 200


def test_keys_survive_a_ledger_that_is_away(app: App, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: str) -> dict[str, str]:
        raise OSError("the ledger is away")

    monkeypatch.setattr(app.project.ledger, "recall_all", away)
    time.sleep(1.1)
    said = app.http.post("/api/toy/predict", headers=bearer(keys["app"]), json={"input": 1})
    assert said.json()["error"]["code"] == "no_model"


@pytest.mark.parametrize("anonymous", ROLES)
def test_callers_without_a_key_have_the_role_that_was_set(start: Callable[..., App], anonymous: str) -> None:
    app = start(MEMORY + f'[http]\nanonymous = "{anonymous}"\n' + PLAIN)
    rank = ROLES.index(anonymous)
    assert (app.http.get("/api/toy/models").status_code == 200) == (rank >= 1)
    assert (app.post("/api/toy/train", {"overrides": {"x": 1}}).status_code == 400) == (rank >= 3)


# Strangers on this machine


@pytest.mark.parametrize("path", ["/health", "/api/toy/models", "/api/toy/predict", "/"])
def test_another_name_for_this_machine_is_refused(app: App, path: str) -> None:
    """DNS rebinding: a page elsewhere lets its own name point at 127.0.0.1."""
    method = "POST" if path.endswith("predict") else "GET"
    for host, refused in [
        ("evil.example", True),
        ("localhost.evil.example", True),
        ("evil.example:5001", True),
        ("", True),
        ("LOCALHOST", False),
        ("127.0.0.1:80", False),
        ("[::1]:9", False),
    ]:
        said = app.http.request(method, path, headers={"host": host})
        assert ("go by the name" in said.text) == refused, (host, said.text)


def test_names_that_were_listed_are_ours(start: Callable[..., App]) -> None:
    app = start(MEMORY + '[http]\nhosts = ["models.example"]\n' + PLAIN)
    assert app.http.get("/health", headers={"host": "models.example:443"}).status_code == 200


def test_it_does_not_listen_to_the_world_without_a_key(start: Callable[..., App]) -> None:
    app = start()
    with pytest.raises(ConfigError) as refused:
        serve(app.project, host="0.0.0.0", port=0)
    assert "evergreen keys create" in (refused.value.hint or "")


# Sessions of people


def test_a_session_is_a_key_that_can_be_revoked(app: App, keys: dict[str, str]) -> None:
    sealed = app.serving.sessions.seal(auth.listing(app.project.ledger)[0].id)
    cookie = {"cookie": f"x=1; {app.serving.sessions.cookie}={sealed}"}
    assert app.http.get("/api/toy/models", headers=cookie).status_code == 200
    forged = {"cookie": f"{app.serving.sessions.cookie}={sealed[:-2]}xx"}
    assert app.http.get("/api/toy/models", headers=forged).status_code == 401
    for key in auth.listing(app.project.ledger)[:-1]:
        auth.revoke(app.project.ledger, key.id)
    app.serving.keys.read()
    assert app.http.get("/api/toy/models", headers=cookie).status_code == 401


def test_signing_in_with_a_form(app: App, keys: dict[str, str]) -> None:
    page = app.http.get("/login")
    assert page.status_code == 200
    token = found(page)
    assert "HttpOnly" in page.headers["set-cookie"]
    assert app.http.post("/login", data={"key": keys["admin"], "csrf": "x"}).status_code == 403
    said = app.http.post("/login", data={"key": keys["admin"], "csrf": token, "next": "/"})
    assert said.status_code == 303
    cookie = said.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=lax", "Max-Age=43200"):
        assert part in cookie
    assert keys["admin"] not in cookie
    assert app.http.get("/api/toy/models").status_code == 200


def found(page: httpx.Response) -> str:
    token = re.search(r'name="?csrf"?[^>]*value="?([0-9a-f]{64})', page.text)
    assert token, page.text
    return token[1]


def test_the_secret_is_made_once_and_private(tmp_path: Any) -> None:
    made = secret(tmp_path / "state")
    assert secret(tmp_path / "state") == made
    assert (tmp_path / "state" / "secret").stat().st_mode & 0o777 == 0o600
    assert len(list((tmp_path / "state").iterdir())) == 1


def test_a_token_belongs_to_one_session() -> None:
    ours, theirs = Sessions(b"a" * 32), Sessions(b"b" * 32)
    assert ours.genuine(ours.token("me"), "me")
    assert not ours.genuine(ours.token("me"), "you")
    assert not ours.genuine(theirs.token("me"), "me")
    assert theirs.unseal(ours.seal("id")) is None
    assert ours.cookie != theirs.cookie


@pytest.mark.parametrize("raw", [None, b"", b";;", b"a", b"a=\xff; b=2", b"=x"])
def test_any_cookie_header_can_be_read(raw: bytes | None) -> None:
    assert isinstance(cookies(raw), dict)


def test_what_comes_through_a_proxy_is_not_this_machine(app: App) -> None:
    for header in ("x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-host", "x-forwarded-proto"):
        for method, path in (("GET", "/api/toy/models"), ("POST", "/api/toy/predict")):
            assert app.http.request(method, path, headers={header: "for=1.2.3.4"}).status_code == 403
    _, key = auth.create(app.project.ledger, "phone", "app")
    app.serving.keys.read()
    assert app.http.get("/api/toy/models", headers={"forwarded": "for=1.2.3.4", **bearer(key)}).status_code == 200
