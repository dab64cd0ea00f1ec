"""Real and simulated data with drift, replayed in time order as production would bring it.

Each chunk is first answered (by the model frozen after the first chunk, by the newest model there is, and by
the champion that Evergreen's gate let through), then collected; then the loop turns. Nothing is shuffled.

    python benchmarks/replay.py [NAME …] [--data ../shared/data/tabular/dev]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from measure import report

import evergreen
from evergreen import engine
from evergreen.core.loop import Loop
from evergreen.core.recipe import Row
from evergreen.core.records import Model
from evergreen.core.states import ModelState
from evergreen.stages import collect

DATA = Path(os.environ.get("EVERGREEN_TEST_DATA", Path(__file__).parents[1] / "../shared/data")) / "tabular/dev"
PARIMA = ("frustumCoverage", "occlusionRatio", "meanVisibleDistance", "deviceFPS", "deviceCPULoad")
#: file -> target, features (None: all), rows in a chunk
SETS: dict[str, tuple[str, tuple[str, ...] | None, int]] = {
    "elec2_drift": ("label", None, 1888),
    "parima_devices": ("decisionLOD", PARIMA, 1000),
    "parima_engine": ("decisionLOD", PARIMA, 1000),
    "parima_units": ("decisionLOD", PARIMA, 1000),
    "parima_none": ("decisionLOD", PARIMA, 1000),
}
TOML = """
ledger = {{ use = "memory" }}
[loops.l]
recipe = {recipe}
runner = {{ use = "inline" }}
collect = {{ consent = false }}
trigger = {{ min_new = 1 }}
rollout = {{ steps = [1.0], hold = "0s" }}
"""


@dataclass
class Tale:
    """Accuracy of each way on each chunk, and what the gate said of each candidate."""

    frozen: list[float] = field(default_factory=list)
    newest: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    same_label: list[float] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)


def replay(name: str, data: Path) -> Tale:
    """Replay one file."""
    target, features, size = SETS[name]
    with (data / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
    tale = Tale()
    with tempfile.TemporaryDirectory() as tmp:
        wanted: dict[str, Any] = {"use": "tabular", "target": target}
        if features:
            wanted["features"] = list(features)
        inline = ", ".join(f"{k} = {json.dumps(v)}" for k, v in wanted.items())
        Path(tmp, "evergreen.toml").write_text(TOML.format(recipe="{ " + inline + " }"))
        loop = evergreen.open(Path(tmp, "evergreen.toml"))["l"]
        for n, chunk in enumerate(chunks):
            chunk = [{k: v for k, v in row.items() if k != "trueLOD"} for row in chunk]
            if n:
                _answer(loop, chunk, tale)
                tale.same_label.append(_same(chunk, target))
            samples = [collect.admit(loop, row, origin="replay", id=f"{n}-{i}") for i, row in enumerate(chunk)]
            loop.ledger.append("l", samples)
            engine.tick(loop)
            newest = loop.ledger.last(Model, "l")
            tale.verdicts.append(str(newest.verdict["outcome"]) if newest else "no model")
            print(f"{name} chunk {n + 1}/{len(chunks)}: {tale.verdicts[-1]}", flush=True)
    return tale


def _answer(loop: Loop, chunk: Sequence[dict[str, Any]], tale: Tale) -> None:
    """Let every way answer a chunk that none has seen."""
    rows = []
    for i, row in enumerate(chunk):
        datum = loop.recipe.sample(row)
        rows.append(Row(str(i), datum.input, datum.label))
    champion = loop.ledger.last(Model, "l", ModelState.CHAMPION)
    ways = {"frozen": loop.ledger.find(Model, "l")[0], "newest": loop.ledger.last(Model, "l"), "ours": champion}
    for way, model in ways.items():
        assert model is not None
        with tempfile.TemporaryDirectory() as folder:
            loop.store.get(model.key, Path(folder, "m"))
            predictor = loop.recipe.load(Path(folder, "m"))
            right = loop.recipe.score(predictor, rows)["accuracy"]
            predictor.close()
        getattr(tale, way).append(sum(right) / len(right))


def _same(chunk: Sequence[dict[str, Any]], target: str) -> float:
    """Accuracy of saying what the last label was."""
    pairs = pairwise(chunk)
    return sum(a[target] == b[target] for a, b in pairs) / (len(chunk) - 1)


def main() -> None:
    """Replay what is asked for and write `results/replay.md`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(SETS))
    parser.add_argument("--data", type=Path, default=DATA)
    args = parser.parse_args()
    summary, tables = [], []
    for name in args.names:
        tale = replay(name, args.data)
        means = [sum(way) / len(way) for way in (tale.frozen, tale.newest, tale.ours, tale.same_label)]
        promoted = tale.verdicts.count("promote")
        summary.append([name, len(tale.ours) + 1, SETS[name][2], *means, f"{promoted} of {len(tale.verdicts)}"])
        tables.append(f"\n## {name}: accuracy on each chunk, before it was learnt from\n")
        tables.append("| chunk | frozen | newest | Evergreen | last label | the candidate after it |")
        tables.append("|---|---|---|---|---|---|")
        for i, row in enumerate(
            zip(tale.frozen, tale.newest, tale.ours, tale.same_label, tale.verdicts[1:], strict=True)
        ):
            tables.append(f"| {i + 2} | " + " | ".join(f"{v:.3f}" for v in row[:4]) + f" | {row[4]} |")
    columns = (
        "data", "chunks", "rows each", "frozen after chunk 1", "always the newest", "Evergreen's gate", "last label again",
        "candidates promoted",
    )  # fmt: skip
    notes = (
        "Mean accuracy over chunks 2 to the last, each answered before it was learnt from; recipe `tabular` and gate with "
        "their defaults. `last label again` is the naive forecast (labels of elec2 are auto-correlated); `parima_none` has "
        "no drift, `parima_units` is a data fault that a gate should not follow blindly.\n" + "\n".join(tables)
    )
    report("replay", "Replayed in time order: frozen, always-newest, Evergreen's gate", columns, summary, notes)


if __name__ == "__main__":
    main()
