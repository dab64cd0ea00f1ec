"""A system as its users have it: laid down by `evergreen init`, run by `evergreen up`, talked to over HTTP and files."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import evergreen
from evergreen.core.records import Event
from evergreen.templates.parima.viewers import COLUMNS, Viewers

sys.path.append(str(Path(__file__).parent))  # for `phones`

from phones import Phones

PROGRAM = Path(sys.executable).with_name("evergreen")
#: Longest wait for anything; a test that waits this long has failed.
PATIENCE_S = 300.0


class System:
    """One folder with a system in it, and its server."""

    def __init__(self, home: Path, template: str) -> None:
        self.home = home
        self.env: dict[str, str] = {}  # what the user has set beside
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.run("init", "--template", template, str(home), cwd=home.parent)
        self.http = httpx.Client(timeout=PATIENCE_S)

    def run(self, *words: str, cwd: Path | None = None, rc: int = 0) -> str:
        """Run a command in the folder; return what it printed."""
        done = subprocess.run(
            [PROGRAM, *words],
            cwd=cwd or self.home,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env=_env() | self.env,
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
                [PROGRAM, "up", "--port", "0"], cwd=self.home, stdout=out, stderr=out, env=_env() | self.env
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
        """Return what the server has printed, and what has happened in it."""
        told = subprocess.run(
            [PROGRAM, "history"], cwd=self.home, capture_output=True, text=True, env=_env() | self.env
        )
        return (self.home / "up.log").read_text() + told.stdout + told.stderr

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


class Parima(System):
    """PARIMA, and what its viewers and scripts do with it."""

    def configure(self, **training: Any) -> None:
        """Write config.json."""
        (self.home / "config.json").write_text(json.dumps({"parima": {"training": training}}))

    def hurry(self) -> None:
        """Spend no time on waiting: trainings get their share of a busy machine, rollouts are over at once."""
        self.edit('hold = "5m"', 'hold = "0.1s"')
        with (self.home / "evergreen.toml").open("a") as file:
            file.write('\n[loops.parima.runner]\nuse = "process"\nnice = 0\n')

    @staticmethod
    def csv(rows: Sequence[dict[str, Any]], columns: Sequence[str] = COLUMNS, *, header: bool = True) -> str:
        """Write rows as the viewer's log has them."""
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append decisions to the log, as the viewer does."""
        log = self.home / "data/training_logs/parima_decisions_log.csv"
        with log.open("a") as file:
            file.write(self.csv(list(rows), header=not file.tell()))

    def status(self) -> Any:
        """Return the training status."""
        return self.get("/api/parima/training/status")

    def history(self) -> list[dict[str, Any]]:
        """Return the lines of the history log."""
        path = self.home / "data/training_logs/training_history.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def models(self) -> list[dict[str, Any]]:
        """Return the versions, newest first."""
        return list(self.get("/api/parima/models")["models"])

    def collected(self) -> dict[str, int]:
        """Return how many samples there are."""
        return dict(json.loads(self.run("status", "parima", "--json"))["samples"])

    def runs(self) -> int:
        """Count the trainings that were ever asked for or begun."""
        project = self.open()
        with closing(project.ledger) as ledger:
            events = ledger.find(Event, "parima")
        return sum(e.what == "added" and e.subject.startswith("run ") for e in events)

    def idle(self) -> None:
        """Wait until no training is under way."""
        self.wait(lambda: not self.status()["training_in_progress"], "no training is under way")

    def train(self, **wish: Any) -> dict[str, Any]:
        """Train to the end; return the line of history that tells of it."""
        self.idle()
        before = len(self.history())
        answer = self.post("/api/parima/train", wish)
        assert answer.status_code == 200, answer.text
        ends = ("TRAINING_COMPLETED", "TRAINING_FAILED", "TRAINING_SKIPPED")
        told = self.wait(
            lambda: [line for line in self.history()[before:] if line["event_type"] in ends], "a training ends"
        )
        return dict(told[0])


class Backdoor(System):
    """Backdoor AI, and what its phones, scripts and workers do with it."""

    def train_here(self, recipe: str = 'model = "linear"') -> None:
        """Train on this machine, on the spot."""
        self.edit('use = "folder"', 'use = "process"\nnice = 0')
        self.edit('use = "intent"', f'use = "intent"\n{recipe}')

    @property
    def folder(self) -> Path:
        """Return the shared folder."""
        place = self.env.get("EVERGREEN_STORE")
        return Path(place.removeprefix("file://")) if place else self.home / ".evergreen/store"

    def learn(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Send interactions as a phone does."""
        answer = self.post("/api/ai/learn", batch)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def script(self, name: str, *words: str, rc: int = 0, cwd: Path | None = None) -> str:
        """Run one of the scripts; return what it printed."""
        done = subprocess.run(
            [sys.executable, name, *words],
            cwd=cwd or self.home,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env=_env() | self.env,
        )
        assert done.returncode == rc, done.stdout + done.stderr
        return done.stdout + done.stderr

    def triggers(self) -> list[dict[str, Any]]:
        """Return the trigger files, oldest first."""
        found = [json.loads(path.read_text()) for path in self.folder.glob("training_triggers/training_needed*.json")]
        return sorted(found, key=lambda said: str(said.get("created_at")))

    def train(self, reason: str = "test", *, force: bool = True) -> dict[str, Any]:
        """Train to the end; return the job."""
        answer = self.post("/api/ai/training/trigger", {"reason": reason, "force": force})
        assert answer.status_code == 200, answer.text
        id = answer.json()["job"]["id"]
        return self.ended(id)

    def ended(self, id: str) -> dict[str, Any]:
        """Wait until a job has ended; return it."""

        def over() -> Any:
            said = self.get("/api/ai/training/status")
            job = next(job for job in said["allJobs"] if job["id"] == id)
            return job if job["status"] in ("completed", "failed") else None

        return dict(self.wait(over, "a training ends"))

    def newest(self) -> str | None:
        """Return the version in service."""
        version = self.get("/api/ai/latest-model")["latestModelVersion"]
        return None if version is None else str(version)


KINDS = {"parima": Parima, "backdoor": Backdoor}


def _env() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k == "EVERGREEN_NICE" or not k.startswith("EVERGREEN_")} | {
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


@pytest.fixture(scope="session")
def lay_down(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a context manager that lays a system down, lets the caller change it, and ends its server."""

    @contextmanager
    def laid(template: str) -> Iterator[System]:
        system = KINDS.get(template, System)(tmp_path_factory.mktemp(template) / "system", template)
        try:
            yield system
        finally:
            system.down()

    return laid


@pytest.fixture(scope="session")
def parima(lay_down: Callable[..., Any]) -> Iterator[Parima]:
    """A server that trains when it is asked to, with 400 decisions in its log and one model live."""
    with lay_down("parima") as laid:
        laid.configure(autoTrain=False, minSamplesForTraining=100)
        laid.hurry()
        laid.append(Viewers(3).decisions(400))
        laid.up()
        laid.wait(lambda: laid.collected()["collected"] == 400, "the log is read")
        assert laid.train()["event_type"] == "TRAINING_COMPLETED"
        laid.wait(lambda: laid.get("/health")["model_loaded"], "the model is live")
        yield laid


@pytest.fixture(scope="session")
def backdoor(lay_down: Callable[..., Any]) -> Iterator[Backdoor]:
    """A server that trains on this machine when it is asked to, with 240 interactions and one model live."""
    with lay_down("backdoor") as laid:
        laid.train_here()
        laid.edit("min_new = 100 ", "auto = false\nmin_new = 100 ")
        laid.up()
        phones = Phones(1)
        for device in range(4):
            laid.learn(phones.batch(60, device=device, feedback={"rating": device + 2, "comment": "SECRET-COMMENT"}))
        job = laid.train("the first")
        assert job["status"] == "completed", job
        laid.wait(laid.newest, "a model is live")
        yield laid
