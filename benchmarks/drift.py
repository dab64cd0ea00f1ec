"""Alarms of drift, by simulation and on files: how often there is one for nothing, and how soon there is one that is due.

python benchmarks/drift.py [--quick] [--data ../shared/data/tabular/dev]
"""

from __future__ import annotations

import argparse
import csv
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from math import ceil, inf
from pathlib import Path
from statistics import median
from typing import Any

from measure import report

from evergreen.core.config import DriftConfig
from evergreen.stages.observe.drift import divergence, memory, sketch, stream
from evergreen.stages.observe.drift.compare import compare, judge
from evergreen.stages.observe.drift.sketch import Pane, Reference

Row = dict[str, Any]
Draw = Callable[[random.Random], Row]
RULES = DriftConfig()
REFERENCE = 5000
FEATURES = 20


class Watch:
    """What the stage does with a stream, without a ledger; and what simpler rules would say of the same windows."""

    def __init__(self, reference: Reference, rules: DriftConfig = RULES) -> None:
        self.reference, self.rules = reference, rules
        self.panes: list[Pane] = []
        self.before: frozenset[str] = frozenset()
        self.alarm = False
        self.alarms = dict.fromkeys(("ours", *ALTERNATIVES), 0)
        self.on = dict.fromkeys(ALTERNATIVES, False)
        self.looks, self.alarmed = 0, dict.fromkeys(self.alarms, 0)  #: looks, and those at which an alarm was on
        self.worst: list[str] = []

    def take(self, row: Row, *, others: bool = False) -> bool:
        """Count a row; say whether an alarm begins with it."""
        size = memory.pane_rows(self.rules)
        pane = memory.filling(self.reference, self.panes, size)
        sketch.count(self.reference, pane, sketch.described(row))
        return pane.n == size and self._look(others)

    def _look(self, others: bool) -> bool:
        window = memory.whole(self.reference, self.panes)
        if window.n < self.rules.min_rows:
            return False
        found = judge(compare("inputs", self.reference, window), self.rules, self.before)
        self.before = frozenset(f.key for f in found if f.drifted)
        drifted = sorted((f for f in found if f.drifted), key=lambda f: -f.effect)
        begins = bool(drifted) and not self.alarm
        self.alarm = bool(drifted)
        self.looks += 1
        self.alarmed["ours"] += self.alarm
        if begins:
            self.alarms["ours"] += 1
            self.worst = [f"{f.name} ({f.effect:.2f})" for f in drifted]
        for name, rule in ALTERNATIVES.items() if others else ():
            now = rule(self.reference, window)
            self.alarms[name] += now and not self.on[name]
            self.on[name] = now
            self.alarmed[name] += now
        return begins


def _each(reference: Reference, window: Pane) -> Iterator[tuple[Sequence[int], Sequence[int], bool]]:
    for f, counts in zip(reference.features, window.counts, strict=True):
        end = len(counts) if f.kind == "category" else -1
        yield f.counts[:end], counts[:end], f.kind == "category"


def _p(was: Sequence[int], now: Sequence[int], category: bool) -> float:
    test = divergence.chi_square if category else divergence.kolmogorov_smirnov
    return test(was, now, sum(was), sum(now))[1]


ALTERNATIVES: dict[str, Callable[[Reference, Pane], bool]] = {
    "PSI > 0.2": lambda r, w: any(divergence.psi(a, b) > 0.2 for a, b, _ in _each(r, w)),
    "PSI > 0.1": lambda r, w: any(divergence.psi(a, b) > 0.1 for a, b, _ in _each(r, w)),
    "p < 0.05": lambda r, w: any(_p(*one) < 0.05 for one in _each(r, w)),
    "p < 0.05, Bonferroni": lambda r, w: any(_p(*one) < 0.05 / len(r.features) for one in _each(r, w)),
}


# Worlds


def ordinary(rng: random.Random) -> Row:
    """Draw a row of 20 features of many kinds, one independent of the other."""
    row: Row = {f"normal {i}": rng.gauss(0, 1) for i in range(8)}
    row |= {f"skewed {i}": rng.expovariate(1) for i in range(4)}
    row |= {f"count {i}": float(min(int(rng.expovariate(0.5)), 12)) for i in range(2)}
    row |= {f"mostly zero {i}": 0.0 if rng.random() < 0.8 else rng.gauss(5, 2) for i in range(2)}
    row |= {f"kind {i}": rng.choices("abcdefgh", (30, 20, 15, 10, 10, 8, 5, 2))[0] for i in range(3)}
    row["sometimes"] = rng.gauss(0, 1) if rng.random() > 0.02 else None
    return {name: value for name, value in row.items() if value is not None}


def sessions(length: int, by: float = 0.0) -> Callable[[random.Random], Iterator[Row]]:
    """Draw rows of users who come for `length` rows each and have a level of their own; one feature may be shifted."""

    def rows(rng: random.Random) -> Iterator[Row]:
        while True:
            level = [rng.gauss(0, 0.7) for _ in range(FEATURES)]
            level[0] += by
            for _ in range(rng.randint(1, 2 * length)):
                yield {f"x{i}": value + rng.gauss(0, 0.7) for i, value in enumerate(level)}

    return rows


def independent(draw: Draw) -> Callable[[random.Random], Iterator[Row]]:
    """Repeat a draw."""

    def rows(rng: random.Random) -> Iterator[Row]:
        while True:
            yield draw(rng)

    return rows


def changed(change: Callable[[Row, random.Random], None]) -> Draw:
    """Return the ordinary world with something changed."""

    def draw(rng: random.Random) -> Row:
        row = ordinary(rng)
        change(row, rng)
        return row

    return draw


def _add(by: float, names: int = 1) -> Callable[[Row, random.Random], None]:
    def change(row: Row, _: random.Random) -> None:
        for i in range(names):
            row[f"normal {i}"] += by

    return change


def _spread(row: Row, _: random.Random) -> None:
    row["normal 0"] *= 1.5


def _rare(row: Row, rng: random.Random) -> None:
    if rng.random() < 0.2:
        row["kind 0"] = "h"


def _new(row: Row, rng: random.Random) -> None:
    if rng.random() < 0.1:
        row["kind 0"] = "never seen"


def _gone(row: Row, rng: random.Random) -> None:
    if rng.random() < 0.1:
        row.pop("normal 0")


def _unit(row: Row, _: random.Random) -> None:
    row["skewed 0"] *= 1000


CHANGES = {
    "one of 20 features + 1.0 sd": _add(1.0),
    "one of 20 features + 0.5 sd": _add(0.5),
    "five of 20 features + 0.35 sd": _add(0.35, 5),
    "one of 20 features + 0.25 sd (psi 0.06: less than what counts)": _add(0.25),
    "spread of one feature × 1.5": _spread,
    "a category from 2 % to 22 %": _rare,
    "10 % in a category never seen": _new,
    "10 % missing": _gone,
    "a unit of measure (× 1,000)": _unit,
}


def learnt(rows: Iterator[Row], n: int = REFERENCE) -> Reference:
    """Sum up a reference."""
    return sketch.learn([sketch.described(row) for row in islice(rows, n)])


def false_alarms(windows: int) -> list[list[str]]:
    """Count alarms where nothing changes."""
    worlds = {
        "independent rows": (independent(ordinary), RULES),
        "independent rows, window of 200": (independent(ordinary), DriftConfig(window=200)),
        "users of 30 rows each on average": (sessions(30), RULES),
        "users of 100 rows each on average": (sessions(100), RULES),
    }
    table = []
    for name, (world, rules) in worlds.items():
        total = dict.fromkeys(("ours", *ALTERNATIVES), 0)
        alarmed, looks, parts = dict(total), 0, 10
        for seed in range(parts):
            rng = random.Random(seed)
            rows = world(rng)
            watch = Watch(learnt(rows), rules)
            for row in islice(rows, windows * rules.window // parts):
                watch.take(row, others=True)
            looks += watch.looks
            for rule, n in watch.alarms.items():
                total[rule] += n
                alarmed[rule] += watch.alarmed[rule]
        said = [f"{100 * n / windows:.1f} ({100 * alarmed[rule] / looks:.0f} %)" for rule, n in total.items()]
        print(name, said, flush=True)
        table.append([name, str(windows), *said])
    return table


def detection(repeats: int) -> list[list[str]]:
    """Count the predictions from a change to the alarm; the window is full of what was before."""
    pairs = {name: (independent(ordinary), independent(changed(change))) for name, change in CHANGES.items()}
    pairs["users of 30 rows: one feature + 1.0 sd"] = (sessions(30), sessions(30, 1.0))
    pairs["users of 30 rows: one feature + 2.0 sd"] = (sessions(30), sessions(30, 2.0))
    table = []
    for name, (before, after) in pairs.items():
        taken: list[int | None] = []
        for seed in range(repeats):
            rng = random.Random(1000 + seed)
            watch = Watch(learnt(before(rng)))
            for row in islice(before(rng), RULES.window + 37):  # changes do not come at ends of parts
                watch.take(row)
            later = islice(after(rng), 4 * RULES.window)
            taken.append(next((i for i, row in enumerate(later, 1) if watch.take(row)), None))
        table.append([name, *_times(taken)])
        print(table[-1], flush=True)
    return table


def _times(taken: Sequence[int | None]) -> list[str]:
    ordered = sorted(t if t is not None else inf for t in taken)
    often, late = median(ordered), ordered[ceil(0.9 * len(ordered)) - 1]
    found = sum(t is not None for t in taken)
    return [f"{found} of {len(taken)}", *(f"{t:.0f}" if t < inf else "–" for t in (often, late))]


def quality(repeats: int) -> list[list[str]]:
    """Count labels from a fall of the share of right answers to the alarm, and alarms where it does not fall."""
    table = []
    for was, now in (
        (0.95, 0.95),
        (0.8, 0.8),
        (0.6, 0.6),
        (0.95, 0.85),
        (0.9, 0.8),
        (0.8, 0.7),
        (0.8, 0.6),
        (0.9, 0.6),
    ):
        taken: list[int | None] = []
        alarms = labels = 0
        for seed in range(repeats):
            rng = random.Random(seed)
            known, n = stream.Quality(), 0
            for i in range(2000 if was != now else 10_000):
                share = was if i < 1000 else now
                n += 1
                labels += 1
                if n < 10:
                    continue
                before, known = known, stream.learn(known, n, sum(rng.random() < share for _ in range(n)), RULES.fall)
                n = 0
                if known.fallen and not before.fallen:
                    alarms += 1
                    if was != now:
                        taken.append(i - 999)
                        break
            else:
                if was != now:
                    taken.append(None)
        said = f"{100 * was:.0f} % → {100 * now:.0f} %" if was != now else f"{100 * was:.0f} % throughout"
        every = [f"{100_000 * alarms / labels:.2f} per 100 windows of 1,000", "–", "–"] if was == now else _times(taken)
        table.append([said, *every])
        print(table[-1], flush=True)
    return table


def files(folder: Path) -> list[list[str]]:
    """Watch files as they come: the first 5,000 rows (or half) are the reference, the rest is traffic."""
    table = []
    for name in ("parima_none", "parima_units", "parima_devices", "parima_engine", "adult_20k", "elec2_drift"):
        path = folder / f"{name}.csv"
        if not path.is_file():
            continue
        with path.open() as file:
            rows = [_read(row) for row in csv.DictReader(file)]
        n = min(REFERENCE, len(rows) // 3)
        watch = Watch(learnt(iter(rows), n))
        begun = [(i, list(watch.worst)) for i, row in enumerate(rows[n:], 1) if watch.take(row, others=True)]
        windows = (len(rows) - n) / RULES.window
        first = f"after {begun[0][0]:,}: {', '.join(begun[0][1][:3])}" if begun else "none"
        noise = max(watch.reference.features, key=lambda f: f.uneven.excess)
        others = ", ".join(f"{k}: {v}" for k, v in watch.alarms.items() if k != "ours")
        table.append(
            [
                name,
                f"{n:,}",
                f"{windows:.0f}",
                str(len(begun)),
                first,
                f"{noise.name}: {noise.uneven.excess:.1f}",
                others,
            ]
        )
        print(table[-1], flush=True)
    return table


#: Columns that are no input of a model.
_NO_INPUT = ("label", "trueLOD", "decisionLOD", "date", "fnlwgt")


def _read(row: dict[str, str]) -> Row:
    read: Row = {}
    for name, cell in row.items():
        if name in _NO_INPUT or cell in ("", "?"):
            continue
        try:
            read[name] = float(cell)
        except ValueError:
            read[name] = cell
    return read


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return ["", f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines)]


def main() -> None:
    """Run everything and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", default=os.environ.get("EVERGREEN_TEST_DATA", "../shared/data") + "/tabular/dev")
    args = parser.parse_args()
    windows, repeats = (100, 10) if args.quick else (500, 50)
    alarms = false_alarms(windows)
    notes = [
        "Alarms that begin, per 100 windows without any drift (and the share of looks at which one is on); 20 features, a reference of 5,000 rows, a look at every tenth",
        "of a window. The other rules look at the same windows and bins. PSI is the population stability index as it is",
        "usually computed; p-values take rows as independent. Evergreen's rule: PSI less what chance explains at least",
        f"{RULES.effect}, and significant at {RULES.confidence:.3f} over all features (Holm), rows being worth as many independent",
        "ones as the blocks of the reference say (Kish's design effect).",
        *_table(
            f"Detection: predictions from a change to the alarm ({repeats} runs; the window of {RULES.window:,} is full of what was before)",
            ["change", "found within 4 windows", "median", "9 of 10 within"],
            detection(repeats),
        ),
        *_table(
            f"Quality: labels from a fall to the alarm (ADWIN; {repeats} runs; after 1,000 labels at the former share; 1,000 follow)",
            ["share of right answers", "found", "median", "9 of 10 within"],
            quality(repeats),
        ),
    ]
    if (folder := Path(args.data)).is_dir():
        notes += _table(
            "Files as they come: the first rows are the reference, the rest is traffic",
            [
                "file",
                "reference",
                "windows",
                "alarms",
                "first alarm",
                "rows that are worth one, at most",
                "alarms of other rules",
            ],
            files(folder),
        )
    report(
        "drift",
        "Drift: alarms for nothing, and alarms that are due",
        ["rows", "windows", "Evergreen", *ALTERNATIVES],
        alarms,
        "\n".join(notes),
    )


if __name__ == "__main__":
    main()
