"""From an artifact to something that answers."""

from __future__ import annotations

from pathlib import Path

from evergreen.recipes.intent import manifest, voices
from evergreen.recipes.intent.predictor import GRAPH, Graph, IntentPredictor, session


def load(artifact: Path) -> IntentPredictor:
    """Load what a training wrote. Raises `Corrupt` if anything is missing or not as it was written."""
    told = manifest.read(artifact)
    for name in told["files"]:
        if name.startswith("members/"):
            manifest.whole(artifact, name, told)
    graph = Graph(session(manifest.whole(artifact, GRAPH, told)), told["base"])
    outside = told["outside"]
    base = IntentPredictor(graph, told["answers"], outside, told)
    if not told["members"]:
        return base
    whole = IntentPredictor(voices.load(artifact, told, graph), told["answers"], outside, told)
    whole.exported = base
    return whole
