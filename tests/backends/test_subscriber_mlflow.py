"""MLflow shows what the ledger has: told once, twice, late or from the beginning; against a real server.

The server needs other versions of packages than we do, so it lives in an environment of its own, made once below the
user's cache folder. EVERGREEN_TEST_MLFLOW names an `mlflow` that is there already.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import evergreen
from evergreen import outbox
from evergreen.core.errors import ConfigError, NotFound, Unavailable
from evergreen.core.records import Dataset, Event, Model, Run
from evergreen.core.states import ModelState, RunState
from evergreen.project import Project

VERSION = "3.17.2"
TOML = """
[[subscribers]]
use = "mlflow"
artifacts = true
[loops.shop]
recipe = { use = "evergreen.testing.runner:Majority" }
"""
WHO = {"by": "test", "because": "a test"}


def executable() -> str:
    """Return an `mlflow`; make an environment for it the first time, or skip."""
    if said := os.environ.get("EVERGREEN_TEST_MLFLOW"):
        return said
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    home = cache / "evergreen-tests" / f"mlflow-{VERSION}"
    mlflow, made = home / "bin" / "mlflow", home / "made"
    if not made.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True, capture_output=True)
            install = [home / "bin" / "python", "-m", "pip", "install", "-q", f"mlflow=={VERSION}"]
            subprocess.run(install, check=True, capture_output=True, timeout=900)
        except (OSError, subprocess.SubprocessError) as e:
            pytest.skip(f"mlflow cannot be installed here: {e}")
        made.touch()
    return str(mlflow)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an MLflow server with SQLite; return its address."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [executable(), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/m.db", "--artifacts-destination", str(folder / "files")]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW"))}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=clean, stdout=log, stderr=log, start_new_session=True)
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            try:
                if httpx.get(f"{url}/health").is_success:
                    break
            except httpx.HTTPError:
                pass
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.3)
        yield url
    finally:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "evergreen.toml").write_text(TOML)
    opened = evergreen.open(tmp_path / "evergreen.toml")
    yield opened
    opened.ledger.close()


def grow(project: Project, folder: Path, n: int) -> Model:
    """Let a training leave a model."""
    ledger = project.ledger
    files = folder / f"files-{n}"
    files.mkdir()
    (files / "model.txt").write_text(f"model {n}")
    project.store.put(f"models/shop/{n}", files)
    data = Dataset(
        id=f"d{n}", loop="shop", version=n, as_of=9, collected=9, train=7, holdout=2, digest="0" * 64, key=f"d/{n}"
    )
    ledger.add(data, **WHO)
    run = ledger.add(Run(id=f"r{n}", loop="shop", state=RunState.QUEUED, why="new labels", dataset=f"d{n}"), **WHO)
    run = ledger.move(run, RunState.RUNNING, by="run", because="started", started=data.at)
    ledger.move(run, RunState.SUCCEEDED, by="run", because="done", progress={"metrics": {"loss": 0.25}})
    model = Model(
        id=f"m{n}",
        loop="shop",
        state=ModelState.CANDIDATE,
        version=n,
        key=f"models/shop/{n}",
        run=f"r{n}",
        dataset=f"d{n}",
        scores={"accuracy": 0.9, "f1": 0.8},
        rival_scores={"accuracy": 0.7},
        verdict={"outcome": "promote", "because": "better"},
    )
    return ledger.add(model, **WHO)


def tell(project: Project, after: int = 0) -> int:
    """Tell all that happened after an event; return the last."""
    events = [e for e in project.ledger.find(Event, None) if e.seq > after]
    for event in events:
        project.subscribers["mlflow"].tell(event, project.ledger)
    return events[-1].seq


class Mlflow:
    """What is seen in MLflow."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, method: str, path: str, /, **said: Any) -> Any:
        kind = "params" if method == "GET" else "json"
        return httpx.request(method, f"{self._url}/api/2.0/mlflow/{path}", **{kind: said}).raise_for_status().json()

    def everything(self) -> Any:
        id = self.ask("GET", "experiments/get-by-name", experiment_name="shop")["experiment"]["experiment_id"]
        runs = self.ask("POST", "runs/search", experiment_ids=[id])["runs"]
        model = self.ask("GET", "registered-models/get", name="shop")["registered_model"]
        versions = self.ask("GET", "model-versions/search", filter="name = 'shop'")["model_versions"]
        for one in (*versions, model):
            one.pop("last_updated_timestamp", None)
        model.pop("latest_versions", None)
        return {"runs": runs, "model": model, "versions": versions}


@pytest.mark.slow
def test_mlflow_shows_what_the_ledger_has(
    project: Project, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    ledger, seen = project.ledger, Mlflow(server)
    first = ledger.move(grow(project, tmp_path, 1), ModelState.PASSED, by="gate", because="better")
    ledger.move(first, ModelState.CHAMPION, by="rollout", because="the first", share=1.0)
    at = tell(project)
    second = ledger.move(grow(project, tmp_path, 2), ModelState.PASSED, by="gate", because="better")
    ledger.move(second, ModelState.CANARY, by="rollout", because="held", share=0.1)
    at = tell(project, at)
    all_of_it = seen.everything()
    runs = {r["info"]["run_name"].split()[-1]: r for r in all_of_it["runs"]}
    assert set(runs) == {"r1", "r2"}
    metrics = {m["key"]: m["value"] for m in runs["r1"]["data"]["metrics"]}
    assert metrics == {"loss": 0.25, "accuracy": 0.9, "f1": 0.8, "champion.accuracy": 0.7}
    tags = {t["key"]: t["value"] for t in runs["r1"]["data"]["tags"]}
    assert (tags["evergreen.dataset.sha256"], tags["evergreen.why"]) == ("0" * 64, "new labels")
    assert runs["r1"]["info"]["status"] == "FINISHED"
    params = {p["key"]: p["value"] for p in runs["r1"]["data"]["params"]}
    assert params["dataset.train"] == "7"
    versions = {v["version"]: {t["key"]: t["value"] for t in v["tags"]} for v in all_of_it["versions"]}
    assert {n: (t["evergreen.model"], t["evergreen.state"]) for n, t in versions.items()} == {
        "1": ("m1", "champion"),
        "2": ("m2", "canary"),
    }
    aliases = {a["alias"]: a["version"] for a in all_of_it["model"]["aliases"]}
    assert aliases == {"champion": "1", "challenger": "2"}
    run = runs["r1"]["info"]["run_id"]
    files = seen.ask("GET", "artifacts/list", run_id=run, path="model")["files"]
    assert [f["path"] for f in files] == ["model/model.txt"]

    outbox.replay(ledger, "mlflow", 0)
    tell(project)
    tell(project)
    assert seen.everything() == all_of_it  # told twice changes nothing

    with ledger.together():
        ledger.move(ledger.get(Model, "m1"), ModelState.RETIRED, by="rollout", because="overtaken", share=0.0)
        ledger.move(ledger.get(Model, "m2"), ModelState.CHAMPION, by="rollout", because="better", share=1.0)
    run_3 = ledger.add(Run(id="r3", loop="shop", state=RunState.QUEUED, why="again"), **WHO)
    run_3 = ledger.move(run_3, RunState.RUNNING, by="run", because="started")
    ledger.move(run_3, RunState.FAILED, by="run", because="it broke", error="it broke")
    tell(project, at)
    now = seen.everything()
    assert {a["alias"]: a["version"] for a in now["model"]["aliases"]} == {"champion": "2"}
    assert {r["info"]["run_name"].split()[-1]: r["info"]["status"] for r in now["runs"]}["r3"] == "FAILED"


def test_a_server_that_is_away_is_named_without_what_is_secret(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.ledger.add(Run(id="r", loop="shop", state=RunState.QUEUED, why="x"), **WHO)
    (event,) = project.ledger.find(Event, "shop")
    mlflow = project.subscribers["mlflow"]
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        mlflow.tell(event, project.ledger)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:hunter22@127.0.0.1:{probe.getsockname()[1]}")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1") as e:
        mlflow.tell(event, project.ledger)
    assert "hunter22" not in str(e.value)


def test_what_is_forgotten_or_of_no_interest_is_passed_over(project: Project) -> None:
    for subject in ("run gone", "model gone", "dataset d", "shop"):
        event = Event(id=subject, loop="shop", what="moved", subject=subject, by="t", because="t")
        project.subscribers["mlflow"].tell(event, project.ledger)
    with pytest.raises(NotFound):
        project.ledger.get(Run, "gone")
