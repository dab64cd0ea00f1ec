"""Real load over HTTP on `evergreen up`: who is worse or slower is taken back by itself, who is better takes over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from acceptance_kit import Server, command, serving, wait
from live_recipes import truth

#: Where the recipe is found.
HERE = {"PYTHONPATH": str(Path(__file__).parent)}
TOML = """
tick = "100ms"
[loops.guess]
recipe = { use = "live_recipes:Guesses" }
runner = { use = "inline" }
collect.consent = false
trigger.auto = false
gate = { min_rows = 1, margin = 1.0 }
[loops.guess.rollout]
steps = [0.0, 0.2, 0.5, 1.0]
hold = "300ms"
max_slowdown = 10
rule = "evidence"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server whose champion, v1, is right in 70 % of the cases."""
    home = tmp_path / "live"
    home.mkdir()
    (home / "evergreen.toml").write_text(TOML)
    with serving(home, **HERE) as server:
        rows = [{"id": f"r{i}", "input": {"n": i}, "label": truth(i)} for i in range(40)]
        server.post("/api/guess/samples", rows)
        train(server, skill=0.7)
        wait(lambda: server.get("/health")["loops"]["guess"]["model_loaded"], "a first champion that answers")
        yield server


def train(server: Server, **about: float) -> None:
    """Ask for a model that is so and so."""
    server.post("/api/guess/train", {"force": True, "why": "a test", "overrides": about})


@contextmanager
def load(server: Server, judge: bool = True) -> Iterator[list[Any]]:
    """Let four clients ask, and say what was right, until the block ends. Gives what went wrong: nothing."""
    stop, wrong, numbers = threading.Event(), [], count(1000)

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=30) as http:
            while not stop.is_set():
                n = next(numbers)
                answer = http.post("/api/guess/predict", json={"input": {"n": n}, "unit": f"user-{n}"})
                if answer.status_code != 200:
                    wrong.append(answer.text)
                    continue
                told = {"id": answer.json()["id"], "label": truth(n)}
                if judge and http.post("/api/guess/feedback", json=told).status_code != 200:
                    wrong.append(told)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        yield wrong
    finally:
        stop.set()
        for client in clients:
            client.join()


def became(server: Server, version: int) -> dict[str, Any]:
    """Wait until a version is champion or was taken back; return that line of history."""

    def found() -> Any:
        known = {m["version"]: m for m in server.get("/api/guess/models")["models"]}
        model = known.get(version)
        if model is None or model["state"] not in ("champion", "rolled_back"):
            return None
        events = server.get("/api/guess/history")["events"]
        return next(e for e in events if e["to"] == model["state"] and e["by"] == "rollout")

    return wait(found, f"v{version} arrives or is taken back")


def test_worse_slower_and_better(server: Server) -> None:
    with load(server) as wrong:
        train(server, skill=0.3)
        told = became(server, 2)
        assert told["to"] == "rolled_back", told
        assert told["because"].startswith("it is worse: "), told
        assert "judged answers right, the champion's" in told["because"]

        train(server, skill=0.7, slow_ms=150)
        told = became(server, 3)
        assert told["to"] == "rolled_back", told
        assert "ms on average, more than 10 times the champion's" in told["because"], told

        train(server, skill=1.0)
        told = became(server, 4)
        assert told["to"] == "champion", told
        assert told["because"].startswith("it is not worse by more than 2 points: 100.0 % of"), told
    assert wrong == []
    assert server.get("/api/guess/status")["champion"]["version"] == 4


def shelved(server: Server, version: int, **about: float) -> None:
    """Train a version and take it back, so that it is on record and nowhere else."""
    train(server, **about)
    wait(
        lambda: any(
            m["version"] == version and m["state"] in ("shadow", "canary")
            for m in server.get("/api/guess/models")["models"]
        ),
        "it is on its way",
    )
    server.post("/api/guess/rollback", {"why": "for later"})


def test_an_experiment_that_a_person_starts(server: Server) -> None:
    shelved(server, 2, skill=0.95)
    shelved(server, 3, skill=0.4)
    words = ("experiment", "guess", "--versions", "2,3", "--shares", "0.3,0.3", "--why", "two candidates", "--promote")
    said = command(server.home, *words, **HERE)
    assert said.code == 0, said.err
    assert "| v1 | 40 % | 0 | 0 | – |" in said.out
    with load(server) as wrong:
        ended = wait(lambda: (x := server.get("/api/guess/experiment"))["state"] != "running" and x, "it ends")
    assert wrong == []
    assert (ended["state"], ended["winner"]) == ("ended", 2), ended["because"]
    assert [arm["call"] for arm in ended["arms"]] in (["champion", "better", "worse"], ["champion", "better", "out"])
    exposed = {arm["version"]: arm["exposed"] for arm in ended["arms"]}
    assert min(exposed.values()) > 50  # every unit asks once: who met an arm, was judged by it
    assert server.get("/api/guess/status")["champion"]["version"] == 2
    why = next(e["because"] for e in server.get("/api/guess/history")["events"] if e["to"] == "champion")
    assert "v2: " in why
    assert "judged answers right, the champion's" in why


def test_a_shadow_is_compared_with_what_was_sent(server: Server) -> None:
    """Two models decide alike where both are right or both wrong."""
    train(server, skill=0.4)
    with load(server, judge=False) as wrong:
        wait(lambda: figures(server, "evergreen_variant_compared", 2) >= 10, "answers are compared")
    assert wrong == []
    agreed = figures(server, "evergreen_variant_agreed", 2) / figures(server, "evergreen_variant_compared", 2)
    assert 0.3 < agreed < 1.0  # 0.7, give or take: right where the first is in four of seven, wrong where it is wrong


def figures(server: Server, name: str, version: int) -> float:
    """Read a figure from what Prometheus is told."""
    lines = server.http.get("/metrics").text.splitlines()
    return sum(float(x.rpartition(" ")[2]) for x in lines if x.startswith(name) and f'version="{version}"' in x)
