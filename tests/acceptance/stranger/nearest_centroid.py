"""A recipe by somebody else: a class is the mean of its examples, and an input is of the class whose mean is nearest."""

import json
from math import dist

from evergreen.core.errors import Corrupt, InvalidInput
from evergreen.core.recipe import PluginOptions, Recipe


class Options(PluginOptions):
    """Settings of the recipe."""

    dimensions: int = 2
    """How many numbers an input has."""


class Centroids:
    """A trained model."""

    def __init__(self, means):
        self.means = means

    def predict(self, inputs):
        return [{"label": min(self.means, key=lambda label: dist(self.means[label], value))} for value in inputs]

    def close(self):
        self.means = {}


class NearestCentroid(Recipe):
    """Points in, the label of the nearest mean out."""

    Options = Options
    quick = True

    def check(self, value):
        n = self.options.dimensions
        if not isinstance(value, list) or len(value) != n or not all(isinstance(v, int | float) for v in value):
            raise InvalidInput(f"the input is not a list of {n} numbers", field="input")
        return value

    def train(self, job):
        sums = {}
        for row in job.rows():
            sums.setdefault(row.label, []).append(row.input)
        means = {label: [sum(v) / len(points) for v in zip(*points, strict=True)] for label, points in sums.items()}
        job.report("means", len(means), len(means), {"classes": float(len(means))})
        (job.out / "means.json").write_text(json.dumps(means))
        return {"classes": sorted(means), "n_train": sum(map(len, sums.values()))}

    def load(self, artifact):
        try:
            return Centroids(json.loads((artifact / "means.json").read_text()))
        except (OSError, ValueError) as e:
            raise Corrupt(f"the means cannot be read: {e}") from e

    def score(self, predictor, rows):
        answers = predictor.predict([row.input for row in rows])
        return {"accuracy": [float(a["label"] == row.label) for a, row in zip(answers, rows, strict=True)]}

    def report(self, artifact, predictor, rows, folder):
        (folder / "report.md").write_text(f"# {len(predictor.means)} means, judged on {len(rows)} rows\n")
