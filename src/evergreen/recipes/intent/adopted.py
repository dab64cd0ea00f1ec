"""Models that devices sent in: given text, or counted names, they answer with probabilities for labels of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Timer
from typing import Any

from evergreen.core.errors import Corrupt, InvalidInput, PredictionFailed
from evergreen.core.recipe import Interface
from evergreen.recipes.intent import words
from evergreen.recipes.intent.predictor import GRAPH, IntentPredictor, session

#: Metadata of a file: the probability below which nothing is meant, heeded if no label of its own says so; that label.
THRESHOLD = "evergreen.threshold"
OUTSIDE = "evergreen.outside"
_BATCH = 64


class Foreign:
    """A model from a device; its answers are its labels, and `outside` if it knows what that is."""

    def __init__(self, run: Any, interface: Interface, outside: str) -> None:
        self._run = run
        self._input = interface.input
        self._counted = words.Vocabulary(interface.names) if interface.kind == "counts" else None
        own = _outside(interface, outside)
        self._labels = len(interface.labels)
        self._threshold = _threshold(interface.about) if own is None else None
        answers = [outside if label == own else label for label in interface.labels]
        if self._threshold is not None:
            answers.append(outside)
        self.answers = tuple(answers)
        self.outside = outside if outside in answers else None

    def decide(self, texts: Sequence[str], within_s: float | None = None) -> tuple[list[int], Any]:
        """Return the place of the answer to each text, and probabilities (n, answers).

        Raises `PredictionFailed` if it answers with nonsense, fails, or takes longer than `within_s` seconds.
        """
        import numpy as np
        import onnxruntime as ort

        options = ort.RunOptions()
        timer = Timer(within_s or 0.0, setattr, (options, "terminate", True))
        timer.daemon = True
        if within_s is not None:
            timer.start()
        try:
            parts = [self._answer(texts[i : i + _BATCH], options) for i in range(0, len(texts), _BATCH)]
        finally:
            timer.cancel()
        found = np.concatenate(parts) if parts else np.zeros((0, len(self.answers)), dtype=np.float32)
        return found.argmax(axis=1).tolist(), found

    def _answer(self, texts: Sequence[str], options: Any) -> Any:
        import numpy as np
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        if self._counted is None:
            given = np.array([[text] for text in texts], dtype=object)
        else:
            given = np.zeros((len(texts), len(self._counted.names)), dtype=np.float32)
            for row, text in enumerate(texts):
                for place, n in self._counted.count(text).items():
                    given[row, place] = n
        try:
            (found,) = self._run(["probabilities"], {self._input: given}, options)
        except (state.Fail, state.InvalidArgument, state.NotImplemented, state.RuntimeException) as e:
            stopped = options.terminate
            raise PredictionFailed("it took too long" if stopped else f"it failed: {str(e)[:200]}") from e
        if found.shape != (len(texts), self._labels) or not np.isfinite(found).all() or found.min() < 0:
            raise PredictionFailed("it answered with something that is no probabilities")
        if self._threshold is None:
            return found
        column = np.full((len(found), 1), self._threshold, dtype=np.float32)
        return np.concatenate([found, column], axis=1) / (1 + self._threshold)

    def close(self) -> None:
        """Let go of the graph."""
        self._run = None


def foreign(upload: Path, interface: Interface, outside: str) -> Foreign:
    """Open the model of an upload. Raises `InvalidInput` if what it asks for cannot be given."""
    if interface.kind == "features":
        raise InvalidInput(
            f"the model asks for {interface.width} numbers without saying what they are",
            field="model",
            hint="Send a model that takes text, or one that names what it counts: a CoreML pipeline that begins with a "
            "dictVectorizer, or ONNX with the metadata evergreen.names (words, pairs of words, # and a run of characters).",
        )
    if not interface.labels or len(set(interface.labels)) < len(interface.labels):
        raise InvalidInput("the model does not say what its labels are", field="model")
    try:
        opened = session((upload / GRAPH).read_bytes())
    except (OSError, Corrupt) as e:
        raise InvalidInput(f"the model cannot be opened: {e}", field="model") from e
    asked = [given.name for given in opened.get_inputs()]
    if asked != [interface.input] or "probabilities" not in [made.name for made in opened.get_outputs()]:
        raise InvalidInput("the model does not take and give what is said beside it", field="model")
    return Foreign(opened.run, interface, outside)


def load(upload: Path, interface: Interface, outside: str) -> IntentPredictor:
    """Return the model of an upload as something that answers alone."""
    model = foreign(upload, interface, outside)
    return IntentPredictor(model, model.answers, model.outside, {})


def _threshold(about: Mapping[str, str]) -> float | None:
    if THRESHOLD not in about:
        return None
    try:
        found = float(about[THRESHOLD])
    except ValueError as e:
        raise InvalidInput(f"the metadata {THRESHOLD} is {about[THRESHOLD][:40]!r}, not a number", field="model") from e
    if not 0 <= found <= 1:
        raise InvalidInput(f"the metadata {THRESHOLD} is {found:g}, not from 0 to 1", field="model")
    return found


def _outside(interface: Interface, outside: str) -> str | None:
    """Return its own label for what is out of scope."""
    said = interface.about.get(OUTSIDE)
    return next((label for label in (said, outside, "oos", "out_of_scope") if label in interface.labels), None)
