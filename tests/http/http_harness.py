"""A project with a small recipe, served in this process or in one of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import uvicorn

import evergreen
from evergreen.http.app import build
from evergreen.http.serving import Serving
from evergreen.project import Project

HERE = Path(__file__).parent
PLAIN = """
[loops.toy]
recipe = { use = "small_recipes:Echo" }
runner = { use = "inline" }
collect.consent = false
gate = { min_rows = 1, margin = 1.0 }
rollout.steps = [1.0]
trigger.auto = false
"""
MEMORY = '[ledger]\nuse = "memory"\n'


def write(folder: Path, text: str) -> Path:
    """Lay a project down."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "evergreen.toml"
    path.write_text(textwrap.dedent(text))
    return path


class App:
    """An application in this process, and what it serves."""

    def __init__(self, serving: Serving, http: httpx.Client) -> None:
        self.serving = serving
        self.project: Project = serving.project
        self.http = http

    def post(self, path: str, body: Any = None, **kw: Any) -> httpx.Response:
        return self.http.post(path, json=body, **kw) if body is not None else self.http.post(path, **kw)

    def learn(self, label: str, loop: str = "toy") -> int:
        """Let the loop learn a label; return the version that came of it."""
        return learn(self.http, label, loop)


def learn(http: Any, label: str, loop: str = "toy", headers: dict[str, str] | None = None) -> int:
    """Post samples, train, and wait until the version that came of it answers."""
    headers = headers or {}
    rows = [{"id": f"{label}-{i}", "input": {"n": i}, "label": label} for i in range(20)]
    assert http.post(f"/api/{loop}/samples", json=rows, headers=headers).status_code == 200
    before = len(http.get(f"/api/{loop}/models", headers=headers).json()["models"])
    asked = http.post(f"/api/{loop}/train", json={"force": True, "overrides": {"mark": label}}, headers=headers)
    assert asked.status_code == 202, asked.text

    def done() -> Any:
        found = http.get(f"/api/{loop}/models", headers=headers).json()["models"]
        serves = http.get("/health").json()["loops"][loop]["version"]
        return len(found) > before and found[0]["version"] == serves and serves

    return int(wait(done))


def wait(until: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait for something to become true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := until():
            return value
        time.sleep(0.02)
    raise AssertionError("it never came true")


@contextmanager
def running(folder: Path, text: str) -> Iterator[App]:
    """Serve a project from a thread of this process, over a real socket."""
    serving = Serving(evergreen.open(write(folder, text)))
    serving.start()
    sock = socket.create_server(("127.0.0.1", 0))
    quiet: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False, "proxy_headers": False}
    config = uvicorn.Config(build(serving), lifespan="off", ws="none", **quiet)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    try:
        wait(lambda: server.started)
        with httpx.Client(base_url=f"http://localhost:{sock.getsockname()[1]}", timeout=20) as http:
            yield App(serving, http)
    finally:
        serving.closing.set()
        server.should_exit = True
        thread.join()
        sock.close()
        serving.stop()
        serving.project.ledger.close()


class Process:
    """A server in a process of its own."""

    def __init__(self, folder: Path, *, port: int | None = 0, env: dict[str, str] | None = None, **kw: Any) -> None:
        self.folder = folder
        code = (
            "import evergreen; from evergreen.http.server import serve\n"
            f"serve(evergreen.open({str(folder / 'evergreen.toml')!r}), port={port!r}, **{kw!r}, "
            "ready=lambda url: print(url, flush=True))"
        )
        path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        self._said = folder.with_name(f"{folder.name}-{uuid4().hex}.stderr")  # a pipe nobody reads would fill up
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env={**os.environ, "PYTHONPATH": path, **(env or {})},
            )
        assert self.process.stdout is not None
        impatient = threading.Timer(120, self.process.kill)  # one that hangs is not waited for without end
        impatient.start()
        self.url = self.process.stdout.readline().strip()
        impatient.cancel()

    def end(self, signal: int = 15) -> tuple[int, str]:
        """Send a signal, wait for it and all it started; return the exit code and what was said on stderr."""
        if self.process.poll() is None:
            self.process.send_signal(signal)
        self.process.communicate(timeout=60)
        return self.process.returncode, self._said.read_text()
