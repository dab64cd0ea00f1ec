"""The tabular recipe: the plugin that the other files of this folder make up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from pathlib import Path
from time import perf_counter
from typing import ClassVar

from evergreen.core.recipe import Datum, Described, Job, PluginOptions, Predictor, Recipe, Row, Scores
from evergreen.core.records import Json
from evergreen.recipes.tabular import outcome
from evergreen.recipes.tabular.columns import Columns, missing
from evergreen.recipes.tabular.labels import Labels, spelling
from evergreen.recipes.tabular.options import TabularOptions


class Tabular(Recipe):
    """A row of numbers and categories in, a label out, with a probability for every class.

    >>> recipe = Tabular(TabularOptions(target="lod", ranges={"cover": (0, 1)}))
    >>> recipe.sample({"cover": "0.4", "lod": "2"})
    Datum(input={'cover': 0.4}, label=2, weight=1.0, group=None)
    >>> recipe.check({"cover": 1.4})
    Traceback (most recent call last):
    evergreen.core.errors.InvalidInput: cover is 1.4, outside the range from 0 to 1
    """

    Options: ClassVar[type[PluginOptions]] = TabularOptions
    quick: ClassVar[bool] = True
    timely: ClassVar[bool] = True
    options: TabularOptions

    def __init__(self, options: TabularOptions) -> None:
        super().__init__(options)
        self._columns = Columns(options)
        self._labels = Labels(options.target, options.classes)

    def check(self, value: Json) -> Json:
        """Return the input as it is, or raise `InvalidInput` that names the feature."""
        return self._columns.check(value)

    def sample(self, row: Mapping[str, Json]) -> Datum:
        """Make a datum of a flat row with the target column, or of one with `input` and `label`."""
        return self._columns.sample(row)

    def judges(self, row: Row) -> bool:
        """Keep rows out of the holdout whose outcome was poor or not measured."""
        return self.options.outcome is None or outcome.judges(self.options.outcome, row)

    def train(self, job: Job) -> Mapping[str, Json]:
        """Fit, export to ONNX and prove that the graph decides as scikit-learn does."""
        from evergreen.recipes.tabular import export, predictor, training

        started = perf_counter()
        rows = list(job.rows())
        fitted = training.fit(self.options, rows, seed=job.seed, threads=job.threads, report=job.report)
        job.report("export", 0, 1, {})
        graph = job.out / predictor.GRAPH
        export.write(fitted.model, fitted.layout.width, fitted.temperature, graph)
        proved = export.prove(fitted.model, predictor.session(graph.read_bytes()), fitted.x, job.seed)
        details: dict[str, Json] = {**fitted.details, "onnx_identical": True, "decisions_compared": proved}
        if self.options.outcome:
            details["outcome"] = outcome.summary(self.options.outcome, [row.input for row in rows])
        details["seconds"] = round(perf_counter() - started, 2)
        more = {"options": self.options.model_dump(mode="json"), "details": details, "versions": _versions()}
        predictor.write_manifest(job.out, fitted.layout, fitted.classes, more)
        job.report("export", 1, 1, {})
        return details

    def load(self, artifact: Path) -> Predictor:
        """Open the graph with onnxruntime."""
        from evergreen.recipes.tabular import predictor

        return predictor.load(artifact)

    def decision(self, output: Json) -> Json:
        """Return the label."""
        return output["label"]

    def score(self, predictor: Predictor, rows: Sequence[Row]) -> Scores:
        """Return `accuracy` (0 or 1) and `log_likelihood` (of the right label, at least log 1e-6) for each row."""
        accuracy, likelihood = [], []
        answers = predictor.predict([row.input for row in rows])
        for row, answer in zip(rows, answers, strict=True):
            label = self._labels.read(row.label, text=False)
            accuracy.append(float(spelling(answer["label"]) == spelling(label)))
            likelihood.append(log(max(answer["probabilities"].get(spelling(label), 0.0), 1e-6)))
        return {"accuracy": accuracy, "log_likelihood": likelihood}

    def report(self, artifact: Path, predictor: Predictor, rows: Sequence[Row], folder: Path) -> None:
        """Write `report.md`, `report.json`, `confusion.png`, `importance.png` and `calibration.png`."""
        from evergreen.recipes.tabular import predictor as loaded
        from evergreen.recipes.tabular import report

        own = predictor if isinstance(predictor, loaded.TabularPredictor) else loaded.load(artifact)
        report.write(self.options, own, rows, folder)

    def describe(self, value: Json) -> Described:
        """Return the features of an input: numbers as numbers, categories as text; what is missing is left out."""
        if not isinstance(value, Mapping):
            return {}
        names = self.options.features
        if names is None:
            never = self.options.never
            names = tuple(name for name in value if name not in never)
        said: dict[str, float | str] = {}
        for name in names:
            cell = value.get(name)
            if name in self.options.categorical or (self.options.features is None and cell.__class__ in (str, bool)):
                if isinstance(cell, bool | int | float | str) and not missing(cell):
                    said[name] = spelling(cell)
            elif cell.__class__ is float or cell.__class__ is int:
                said[name] = float(cell)
        return said

    def describe_output(self, output: Json) -> Described:
        """Return the label as text, and how sure it is."""
        return {"label": spelling(output["label"]), "confidence": output["confidence"]}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("scikit-learn", "onnx", "onnxruntime", "numpy")}
