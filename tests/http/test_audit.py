"""The audit log: who did what, from where, and how it ended; durable, bounded, and without anything that was sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_harness import MEMORY, PLAIN, App, Process, wait, write
from test_auth import bearer

import evergreen
from evergreen.cli import main
from evergreen.core.ports import Ledger
from evergreen.http import audit, auth
from evergreen.http.audit import Audit, Line


@pytest.fixture
def keys(app: App) -> dict[str, str]:
    made = {role: auth.create(app.project.ledger, f"the {role}", role)[1] for role in ("app", "operator", "admin")}
    app.serving.keys.read()
    return made


@pytest.fixture
def ledger(app: App) -> Ledger:
    return app.project.ledger


def lines(app: App) -> list[Line]:
    app.serving.audit.flush()
    return audit.read(app.project.ledger)


def told(app: App) -> list[tuple[Any, ...]]:
    return [(a.who, a.role, a.via, a.what, a.loop, a.status, a.n) for a in reversed(lines(app))]


def test_what_a_person_changes_is_written_down_before_it_is_answered(app: App, keys: dict[str, str]) -> None:
    app.post("/api/toy/train", {"force": True, "why": "SECRET-WHY"}, headers=bearer(keys["operator"]))
    (line,) = audit.read(app.project.ledger)  # nothing was flushed
    assert (line.who, line.role, line.via) == ("the operator", "operator", "key")
    assert (line.what, line.loop, line.status, line.outcome) == ("POST /api/{loop}/train", "toy", 202, "done")
    assert line.address == "127.0.0.1"
    assert line.key in {k.id for k in auth.listing(app.project.ledger)}
    assert datetime.now(UTC) - datetime.fromisoformat(line.at) < timedelta(minutes=1)


def test_what_comes_in_masses_is_one_line(app: App, keys: dict[str, str]) -> None:
    for i in range(7):
        app.post("/api/toy/samples", {"id": f"SECRET-{i}", "input": 1, "label": 1}, headers=bearer(keys["app"]))
        app.post("/api/toy/predict", {"input": 1}, headers=bearer(keys["app"]))  # changes nothing
        app.http.get("/api/toy/models", headers=bearer(keys["app"]))
    for path in ("/api/toy/predict", "/api/toy/promote", "/api/SECRET/promote"):
        for _ in range(3):
            app.post(path, {}, headers=bearer("egk_SECRET"))
    app.post("/api/toy/promote", {}, headers=bearer(keys["app"]))
    app.http.get("/api/toy/models")
    assert sorted(told(app)) == [
        ("anonymous", "none", "anonymous", "GET /api/{loop}/models", "toy", 401, 1),
        ("the app", "app", "key", "POST /api/{loop}/promote", "toy", 403, 1),
        ("the app", "app", "key", "POST /api/{loop}/samples", "toy", 200, 7),
        ("unknown", "none", "key", "POST /api/{loop}/predict", "toy", 401, 3),
        ("unknown", "none", "key", "POST /api/{loop}/promote", "", 401, 3),
        ("unknown", "none", "key", "POST /api/{loop}/promote", "toy", 401, 3),
    ]


def test_a_key_that_has_expired_is_named(app: App, keys: dict[str, str]) -> None:
    id, key = auth.create(app.project.ledger, "once", "app", timedelta(milliseconds=1))
    wait(lambda: any(one.id == id and one.expired(time.time()) for one in auth.listing(app.project.ledger)))
    app.serving.keys.read()
    said = app.http.get("/api/toy/models", headers=bearer(key))
    assert (said.status_code, "has expired" in said.text) == (401, True)
    assert told(app)[0][0] == "once"


def test_signing_in_and_out_are_told(app: App, keys: dict[str, str]) -> None:
    from test_auth import found

    token = found(app.http.get("/login"))
    app.http.post("/login", data={"key": "egk_SECRET", "csrf": token})
    app.http.post("/login", data={"key": keys["admin"], "csrf": token})
    app.http.post("/logout", data={"csrf": found(app.http.get("/"))})
    said = [(who, via, what, status) for who, _, via, what, _, status, _ in told(app)]
    assert sorted(said) == [
        ("anonymous", "anonymous", "POST /login", 401),
        ("the admin", "session", "POST /login", 303),
        ("the admin", "session", "POST /logout", 303),
    ]


def test_nothing_that_was_sent_goes_into_it(app: App, keys: dict[str, str]) -> None:
    test_what_comes_in_masses_is_one_line(app, keys)
    app.post("/SECRET/api?SECRET=SECRET", {"SECRET": 1}, headers={"x-api-key": "SECRET"})
    app.http.get("/loops/SECRET?said=SECRET", headers={"cookie": "SECRET=SECRET", "user-agent": "SECRET"})
    lines(app)
    kept = json.dumps(
        {day: app.project.ledger.recall_all(f"audit/{day}") for day in app.project.ledger.recall_all("audit")}
    )
    assert "SECRET" not in kept
    assert not any(key in kept for key in keys.values())


def test_a_flood_of_callers_is_a_bounded_number_of_lines(ledger: Ledger) -> None:
    log = Audit(ledger)
    for i in range(5_000):
        log.count(Line("anonymous", "none", "anonymous", "GET /", 401, address=f"10.0.{i // 256}.{i % 256}"))
    log.flush()
    found = audit.read(ledger)
    assert len(found) <= 501
    assert sum(line.n for line in found) == 5_000


def test_lines_wait_while_the_ledger_is_away(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Audit(ledger)

    def away(*_: Any) -> None:
        raise OSError("the ledger is away")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "remember", away)
        log.write(Line("ann", "admin", "key", "POST /x", 200))
        log.count(Line("bob", "app", "key", "POST /y", 200))
        log.flush()
        log.flush()
    assert audit.read(ledger) == []
    log.flush()
    assert {line.who for line in audit.read(ledger)} == {"ann", "bob"}


def test_counting_loses_nothing_among_threads(ledger: Ledger) -> None:
    log = Audit(ledger)
    line = Line("ann", "app", "key", "POST /x", 200)
    counters = [threading.Thread(target=lambda: [log.count(line) for _ in range(2_000)]) for _ in range(4)]
    for one in counters:
        one.start()
    while any(one.is_alive() for one in counters):
        log.flush()
    log.flush()
    assert sum(line.n for line in audit.read(ledger)) == 8_000


def test_it_is_read_from_the_newest_on_and_forgotten_by_the_day(ledger: Ledger) -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    log = Audit(ledger, now=lambda: now)
    for days in range(5):
        now = datetime(2026, 3, 1 + days, 12, tzinfo=UTC)
        log.write(Line(f"day {days}", "admin", "key", "POST /x", 200))
    assert [line.who for line in audit.read(ledger, limit=2)] == ["day 4", "day 3"]
    since = datetime(2026, 3, 3, 12, tzinfo=UTC)
    assert [line.who for line in audit.read(ledger, since=since)] == ["day 4", "day 3", "day 2"]
    audit.sweep(ledger, since)
    assert [line.who for line in audit.read(ledger)] == ["day 4", "day 3", "day 2"]
    assert not ledger.recall_all("audit/2026-03-01")


def test_it_outlives_a_server_that_is_killed(launch: Callable[..., Process], tmp_path: Path) -> None:
    folder = tmp_path / "project"
    project = evergreen.open(write(folder, PLAIN))
    _, key = auth.create(project.ledger, "ann", "operator")
    project.ledger.close()
    server = launch(None, folder=folder)
    said = httpx.post(f"{server.url}/api/toy/train", json={"force": True}, headers=bearer(key))
    assert said.status_code == 202
    server.end(9)
    project = evergreen.open(folder / "evergreen.toml")
    assert [line.what for line in audit.read(project.ledger)] == ["POST /api/{loop}/train"]
    project.ledger.close()


def test_the_page_shows_it_to_administrators(app: App, keys: dict[str, str]) -> None:
    app.post("/api/toy/cancel", {}, headers=bearer(keys["app"]))
    app.serving.audit.flush()
    html = app.http.get("/audit", headers=bearer(keys["admin"])).text
    assert "POST /api/{loop}/cancel" in html
    assert "refused 403" in html
    assert 'href="/audit"' in app.http.get("/", headers=bearer(keys["admin"])).text
    for role in ("app", "operator"):
        assert 'href="/audit"' not in app.http.get("/", headers=bearer(keys[role])).text


def test_the_command_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, PLAIN)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        assert main(list(words)) == 0
        return capsys.readouterr().out

    assert "Nothing was changed" in run("audit")
    key = run("keys", "create", "ann", "--role", "operator").strip()
    (line,) = json.loads(run("audit", "--json", "--since", "1h"))
    assert (line["what"], line["via"], line["outcome"]) == ("evergreen keys create operator", "command", "done")
    assert key not in json.dumps(line)
    assert "evergreen keys create operator" in run("audit", "--since", "2026-01-01")
    assert json.loads(run("audit", "--json", "--since", "2999-01-01")) == []
    assert main(["audit", "--since", "yesterday"]) == 2


def test_its_thread_writes_by_itself(start: Callable[..., App], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PAUSE_S", 0.05)
    app = start(MEMORY + PLAIN)
    app.post("/api/toy/samples", {"input": 1, "label": 1})
    (line,) = wait(lambda: audit.read(app.project.ledger))
    assert (line.who, line.via, line.n) == ("local", "open", 1)
