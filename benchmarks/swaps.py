"""Two hundred hot swaps while another process keeps asking: how many fail, how many hear the wrong model, what it costs."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
from asking import Asked, asking, failed, quantile
from measure import report
from stage import LOG, project, quiet, serving, train, viewers

SWAPS = 200
PER_SECOND = 150
#: Seconds between a swap and the next, in which answers are checked; seconds of load without swaps, before and after.
PAUSE_S, QUIET_S = 0.05, 15.0


class Swap(NamedTuple):
    """One promotion; times are of the monotonic clock."""

    version: int
    asked: float
    done: float


def main() -> None:
    """Measure and write `results/swaps.md`."""
    quiet()
    questions = list(viewers.Viewers(seed=2).questions(100))
    with tempfile.TemporaryDirectory() as tmp:
        home = project(Path(tmp, "project"))
        train(home)
        viewers.append(home / LOG, viewers.Viewers(seed=4).decisions(2000))
        train(home)
        with serving(home) as (_, url), httpx.Client(base_url=url, timeout=30) as http:
            promote(http, 2)
            with asking(f"{url}/api/parima/predict", questions, per_second=PER_SECOND) as asked:
                time.sleep(QUIET_S)
                swaps = []
                for n in range(SWAPS):
                    swaps.append(promote(http, 1 + n % 2))
                    time.sleep(PAUSE_S)
                time.sleep(QUIET_S)
    _write(asked, swaps)


def promote(http: httpx.Client, version: int, *, loop: str = "parima") -> Swap:
    """Make a version champion; return when that was asked for and when it was done."""
    begin = time.monotonic()
    http.post(f"/api/{loop}/promote", json={"version": version, "why": "benchmark", "force": True}).raise_for_status()
    return Swap(version, begin, time.monotonic())


def checked(asked: Sequence[Asked], swaps: Sequence[Swap]) -> tuple[int, int]:
    """Return how many requests fell wholly between two swaps, and how many of those another version answered."""
    ends = [swap.asked for swap in swaps[1:]] + [float("inf")]
    between = [
        a.version != swap.version
        for swap, end in zip(swaps, ends, strict=True)
        for a in asked
        if a.sent >= swap.done and a.done <= end
    ]
    return len(between), sum(between)


def _write(asked: Sequence[Asked], swaps: Sequence[Swap]) -> None:
    first, last = swaps[0].asked, swaps[-1].done
    calm = [a for a in asked if a.done < first or a.due > last]
    busy = [a for a in asked if not (a.done < first or a.due > last)]
    n, wrong = checked(asked, swaps)
    rows = [
        [title, len(part), failed(part), *(quantile(part, q) for q in (0.5, 0.99, 0.999)), max(a.ms for a in part)]
        for title, part in (
            ("no swaps", calm),
            (f"{len(swaps)} swaps, {len(swaps) / (last - first):.0f} a second", busy),
        )
    ]
    took = [(swap.done - swap.asked) * 1000 for swap in swaps]
    columns = ("load", "requests", "failed", "p50 ms", "p99 ms", "p99.9 ms", "max ms")
    notes = (
        f"PARIMA, two forests of 100 trees by turns, {PER_SECOND} requests a second from a process of its own, latency from when a "
        f'request was due. Answered by a wrong version after "done": {wrong} of {n} requests sent after a promotion was answered and '
        f"answered before the next was asked for. A promotion takes {statistics.median(took):.0f} ms (median), "
        f"{max(took):.0f} ms at most."
    )
    report("swaps", "Hot swaps under load", columns, rows, notes)


if __name__ == "__main__":
    main()
