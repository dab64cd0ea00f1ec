"""Predictions over HTTP: Evergreen beside the seeds' way, FastAPI, and a bare handler with the same model format.

One server process each on one core, wrk on the other, in turn and repeated (A B C D, A B C D, …); medians.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from measure import Load, report, wrk
from stage import body, forest, peer, project, quiet, serving, train

ROUNDS = 3
OURS = "Evergreen: checked, routed, every answer logged"


def main() -> None:
    """Measure and write `results/serving.md`."""
    quiet()
    with tempfile.TemporaryDirectory() as tmp:
        model, home = Path(tmp, "model"), Path(tmp, "project")
        model.mkdir()
        forest(model)
        train(project(home))
        runs: dict[tuple[str, int], list[Load]] = {}
        for _ in range(ROUNDS):
            for connections in (1, 8):
                with serving(home) as (server, url):
                    _measure(runs, OURS, server, url + "/api/parima/predict", body(), connections)
                for name, title in (
                    ("bare_onnx", "bare ASGI + onnxruntime (nothing checked or logged)"),
                    ("fastapi_sklearn", "FastAPI + scikit-learn"),
                    ("flask_joblib", "Flask + joblib (the seed's way)"),
                ):
                    with peer(name, model) as (server, url):
                        _measure(runs, title, server, url + "/predict", body(), connections)
        _write(runs)


def _measure(runs: dict[tuple[str, int], list[Load]], title: str, server: object, url: str, what: str, n: int) -> None:
    wrk(server, url, what, connections=n, seconds=1)  # type: ignore[arg-type]
    runs.setdefault((title, n), []).append(wrk(server, url, what, connections=n, seconds=4))  # type: ignore[arg-type]


def _write(runs: dict[tuple[str, int], list[Load]]) -> None:
    rows = []
    for (title, n), loads in sorted(runs.items(), key=lambda item: (item[0][1], -_median(item[1], "per_second"))):
        figures = [_median(loads, f) for f in ("per_second", "p50_ms", "p99_ms", "cpu_us", "rss_mb")]
        rows.append([title, n, *figures, sum(load.errors for load in loads)])
    columns = ("server", "connections", "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "resident MB", "errors")
    notes = (
        f"RandomForest(100) on five features, trained on 2,000 rows; one server process on one core, wrk on the other; "
        f"{ROUNDS} rounds of 4 s in turn, medians. Evergreen checks the body, routes, counts, and stores every answer durably "
        "(off the critical path)."
    )
    report("serving", "Predictions over HTTP, side by side", columns, rows, notes)


def _median(loads: list[Load], figure: str) -> float:
    return statistics.median(getattr(load, figure) for load in loads)


if __name__ == "__main__":
    main()
