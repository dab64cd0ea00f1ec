"""A trained model in plain arrays: what the ONNX graph, the CoreML file and the checks are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: Added to every share of the votes of a forest, so that none is zero.
LEAST_VOTE = 0.005


@dataclass(frozen=True)
class Linear:
    """Scores are features × weights + intercepts. A weight is a whole number from -127 to 127 times its label's step."""

    levels: Any  #: (names, labels) of int8
    steps: Any  #: (labels,) of float64
    intercepts: Any  #: (labels,) of float64

    @property
    def weights(self) -> Any:
        """Return the weights, (names, labels) of float64."""
        return self.levels * self.steps

    def scores(self, features: Any) -> Any:
        """Return (n, labels) for sparse or dense features (n, names)."""
        return features @ self.weights + self.intercepts


@dataclass(frozen=True)
class Tree:
    """One tree as arrays over its nodes; a row goes left where its feature is at most the threshold."""

    left: Any  #: int, -1 at a leaf
    right: Any
    feature: Any
    threshold: Any  #: float32
    votes: Any  #: (nodes, labels) of float64: shares of the labels; rounded so that 32-bit sums over trees are exact


@dataclass(frozen=True)
class Forest:
    """Scores are the votes of the leaves that a row comes to, added up and divided by the number of trees."""

    trees: Sequence[Tree]


@dataclass(frozen=True)
class Described:
    """Everything that answers are made of.

    Features of a text: counts × `idf` (64-bit arithmetic on 32-bit factors), divided by their L2 norm over all names;
    no known name at all gives zeros. A forest reads them as 32-bit floats. `labels` get scores from `model`. The label `outside` has the constant score
    `limit`, so a text is out of scope exactly if no label scores as high as that. The answer is the label with the
    highest score, the first of equals. Probabilities are softmax(scores / temperature), of a forest
    softmax(log(votes + LEAST_VOTE) / temperature); they never change which label is highest.
    """

    names: tuple[str, ...]
    idf: Any  #: (names,) of float32
    labels: tuple[str, ...]  #: the intents, without `outside`
    model: Linear | Forest
    temperature: float = 1.0
    limit: float | None = None  #: None: nothing is out of scope
    outside: str = "out_of_scope"

    @property
    def kind(self) -> str:
        """Return `linear` or `forest`."""
        return "linear" if isinstance(self.model, Linear) else "forest"

    @property
    def answers(self) -> tuple[str, ...]:
        """Return the labels in the order of the probabilities: the intents, then `outside` if it can be an answer."""
        return self.labels if self.limit is None else (*self.labels, self.outside)
