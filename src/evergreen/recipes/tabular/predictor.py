"""Answers from a trained model: onnxruntime and a few lines of Python, no scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from evergreen.core.errors import Corrupt, InvalidInput
from evergreen.core.records import Json
from evergreen.recipes.tabular.labels import spelling
from evergreen.recipes.tabular.layout import Layout
from evergreen.recipes.tabular.options import Label

GRAPH = "model.onnx"
MANIFEST = "manifest.json"
FORMAT = 1


class TabularPredictor:
    """A loaded graph; answers `{"label", "confidence", "probabilities"}` from any thread."""

    def __init__(self, session: Any, layout: Layout, classes: Sequence[Label], manifest: dict[str, Any]) -> None:
        import numpy as np

        self.layout = layout
        self.classes = tuple(classes)
        self.manifest = manifest
        self._run = session.run
        self._encode = layout.encode
        self._names = [spelling(c) for c in classes]
        self._outputs = ["label", "probabilities"]
        self._array = np.array
        self._float = np.float32

    def predict(self, inputs: Sequence[Json]) -> Sequence[Json]:
        """Answer each input, in order. Raises `InvalidInput` where text stands for a number."""
        if not inputs:
            return []
        encode = self._encode
        labels, probabilities = self._run(self._outputs, {"x": self.matrix([encode(value) for value in inputs])})
        names, classes = self._names, self.classes
        return [
            {"label": classes[place], "confidence": row[place], "probabilities": dict(zip(names, row, strict=True))}
            for place, row in zip(labels.tolist(), probabilities.tolist(), strict=True)
        ]

    def matrix(self, numbers: list[list[float]]) -> Any:
        """Return encoded inputs as the array that the graph reads. Raises `InvalidInput` for a number too large."""
        try:
            return self._array(numbers, self._float)
        except OverflowError as e:
            raise InvalidInput("a number has hundreds of digits, which is too large", field="input") from e

    def decide(self, x: Any) -> tuple[Any, Any]:
        """Return the places of the classes and the probabilities for an encoded array (n × d, 32-bit floats)."""
        labels, probabilities = self._run(self._outputs, {"x": x})
        return labels, probabilities

    def close(self) -> None:
        """Let go of the graph."""
        self._run = None


def load(artifact: Path) -> TabularPredictor:
    """Load what `write_manifest` finished. Raises `Corrupt` if anything is missing or not as it was written."""
    try:
        manifest = msgspec.json.decode((artifact / MANIFEST).read_bytes(), type=dict[str, Any])
        graph = (artifact / GRAPH).read_bytes()
    except (OSError, msgspec.DecodeError) as e:
        raise Corrupt(f"the artifact {artifact.name} is not whole: {e}", hint="Roll back, or train again.") from e
    if manifest.get("recipe") != "tabular" or manifest.get("format") != FORMAT:
        raise Corrupt(f"{artifact.name} is no artifact of the tabular recipe, format {FORMAT}")
    if sha256(graph).hexdigest() != manifest.get("sha256"):
        raise Corrupt(f"{artifact.name}/{GRAPH} is not the file that was written", hint="Roll back, or train again.")
    try:
        layout, classes = Layout.from_json(manifest["layout"]), manifest["classes"]
    except (KeyError, TypeError, ValueError) as e:
        raise Corrupt(f"{artifact.name}/{MANIFEST} is not as it was written: {e}") from e
    return TabularPredictor(session(graph), layout, classes, manifest)


def session(graph: bytes) -> Any:
    """Open a graph for quick single answers: one thread, no spinning."""
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented, state.RuntimeException) as e:
        raise Corrupt(f"onnxruntime cannot read the graph: {e}") from e


def write_manifest(artifact: Path, layout: Layout, classes: Sequence[Label], more: dict[str, Json]) -> None:
    """Finish an artifact whose graph is written."""
    manifest = {
        "recipe": "tabular",
        "format": FORMAT,
        "sha256": sha256((artifact / GRAPH).read_bytes()).hexdigest(),
        "classes": list(classes),
        "layout": layout.to_json(),
        **more,
    }
    (artifact / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
