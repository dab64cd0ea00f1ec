"""An ONNX graph that is being drawn, and what flows through it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from evergreen.core.errors import InvalidInput

_OPSET = [("", 17), ("ai.onnx.ml", 3)]
_IR = 9
#: Of all constants together. What is written here is run on a host with half a gigabyte.
_MOST_BYTES = 128 << 20
#: Numbers that one row may become anywhere on its way.
_MOST_WIDE = 1 << 20
_CHUNK = 1 << 14


def refuse(message: str, hint: str | None = None) -> InvalidInput:
    """Return the error that says what is wrong with a file, in a bounded sentence."""
    if len(message) > 400:  # a name in it is that long
        message = f"{message[:250]} … {message[-100:]}"
    return InvalidInput(message, field="model", hint=hint)


@dataclass(frozen=True)
class Feature:
    """A named value of CoreML: of each row an array of `shape`, in the graph a tensor of (n, *shape)."""

    tensor: str
    shape: tuple[int, ...]
    kind: Literal["double", "single", "text", "counts"] = "double"

    @property
    def width(self) -> int:
        """Return how many numbers of each row it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Answer:
    """What a classifier gives: values of shape (n, len(labels)); the largest, the first of equals, is the answer."""

    tensor: str
    labels: tuple[str, ...]
    kind: Literal["double", "single"] = "double"
    #: `done`: they add up to 1. `shares`: none is negative. `scores`: any number.
    scale: Literal["done", "shares", "scores"] = "done"


class Graph:
    """Nodes and constants, named as they come."""

    def __init__(self) -> None:
        # Drawn in place: protobuf would copy a graph twice on its way into a model.
        self._model = onnx.ModelProto(ir_version=_IR)
        self._model.graph.name = "coreml"
        self._model.opset_import.extend(helper.make_opsetid(*o) for o in _OPSET)
        self._bytes = 0
        self._made = 0
        #: What the file leaves open, and how it was read.
        self.notes: list[str] = []
        self._joined: dict[tuple[str, ...], str] = {}

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        return self.nodes(operator, 1, *inputs, domain=domain, **attributes)[0]

    def nodes(self, operator: str, outputs: int, *inputs: str, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node of several outputs and return their names."""
        names = [f"t{self._made + i}" for i in range(outputs)]
        self._made += outputs
        node = self._model.graph.node.add(op_type=operator, input=inputs, output=names, domain=domain)
        for name, value in attributes.items():
            if isinstance(value, np.ndarray):
                _array(node.attribute.add(name=name), value)
            else:
                node.attribute.append(helper.make_attribute(name, value))
        return names

    def constant(self, values: Any, kind: str = "double") -> str:
        """Add an array (`double`, `single` or `whole` numbers) and return its name."""
        array = numbers(values, kind)
        self._bytes += array.nbytes
        if self._bytes > _MOST_BYTES:
            raise refuse("the model is too large: its weights take more than 128 MiB")
        name = f"c{len(self._model.graph.initializer)}"
        self._model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def feature(
        self, tensor: str, shape: tuple[int, ...], kind: Literal["double", "single", "text"] = "double"
    ) -> Feature:
        """Name a tensor that was drawn; refuses one that is too wide for a small host."""
        if math.prod(shape) > _MOST_WIDE:
            raise refuse(f"the model is too wide: {math.prod(shape):,} numbers for each row")
        return Feature(tensor, shape, kind)

    def cast(self, value: Feature, kind: Literal["double", "single"]) -> Feature:
        """Return a feature in another precision."""
        if value.kind == kind:
            return value
        if value.kind in ("text", "counts"):
            raise refuse(
                f"numbers are needed where the file has {'a dictionary' if value.kind == 'counts' else 'text'}"
            )
        to = TensorProto.DOUBLE if kind == "double" else TensorProto.FLOAT
        return replace(value, tensor=self.node("Cast", value.tensor, to=to), kind=kind)

    def reshape(self, value: Feature, shape: tuple[int, ...]) -> Feature:
        """Return the same numbers of each row in another shape."""
        if value.shape == shape:
            return value
        to = self.constant([-1, *shape], "whole")
        return replace(value, tensor=self.node("Reshape", value.tensor, to), shape=shape)

    def vector(self, values: list[Feature]) -> Feature:
        """Put numbers side by side, in double precision: what a model sees of its inputs."""
        flat = [self.reshape(self.cast(value, "double"), (value.width,)) for value in values]
        if len(flat) == 1:
            return flat[0]
        whole = self._joined.get(tuple(f.tensor for f in flat))
        if whole is not None:
            return Feature(whole, (sum(f.width for f in flat),))
        return self.feature(self.node("Concat", *[f.tensor for f in flat], axis=1), (sum(f.width for f in flat),))

    def split(self, whole: Feature, widths: list[int]) -> list[Feature]:
        """Cut a vector into pieces side by side."""
        if len(widths) == 1:
            return [whole]
        tensors = self.nodes("Split", len(widths), whole.tensor, self.constant(widths, "whole"), axis=1)
        self._joined[tuple(tensors)] = whole.tensor
        return [Feature(tensor, (width,), whole.kind) for tensor, width in zip(tensors, widths, strict=True)]

    def sigmoid(self, tensor: str, kind: str = "double") -> str:
        """Draw 1 / (1 + exp(-x)): onnxruntime's own Sigmoid is the same number for all that is far below zero."""
        one = self.constant([1.0], kind)
        return self.node("Div", one, self.node("Add", one, self.node("Exp", self.node("Neg", tensor))))

    def probabilities(self, answer: Answer) -> str:
        """Make the values of an answer add up to 1 without changing which is the largest; 32-bit."""
        value = answer.tensor
        if answer.scale == "scores":
            self.notes.append("the file gives scores, not probabilities: a softmax was put behind them")
            value = self.node("Softmax", value, axis=1)
        elif answer.scale == "shares":
            total = self.node("ReduceSum", value, self.constant([1], "whole"), keepdims=1)
            none = self.node("Equal", total, self.constant([0.0], answer.kind))
            even = self.constant([1.0 / len(answer.labels)], answer.kind)
            one = self.constant([1.0], answer.kind)
            value = self.node("Where", none, even, self.node("Div", value, self.node("Where", none, one, total)))
            like = self.constant([[0.0] * len(answer.labels)], answer.kind)
            value = self.node("Add", value, like)
        return self.node("Cast", value, to=TensorProto.FLOAT)

    def save(self, path: Path, entry: str, width: int, probabilities: str, labels: int) -> None:
        """Write the graph with its one input and one output."""
        graph = self._model.graph
        graph.node.add(op_type="Identity", input=[probabilities], output=["probabilities"])
        graph.input.append(helper.make_tensor_value_info(entry, TensorProto.FLOAT, [None, width]))
        graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, labels]))
        onnx.save(self._model, path)


def _array(attribute: Any, values: Any) -> None:
    """Write a long attribute: whole numbers as they are, others as a tensor."""
    if values.dtype != np.int64:
        attribute.type = onnx.AttributeProto.TENSOR
        attribute.t.CopyFrom(numpy_helper.from_array(values))
        return
    attribute.type = onnx.AttributeProto.INTS
    for start in range(0, len(values), _CHUNK):  # a list of Python's takes five times as much
        attribute.ints.extend(values[start : start + _CHUNK].tolist())


def numbers(values: Any, kind: str = "double", what: str = "") -> Any:
    """Return an array; with `what` given, refuse it if a number is not finite, naming it so."""

    types = {"double": np.float64, "single": np.float32, "whole": np.int64}
    array = np.ascontiguousarray(values, dtype=types[kind])
    if what and not np.isfinite(array).all():
        raise refuse(f"{what} has a number that is not finite")
    return array
