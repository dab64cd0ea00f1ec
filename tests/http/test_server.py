"""The server as a process: starting, ending, dying, and swapping models under load."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_harness import PLAIN, App, Process, learn, wait, write

import evergreen
from evergreen.core.errors import ConfigError
from evergreen.http.server import serve

#: What an idle server may hold resident, in megabytes.
FOOTPRINT = 120


def test_it_serves_says_where_and_ends_when_told(launch: Callable[..., Process]) -> None:
    server = launch()
    note = server.folder / ".evergreen" / "server.json"
    assert json.loads(note.read_text()) == {"pid": server.process.pid, "url": server.url}
    health = httpx.get(f"{server.url}/health").json()
    assert health["status"] == "ok"
    assert health["version"] == evergreen.__version__
    assert server.end()[0] == 0
    assert not note.exists()
    lines = [json.loads(line) for line in (server.folder / ".evergreen" / "server.log").read_text().splitlines()]
    assert [line["event"].split()[0] for line in lines] == ["evergreen", "ended"]


@pytest.mark.parametrize("signal", [2, 15])
def test_what_runs_is_answered_before_it_ends(launch: Callable[..., Process], signal: int) -> None:
    server = launch(PLAIN.replace("Echo", "SlowEcho"))
    with httpx.Client(base_url=server.url, timeout=20) as http:
        learn(http, "first")
        answers: list[httpx.Response] = []
        slow = {"input": {"slow": True}, "id": "last"}
        caller = threading.Thread(target=lambda: answers.append(httpx.post(f"{server.url}/api/toy/predict", json=slow)))
        caller.start()
        threading.Event().wait(0.4)
    assert server.end(signal)[0] == 0
    caller.join()
    assert answers[0].json()["output"]["mark"] == "first"
    again = launch(None, folder=server.folder)  # and what was answered is written down
    said = httpx.post(f"{again.url}/api/toy/feedback", json={"id": "last", "label": "yes"})
    assert said.json() == {"accepted": 1, "duplicates": 0, "id": "last"}


def test_nothing_that_was_acknowledged_is_lost_when_it_is_killed(launch: Callable[..., Process]) -> None:
    server = launch()
    acknowledged: list[str] = []

    def send(who: int) -> None:
        with httpx.Client(base_url=server.url) as http:
            for i in range(10_000):
                row = {"id": f"{who}-{i}", "input": i, "label": 1}
                try:
                    said = http.post("/api/toy/samples", json=row)
                except httpx.HTTPError:
                    return
                if said.status_code == 200:
                    acknowledged.append(row["id"])

    senders = [threading.Thread(target=send, args=(who,)) for who in range(4)]
    for sender in senders:
        sender.start()
    wait(lambda: len(acknowledged) > 200)
    server.end(9)
    for sender in senders:
        sender.join()
    again = launch(None, folder=server.folder)
    rows = [{"id": id, "input": 0, "label": 1} for id in acknowledged]
    said = httpx.post(f"{again.url}/api/toy/samples", json=rows, timeout=20).json()
    assert said == {"accepted": 0, "duplicates": len(acknowledged)}


def test_after_a_promotion_is_answered_nobody_hears_another_version(launch: Callable[..., Process]) -> None:
    server = launch()
    with httpx.Client(base_url=server.url, timeout=20) as http:
        first, second = learn(http, "first"), learn(http, "second")
        stop = threading.Event()
        failed: list[Any] = []

        def ask() -> None:
            with httpx.Client(base_url=server.url, timeout=20) as own:
                while not stop.is_set():
                    said = own.post("/api/toy/predict", json={"input": 1})
                    if said.status_code != 200:
                        failed.append(said.text)

        callers = [threading.Thread(target=ask) for _ in range(2)]
        for caller in callers:
            caller.start()
        wrong = []
        for turn in range(20):
            version = (first, second)[turn % 2]
            said = http.post("/api/toy/promote", json={"version": version, "why": "a test", "force": True})
            assert said.status_code == 200, said.text
            for _ in range(5):
                heard = http.post("/api/toy/predict", json={"input": 1}).headers["x-model-version"]
                wrong += [] if heard == str(version) else [(turn, heard)]
        back = http.post("/api/toy/rollback", json={"why": "a test"}).json()
        heard = http.post("/api/toy/predict", json={"input": 1}).headers["x-model-version"]
        stop.set()
        for caller in callers:
            caller.join()
    assert (wrong, failed) == ([], [])
    assert heard == str(back["version"]) == str(first)


def test_a_version_can_be_downloaded(launch: Callable[..., Process], tmp_path: Path) -> None:
    import io
    import zipfile

    server = launch()
    with httpx.Client(base_url=server.url, timeout=20) as http:
        version = learn(http, "first")
        said = http.get(f"/api/toy/models/{version}/download")
    assert f"toy-v{version}.zip" in said.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(said.content)) as file:
        assert file.read("mark.txt") == b"first"
    assert not list((server.folder / ".evergreen").glob("download-*"))


def test_it_starts_even_if_a_model_cannot_be_loaded(launch: Callable[..., Process]) -> None:
    import shutil

    server = launch()
    with httpx.Client(base_url=server.url, timeout=20) as http:
        learn(http, "first")
    server.end()
    for folder in ("cache", "store"):
        shutil.rmtree(server.folder / ".evergreen" / folder)
    again = launch(None, folder=server.folder)
    health = httpx.get(f"{again.url}/health").json()
    assert health["status"] == "degraded"
    assert "v1" in health["loops"]["toy"]["trouble"]
    assert httpx.post(f"{again.url}/api/toy/predict", json={"input": 1}).status_code == 503


def test_a_port_that_is_taken_is_named(start: Callable[..., App]) -> None:
    app = start()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=str(port)) as refused:
            serve(app.project, port=port)
    assert refused.value.field == "http.port"
    assert "--port 0" in (refused.value.hint or "")


def test_the_port_may_come_from_the_environment(launch: Callable[..., Process]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = launch(port=None, env={"EVERGREEN_PORT": str(port)})
    assert server.url == f"http://127.0.0.1:{port}"


def test_a_port_that_is_none_is_refused(start: Callable[..., App], monkeypatch: pytest.MonkeyPatch) -> None:
    app = start()
    monkeypatch.setenv("EVERGREEN_PORT", "http")
    with pytest.raises(ConfigError, match="EVERGREEN_PORT"):
        serve(app.project)


def test_with_a_key_it_listens_to_everybody(launch: Callable[..., Process], tmp_path: Path) -> None:
    from evergreen.http import auth

    project = evergreen.open(write(tmp_path / "public", PLAIN))
    _, key = auth.create(project.ledger, "phone", "app")
    project.ledger.close()
    server = launch(None, folder=tmp_path / "public", host="0.0.0.0")
    url = server.url.replace("0.0.0.0", "127.0.0.1")
    assert httpx.get(f"{url}/api/toy/models", headers={"host": "any.example"}).status_code == 401
    said = httpx.get(f"{url}/api/toy/models", headers={"host": "any.example", "x-api-key": key})
    assert said.status_code == 200


def test_an_idle_server_is_small(launch: Callable[..., Process]) -> None:
    psutil = pytest.importorskip("psutil")
    server = launch()
    with httpx.Client(base_url=server.url, timeout=20) as http:
        learn(http, "first")
        http.get("/")
        http.get("/metrics")
    assert psutil.Process(server.process.pid).memory_info().rss / 1e6 < FOOTPRINT
    modules = json.loads(loaded(server.folder))
    assert not {"sklearn", "torch", "scipy", "pandas"} & set(modules)


def loaded(folder: Path) -> str:
    """Say what is imported once everything that serves has been."""
    import subprocess
    import sys

    code = (
        "import sys, json, evergreen, evergreen.http.server, evergreen.http.docs, evergreen.http.openapi\n"
        f"evergreen.open({str(folder / 'evergreen.toml')!r})\n"
        "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    here = str(Path(__file__).parent)
    import os

    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": here}
    ).stdout
