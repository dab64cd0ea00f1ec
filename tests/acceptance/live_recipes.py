"""A recipe whose models are as good and as slow as they are told to be."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from evergreen.core.recipe import Job, PluginOptions, Predictor, Recipe, Row, Scores
from evergreen.core.records import Json


def truth(n: int) -> str:
    """Return what is right."""
    return "yes" if _dice("truth", n) < 0.5 else "no"


def _dice(what: str, n: int) -> float:
    return int.from_bytes(blake2b(f"{what} {n}".encode(), digest_size=8).digest()) / 2**64


class GuessOptions(PluginOptions):
    """What a model is to be like."""

    skill: float = 0.7
    """Share of inputs it gets right."""
    slow_ms: float = 0.0
    """How long it takes."""


class Guess:
    """Right for a share of inputs, after a while."""

    def __init__(self, skill: float, slow_ms: float) -> None:
        self.skill, self.slow_ms = skill, slow_ms

    def predict(self, inputs: Sequence[Json]) -> Sequence[Json]:
        time.sleep(self.slow_ms / 1000)
        return [self._guess(one["n"]) for one in inputs]

    def _guess(self, n: int) -> str:
        if _dice("skill", n) < self.skill:
            return truth(n)
        return "no" if truth(n) == "yes" else "yes"

    def close(self) -> None:
        """Hold nothing."""


class Guesses(Recipe):
    """Trains what it is told to."""

    Options = GuessOptions

    def train(self, job: Job) -> Mapping[str, Json]:
        (job.out / "guess.json").write_text(json.dumps([self.options.skill, self.options.slow_ms]))
        return {}

    def load(self, artifact: Path) -> Predictor:
        return Guess(*json.loads((artifact / "guess.json").read_text()))

    def score(self, predictor: Predictor, rows: Sequence[Row]) -> Scores:
        return {"accuracy": [1.0] * len(rows)}  # the gate sees no difference: it shows in live traffic only
