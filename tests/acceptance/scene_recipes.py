"""Recipes that stay in one state: a training that goes on and on, and one that cannot be done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from evergreen.core.errors import JobFailed
from evergreen.core.recipe import Job, PluginOptions, Predictor, Recipe, Row, Scores
from evergreen.core.records import Json


class Endless(Recipe):
    """Trains until it is cancelled, and says how far it is."""

    Options = PluginOptions

    def train(self, job: Job) -> Mapping[str, Json]:
        step = 0
        while True:
            step = min(step + 1, 412)
            job.report("fitting the trees", step, 1000, {"loss": 0.4127})
            time.sleep(0.01 if step < 412 else 1)

    def load(self, artifact: Path) -> Predictor:
        raise NotImplementedError(f"{artifact} cannot be there")

    def score(self, predictor: Predictor, rows: Sequence[Row]) -> Scores:
        raise NotImplementedError


class Hopeless(Endless):
    """Finds something wrong with every dataset."""

    def train(self, job: Job) -> Mapping[str, Json]:
        raise JobFailed("The column “delivered_at” has 3 kinds of dates; the newest began on 14 May.", kind="data")
