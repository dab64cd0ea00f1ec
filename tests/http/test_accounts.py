"""Keys from their making to their end, sessions, headers, proxies, and the refusal to serve the world without a key."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_harness import MEMORY, PLAIN, App, wait, write
from test_auth import bearer, found

import evergreen
from evergreen.cli import main
from evergreen.core.errors import ConfigError, InvalidInput, NotFound
from evergreen.http import auth
from evergreen.http.auth import Keys
from evergreen.http.proxies import Proxies
from evergreen.http.server import serve

LATER = "x-forwarded-proto"


# Keys


def test_a_key_holds_for_as_long_as_was_said(app: App) -> None:
    ledger = app.project.ledger
    wall = datetime.now().timestamp()
    keys = Keys(ledger, wall=lambda: wall)
    id, key = auth.create(ledger, "phone", "app", timedelta(days=90))
    keys.read()
    assert keys.by_secret(key.encode()).id == id
    assert keys.by_session(id, "s") is not None
    wall += 90 * 86400 - 60
    assert keys.by_secret(key.encode()).id == id
    wall += 120
    with pytest.raises(auth.Unauthorized, match="expired"):
        keys.by_secret(key.encode())
    assert keys.by_session(id, "s") is None


@pytest.mark.parametrize("expires", [timedelta(0), timedelta(days=-1), timedelta(days=4000)])
def test_a_key_does_not_hold_for_nothing_or_for_ever(app: App, expires: timedelta) -> None:
    with pytest.raises(InvalidInput):
        auth.create(app.project.ledger, "phone", "app", expires)


def test_a_key_that_expires_does_not_open_the_server_to_everybody(app: App) -> None:
    auth.create(app.project.ledger, "only", "app", timedelta(milliseconds=1))
    wait(lambda: not auth.in_force(app.project.ledger))
    app.serving.keys.read()
    assert app.http.get("/api/toy/models").status_code == 401


def test_a_rotated_key_goes_over_to_a_new_one(app: App) -> None:
    ledger, serving = app.project.ledger, app.serving
    id, old = auth.create(ledger, "phone", "operator", timedelta(days=30))
    auth.create(ledger, "other", "app")
    made, new = auth.rotate(ledger, id, grace=timedelta(hours=1))
    serving.keys.read()
    for key in (old, new):
        assert app.http.get("/api/toy/models", headers=bearer(key)).status_code == 200
    known = {k.id: k for k in auth.listing(ledger)}
    assert (known[made].name, known[made].role) == ("phone", auth.Role.OPERATOR)
    for one, days in ((made, 30), (id, 1 / 24)):
        left = datetime.fromisoformat(known[one].expires or "") - datetime.fromisoformat(known[one].created)
        assert abs(left - timedelta(days=days)) < timedelta(minutes=1)
    _, newest = auth.rotate(ledger, made)
    serving.keys.read()
    assert app.http.get("/api/toy/models", headers=bearer(new)).status_code == 401
    assert app.http.get("/api/toy/models", headers=bearer(newest)).status_code == 200
    with pytest.raises(NotFound):
        auth.rotate(ledger, made)


def test_a_grace_never_makes_a_key_hold_longer(app: App) -> None:
    id, _ = auth.create(app.project.ledger, "phone", "app", timedelta(minutes=5))
    before = auth.listing(app.project.ledger)[0].expires
    auth.rotate(app.project.ledger, id, grace=timedelta(days=5))
    assert {k.id: k.expires for k in auth.listing(app.project.ledger)}[id] == before


def test_it_is_known_when_a_key_was_last_used(app: App) -> None:
    ledger = app.project.ledger
    id, key = auth.create(ledger, "phone", "app")
    idle, _ = auth.create(ledger, "idle", "app")
    app.serving.keys.read()
    app.http.get("/api/toy/models", headers=bearer(key))
    app.serving.keys.tell(sessions_s=1)
    assert set(auth.used(ledger)) == {id}
    assert abs(datetime.fromisoformat(auth.used(ledger)[id]).timestamp() - datetime.now().timestamp()) < 120
    auth.revoke(ledger, id)
    assert not auth.used(ledger)
    auth.revoke(ledger, idle)


def test_the_commands_about_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, PLAIN)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, rc: int = 0) -> tuple[str, str]:
        assert main(["keys", *words]) == rc
        said = capsys.readouterr()
        return said.out, said.err

    assert "no keys" in run("list")[0]
    first = json.loads(run("create", "ann", "--role", "operator", "--expires", "90d", "--json")[0])
    (row,) = json.loads(run("list", "--json")[0])
    assert row["expires"] > row["created"]
    assert row["last_used"] is None
    out, err = run("rotate", first["id"], "--grace", "24h")
    assert out.startswith("egk_")
    assert "holds for 24h more" in err
    assert first["key"] not in run("list")[0]
    for key in json.loads(run("list", "--json")[0]):
        _, err = run("revoke", key["id"])
    assert "It was the last one" in err
    assert "90d" in run("create", "bob", "--expires", "soon", rc=2)[1]
    assert "evergreen keys list" in run("rotate", "nothing", rc=1)[1]


# Sessions


def sign_in(app: App, key: str) -> str:
    """Sign in; return the cookie."""
    said = app.http.post("/login", data={"key": key, "csrf": found(app.http.get("/login")), "next": "/"})
    assert said.status_code == 303, said.text
    return str(said.cookies[app.serving.sessions.cookie])


def status(app: App, cookie: str) -> int:
    with httpx.Client(base_url=app.http.base_url) as other:
        return other.get("/api/toy/models", headers={"cookie": f"{app.serving.sessions.cookie}={cookie}"}).status_code


def test_a_session_begins_anew_at_every_sign_in_and_its_forms_with_it(app: App) -> None:
    """Who plants a cookie before somebody signs in has nothing afterwards."""
    _, key = auth.create(app.project.ledger, "ann", "admin")
    app.serving.keys.read()
    planted = app.http.get("/login")
    before = found(planted)
    first = sign_in(app, key)
    assert first not in planted.headers["set-cookie"]
    assert app.http.post("/loops/toy/train", data={"csrf": before}).status_code == 403
    assert found(app.http.get("/loops/toy")) != before
    app.http.cookies.clear()
    assert sign_in(app, key) != first


def test_signing_out_ends_the_session_for_whoever_has_its_cookie(app: App) -> None:
    _, key = auth.create(app.project.ledger, "ann", "admin")
    app.serving.keys.read()
    other = sign_in(app, key)
    app.http.cookies.clear()
    cookie = sign_in(app, key)
    assert (status(app, cookie), status(app, other)) == (200, 200)
    assert app.http.post("/logout", data={"csrf": found(app.http.get("/"))}).status_code == 303
    assert (status(app, cookie), status(app, other)) == (401, 200)
    elsewhere = Keys(app.project.ledger)
    elsewhere.read()
    sealed = app.serving.sessions.unseal(cookie)
    assert sealed is not None
    assert elsewhere.by_session(*sealed) is None
    app.serving.keys.tell(sessions_s=-1)  # once no cookie of it can be valid any more
    assert not app.project.ledger.recall_all("session.ended")


def test_a_revoked_key_signs_out_everywhere(app: App) -> None:
    id, key = auth.create(app.project.ledger, "ann", "admin")
    auth.create(app.project.ledger, "bob", "admin")
    app.serving.keys.read()
    cookies = []
    for _ in range(2):
        app.http.cookies.clear()
        cookies.append(sign_in(app, key))
    auth.revoke(app.project.ledger, id)
    wait(lambda: [status(app, cookie) for cookie in cookies] == [401, 401], 5)


# Headers


@pytest.mark.parametrize(
    "path", ["/", "/loops/toy", "/login", "/docs", "/health", "/openapi.json", "/nothing", "/audit"]
)
def test_every_answer_is_guarded(app: App, path: str) -> None:
    head = app.http.get(path).headers
    policy = dict(part.strip().partition(" ")[::2] for part in head["content-security-policy"].split(";"))
    assert "unsafe" not in head["content-security-policy"]
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["default-src"] in ("'self'", "'none'")
    assert head["x-content-type-options"] == "nosniff"
    assert head["referrer-policy"] == "same-origin"
    assert head["cross-origin-opener-policy"] == head["cross-origin-resource-policy"] == "same-origin"
    assert head["cache-control"] == "no-store"
    assert "server" not in head
    assert "strict-transport-security" not in head


def test_what_a_page_is_made_of_may_be_kept_by_browsers(app: App) -> None:
    assert "no-store" not in app.http.get("/static/evergreen.css").headers.get("cache-control", "")


# Proxies


def behind(start: Callable[..., App], proxies: str = '["127.0.0.0/8"]') -> App:
    return start(MEMORY + f'[http]\nproxies = {proxies}\nhosts = ["models.example"]\nanonymous = "app"\n' + PLAIN)


def test_behind_a_listed_proxy_https_is_heeded(start: Callable[..., App]) -> None:
    app = behind(start)
    secure = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.9", "host": "models.example"}
    said = app.http.get("/login", headers=secure)
    assert said.headers["strict-transport-security"] == "max-age=31536000"
    assert "Secure" in said.headers["set-cookie"]
    plain = app.http.get("/login", headers={"x-forwarded-for": "203.0.113.9"})
    assert "strict-transport-security" not in plain.headers
    assert "Secure" not in plain.headers["set-cookie"]


def test_of_others_nothing_is_believed(start: Callable[..., App]) -> None:
    app = behind(start, '["192.0.2.1"]')
    said = app.http.get("/login", headers={LATER: "https", "x-forwarded-for": "203.0.113.9"})
    assert "strict-transport-security" not in said.headers
    app.post("/api/toy/train", {}, headers={"x-forwarded-for": "203.0.113.9"})
    app.serving.audit.flush()
    from evergreen.http import audit

    assert {line.address for line in audit.read(app.project.ledger)} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("1.1.1.1, 203.0.113.9", "203.0.113.9"),  # what comes before was made up by the caller
        ("203.0.113.9, 127.0.0.5", "203.0.113.9"),
        ("unknown, 203.0.113.9, 127.0.0.5", "203.0.113.9"),
        ("203.0.113.9, nonsense", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
    ],
)
def test_the_caller_is_the_last_that_is_no_proxy(start: Callable[..., App], forwarded: str, address: str) -> None:
    from evergreen.http import audit

    app = behind(start)
    app.post("/api/toy/train", {}, headers={"x-forwarded-for": forwarded} if forwarded else {})
    app.serving.audit.flush()
    assert [line.address for line in audit.read(app.project.ledger)] == [address]


def test_behind_a_proxy_callers_do_not_share_a_bucket(start: Callable[..., App]) -> None:
    app = start(MEMORY + '[http]\nproxies = ["127.0.0.1"]\nrate = { anonymous = 1 }\nanonymous = "app"\n' + PLAIN)

    def call(n: int) -> int:
        return app.http.get("/api/toy/models", headers={"x-forwarded-for": f"203.0.113.{n}"}).status_code

    assert [call(1) for _ in range(8)][-1] == 429
    assert call(2) == 200


def test_a_proxy_that_is_no_address_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="proxies"):
        evergreen.open(write(tmp_path, MEMORY + '[http]\nproxies = ["nginx"]\n' + PLAIN))


def test_rubbish_is_no_address() -> None:
    proxies: Any = Proxies(None, ["::1", "10.0.0.0/8"])  # type: ignore[arg-type]
    assert [proxies.listed(a) for a in ("", "x", "::1", "10.1.2.3", "::ffff:10.1.2.3", "11.0.0.1")] == [
        False,
        False,
        True,
        True,
        True,
        False,
    ]


# The world


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_it_does_not_listen_to_the_world_without_a_key_that_holds(start: Callable[..., App], host: str) -> None:
    app = start()
    auth.create(app.project.ledger, "old", "admin", timedelta(milliseconds=1))
    wait(lambda: not auth.in_force(app.project.ledger))
    with pytest.raises(ConfigError) as refused:
        serve(app.project, host=host, port=0)
    assert "others could call" in str(refused.value)
    assert refused.value.field == "http.host"
    assert "evergreen keys create" in (refused.value.hint or "")


def test_the_command_says_so_and_ends(tmp_path: Path) -> None:
    write(tmp_path, '[http]\nhost = "0.0.0.0"\n')
    words = [sys.executable, "-m", "evergreen", "up", "--port", "0"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert said[0].startswith("error: others could call 0.0.0.0, and there is no key")
    assert said[1:] == [
        "where: http.host",
        "try:   Make a key: evergreen keys create --role admin NAME. Or say what callers without a key may do: "
        '`anonymous` in [http], for example "app".',
    ]
