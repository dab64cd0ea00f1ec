"""One layer that is being drawn: its parameters, its inputs, and what goes wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evergreen.backends.format.coreml.graph import Feature, Graph, refuse
from evergreen.backends.format.coreml.network import weights
from evergreen.core.errors import InvalidInput


@dataclass(frozen=True)
class Layer:
    """A layer with what it is given."""

    parameters: Any
    inputs: Sequence[Feature]
    graph: Graph
    where: str  #: "layer 3, softmax"
    rows: Feature  #: an input of the network: tells how many rows there are

    @property
    def one(self) -> Feature:
        """Return the only input."""
        if len(self.inputs) != 1:
            raise self.wrong(f"it has {len(self.inputs)} inputs; it takes one")
        return self.inputs[0]

    def wrong(self, why: str) -> InvalidInput:
        """Return the error that names this layer."""
        return refuse(f"{self.where}: {why}")

    def made(self, tensor: str, shape: Sequence[int]) -> Feature:
        """Return what the layer gives."""
        return Feature(tensor, tuple(shape), "single")

    def same(self, operator: str, *more: str, **attributes: Any) -> Feature:
        """Apply an operator that leaves the shape alone to the only input."""
        return self.made(self.graph.node(operator, self.one.tensor, *more, **attributes), self.one.shape)

    def scalar(self, value: float) -> str:
        """Add one 32-bit number."""
        return self.graph.constant(value, "single")

    def weights(self, field: str, shape: tuple[int, ...]) -> Any:
        """Read weights of the layer."""
        return weights.read(getattr(self.parameters, field), shape, f"{self.where}, {field}")

    def axis(self, axis: int, rank: int) -> int:
        """Return an axis counted from the front of a row."""
        if not -rank <= axis < rank:
            raise self.wrong(f"there is no axis {axis} among {rank}")
        return axis % rank

    def deep(self, rank: int) -> Feature:
        """Return the only input if it has at least so many dimensions."""
        if len(self.one.shape) < rank:
            raise self.wrong(f"its input has {len(self.one.shape)} dimensions; {rank} or more are needed")
        return self.one
