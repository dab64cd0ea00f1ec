"""A server tells its subscribers: while it works, after it was killed in the midst of a message, and asked by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from http_harness import PLAIN, App, Process, learn, write

import evergreen
from evergreen.core.records import Event
from webhook_receiver import Receiver


def hooked(receiver: Receiver, more: str = "") -> str:
    return f'[[subscribers]]\nuse = "webhook"\nurl = "{receiver.url}"\n{more}\n{PLAIN}'


def history(folder: Path) -> list[Event]:
    project = evergreen.open(folder / "evergreen.toml")
    try:
        return list(project.ledger.find(Event, None))
    finally:
        project.ledger.close()


def test_killed_between_a_delivery_and_its_note_nothing_is_lost_and_what_comes_twice_has_one_id(
    launch: Callable[..., Process], receiver: Receiver
) -> None:
    server = launch(hooked(receiver))
    deaths = 0

    def die() -> int:
        """Take the event, and let the server die before it hears so."""
        nonlocal deaths
        if deaths < 3 and len(receiver.posts) % 3 == 0:
            deaths += 1
            server.process.kill()
            server.process.wait()
        return 200

    receiver.answer = die
    with httpx.Client(base_url=server.url, timeout=20) as http:
        rows = [{"id": str(i), "input": {"n": i}, "label": "x"} for i in range(20)]
        assert http.post("/api/toy/samples", json=rows).status_code == 200
        http.post("/api/toy/train", json={"force": True, "overrides": {"mark": "x"}})
        receiver.wait(lambda: deaths == 1)
    for n in (2, 3):
        server = launch(None, folder=server.folder)
        receiver.wait(lambda n=n: deaths == n)
    server = launch(None, folder=server.folder)
    champion = receiver.wait(lambda: [e for e in receiver.events if e["kind"] == "new champion"])
    receiver.wait(lambda: json.loads(listed(server.folder))[0]["waiting"] == 0)
    server.end()
    told = [e["id"] for e in receiver.events]
    assert len(told) > len(set(told))
    assert list(dict.fromkeys(told)) == [e.id for e in history(server.folder)]
    assert champion[0]["model"]["state"] == "champion"
    assert all(head["webhook-id"] == e["id"] for (head, _), e in zip(receiver.posts, receiver.events, strict=True))


def evergreen_says(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "evergreen", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    return done.stdout


def listed(folder: Path) -> str:
    return evergreen_says(folder, "notify", "list", "--json")


def test_on_the_command_line(launch: Callable[..., Process], receiver: Receiver) -> None:
    server = launch(hooked(receiver, 'name = "hook"\nevents = ["new champion"]'))
    with httpx.Client(base_url=server.url, timeout=20) as http:
        learn(http, "first")
    receiver.wait(lambda: len(receiver.posts) == 1)
    (one,) = receiver.wait(lambda: [s for s in json.loads(listed(server.folder)) if s["told"]])
    assert (one["name"], one["events"], one["waiting"], one["error"]) == ("hook", ["new champion"], 0, None)
    assert "hook (webhook)" in evergreen_says(server.folder, "notify", "list")
    assert "hook took it" in evergreen_says(server.folder, "notify", "test", "hook")
    assert receiver.events[1]["kind"] == "test"
    evergreen_says(server.folder, "notify", "replay", "hook", "--from", "0")
    receiver.wait(lambda: len(receiver.posts) == 3)
    assert receiver.events[2]["id"] == receiver.events[0]["id"]
    receiver.answer = lambda: 500
    evergreen_says(server.folder, "notify", "replay", "hook", "--from", "0")

    def said() -> Any:
        status = json.loads(evergreen_says(server.folder, "status", "--json"))
        return status["subscribers"][0]["tries"] and status["subscribers"][0]

    failing = receiver.wait(said)
    assert failing["waiting"] == 1
    assert "answered 500" in failing["error"]
    assert "hook cannot be told since" in evergreen_says(server.folder, "status")


def test_nobody_is_told_where_nobody_asked(tmp_path: Path, start: Callable[..., App]) -> None:
    write(tmp_path / "quiet", PLAIN)
    assert "Nobody is told" in evergreen_says(tmp_path / "quiet", "notify", "list")
    assert start().serving.outbox.postmen == {}


def test_the_log_has_the_history_and_says_what_each_line_is_about(launch: Callable[..., Process]) -> None:
    server = launch(PLAIN, env={"SHOP_TOKEN": "hunter22"})
    with httpx.Client(base_url=server.url, timeout=20) as http:
        learn(http, "first")
        http.post("/api/toy/rollback", json={"why": "hunter22"}, headers={"X-Request-Id": "order-17"})
        http.post("/api/toy/predict", json={"input": {"fail": True}})
    assert server.end()[0] == 0
    text = (server.folder / ".evergreen" / "server.log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    told = {line["event_id"]: line for line in lines if line["logger"] == "evergreen.history"}
    happened = history(server.folder)
    assert set(told) == {event.id for event in happened}
    for event in happened:
        line = told[event.id]
        assert line["loop"] == event.loop
        assert line.get(event.noun, event.about) == event.about
        assert line["event"].startswith(event.kind)
    assert "hunter22" not in text


def test_of_two_servers_one_tells_and_when_it_is_killed_the_other_does(
    launch: Callable[..., Process], receiver: Receiver
) -> None:
    first = launch(hooked(receiver))
    second = launch(None, folder=first.folder)
    with httpx.Client(base_url=second.url, timeout=20) as http:
        learn(http, "first")
        receiver.wait(lambda: json.loads(listed(first.folder))[0]["waiting"] == 0)
        first.end(9)
        learn(http, "second")
    receiver.wait(lambda: json.loads(listed(first.folder))[0]["waiting"] == 0)
    second.end()
    told = [event["id"] for event in receiver.events]
    assert list(dict.fromkeys(told)) == [event.id for event in history(first.folder)]
    assert len(told) - len(set(told)) <= 1  # what was on its way when the first was killed
