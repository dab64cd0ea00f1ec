"""Tree ensembles: every branch mode, missing values, and the four transforms of their sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import numpy_helper

from evergreen.backends.format.coreml.graph import Answer, Feature, Graph, numbers, refuse

_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_EQ", "LEAF")
_UNEQUAL, _LEAF = 5, 6
_NONE, _SOFTMAX, _LOGISTIC, _REFERENCE = range(4)
_MOST_NODES = 1_000_000


def classify(parameters: Any, given: Mapping[str, Feature], labels: tuple[str, ...], graph: Graph) -> Answer:
    """Draw a treeEnsembleClassifier: a dimension for each label, or one for two labels."""
    transform = parameters.postEvaluationTransform
    width = int(parameters.treeEnsemble.numPredictionDimensions)
    k = len(labels)
    reference = transform == _REFERENCE and width == k - 1
    single = width == 1 and k == 2 and transform in (_NONE, _LOGISTIC)
    if not (reference or single or (width == k and transform != _REFERENCE)):
        raise refuse(f"the tree ensemble has {width} prediction dimensions for {k} labels and transform {transform}")
    sums, negative = _sums(parameters.treeEnsemble, given, graph)
    if reference:
        pads = graph.constant([0, 1, 0, 0], "whole")
        sums = graph.node("Pad", sums, pads, graph.constant(0.0))
        return Answer(graph.node("Softmax", sums, axis=1), labels)
    if transform == _SOFTMAX:
        return Answer(graph.node("Softmax", sums, axis=1), labels)
    if transform == _LOGISTIC:
        sums, negative = graph.node("Sigmoid", sums), False
    elif transform != _NONE:
        raise refuse(f"the tree ensemble has an unknown transform ({transform})")
    if single:
        share = graph.node("Clip", sums, graph.constant(0.0), graph.constant(1.0))
        rest = graph.node("Sub", graph.constant([1.0]), share)
        return Answer(graph.node("Concat", rest, share, axis=1), labels)
    return Answer(sums, labels, scale="scores" if negative else "shares")


def regress(parameters: Any, given: Mapping[str, Feature], graph: Graph) -> Feature:
    """Draw a treeEnsembleRegressor, as a step of a pipeline."""
    sums, _ = _sums(parameters.treeEnsemble, given, graph)
    width = int(parameters.treeEnsemble.numPredictionDimensions)
    transform = parameters.postEvaluationTransform
    if transform not in (_NONE, _SOFTMAX, _LOGISTIC):
        raise refuse(f"a transform ({transform}) of a tree ensemble regressor is not supported")
    if transform:
        sums = graph.node("Softmax", sums, axis=1) if transform == _SOFTMAX else graph.node("Sigmoid", sums)
    return graph.feature(sums, (width,))


def _sums(ensemble: Any, given: Mapping[str, Feature], graph: Graph) -> tuple[str, bool]:
    """Add what the leaves of all trees give; say also whether anything they give is below zero."""
    x = graph.vector(list(given.values()))
    width = int(ensemble.numPredictionDimensions)
    if not 1 <= width <= 1000:
        raise refuse(f"the tree ensemble has {width:,} prediction dimensions; 1 to 1,000 are allowed")
    base = numbers(ensemble.basePredictionValue, what="the tree ensemble's base prediction")
    if len(base) not in (0, width):
        raise refuse(f"the tree ensemble has {len(base)} base predictions for {width} dimensions")
    built = _arrays(ensemble, x.width, width)
    negative = bool((base < 0).any() or (built["target_weights_as_tensor"] < 0).any())
    tensors = {name: _tensor(value) if name.endswith("_as_tensor") else value for name, value in built.items()}
    sums = graph.node(
        "TreeEnsembleRegressor", x.tensor, domain="ai.onnx.ml", n_targets=width, aggregate_function="SUM", **tensors
    )
    double = graph.cast(Feature(sums, (width,), "single"), "double").tensor
    # Not given to the operator: onnxruntime forgets it for dimensions that no leaf on a row's way speaks of.
    return graph.node("Add", double, graph.constant(base)) if len(base) else double, negative


def _arrays(ensemble: Any, features: int, width: int) -> dict[str, Any]:
    """Check the nodes and lay them out as the operator wants them: trees and nodes numbered from 0, roots first."""
    nodes = ensemble.nodes
    if not 1 <= len(nodes) <= _MOST_NODES:
        raise refuse(f"the tree ensemble has {len(nodes):,} nodes; 1 to {_MOST_NODES:,} are allowed")
    place: dict[tuple[int, int], int] = {}
    for i, node in enumerate(nodes):
        if place.setdefault((node.treeId, node.nodeId), i) != i:
            raise refuse(f"tree {node.treeId} has two nodes {node.nodeId}")
    modes, leaves = np.fromiter((n.nodeBehavior for n in nodes), np.int64, len(nodes)), {}
    if modes.min() < 0 or modes.max() > _LEAF:
        raise refuse("a node of the tree ensemble has an unknown behaviour")
    parents = np.full(len(nodes), -1, np.int64)
    children = np.zeros((2, len(nodes)), np.int64)
    for i, node in enumerate(nodes):
        if modes[i] == _LEAF:
            leaves[i] = node.evaluationInfo
            continue
        if node.branchFeatureIndex >= features:
            raise refuse(f"tree {node.treeId} asks for feature {node.branchFeatureIndex} of {features}")
        sides = node.trueChildNodeId, node.falseChildNodeId
        for side, child in enumerate(sides[::-1] if modes[i] == _UNEQUAL else sides):
            j = place.get((node.treeId, child))
            if j is None:
                raise refuse(f"node {node.nodeId} of tree {node.treeId} has a child {child} that does not exist")
            if parents[j] != -1:
                raise refuse(f"node {child} of tree {node.treeId} has two parents")
            parents[j] = i
            children[side, i] = j
    order, tree = _ordered(nodes, modes, parents, children)
    thresholds = np.fromiter((n.branchFeatureValue for n in nodes), np.float64, len(nodes))
    if np.isnan(thresholds).any():
        raise refuse("a threshold of the tree ensemble is not a number")
    at, ids, weights = _leaves(nodes, leaves, width)
    rank = np.empty(len(nodes), np.int64)
    rank[order] = np.arange(len(nodes))
    branch = modes[order] != _LEAF
    # "Not equal" is drawn as "equal" the other way round: in onnxruntime, what is missing is not equal to anything.
    missing = np.fromiter((n.missingValueTracksTrueChild for n in nodes), np.int64, len(nodes)) ^ (modes == _UNEQUAL)
    feature = np.fromiter((n.branchFeatureIndex for n in nodes), np.uint64, len(nodes)).astype(np.int64)
    return {
        "nodes_treeids": tree[order].tolist(),
        "nodes_nodeids": rank[order].tolist(),
        "nodes_featureids": np.where(branch, feature[order], 0).tolist(),
        "nodes_modes": [_MODES[mode] for mode in modes[order].tolist()],
        "nodes_values_as_tensor": np.where(branch, thresholds[order], 0.0),
        "nodes_truenodeids": np.where(branch, rank[children[0, order]], 0).tolist(),
        "nodes_falsenodeids": np.where(branch, rank[children[1, order]], 0).tolist(),
        "nodes_missing_value_tracks_true": (missing[order] * branch).tolist(),
        "target_treeids": tree[at].tolist(),
        "target_nodeids": rank[at].tolist(),
        "target_ids": ids.tolist(),
        "target_weights_as_tensor": weights,
    }


def _ordered(nodes: Any, modes: Any, parents: Any, children: Any) -> tuple[Any, Any]:
    """Return the nodes, tree by tree from the root down, and which tree each is of; refuses circles and lost nodes."""
    roots: dict[int, int] = {}
    for i in np.flatnonzero(parents == -1).tolist():
        if roots.setdefault(nodes[i].treeId, i) != i:
            raise refuse(f"tree {nodes[i].treeId} has more than one root")
    order: list[int] = []
    tree = np.zeros(len(nodes), np.int64)
    for number, root in enumerate(roots.values()):
        stack = [root]
        while stack:  # every node has one parent, so none is met twice
            i = stack.pop()
            order.append(i)
            tree[i] = number
            if modes[i] != _LEAF:
                stack += (int(children[1, i]), int(children[0, i]))
    if len(order) != len(nodes):
        raise refuse("a tree of the ensemble goes round in a circle")
    return np.array(order), tree


def _leaves(nodes: Any, leaves: dict[int, Any], width: int) -> tuple[Any, Any, Any]:
    at, ids, weights = [], [], []
    for i, given in leaves.items():
        seen = {each.evaluationIndex for each in given}
        if not given or len(seen) != len(given) or max(seen) >= width:
            raise refuse(
                f"leaf {nodes[i].nodeId} of tree {nodes[i].treeId} gives nothing, or to a dimension twice or above {width - 1}"
            )
        for each in given:
            at.append(i)
            ids.append(each.evaluationIndex)
            weights.append(each.evaluationValue)
    return np.array(at), np.array(ids), numbers(weights, what="a leaf of the tree ensemble")


def _tensor(values: Any) -> Any:
    return numpy_helper.from_array(np.ascontiguousarray(values, np.float64))
