"""Several models that answer as one: the base says what is out of scope, all vote on which intent it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from evergreen.core.errors import Corrupt, InvalidInput, PredictionFailed
from evergreen.core.recipe import Interface
from evergreen.recipes.intent import adopted
from evergreen.recipes.intent.adopted import Foreign
from evergreen.recipes.intent.predictor import Graph

INTERFACE = "interface.json"


def aligned(found: Any, answers: Sequence[str], labels: Sequence[str]) -> Any:
    """Return probabilities for the intents we know, 0 for those it does not know; what else it knows is left out."""
    import numpy as np

    place = {label: i for i, label in enumerate(labels)}
    pairs = [(i, place[answer]) for i, answer in enumerate(answers) if answer in place]
    votes = np.zeros((len(found), len(labels)))
    votes[:, [ours for _, ours in pairs]] = found[:, [theirs for theirs, _ in pairs]]
    return votes


def mixed(votes: Sequence[Any], weights: Sequence[float]) -> Any:
    """Return the weighted mean of votes (n, labels), rows adding up to 1."""
    import numpy as np

    total = sum(weight * vote for weight, vote in zip(weights, votes, strict=True))
    return total / np.maximum(total.sum(axis=1, keepdims=True), 1e-12)


class Voices:
    """The base and the models from devices that vote with it."""

    def __init__(self, base: Graph, answers: Sequence[str], outside: str | None, weight: float) -> None:
        self._base = base
        self._labels = [label for label in answers if label != outside]
        self._scoped = outside is not None
        self._weight = weight
        self._members: list[tuple[Foreign, float]] = []

    def add(self, model: Foreign, weight: float) -> None:
        """Give a model a vote."""
        self._members.append((model, weight))

    def decide(self, texts: Sequence[str]) -> tuple[list[int], Any]:
        """Return the place of the answer to each text, and probabilities (n, answers)."""
        import numpy as np

        places, found = self._base.decide(texts)
        k = len(self._labels)
        inside = found[:, :k].astype(np.float64)
        votes, weights = [inside / np.maximum(inside.sum(axis=1, keepdims=True), 1e-12)], [self._weight]
        for model, weight in self._members:
            try:
                votes.append(aligned(model.decide(texts)[1], model.answers, self._labels))
            except PredictionFailed:  # on a text that it cannot read the others vote without it
                continue
            weights.append(weight)
        whole = found.astype(np.float64)
        whole[:, :k] = mixed(votes, weights) * inside.sum(axis=1, keepdims=True)
        best = whole[:, :k].argmax(axis=1).tolist()
        return [k if self._scoped and place == k else first for place, first in zip(places, best, strict=True)], whole

    def close(self) -> None:
        """Let go of all models."""
        self._base.close()
        for model, _ in self._members:
            model.close()


def load(artifact: Path, manifest: dict[str, Any], base: Graph) -> Voices:
    """Open the models that vote with the base. Raises `Corrupt` if one is not as it was written."""
    outside = manifest["outside"]
    voices = Voices(base, manifest["answers"], outside, manifest["base_weight"])
    for member in manifest["members"]:
        folder = artifact / "members" / member["id"]
        try:
            interface = read(folder)
            voices.add(adopted.foreign(folder, interface, outside or member["outside"]), member["weight"])
        except (InvalidInput, OSError, msgspec.DecodeError) as e:
            raise Corrupt(f"{artifact.name}/members/{member['id']} cannot be opened: {e}") from e
    return voices


def read(folder: Path) -> Interface:
    """Read what a model asks for and gives."""
    return msgspec.json.decode((folder / INTERFACE).read_bytes(), type=Interface)
