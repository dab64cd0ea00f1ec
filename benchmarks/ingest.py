"""Samples over HTTP, answered once they are safe on disk: group commit beside one commit for each request."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from measure import report, wrk
from stage import peer, project, quiet, serving

viewers = import_module("evergreen.templates.parima.viewers")
ROUNDS = 3


def main() -> None:
    """Measure and write `results/ingest.md`."""
    quiet()
    rows = list(islice(viewers.Viewers(seed=3).decisions(100), 100))
    figures: dict[tuple[str, int, int], list[tuple[float, float, float, int]]] = {}
    with tempfile.TemporaryDirectory() as tmp:
        home = project(Path(tmp, "project"), rows=0)
        for _ in range(ROUNDS):
            for connections, batch in ((8, 1), (64, 1), (8, 100)):
                body = json.dumps(rows[0] if batch == 1 else rows)
                for title, server in (
                    ("Evergreen: group commit", _ours(home)),
                    ("one commit per request", _naive(Path(tmp))),
                ):
                    with server as (process, url):
                        load = wrk(process, url, body, connections=connections, seconds=4)
                    key = (title, connections, batch)
                    figures.setdefault(key, []).append((load.per_second, load.p99_ms, load.cpu_us, load.errors))
    table = []
    for (title, connections, batch), runs in figures.items():
        per_second = statistics.median(r[0] for r in runs)
        naive = statistics.median(r[0] for r in figures["one commit per request", connections, 1])
        table.append(
            [
                title,
                connections,
                batch,
                per_second,
                per_second * batch,
                per_second * batch / naive,
                statistics.median(r[1] for r in runs),
                statistics.median(r[2] for r in runs),
                sum(r[3] for r in runs),
            ]
        )
    columns = (
        "server", "connections", "samples per request", "requests/s", "samples/s", "× one commit per request, single samples",
        "p99 ms", "CPU µs/request", "errors",
    )  # fmt: skip
    notes = (
        "PARIMA decisions as a viewer logs them (14 columns), every one checked by the recipe in Evergreen, not checked by the peer; "
        f"SQLite with synchronous=FULL for both; {ROUNDS} rounds of 4 s in turn, medians."
    )
    report("ingest", "Durable ingest over HTTP", columns, table, notes)


@contextmanager
def _ours(home: Path) -> Iterator[tuple[Any, str]]:
    with serving(home) as (server, url):
        yield server, f"{url}/api/parima/samples"


@contextmanager
def _naive(folder: Path) -> Iterator[tuple[Any, str]]:
    with peer("naive_ingest", folder) as (server, url):
        yield server, f"{url}/samples"


if __name__ == "__main__":
    main()
