"""Training through a shared folder, in thousands of simulated worlds: the code as it is, and with one rule left out each."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from measure import report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "protocol"))

import far_mutants
import far_plan
import far_world

WORLDS = 10_000
#: Of each mutant.
FEW = 200
#: What kind of promise a complaint is about, by words in it.
KINDS = {
    "come to an end": "a run never ends",
    "nobody was at fault": "a run fails for nothing",
    "was trained by": "trained twice",
    "not whole": "model not whole",
    "torn": "torn",
    "half a checkpoint": "torn checkpoint",
    "was accepted for": "model of another attempt",
    "accepted from": "model of another worker",
    "cancelled": "cancelled, yet accepted",
    "two different words": "two outcomes told",
    "nobody trained": "steps nobody trained",
    "went back": "attempts went back",
}


def main() -> None:
    """Play and write `results/protocol.md`."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--worlds", type=int, default=WORLDS)
    asked.add_argument("--few", type=int, default=FEW)
    given = asked.parse_args()
    begin, rows, n = time.perf_counter(), [], given.worlds
    for mode, weathers in (("grant", list(far_plan.WEATHERS)), ("direct", ["strong", "api"])):
        for weather in weathers:
            share = n // 6
            rows.append(_row(f"as it is: {mode}, {weather}", [far_plan.draw(s, mode, weather) for s in range(share)]))  # type: ignore[arg-type]
    for name, mutant in far_mutants.MUTANTS.items():
        plans = [mutant.plan(seed) for seed in range(given.few)]
        rows.append(_row(f"as it is, in the worlds of: {name}", plans))
        with mutant.at_work():
            rows.append(_row(f"**{name}**: {mutant.about}", plans))
    took = time.perf_counter() - begin
    played = sum(row[1] for row in rows)
    notes = (
        "The product's own `FolderRunner`, stages, ledger, `Worker` and `job.outcome`, on one simulated clock, interleaved at every single "
        "operation on folder and ledger (`tests/protocol/`). Weather: *strong* (every read is true), *api* (2 s late, 2 % of calls "
        "fail, half of them after taking effect), *synced* (up to 12 s late, in any order, nothing exclusive), *mounted* (the same, "
        "and one's own files late too). 1 to 4 workers, 1 or 2 runs, clocks at 0.8 to 1.25 of the true rate; up to 12 faults of: "
        "app or worker dies between any two operations, machine and disk lost with what had not left it, pauses, cut off, "
        "session ends, a person cancels; sometimes machines lent for 90 or 300 s, sometimes a second app on the same ledger or on a copy of it. Broken: worlds in which any "
        "promise was broken: one outcome per run, a model whole and by who was granted the attempt, no attempt trained twice or by "
        "two, no step that nobody trained, no torn checkpoint, no cancelled run accepted, attempts never go back, every run ends "
        "once faults stop. Simulation, not proof. "
        f"{played:,} worlds in {took:.0f} s."
    )
    columns = (
        "code and weather",
        "worlds",
        "trainings per world",
        "resumed per world",
        "turns per world",
        "broken",
        "how",
    )
    report("protocol", "The far side in simulated worlds", columns, rows, notes)
    if any(row[5] for row in rows if row[0].startswith("as it is")):
        sys.exit("a promise was broken")


def _row(name: str, plans: Iterable[Any], play: Callable[[Any], Any] = far_world.play) -> list[Any]:
    print(f"{name} …", file=sys.stderr, flush=True)
    ends = [(plan, play(plan)) for plan in plans]
    how: Counter[str] = Counter()
    for plan, end in ends:
        if end.broken:
            how[next((kind for words, kind in KINDS.items() if words in end.broken[0]), end.broken[0])] += 1
            if name.startswith("as it is"):
                print(f"BROKEN {end.broken}\n{plan!r}", file=sys.stderr, flush=True)
    n = len(ends)
    said = ", ".join(f"{kind} {count}" for kind, count in how.most_common()) or "-"
    turns = sum(end.turns for _, end in ends) / n
    return [
        name,
        n,
        sum(end.attempts for _, end in ends) / n,
        sum(end.resumed for _, end in ends) / n,
        round(turns),
        how.total(),
        said,
    ]


if __name__ == "__main__":
    main()
