"""Models are swapped, and trained, while a second process keeps asking: nobody is refused, nobody hears the wrong one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from acceptance_kit import LOG, Server, serving

from evergreen.templates.parima.viewers import Viewers, append

PREDICT = "/api/parima/predict"
PER_SECOND = 150
SWAPS = 200
#: Seconds between a swap and the next, for the load to meet each model.
PAUSE_S = 0.02
QUESTIONS = list(Viewers(seed=5).questions(50))
#: The load, in a process of its own: asks from the first line on standard input until there is no more.
ASKER = """
import json, sys
from evergreen.cli.load import Load
url, path, rate = sys.argv[1:]
load = Load(url, path, json.loads(sys.stdin.readline()), per_second=float(rate))
load.start()
print("asking", flush=True)
sys.stdin.read()
load.stop()
print(json.dumps({"answered": load.answered, "failed": load.failed, "statuses": load.statuses, "versions": load.versions}))
"""


@contextmanager
def asked(server: Server) -> Iterator[dict[str, Any]]:
    """Ask from another process while the block runs; afterwards the dictionary holds what came of it."""
    seen: dict[str, Any] = {}
    words = [sys.executable, "-c", ASKER, server.url, PREDICT, str(PER_SECOND)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asker:
        assert asker.stdin is not None
        assert asker.stdout is not None
        asker.stdin.write(json.dumps(QUESTIONS) + "\n")
        asker.stdin.flush()
        assert asker.stdout.readline() == "asking\n"
        yield seen
        said, _ = asker.communicate()
        seen.update(json.loads(said))


def swap(server: Server, swaps: int) -> int:
    """Promote one model and the other in turn; return how many answers afterwards came from the wrong one."""
    wrong = 0
    with httpx.Client(base_url=server.url) as viewer:
        for n in range(swaps):
            version = 1 + (n + 1) % 2
            told = server.post("/api/parima/promote", {"version": version, "why": f"swap {n}", "force": True})
            assert (told["version"], told["state"]) == (version, "champion")
            for http in (viewer, server.http):
                answer = http.post(PREDICT, json=QUESTIONS[n % len(QUESTIONS)])
                assert answer.status_code == 200
                wrong += answer.json()["model_version"] != version
            time.sleep(PAUSE_S)
    return wrong


def test_two_hundred_hot_swaps_under_load(parima: Path) -> None:
    with serving(parima) as server:
        with asked(server) as seen:
            wrong = swap(server, SWAPS)
        history = server.get("/api/parima/history?limit=500")["events"]
    assert (seen["failed"], wrong) == (0, 0), seen
    assert seen["answered"] > SWAPS
    assert set(seen["versions"]) == {"1", "2"}
    assert len([e for e in history if e["to"] == "champion" and "swap" in e["because"]]) == SWAPS


def test_training_under_load(parima: Path) -> None:
    append(parima / LOG, Viewers(seed=12).decisions(1000))
    with serving(parima) as server:
        with asked(server) as seen:
            version = server.train("parima")
        (model,) = (m for m in server.get("/api/parima/models")["models"] if m["version"] == version)
    assert seen["failed"] == 0, seen
    assert seen["answered"] > PER_SECOND
    assert model["details"]["n_train"] > 1000
