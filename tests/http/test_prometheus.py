"""A real Prometheus reads the figures, and answers every query of the dashboard and of the page.

EVERGREEN_TEST_PROMETHEUS names the folder of `prometheus` and `promtool`; else they are looked for on the path.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_harness import PLAIN, Process, learn, wait

from evergreen.http import auth
from webhook_receiver import Receiver

DOCS = Path(__file__).resolve().parents[2] / "docs"


def program(name: str) -> str:
    """Return where a program of Prometheus is, or skip."""
    found = shutil.which(name, path=os.environ.get("EVERGREEN_TEST_PROMETHEUS", os.environ["PATH"]))
    if found is None:
        pytest.skip(f"there is no {name}")
    return found


@pytest.fixture
def scraped(launch: Callable[..., Process], receiver: Receiver, tmp_path: Path) -> Iterator[tuple[Process, str]]:
    """Run a server that is full of figures, with a key, and a Prometheus that reads it; return both."""
    prometheus = program("prometheus")
    server = launch(f'[[subscribers]]\nuse = "webhook"\nurl = "{receiver.url}"\n{PLAIN}')
    with httpx.Client(base_url=server.url, timeout=20) as http:
        learn(http, "first")
        learn(http, "second")
        http.post("/api/toy/predict", json={"input": 1})
    import evergreen

    project = evergreen.open(server.folder / "evergreen.toml")
    _, key = auth.create(project.ledger, "prometheus", "app")
    project.ledger.close()
    (tmp_path / "key").write_text(key)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "prometheus.yml").write_text(
        f"""
scrape_configs:
  - job_name: evergreen
    scrape_interval: 1s
    authorization: {{ credentials_file: {tmp_path / "key"} }}
    static_configs: [{{ targets: ["{httpx.URL(server.url).netloc.decode()}"] }}]
"""
    )
    command = [prometheus, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        yield server, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def ask(url: str, query: str) -> Any:
    """Return what Prometheus answers; an error of the query fails the test."""
    said = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()
    assert said["status"] == "success", (query, said)
    return said["data"]["result"]


def up(url: str) -> bool:
    try:
        return [r["value"][1] for r in ask(url, "up")] == ["1"]
    except httpx.HTTPError:
        return False


@pytest.mark.slow
def test_prometheus_reads_every_figure_and_understands_every_query(scraped: tuple[Process, str]) -> None:
    _, url = scraped
    wait(lambda: up(url), 60)
    assert wait(lambda: ask(url, 'evergreen_events_total{kind="new champion"}'))[0]["value"][1] == "2"
    dashboard = json.loads((DOCS / "grafana" / "evergreen.json").read_text())
    queries = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
    queries += [a["expr"] for a in dashboard["annotations"]["list"]]
    page = (DOCS / "howto" / "watch.md").read_text()
    rules = page.partition("What to be woken for:")[2].partition("```text")[2].partition("```")[0]
    queries += [line.partition("#")[0] for line in rules.splitlines() if line.strip()]
    assert len(queries) > 35
    answered = [query for query in queries if ask(url, query.replace("$loop", ".+"))]
    assert any("evergreen_model_share" in query for query in answered)
    assert any("process_resident_memory_bytes" in query for query in answered)
    metadata = httpx.get(f"{url}/api/v1/metadata").json()["data"]
    assert metadata["evergreen_predict_seconds"][0]["type"] == "histogram"


@pytest.mark.slow
def test_promtool_finds_nothing_to_complain_of(launch: Callable[..., Process]) -> None:
    tool = program("promtool")
    server = launch(PLAIN)
    text = httpx.get(f"{server.url}/metrics").content
    done = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")
