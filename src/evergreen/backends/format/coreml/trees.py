"""Tree ensembles: every branch mode, missing values, and the four transforms of their sums."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import numpy as np

from evergreen.backends.format.coreml.graph import Answer, Feature, Graph, numbers, refuse

_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_EQ", "LEAF")
_UNEQUAL, _LEAF = 5, 6
_NONE, _SOFTMAX, _LOGISTIC, _REFERENCE = range(4)
_MOST_NODES = 1_000_000
#: onnxruntime goes down a tree by recursion when it lays it out.
_MOST_DEEP = 1000


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
        sums, negative = graph.sigmoid(sums), False
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
        sums = graph.node("Softmax", sums, axis=1) if transform == _SOFTMAX else graph.sigmoid(sums)
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
    sums = graph.node(
        "TreeEnsembleRegressor", x.tensor, domain="ai.onnx.ml", n_targets=width, aggregate_function="SUM", **built
    )
    double = graph.cast(Feature(sums, (width,), "single"), "double").tensor
    # Not given to the operator: onnxruntime forgets it for dimensions that no leaf on a row's way speaks of.
    return graph.node("Add", double, graph.constant(base)) if len(base) else double, negative


def _arrays(ensemble: Any, features: int, width: int) -> dict[str, Any]:
    """Check the nodes and lay them out as the operator wants them: trees and nodes numbered from 0, roots first."""
    nodes = ensemble.nodes
    if not 1 <= len(nodes) <= _MOST_NODES:
        raise refuse(f"the tree ensemble has {len(nodes):,} nodes; 1 to {_MOST_NODES:,} are allowed")

    def column(field: str, kind: type) -> Any:
        return np.fromiter(map(attrgetter(field), nodes), kind, len(nodes))

    modes = column("nodeBehavior", np.int32)
    if modes.min() < 0 or modes.max() > _LEAF:
        raise refuse("a node of the tree ensemble has an unknown behaviour")
    branch = modes != _LEAF
    feature = column("branchFeatureIndex", np.uint64)
    if (feature[branch] >= features).any():
        raise refuse(f"a tree asks for feature {feature[branch].max()} of {features}")
    thresholds = column("branchFeatureValue", np.float64)
    if np.isnan(thresholds).any():
        raise refuse("a threshold of the tree ensemble is not a number")
    tree, children = _children(column, modes, branch)
    order = _ordered(tree, branch, children)
    at, ids, weights = _leaves(nodes, np.flatnonzero(~branch), width)
    rank = np.empty(len(nodes), np.int64)
    rank[order] = np.arange(len(nodes))
    # "Not equal" is drawn as "equal" the other way round: in onnxruntime, what is missing is not equal to anything.
    missing = column("missingValueTracksTrueChild", np.int64) ^ (modes == _UNEQUAL)
    branch = branch[order]
    return {
        "nodes_treeids": tree[order],
        "nodes_nodeids": rank[order],
        "nodes_featureids": np.where(branch, feature[order].astype(np.int64), 0),
        "nodes_modes": [_MODES[mode] for mode in modes[order].tolist()],
        "nodes_values_as_tensor": np.where(branch, thresholds[order], 0.0),
        "nodes_truenodeids": np.where(branch, rank[children[0, order]], 0),
        "nodes_falsenodeids": np.where(branch, rank[children[1, order]], 0),
        "nodes_missing_value_tracks_true": missing[order] * branch,
        "target_treeids": tree[at],
        "target_nodeids": rank[at],
        "target_ids": ids,
        "target_weights_as_tensor": weights,
    }


def _children(column: Callable[[str, type], Any], modes: Any, branch: Any) -> tuple[Any, Any]:
    """Return which tree each node is of, and the places of its true and its false child (of a leaf, nothing)."""
    trees, tree = np.unique(column("treeId", np.uint64), return_inverse=True)
    ids, place = np.unique(column("nodeId", np.uint64), return_inverse=True)
    key = tree * len(ids) + place
    by_key = np.argsort(key)
    rising = key[by_key]
    twice = np.flatnonzero(rising[1:] == rising[:-1])
    if len(twice):
        i = by_key[twice[0]]
        raise refuse(f"tree {trees[tree[i]]} has two nodes {ids[place[i]]}")
    children = np.zeros((2, len(modes)), np.int64)
    for side, field in enumerate(("trueChildNodeId", "falseChildNodeId")):
        child = column(field, np.uint64)
        near = np.minimum(np.searchsorted(ids, child), len(ids) - 1)
        wanted = tree * len(ids) + near
        at = np.minimum(np.searchsorted(rising, wanted), len(rising) - 1)
        lost = np.flatnonzero(branch & ((ids[near] != child) | (rising[at] != wanted)))
        if len(lost):
            raise refuse(f"a node of tree {trees[tree[lost[0]]]} has a child {child[lost[0]]} that does not exist")
        children[side] = by_key[at]
    unequal = modes == _UNEQUAL
    children[:, unequal] = children[::-1, unequal]
    return tree, children


def _ordered(tree: Any, branch: Any, children: Any) -> Any:
    """Return the nodes tree by tree, level by level from the root; refuses circles, second parents, lost nodes."""
    parents = np.bincount(children[:, branch].ravel(), minlength=len(tree))
    if parents.max(initial=0) > 1:
        raise refuse("a node of the tree ensemble has two parents")
    level = np.flatnonzero(parents == 0)
    if len(np.unique(tree[level])) != len(level):
        raise refuse("a tree of the ensemble has more than one root")
    levels: list[Any] = []
    while len(level):
        if len(levels) == _MOST_DEEP:
            raise refuse(f"a tree of the ensemble is deeper than {_MOST_DEEP:,} levels")
        levels.append(level)
        level = children[:, level[branch[level]]].ravel()
    order = np.concatenate(levels) if levels else level
    if len(order) != len(tree):
        raise refuse("a tree of the ensemble goes round in a circle")
    return order[np.argsort(tree[order], kind="stable")]


def _leaves(nodes: Any, leaves: Any, width: int) -> tuple[Any, Any, Any]:
    """Return what leaves give: the place of the leaf, the dimension, the value."""
    at, ids, weights = array("q"), array("q"), array("d")
    for i in leaves.tolist():
        given = nodes[i].evaluationInfo
        seen = {each.evaluationIndex for each in given}
        if not seen or len(seen) != len(given) or max(seen) >= width:
            raise refuse(
                f"leaf {nodes[i].nodeId} of tree {nodes[i].treeId} gives nothing, or to a dimension twice or above {width - 1}"
            )
        for each in given:
            at.append(i)
            ids.append(each.evaluationIndex)
            weights.append(each.evaluationValue)
    found = numbers(np.frombuffer(weights, np.float64), what="a leaf of the tree ensemble") if weights else np.zeros(0)
    return np.array(at, np.int64), np.array(ids, np.int64), found
