"""Support vector classifiers, as LIBSVM decides: a margin for each pair of labels, votes, and Platt's probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from evergreen.backends.format.coreml.graph import Answer, Feature, Graph, numbers, refuse


def classify(parameters: Any, given: Mapping[str, Feature], labels: tuple[str, ...], graph: Graph) -> Answer:
    """Draw a supportVectorClassifier.

    With probA and probB the label is the most probable one; without, the one most pairs vote for, the first of equals,
    and its share of the votes stands for a probability.
    """
    x = graph.vector(list(given.values()))
    k = len(labels)
    counts, vectors, alphas = _checked(parameters, x.width, k)
    pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
    rho = numbers(parameters.rho, what="rho of the support vectors")
    a, b = numbers(parameters.probA, what="probA"), numbers(parameters.probB, what="probB")
    if len(rho) != len(pairs) or len(a) not in (0, len(pairs)) or len(b) != len(a):
        raise refuse(
            f"rho, probA and probB of the support vectors are not one for each of {len(pairs)} pairs of labels"
        )
    if len(a) and k > 2:
        return _coupled(parameters, x, counts, vectors, alphas, (rho, a, b), labels, graph)
    kernel = _kernel(parameters.kernel, x, vectors, graph)
    weights = graph.constant(_pairwise(counts, alphas, pairs))
    margins = graph.node("Sub", graph.node("MatMul", kernel, weights), graph.constant(rho))
    if len(a):
        odds = graph.node("Add", graph.node("Mul", margins, graph.constant(a)), graph.constant(b))
        second = graph.node("Clip", graph.sigmoid(odds), graph.constant(1e-7), graph.constant(1 - 1e-7))
        return Answer(graph.node("Concat", graph.node("Sub", graph.constant([1.0]), second), second, axis=1), labels)
    graph.notes.append("the support vectors give no probabilities: shares of the votes of the pairs stand for them")
    return Answer(_votes(margins, pairs, k, graph), labels, scale="shares")


def _checked(parameters: Any, width: int, k: int) -> tuple[list[int], Any, Any]:
    """Return how many vectors each label has, the vectors (m, width) and the coefficients (k - 1, m)."""
    counts = list(parameters.numberOfSupportVectorsPerClass)
    vectors = _vectors(parameters, width)
    if len(counts) != k or any(count < 0 for count in counts) or sum(counts) != len(vectors):
        raise refuse(f"the {len(vectors)} support vectors are not shared out among the {k} labels")
    if len(parameters.coefficients) != k - 1 or any(len(c.alpha) != len(vectors) for c in parameters.coefficients):
        raise refuse(f"the support vectors need {k - 1} rows of {len(vectors)} coefficients")
    return (
        counts,
        vectors,
        numbers([c.alpha for c in parameters.coefficients], what="a coefficient of the support vectors"),
    )


def _vectors(parameters: Any, width: int) -> Any:
    group = parameters.WhichOneof("supportVectors")
    if group is None or not getattr(parameters, group).vectors:
        raise refuse("there are no support vectors")
    given = getattr(parameters, group).vectors
    if len(given) * width > 1 << 24:
        raise refuse(f"{len(given):,} support vectors of {width:,} numbers are too many")
    if group == "denseSupportVectors":
        if any(len(vector.values) != width for vector in given):
            raise refuse(f"a support vector has not {width} numbers")
        return numbers([vector.values for vector in given], what="a support vector")
    dense = np.zeros((len(given), width))
    for row, vector in enumerate(given):
        for node in vector.nodes:  # LIBSVM counts from 1
            if not 1 <= node.index <= width:
                raise refuse(f"a support vector has a number at place {node.index} of {width}")
            dense[row, node.index - 1] = node.value
    return numbers(dense, what="a support vector")


def _constants(kernel: Any) -> tuple[str, float, float, int]:
    """Return the kind of a kernel, gamma, c and degree."""
    kind = kernel.WhichOneof("kernel")
    if kind is None:
        raise refuse("the support vectors have no kernel")
    of = getattr(kernel, kind)
    gamma, c, degree = getattr(of, "gamma", 1.0), getattr(of, "c", 0.0), getattr(of, "degree", 0)
    if not (np.isfinite([gamma, c]).all() and gamma >= 0 and 0 <= degree <= 100):
        raise refuse("a constant of the kernel is negative, too large or not finite")
    return kind, gamma, c, degree


def _kernel(kernel: Any, x: Feature, vectors: Any, graph: Graph) -> str:
    """Draw the kernel between each row and each support vector, (n, m)."""
    kind, gamma, c, degree = _constants(kernel)
    cross = graph.node("MatMul", x.tensor, graph.constant(vectors.T))
    if kind == "linearKernel":
        return cross
    if kind == "rbfKernel":
        square = graph.node(
            "ReduceSum", graph.node("Mul", x.tensor, x.tensor), graph.constant([1], "whole"), keepdims=1
        )
        twice = graph.node("Mul", cross, graph.constant([-2.0]))
        total = graph.node(
            "Add",
            graph.node("Add", square, twice),
            graph.constant(numbers((vectors**2).sum(axis=1), what="the square of a support vector")),
        )
        distance = graph.node("Max", total, graph.constant([0.0]))
        return graph.node("Exp", graph.node("Mul", distance, graph.constant([-gamma])))
    inner = graph.node("Add", graph.node("Mul", cross, graph.constant([gamma])), graph.constant([c]))
    if kind == "sigmoidKernel":
        return graph.node("Tanh", inner)
    return graph.node("Pow", inner, graph.constant([float(degree)]))


def _pairwise(counts: list[int], alphas: Any, pairs: list[tuple[int, int]]) -> Any:
    """Return what each support vector adds to each pair's margin, (m, pairs)."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    if len(pairs) * int(starts[-1]) > 1 << 24:
        raise refuse(f"{starts[-1]:,} support vectors for {len(pairs):,} pairs of labels are too many")
    weights = np.zeros((starts[-1], len(pairs)))
    for p, (i, j) in enumerate(pairs):
        of_i, of_j = slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1])
        weights[of_i, p] = alphas[j - 1, of_i]
        weights[of_j, p] = alphas[i, of_j]
    return weights


def _votes(margins: str, pairs: list[tuple[int, int]], k: int, graph: Graph) -> str:
    """A margin above 0 is a vote for the first label of the pair, else for the second."""
    first, second = np.zeros((len(pairs), k)), np.zeros((len(pairs), k))
    for p, (i, j) in enumerate(pairs):
        first[p, i] = second[p, j] = 1.0
    above = graph.node("Cast", graph.node("Greater", margins, graph.constant([0.0])), to=TensorProto.DOUBLE)
    return graph.node(
        "Add", graph.node("MatMul", above, graph.constant(first - second)), graph.constant(second.sum(axis=0))
    )


def _coupled(
    parameters: Any,
    x: Feature,
    counts: list[int],
    vectors: Any,
    alphas: Any,
    platt: tuple[Any, Any, Any],
    labels: tuple[str, ...],
    graph: Graph,
) -> Answer:
    """Couple the pairs' probabilities by LIBSVM's iteration; onnxruntime has it, in 32 bits."""
    kind, gamma, c, degree = _constants(parameters.kernel)
    rho, a, b = platt
    _, probabilities = graph.nodes(
        "SVMClassifier",
        2,
        graph.cast(x, "single").tensor,
        domain="ai.onnx.ml",
        classlabels_ints=list(range(len(labels))),
        coefficients=alphas.ravel().tolist(),
        kernel_params=[gamma, c, float(degree)],
        kernel_type={"linearKernel": "LINEAR", "rbfKernel": "RBF", "polyKernel": "POLY", "sigmoidKernel": "SIGMOID"}[
            kind
        ],
        prob_a=a.tolist(),
        prob_b=b.tolist(),
        rho=(-rho).tolist(),
        support_vectors=vectors.ravel().tolist(),
        vectors_per_class=counts,
    )
    return Answer(probabilities, labels, "single", "shares")
