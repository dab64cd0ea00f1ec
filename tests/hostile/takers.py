"""A recipe that takes models from devices, with hardly anything inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evergreen.core.recipe import Interface, Job, PluginOptions, Predictor, Recipe, Row, Scores
from evergreen.core.records import Json


class Taken:
    """A model from a device, asked in its own way: a row's input is a text, or a list of figures."""

    def __init__(self, folder: Path, interface: Interface) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self._interface = interface

    def predict(self, inputs: Sequence[Json]) -> Sequence[Json]:
        import numpy as np

        if self._interface.kind == "text":
            batch = np.array([[text] for text in inputs], dtype=object)
        else:
            batch = np.array(inputs, dtype=np.float32)
        (given,) = self._session.run(["probabilities"], {self._interface.input: batch})
        return [self._interface.labels[i] for i in given.argmax(axis=1)]

    def close(self) -> None:
        """Let go."""


class Taker(Recipe):
    """Trains nothing, takes everything."""

    Options = PluginOptions

    def train(self, job: Job) -> Mapping[str, Json]:
        (job.out / "nothing").touch()
        return {}

    def load(self, artifact: Path) -> Predictor:
        raise NotImplementedError

    def adopt(self, upload: Path, interface: Interface) -> Predictor:
        return Taken(upload, interface)

    def score(self, predictor: Predictor, rows: Sequence[Row]) -> Scores:
        said = predictor.predict([row.input for row in rows])
        return {"accuracy": [float(one == row.label) for one, row in zip(said, rows, strict=True)]}
