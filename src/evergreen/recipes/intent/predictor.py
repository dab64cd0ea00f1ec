"""Answers from a trained model: onnxruntime and a few lines of Python, no scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evergreen.core.errors import Corrupt
from evergreen.core.records import Json
from evergreen.recipes.intent import words

GRAPH = "model.onnx"
#: Probabilities in an answer.
TOP = 5
#: Texts answered in one go: each takes as many numbers as there are names.
_BATCH = 64


class Graph:
    """A graph from text to a label and probabilities over its answers."""

    def __init__(self, session: Any, answers: Sequence[str]) -> None:
        import numpy as np

        self._run = session.run
        self._array = np.array
        self._join = np.concatenate
        self._place = {label: i for i, label in enumerate(answers)}

    def decide(self, texts: Sequence[str]) -> tuple[list[int], Any]:
        """Return the place of the answer to each text, and probabilities (n, answers) of 32-bit floats."""
        places: list[int] = []
        done = []
        for start in range(0, len(texts), _BATCH):
            given = self._array([[words.plain(text)] for text in texts[start : start + _BATCH]], dtype=object)
            labels, probabilities = self._run(["label", "probabilities"], {"text": given})
            places += [self._place[label] for label in labels.tolist()]
            done.append(probabilities)
        return places, done[0] if len(done) == 1 else self._join(done)

    def close(self) -> None:
        """Let go of the graph."""
        self._run = None


class IntentPredictor:
    """A loaded model and those that vote with it; answers from any thread."""

    def __init__(self, voices: Any, answers: Sequence[str], outside: str | None, manifest: dict[str, Any]) -> None:
        self._voices = voices
        self.answers = tuple(answers)
        self.outside = outside
        self.manifest = manifest
        #: What the files in `exports/` hold: the base alone, without those that vote with it.
        self.exported: IntentPredictor = self

    def predict(self, inputs: Sequence[Json]) -> Sequence[Json]:
        """Answer each input, in order."""
        if not inputs:
            return []
        places, rows = self.decide([value if isinstance(value, str) else value["text"] for value in inputs])
        return [answer(self.answers, place, row, self.outside) for place, row in zip(places, rows, strict=True)]

    def decide(self, texts: Sequence[str]) -> tuple[list[int], Any]:
        """Return the place of the answer to each text, and probabilities (n, answers)."""
        decided: tuple[list[int], Any] = self._voices.decide(texts)
        return decided

    def close(self) -> None:
        """Let go of memory."""
        self._voices.close()


def answer(answers: Sequence[str], first: int, row: Any, outside: str | None) -> Json:
    """Return what is said of a text: the answer at place `first`, and the five most probable."""
    most = min(TOP, len(answers))
    top = row.argpartition(-most)[-most:].tolist()
    if first not in top:
        top[0] = first
    found = sorted((-float(row[i]), i) for i in top)
    return {
        "intent": answers[first],
        "confidence": float(row[first]),
        "in_scope": answers[first] != outside,
        "probabilities": {answers[i]: -p for p, i in found},
    }


def session(graph: bytes) -> Any:
    """Open a graph for quick single answers in little memory: one thread, no spinning, no arena."""
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NotImplemented,
        state.RuntimeException,
    ) as e:
        raise Corrupt(f"onnxruntime cannot read the graph: {e}") from e
