"""A project as its users have it: `evergreen up` in a process of its own, commands, HTTP; and all that it holds."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import evergreen
from evergreen.core.records import Dataset, Event, Model, Run
from evergreen.core.states import SampleState

#: Where PARIMA's viewers log their decisions.
LOG = "data/training_logs/parima_decisions_log.csv"
PROGRAM = Path(sys.executable).with_name("evergreen")
#: Longest wait for anything; a test that waits this long has failed.
PATIENCE_S = 180.0


def wait(true: Callable[[], Any], what: str) -> Any:
    """Wait until something is so, and return it."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.03)
    raise AssertionError(f"waited in vain: {what}")


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without settings of Evergreen's own."""
    return {k: v for k, v in os.environ.items() if k == "EVERGREEN_NICE" or not k.startswith("EVERGREEN_")} | {
        "COLUMNS": "200",
        **more,
    }


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str


def command(home: Path, *words: str, **env: str) -> Said:
    """Run `evergreen …` in a folder."""
    done = subprocess.run(
        [PROGRAM, *words], cwd=home, capture_output=True, text=True, timeout=PATIENCE_S, env=environment(**env)
    )
    return Said(done.returncode, done.stdout, done.stderr)


class Server:
    """A running `evergreen up`."""

    def __init__(self, home: Path, process: subprocess.Popen[bytes], url: str) -> None:
        self.home = home
        self.process = process
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=30)

    def get(self, path: str) -> Any:
        """Read something that must be there."""
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None) -> Any:
        """Tell the server something that it must accept."""
        answer = self.http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def train(self, loop: str, why: str = "a test") -> int:
        """Ask for a training; return the version that came of it once it was judged."""
        before = len(self.get(f"/api/{loop}/models")["models"])
        self.post(f"/api/{loop}/train", {"force": True, "why": why})

        def judged() -> int:
            made = self.get(f"/api/{loop}/models")["models"]
            return made[0]["version"] if len(made) > before and made[0]["state"] not in ("candidate", "passed") else 0

        return int(wait(judged, "the training leaves a model that is judged"))


@contextmanager
def serving(home: Path, **env: str) -> Iterator[Server]:
    """Run `evergreen up` there until the block ends."""
    note = home / ".evergreen" / "server.json"
    note.unlink(missing_ok=True)
    with (home.parent / f"{home.name}.log").open("ab") as out:
        process = subprocess.Popen(
            [PROGRAM, "up", "--port", "0"], cwd=home, stdout=out, stderr=out, env=environment(**env)
        )
    log = home.parent / f"{home.name}.log"
    try:
        wait(lambda: note.exists() or process.poll() is not None, "the server starts")
        assert process.poll() is None, log.read_text()
        server = Server(home, process, wait(lambda: _url(note), "the server says where it is"))
        try:
            yield server
        finally:
            server.http.close()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, log.read_text()


def _url(note: Path) -> str:
    try:
        return str(json.loads(note.read_text())["url"])
    except ValueError:
        return ""


def holdings(home: Path) -> Mapping[str, Any]:
    """Return all that a project holds: its records, its samples, its counts, and the files of its folder."""
    project = evergreen.open(home / "evergreen.toml")
    with closing(project.ledger) as ledger:
        held: dict[str, Any] = {"revision": ledger.revision()}
        for name in project.loops:
            held[f"{name} counts"] = ledger.counts(name)
            held[f"{name} rejects"] = len(ledger.rejects(name, limit=10_000))
            held[f"{name} samples"] = [
                (s.id, s.state, s.label)
                for state in SampleState
                for labelled in (True, False)
                for s in ledger.samples(name, state=state, labelled=labelled)
            ]
            models = ledger.find(Model, name)
            held[f"{name} records"] = [*models, *ledger.find(Run, name), *ledger.find(Dataset, name)]
            held[f"{name} events"] = len(ledger.find(Event, name))
            held[f"{name} traffic"] = [ledger.tally(m.id) for m in models]
    return held | {"files": files(home)}


def files(home: Path) -> Mapping[str, str]:
    """Return every file below a folder with a digest; the ledger's and the log's own by name only."""
    found = {}
    for path in sorted(p for p in home.rglob("*") if p.is_file()):
        name = path.relative_to(home).as_posix()
        if path.name.endswith(("-wal", "-shm", "-journal")):
            continue  # come and go with whoever reads
        alive = path.suffix in (".db", ".sqlite", ".sqlite3", ".log") and path.is_relative_to(home / ".evergreen")
        found[name] = "" if alive else hashlib.sha256(path.read_bytes()).hexdigest()
    return found
