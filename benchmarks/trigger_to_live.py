"""From "train" to the first answer of the new model, with a trainer that does nothing: what the machinery itself takes."""

from __future__ import annotations

import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from measure import report
from stage import quiet, serving

ROUNDS = 10
PROJECT = """
[loops.noop]
recipe = { use = "evergreen.testing.runner:Majority" }
runner = { use = "process" }
collect.consent = false
trigger.auto = false
gate = { min_rows = 1, margin = 1.0 }
rollout = { steps = [1.0], hold = "0s" }
"""
#: States a run and then its model come through; the time to each is counted from the one before.
STATES = ("requested", "queued", "running", "succeeded", "passed", "champion")


def main() -> None:
    """Measure and write `results/trigger_to_live.md`."""
    quiet()
    with tempfile.TemporaryDirectory() as tmp:
        Path(tmp, "evergreen.toml").write_text(PROJECT)
        with serving(Path(tmp)) as (_, url), httpx.Client(base_url=url, timeout=30) as http:
            rows = [{"input": {"n": n}, "label": "ab"[n % 3 == 0]} for n in range(100)]
            http.post("/api/noop/samples", json=rows).raise_for_status()
            whole = [_round(http, version) for version in range(1, ROUNDS + 2)][1:]  # the first has no rival
            parts = _parts(http.get("/api/noop/history?limit=500").json()["events"])
    steps = [f"{state} {1000 * statistics.median(part):.0f} ms" for state, part in parts.items() if part]
    figures = [1000 * statistics.median(whole), 1000 * min(whole), 1000 * max(whole)]
    notes = (
        f"`evergreen.testing.runner:Majority` (counts labels) in a process of its own, 100 samples, judged against the champion, "
        f"no hold time; {ROUNDS} rounds after a first. From sending `POST /train` to the first answer by the new version, asked for "
        f"every 2 ms. Where it goes (medians, from the state before): {', '.join(steps)}; the rest is loading the model."
    )
    report(
        "trigger_to_live",
        "Trigger to live",
        ("system", "median ms", "min ms", "max ms"),
        [["Evergreen", *figures]],
        notes,
    )


def _round(http: httpx.Client, version: int) -> float:
    """Train once; return the seconds until `version` answers."""
    begin = time.perf_counter()
    http.post("/api/noop/train", json={"force": True, "why": "benchmark"}).raise_for_status()
    while time.perf_counter() - begin < 60:
        answer = http.post("/api/noop/predict", json={"input": {"n": 1}})
        if answer.status_code == 200 and answer.json()["model"]["version"] == version:
            return time.perf_counter() - begin
        time.sleep(0.002)
    raise RuntimeError(f"version {version} has not come to answer")


def _parts(events: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return the seconds between the states of each round but the first."""
    found: dict[str, list[float]] = {state: [] for state in STATES[1:]}
    last: tuple[str, datetime] | None = None
    for event in reversed(events):
        if event["to"] not in STATES:
            continue
        at = datetime.fromisoformat(event["at"])
        if last is not None and STATES.index(event["to"]) == STATES.index(last[0]) + 1:
            found[event["to"]].append((at - last[1]).total_seconds())
        last = (event["to"], at)
    return {state: part[1:] for state, part in found.items()}


if __name__ == "__main__":
    main()
