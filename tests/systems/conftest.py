"""A system as its users have it: laid down by `evergreen init`, run by `evergreen up`, talked to over HTTP and files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import evergreen

PROGRAM = Path(sys.executable).with_name("evergreen")
#: Longest wait for anything; a test that waits this long has failed.
PATIENCE_S = 90.0


class System:
    """One folder with a system in it, and its server."""

    def __init__(self, home: Path, template: str) -> None:
        self.home = home
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.run("init", "--template", template, str(home), cwd=home.parent)
        self.http = httpx.Client(timeout=30)

    def run(self, *words: str, cwd: Path | None = None, rc: int = 0) -> str:
        """Run a command in the folder; return what it printed."""
        done = subprocess.run(
            [PROGRAM, *words], cwd=cwd or self.home, capture_output=True, text=True, timeout=PATIENCE_S, env=_env()
        )
        assert done.returncode == rc, done.stdout + done.stderr
        return done.stdout + done.stderr if rc else done.stdout

    def edit(self, old: str, new: str, name: str = "evergreen.toml") -> None:
        """Change a file, as a user would."""
        file = self.home / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def up(self) -> None:
        """Start the server; return when it answers."""
        note = self.home / ".evergreen" / "server.json"
        note.unlink(missing_ok=True)
        with (self.home / "up.log").open("ab") as out:
            self.process = subprocess.Popen(
                [PROGRAM, "up", "--port", "0"], cwd=self.home, stdout=out, stderr=out, env=_env()
            )
        self.wait(note.exists, "the server starts")
        self.wait(lambda: note.read_text().endswith("}"), "the server says where it is")
        self.url = json.loads(note.read_text())["url"]
        assert self.http.get(self.url + "/health").status_code == 200

    def kill(self) -> None:
        """Let the server die at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def down(self) -> None:
        """End the server in order."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(PATIENCE_S) == 0, self.said()
        self.http.close()

    def said(self) -> str:
        """Return what the server has printed."""
        return (self.home / "up.log").read_text()

    def get(self, path: str, **more: Any) -> Any:
        """Read something from the server."""
        answer = self.http.get(self.url + path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """Tell the server something; bytes go as they are."""
        if isinstance(body, bytes):
            return self.http.post(self.url + path, content=body, **more)
        return (
            self.http.post(self.url + path, json=body, **more) if body is not None else self.http.post(self.url + path)
        )

    def wait(self, true: Callable[[], Any], what: str) -> Any:
        """Wait until something is so, and return it."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if found := true():
                return found
            assert self.process is None or self.process.poll() is None, f"the server ended: {self.said()}"
            time.sleep(0.05)
        raise AssertionError(f"waited in vain: {what}\n{self.said()}")

    def open(self) -> evergreen.Project:
        """Open the same project in this process, beside the server."""
        return evergreen.open(self.home / "evergreen.toml")


def _env() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("EVERGREEN_")} | {"NO_COLOR": "1", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def lay_down(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a context manager that lays a system down, lets the caller change it, and ends its server."""

    @contextmanager
    def laid(template: str) -> Iterator[System]:
        system = System(tmp_path_factory.mktemp(template) / "system", template)
        try:
            yield system
        finally:
            system.down()

    return laid
