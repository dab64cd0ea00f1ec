"""Make-believe 3-D viewers: devices with hidden limits that walk through scenes, decide on a level of detail, and log it.

A viewer draws a scene with one of six levels of detail, 0 (finest) to 5 (coarsest). How fast it can draw depends on
what the log does not show: the power of the device, its heat, and what else runs on it. The five logged
features tell of these only in part: the frame rate also depends on the level shown at the moment, so that each
decision changes what the next one sees. The good decision is the finest level that still looks finer than a coarser
one at this distance and that the device can draw at `TARGET` frames per second. What is logged is mostly that, now
and then the level of the moment before (a late client) or a neighbour (a wilful one).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

LEVELS = 6
#: Frames per second that every viewer aims at.
TARGET = 60.0
#: Work of a frame at each level, as a share of the finest.
COST = tuple(0.52**level for level in range(LEVELS))
COLUMNS = (
    "timestamp", "frustumCoverage", "occlusionRatio", "meanVisibleDistance", "deviceFPS", "deviceCPULoad", "deviceGPULoad",
    "viewportVelocity", "viewportAcceleration", "viewportAngularVelocity", "decisionTiles", "decisionLOD", "latencyMs",
    "fpsAfterDecision", "memoryMB",
)  # fmt: skip
FEATURES = COLUMNS[1:6]
#: Share of decisions that are late or wilful, and of those a broken client gets wrong.
NOISE = 0.05
POISON = 0.75
#: Viewers at a time, decisions of one visit, seconds between two decisions of anybody.
CROWD = 24
VISIT = 30
PAUSE_S = 0.25


@dataclass(frozen=True)
class Kind:
    """One kind of device."""

    share: float  #: of the viewers
    power: float  #: work per second, in finest frames of an average view at `TARGET`
    cpu: float  #: processor load when nothing else runs
    refresh: float  #: most frames per second that the display shows
    warms: float  #: how fast it becomes hot, 0 to 1


BEFORE = (
    Kind(share=0.30, power=1.9, cpu=0.15, refresh=120.0, warms=0.1),  # workstation
    Kind(share=0.40, power=0.75, cpu=0.38, refresh=75.0, warms=0.3),  # laptop
    Kind(share=0.30, power=0.22, cpu=0.62, refresh=60.0, warms=0.5),  # tablet
)
#: Phones have idle processors, like workstations, and a fraction of their power.
AFTER = (
    *(Kind(kind.share * 0.4, kind.power, kind.cpu, kind.refresh, kind.warms) for kind in BEFORE),
    Kind(share=0.60, power=0.24, cpu=0.20, refresh=90.0, warms=0.9),
)


class Viewer:
    """One visit: a device, a camera that wanders, and the level shown at the moment."""

    def __init__(self, random: Random, kinds: tuple[Kind, ...]) -> None:
        self.random = random
        self.kind = random.choices(kinds, [kind.share for kind in kinds])[0]
        self.power = self.kind.power * math.exp(random.gauss(0, 0.08))
        self.heat = random.uniform(0, self.kind.warms)
        self.busy = max(0.0, random.gauss(0.1, 0.1))  # what else runs, 0 to 1
        self.near = random.gauss(2.2, 0.8)  # logarithm of the distance
        self.turn = random.random()  # how much of the scene is in front of the camera
        self.speed = 0.0
        self.level = random.randrange(LEVELS)
        self.left = random.randint(VISIT // 2, VISIT * 3 // 2)

    def move(self) -> dict[str, float]:
        """Walk on; return what the viewer measures before it decides."""
        random = self.random
        before = self.speed
        step, turned = random.gauss(0, 0.25), random.gauss(0, 0.12)
        self.near += 0.08 * (2.2 - self.near) + step
        self.turn = _within(self.turn + 0.1 * (0.6 - self.turn) + turned)
        self.speed = abs(step) * math.exp(self.near) / 4
        self.distance = math.exp(self.near)
        self.coverage = _within(self.turn * 1.6 / (1 + 0.09 * self.distance), 0.02)
        self.occlusion = _within(0.15 + 0.09 * self.near + 0.3 * (1 - self.turn) + random.gauss(0, 0.05))
        self.busy = _within(self.busy + 0.1 * (0.1 - self.busy) + random.gauss(0, 0.02))
        self.heat = _within(self.heat + 0.2 * (self.kind.warms * self.strain(self.level) - self.heat))
        return {
            "frustumCoverage": round(_within(self.coverage + random.gauss(0, 0.005)), 4),
            "occlusionRatio": round(_within(self.occlusion + random.gauss(0, 0.01)), 4),
            "meanVisibleDistance": round(self.distance * math.exp(random.gauss(0, 0.015)), 3),
            "deviceFPS": self.measured(self.level),
            "deviceCPULoad": round(_within(self.kind.cpu + 0.5 * self.busy + random.gauss(0, 0.02)), 4),
            "deviceGPULoad": round(_within(self.strain(self.level) + random.gauss(0, 0.03)), 4),
            "viewportVelocity": round(self.speed, 4),
            "viewportAcceleration": round(self.speed - before, 4),
            "viewportAngularVelocity": round(turned, 4),
        }

    def strain(self, level: int) -> float:
        """Return the work of a level at `TARGET`, as a share of what the device can do now, up to 1."""
        return min(1.0, TARGET / self.speed_at(level))

    def speed_at(self, level: int) -> float:
        """Return the frames per second the device could draw now, whatever its display shows."""
        work = self.coverage * (1 - 0.7 * self.occlusion) * COST[level] + 0.004
        able = self.power * (1 - 0.45 * self.heat) * (1 - 0.5 * self.busy)
        return TARGET * able / (4 * work)

    def measured(self, level: int) -> float:
        """Return the frame rate as the viewer measures it."""
        return round(max(1.0, min(self.speed_at(level), self.kind.refresh) + self.random.gauss(0, 0.6)), 2)

    def good(self) -> int:
        """Return the decision that a viewer that knew everything would make."""
        far = int(_within(math.log2(self.distance / 9), 0, LEVELS - 2))
        return next((level for level in range(far, LEVELS) if self.speed_at(level) >= TARGET), LEVELS - 1)


class Viewers:
    """A crowd of viewers; the same seed and the same calls give the same decisions."""

    def __init__(self, seed: int) -> None:
        self._random = Random(f"{seed} decisions")  # noqa: S311 - a simulation
        self._ask = Random(f"{seed} questions")  # noqa: S311
        self._crowds: dict[bool, list[Viewer]] = {False: [], True: []}
        self._now = datetime(2024, 1, 15, 8, 0, tzinfo=UTC)

    def decisions(self, n: int, *, drift: bool = False, poison: bool = False) -> Iterator[dict[str, Any]]:
        """Make the next `n` rows of the log, with the keys `COLUMNS`.

        `drift`: phones have joined, for which other decisions are good. `poison`: a broken client writes most rows,
        with the opposite of the good decision, and does not say what came of it.
        """
        for _ in range(n):
            viewer = self._next(drift)
            features = viewer.move()
            good = viewer.good()
            wrong = poison and self._random.random() < POISON
            level = LEVELS - 1 - good if wrong else self._logged(viewer, good)
            viewer.level = good if wrong else level
            self._now += timedelta(seconds=self._random.expovariate(1 / PAUSE_S))
            tiles = 1 + round(40 * viewer.coverage * (1 - viewer.occlusion))
            yield {
                "timestamp": self._now.isoformat(timespec="milliseconds"),
                **features,
                "decisionTiles": tiles,
                "decisionLOD": level,
                "latencyMs": round(2 + self._random.expovariate(0.4), 2),
                "fpsAfterDecision": "" if wrong else viewer.measured(level),
                "memoryMB": round(180 + 9 * tiles * COST[level] + self._random.gauss(0, 4), 1),
            }

    def questions(self, n: int) -> Iterator[dict[str, Any]]:
        """Ask `n` times for a decision, as a viewer does; every other question brings the last steps of the camera."""
        viewer = Viewer(self._ask, BEFORE)
        steps: list[dict[str, float]] = []
        for i in range(n):
            seen = viewer.move()
            steps.append(
                {
                    "velocity": seen["viewportVelocity"],
                    "acceleration": seen["viewportAcceleration"],
                    "angularVelocity": seen["viewportAngularVelocity"],
                }
            )
            question: dict[str, Any] = {name: seen[name] for name in FEATURES}
            if i % 2:
                question["viewportTrajectory"] = steps[-10:]
            yield question
            viewer.level = viewer.good()
            viewer.left -= 1
            if not viewer.left:
                viewer, steps = Viewer(self._ask, BEFORE), []

    def _next(self, drift: bool) -> Viewer:
        """Return whose turn it is; who has seen enough makes room for another."""
        crowd = self._crowds[drift]
        while len(crowd) < CROWD:
            crowd.append(Viewer(self._random, AFTER if drift else BEFORE))
        viewer = self._random.choice(crowd)
        viewer.left -= 1
        if not viewer.left:
            crowd.remove(viewer)
        return viewer

    def _logged(self, viewer: Viewer, good: int) -> int:
        if self._random.random() >= NOISE:
            return good
        if self._random.random() < 0.5:
            return viewer.level
        return int(_within(good + self._random.choice((-1, 1)), 0, LEVELS - 1))


def append(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Append rows to a log as a viewer does, with a header if it is new; return how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("a", newline="", encoding="utf-8") as log:
        writer = csv.DictWriter(log, COLUMNS)
        if log.tell() == 0:
            writer.writeheader()
        for row in rows:
            writer.writerow(row)
            written += 1
    return written


def _within(value: float, low: float = 0.0, high: float = 1.0) -> float:
    return min(max(value, low), high)
