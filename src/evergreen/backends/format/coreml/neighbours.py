"""Nearest neighbours: the samples that a phone has kept vote, each with one vote or by its nearness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from evergreen.backends.format.coreml.graph import Answer, Feature, Graph, numbers, refuse

#: Nearer than this counts as this near, so that a sample itself has a finite vote.
_LEAST_DISTANCE = 1e-9


def classify(parameters: Any, given: Mapping[str, Feature], labels: tuple[str, ...], graph: Graph) -> Answer:
    """Draw a kNearestNeighborsClassifier; `labels` has one for each sample, equal ones are one class."""
    x = graph.vector(list(given.values()))
    index, k = parameters.nearestNeighborsIndex, int(parameters.numberOfNeighbors.defaultValue)
    samples = [sample.vector for sample in index.floatSamples]
    if len(samples) != len(labels):
        raise refuse(f"there are {len(samples)} samples for {len(labels)} labels")
    if any(len(sample) != x.width for sample in samples) or index.numberOfDimensions != x.width:
        raise refuse(f"a sample of the neighbours has not {x.width} numbers")
    if not 1 <= k <= len(samples):
        raise refuse(f"{k} neighbours cannot be found among {len(samples)} samples")
    points = numbers(np.array(samples), what="a sample of the neighbours")
    place = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    classes = tuple(place)
    if len(samples) * len(classes) > 1 << 24:
        raise refuse(f"{len(samples):,} samples of {len(classes):,} labels are too many")
    member = np.zeros((len(samples), len(classes)))
    member[np.arange(len(samples)), [place[label] for label in labels]] = 1.0
    axis = graph.constant([1], "whole")
    square = graph.node("ReduceSum", graph.node("Mul", x.tensor, x.tensor), axis, keepdims=1)
    cross = graph.node("MatMul", x.tensor, graph.constant(-2.0 * points.T))
    distance = graph.node("Add", graph.node("Add", square, cross), graph.constant((points**2).sum(axis=1)))
    nearest, places = graph.nodes("TopK", 2, distance, graph.constant([k], "whole"), axis=1, largest=0, sorted=1)
    votes = graph.node("Gather", graph.constant(member), places, axis=0)
    if parameters.WhichOneof("WeightingScheme") == "inverseDistanceWeighting":
        far = graph.node("Sqrt", graph.node("Max", nearest, graph.constant([_LEAST_DISTANCE**2])))
        weight = graph.node("Unsqueeze", graph.node("Reciprocal", far), graph.constant([2], "whole"))
        votes = graph.node("Mul", votes, weight)
    return Answer(graph.node("ReduceSum", votes, axis, keepdims=0), classes, scale="shares")
