"""`evergreen demo`: the whole loop in under three minutes, on this machine, with nothing made up but the viewers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.resources import as_file, files
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from evergreen.cli.load import Load
from evergreen.core.errors import EvergreenError, Unavailable

LOOP = "parima"
LOG = "data/training_logs/parima_decisions_log.csv"
#: Longest time in which nothing moves; the whole takes about two minutes on two cores, longer on a busy machine.
PATIENCE_S = 300.0


class Story:
    """A project in a folder of its own, its server, the viewers that use it, and what is told of it."""

    def __init__(self, home: Path, console: Console) -> None:
        self.home = home
        self.console = console
        self.viewers = import_module("evergreen.templates.parima.viewers")
        self.people = self.viewers.Viewers(seed=7)
        self.url = ""
        self.http = httpx.Client(timeout=PATIENCE_S)
        self.load: Load | None = None

    def get(self, path: str) -> Any:
        """Ask the server."""
        answer = self.http.get(self.url + path)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: Any) -> Any:
        """Tell the server."""
        answer = self.http.post(self.url + path, json=body)
        answer.raise_for_status()
        return answer.json()

    def say(self, title: str, text: str) -> None:
        """Open a chapter."""
        self.console.print(f"\n[bold green]{title}[/]  {text}")

    def decide(self, n: int, **kind: bool) -> None:
        """Let the viewers make decisions and write them to their log, as they always did."""
        draft, log = self.home / "decisions.csv", self.home / LOG
        self.viewers.append(draft, self.people.decisions(n, **kind))
        header, _, rows = draft.read_bytes().partition(b"\n")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab", buffering=0) as file:  # at once: a training begins with all of them or with none
            file.write(rows if file.tell() else header + b"\n" + rows)
        draft.unlink()
        self.console.print(f"  {n} decisions appended to {LOG}", style="dim")

    def wait(self, what: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Show how far the loop is until `done` says so of its models and status. Raises `Unavailable` when nothing moves."""
        columns = (SpinnerColumn(), TextColumn("  {task.description}"), BarColumn(24), TimeElapsedColumn())
        seen, since = "", monotonic()
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=None)
            while monotonic() - since < PATIENCE_S:
                now = self.get(f"/api/{LOOP}/status")
                models = self.get(f"/api/{LOOP}/models")["models"]
                now["models"] = {m["version"]: m for m in models}
                run = now["run"] or {}
                bar.update(
                    task,
                    description=_describe(what, now),
                    total=run.get("total") or None,
                    completed=run.get("step") or 0,
                )
                if done(now):
                    return dict(now)
                if seen != (seen := _position(now)):
                    since = monotonic()
                sleep(0.3)
        raise Unavailable(f"{what}: nothing has moved for {PATIENCE_S:.0f} s", hint=f"Look into {self.home}")

    def ask(self, question: Any) -> None:
        """Ask for a decision until there is a first one: a model is champion a moment before it is loaded."""
        begin = monotonic()
        while (answer := self.http.post(f"{self.url}/api/{LOOP}/predict", json=question)).status_code != 200:
            if monotonic() - begin > PATIENCE_S:
                raise Unavailable(f"the first model does not answer: {answer.text}", hint=f"Look into {self.home}")
            sleep(0.1)


def run(*, folder: Path | None = None, stay: bool | None = None) -> None:
    """Tell the story. `folder` keeps the project; `stay` leaves the dashboard up until Ctrl-C (default: on a terminal)."""
    console = Console()
    home = folder or Path(tempfile.mkdtemp(prefix="evergreen-demo-"))
    if (home / "evergreen.toml").exists():
        raise EvergreenError(f"{home} holds a project already", hint="Give another folder.")
    begin = monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is ended, too
    _lay_down(home)
    story = Story(home, console)
    console.print("[bold]Evergreen[/]: a level-of-detail model that keeps itself fresh inside a 3-D viewer")
    with _server(story):
        console.print(f"  dashboard: [link={story.url}]{story.url}[/link]   project: {home}", style="dim")
        _tell(story)
        _close(story, monotonic() - begin)
        if stay if stay is not None else sys.stdout.isatty():
            console.print(f"\nThe dashboard stays up at {story.url} until you press Ctrl-C.")
            _until_interrupted()
    if folder is None:
        shutil.rmtree(home, ignore_errors=True)


def _tell(story: Story) -> None:
    story.say("1  A first model.", "Viewers log their decisions; once there are 1,200 a model is trained.")
    story.decide(1600)
    story.wait("first model", lambda now: _state(now, 1) == "champion")
    questions = list(story.people.questions(400))
    story.ask(questions[0])
    story.load = Load(story.url, f"/api/{LOOP}/predict", questions, per_second=120)
    story.load.start()
    story.console.print("  v1 is champion. From here on 120 requests a second are asked, and every one is counted.")

    story.say("2  The devices change.", "Weaker phones join; what was a good decision no longer is.")
    story.decide(2400, drift=True)
    story.wait("second model", lambda now: _state(now, 2) not in ("", "candidate"))
    _verdict(story, 2)
    ended = story.wait("rollout of v2", lambda now: _state(now, 2) in ("champion", "rejected", "rolled_back"))
    if (state := _state(ended, 2)) != "champion":
        raise EvergreenError(f"v2 was to become champion and is {state}", hint=f"Look into {story.home}")
    story.console.print("  v2 went from shadow over 10 % and 50 % to champion, under load.")

    story.say("3  A poisoned batch.", "A broken client logs wrong decisions, and no frame rate to vouch for them.")
    story.decide(4200, poison=True)
    story.wait("third model", lambda now: _state(now, 3) not in ("", "candidate"))
    _verdict(story, 3)

    story.say("4  A rollback.", "One call, and the former champion answers; one more, and v2 is back.")
    back = story.post(f"/api/{LOOP}/rollback", {"why": "shown in the demo"})
    story.console.print(f"  v{back['version']} answers.")
    sleep(1.5)
    again = story.post(f"/api/{LOOP}/promote", {"version": 2, "why": "end of the demo", "force": True})
    story.console.print(f"  v{again['version']} answers.")
    sleep(1.0)
    story.load.stop()


def _verdict(story: Story, version: int) -> None:
    model = {m["version"]: m for m in story.get(f"/api/{LOOP}/models")["models"]}[version]
    colour = "red" if model["state"] == "rejected" else "green"
    story.console.print(f"  gate on v{version}: [{colour}]{model['verdict']['because']}[/]")


def _close(story: Story, seconds: float) -> None:
    """Print what came of it: versions, scores on the holdout, requests."""
    assert story.load is not None
    table = Table(title="What came of it", title_justify="left", title_style="bold")
    for name, justify in (("version", "left"), ("holdout accuracy [95 %]", "right"), ("champion then", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("rows", justify="right")
    table.add_column("verdict")
    table.add_column("answers", justify="right")
    for model in sorted(story.get(f"/api/{LOOP}/models")["models"], key=lambda m: m["version"]):
        figures = model["verdict"].get("figures", {})
        low, high = figures.get("interval", (float("nan"), float("nan")))
        rival = figures.get("champion")
        table.add_row(
            f"v{model['version']}",
            f"{figures.get('candidate', float('nan')):.3f} [{low:.3f}, {high:.3f}]",
            "-" if rival is None else f"{rival:.3f}",
            str(figures.get("n", 0)),
            model["verdict"]["outcome"],
            str(story.load.versions[str(model["version"])]),
        )
    story.console.print()
    story.console.print(table)
    load = story.load
    story.console.print(
        f"requests served: {load.answered}   failed: {load.failed}   "
        f"p50 {load.quantile_ms(0.5):.1f} ms   p99 {load.quantile_ms(0.99):.1f} ms   "
        f"while three models were trained and the champion changed four times   ({seconds:.0f} s)"
    )
    story.console.print(f"dashboard: {story.url}")
    if load.failed:
        raise EvergreenError(f"{load.failed} requests failed: {dict(load.statuses)}")


def _lay_down(home: Path) -> None:
    """Lay the PARIMA template down, with hold times of seconds where a real project has minutes."""
    home.mkdir(parents=True, exist_ok=True)
    with as_file(files("evergreen") / "templates" / "parima") as template:
        shutil.copytree(template / "files", home, dirs_exist_ok=True)
        shutil.copytree(template / "demo", home, dirs_exist_ok=True)


@contextmanager
def _server(story: Story) -> Iterator[None]:
    """Run `evergreen up` as anybody would, in a process of its own."""
    command = [sys.executable, "-m", "evergreen", "up", "--port", os.environ.get("EVERGREEN_DEMO_PORT", "0")]
    with (story.home / "server.out").open("wb") as out:
        server = subprocess.Popen(command, cwd=story.home, stdout=out, stderr=subprocess.STDOUT)
    try:
        story.url = _address(story.home, server)
        yield
    finally:
        if story.load is not None:
            story.load.stop()
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _address(home: Path, server: subprocess.Popen[bytes]) -> str:
    begin = monotonic()
    while monotonic() - begin < PATIENCE_S and server.poll() is None:
        try:
            return str(json.loads((home / ".evergreen/server.json").read_text())["url"])
        except (OSError, ValueError):
            sleep(0.1)
    said = (home / "server.out").read_text(errors="replace")[-2000:]
    raise Unavailable(f"the server did not start: {said}")


def _state(now: dict[str, Any], version: int) -> str:
    return str(now["models"].get(version, {}).get("state", ""))


def _position(now: dict[str, Any]) -> str:
    """Say how far everything is, so that it can be told whether anything moves."""
    states = {version: model["state"] for version, model in now["models"].items()}
    return json.dumps([now["run"], now.get("rollout"), now["samples"]["collected"], states], default=str)


def _describe(what: str, now: dict[str, Any]) -> str:
    run, rollout = now.get("run"), now.get("rollout")
    if run is not None:
        phase = f" · {run['phase']}" if run["phase"] else ""
        return f"{what}: training, attempt {run['attempt']}{phase}"
    if rollout is not None:
        return f"{what}: v{rollout['version']} is {rollout['state']} with {100 * rollout['share']:.0f} % of the traffic"
    return f"{what}: {now['samples']['collected']} samples collected, {now['samples']['new']} new"


def _until_interrupted() -> None:
    try:
        while True:
            sleep(1)
    except KeyboardInterrupt:
        return
