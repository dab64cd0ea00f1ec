"""Generalised linear classifiers: logit and probit, against a reference class or one against the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evergreen.backends.format.coreml.graph import Answer, Feature, Graph, numbers, refuse

_LOGIT, _PROBIT = 0, 1
_REFERENCE, _REST = 0, 1


def classify(parameters: Any, given: Mapping[str, Feature], labels: tuple[str, ...], graph: Graph) -> Answer:
    """Draw a glmClassifier.

    Two labels: the second has probability f(score). More: with a reference class, softmax of 0 and the scores; one
    against the rest, f of each score, divided by their sum.
    """
    x = graph.vector(list(given.values()))
    transform, encoding, k = parameters.postEvaluationTransform, parameters.classEncoding, len(labels)
    rows = len(parameters.weights)
    if transform not in (_LOGIT, _PROBIT) or encoding not in (_REFERENCE, _REST):
        raise refuse("the glmClassifier has an unknown transform or class encoding")
    expected = k - 1 if encoding == _REFERENCE or k == 2 else k
    if rows != expected or len(parameters.offset) != rows:
        raise refuse(
            f"the glmClassifier has {rows} rows of weights and {len(parameters.offset)} offsets for {k} labels; {expected} are needed"
        )
    if any(len(row.value) != x.width for row in parameters.weights):
        raise refuse(f"a row of weights of the glmClassifier has not one for each of {x.width} features")
    if transform == _PROBIT and k > 2:
        raise refuse("probit is only supported for two labels")
    weights = numbers([row.value for row in parameters.weights], what="the weights of the glmClassifier")
    offset = numbers(parameters.offset, what="the offsets of the glmClassifier")
    scores = graph.node("Add", graph.node("MatMul", x.tensor, graph.constant(weights.T)), graph.constant(offset))
    if encoding == _REFERENCE and k > 2:
        return Answer(graph.node("Softmax", _after_zero(scores, graph), axis=1), labels)
    share = graph.sigmoid(scores) if transform == _LOGIT else _normal(scores, graph)
    if k > 2:
        return Answer(share, labels, scale="shares")
    return Answer(graph.node("Concat", graph.node("Sub", graph.constant([1.0]), share), share, axis=1), labels)


def _after_zero(scores: str, graph: Graph) -> str:
    """Put a column of zeros, the score of the reference class, before the scores."""
    pads = graph.constant([0, 1, 0, 0], "whole")
    return graph.node("Pad", scores, pads, graph.constant(0.0))


def _normal(scores: str, graph: Graph) -> str:
    """Return the normal distribution's probability below each score, in 32 bits: there is no 64-bit kernel for it."""
    single = graph.cast(Feature(graph.node("Mul", scores, graph.constant([math.sqrt(0.5)])), (1,)), "single")
    error = graph.cast(Feature(graph.node("Erf", single.tensor), (1,), "single"), "double")
    return graph.node("Mul", graph.node("Add", error.tensor, graph.constant([1.0])), graph.constant([0.5]))
