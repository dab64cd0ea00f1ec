"""Hostile CoreML files again: trees, support vectors, neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corpus import case
from corpus_coreml import INF, NAN, neighbours, put, several, spoilt, trees, vectors, widen

# Trees

several(
    trees,
    lambda spec: spec.treeEnsembleClassifier.treeEnsemble,
    {
        "a_circle": ("two parents|circle", lambda t: put("falseChildNodeId", 0)(t.nodes[1])),
        "a_circle_apart": (
            "circle|more than one root",
            lambda t: (
                [t.nodes.add(nodeId=i, trueChildNodeId=j, falseChildNodeId=k) for i, j, k in ((7, 8, 9), (8, 7, 10))]
                + [t.nodes.add(nodeId=i, nodeBehavior=6).evaluationInfo.add() for i in (9, 10)]
            ),
        ),
        "a_child_of_itself": ("two parents|circle", lambda t: put("trueChildNodeId", 1)(t.nodes[1])),
        "a_child_out_of_range": ("does not exist", lambda t: put("trueChildNodeId", (1 << 64) - 1)(t.nodes[1])),
        "a_node_twice": ("two nodes 4", lambda t: t.nodes.add().CopyFrom(t.nodes[4])),
        "a_root_too_many": (
            "more than one root",
            lambda t: t.nodes.add(nodeId=99, nodeBehavior=6).evaluationInfo.add(),
        ),
        "no_nodes": ("0 nodes", lambda t: t.ClearField("nodes")),
        "a_feature_out_of_range": ("asks for feature", lambda t: put("branchFeatureIndex", 1 << 63)(t.nodes[0])),
        "a_threshold_that_is_not_a_number": ("not a number", lambda t: put("branchFeatureValue", NAN)(t.nodes[0])),
        "an_unknown_branch": ("unknown behaviour", lambda t: put("nodeBehavior", 77)(t.nodes[0])),
        "a_negative_branch": ("unknown behaviour", lambda t: put("nodeBehavior", -1)(t.nodes[0])),
        "giant_dimensions": ("prediction dimensions", put("numPredictionDimensions", 1 << 62)),
        "no_dimensions": ("prediction dimensions", put("numPredictionDimensions", 0)),
        "bases_too_many": ("3 base predictions", lambda t: t.basePredictionValue.extend([0.0] * 3)),
        "an_infinite_base": ("not finite", lambda t: t.basePredictionValue.extend([0.0, INF])),
        "a_leaf_of_nothing": ("gives nothing", lambda t: t.nodes[4].ClearField("evaluationInfo")),
        "a_leaf_out_of_range": ("above 1", lambda t: put("evaluationIndex", 1 << 40)(t.nodes[4].evaluationInfo[0])),
        "a_leaf_twice": ("twice", lambda t: t.nodes[4].evaluationInfo.add().CopyFrom(t.nodes[4].evaluationInfo[0])),
        "a_leaf_that_is_not_a_number": (
            "not finite",
            lambda t: put("evaluationValue", NAN)(t.nodes[4].evaluationInfo[0]),
        ),
    },
)
spoilt(
    "a_reference_with_all_labels",
    "transform 3",
    trees,
    lambda s: put("postEvaluationTransform", 3)(s.treeEnsembleClassifier),
)
spoilt(
    "a_transform_unknown",
    "unknown transform",
    trees,
    lambda s: put("postEvaluationTransform", 9)(s.treeEnsembleClassifier),
)


def chain(deep: int) -> Any:
    """Return one tree that goes down on one side."""
    spec = trees()
    ensemble = spec.treeEnsembleClassifier.treeEnsemble
    ensemble.ClearField("nodes")
    for i in range(deep):
        if i < deep - 1:
            ensemble.nodes.add(
                nodeId=2 * i, trueChildNodeId=2 * i + 2, falseChildNodeId=2 * i + 1, branchFeatureValue=i
            )
            ensemble.nodes.add(nodeId=2 * i + 1, nodeBehavior=6).evaluationInfo.add(evaluationValue=1.0)
        else:
            ensemble.nodes.add(nodeId=2 * i, nodeBehavior=6).evaluationInfo.add(evaluationIndex=1, evaluationValue=1.0)
    return spec


@case(".mlmodel", "deeper than 1,000 levels")
def a_very_deep_tree(_: Path) -> bytes:
    return bytes(chain(1001).SerializeToString())


# Support vectors and neighbours

several(
    vectors,
    lambda spec: spec.supportVectorClassifier,
    {
        "vectors_not_shared_out": ("not shared out", lambda v: v.numberOfSupportVectorsPerClass.__setitem__(0, 2)),
        "negative_shares": (
            "not shared out",
            lambda v: v.numberOfSupportVectorsPerClass.__setitem__(slice(0, 2), [-1, 3]),
        ),
        "a_place_before_the_first": (
            "place 0 of 2",
            lambda v: put("index", 0)(v.sparseSupportVectors.vectors[0].nodes[0]),
        ),
        "a_place_far_away": (
            "place 2147483647",
            lambda v: put("index", 2**31 - 1)(v.sparseSupportVectors.vectors[0].nodes[0]),
        ),
        "a_negative_place": ("place -5", lambda v: put("index", -5)(v.sparseSupportVectors.vectors[0].nodes[0])),
        "a_vector_that_is_not_a_number": (
            "not finite",
            lambda v: put("value", NAN)(v.sparseSupportVectors.vectors[0].nodes[0]),
        ),
        "a_dense_vector_too_long": (
            "has not 2",
            lambda v: [v.denseSupportVectors.vectors.add().values.extend([1.0] * 3) for _ in "ab"],
        ),
        "no_vectors": ("no support vectors", lambda v: v.ClearField("supportVectors")),
        "no_kernel": ("no kernel", lambda v: v.ClearField("kernel")),
        "a_negative_gamma": ("kernel", lambda v: put("gamma", -1.0)(v.kernel.rbfKernel)),
        "a_giant_degree": ("kernel", lambda v: put("degree", 2**31 - 1)(v.kernel.polyKernel)),
        "coefficients_too_few": ("rows of 2 coefficients", lambda v: v.coefficients[0].alpha.pop()),
        "rho_too_many": ("pairs of labels", lambda v: v.rho.append(1.0)),
        "half_of_platt": ("pairs of labels", lambda v: v.probA.append(1.0)),
    },
)


@case(".mlmodel", "too many")
def very_wide_sparse_vectors(_: Path) -> bytes:
    spec = vectors()
    widen(spec.description.input[0], 1 << 20)
    svm = spec.supportVectorClassifier
    for _i in range(200):
        svm.sparseSupportVectors.vectors.add()
    svm.numberOfSupportVectorsPerClass[0] += 200
    svm.coefficients[0].alpha.extend([0.0] * 200)
    return bytes(spec.SerializeToString())


several(
    neighbours,
    lambda spec: spec.kNearestNeighborsClassifier,
    {
        "no_neighbours": ("0 neighbours", lambda n: put("defaultValue", 0)(n.numberOfNeighbors)),
        "more_neighbours_than_samples": ("cannot be found", lambda n: put("defaultValue", 2**62)(n.numberOfNeighbors)),
        "samples_without_labels": ("3 samples for 2 labels", lambda n: n.stringClassLabels.vector.pop()),
        "a_sample_too_long": ("has not 2", lambda n: n.nearestNeighborsIndex.floatSamples[0].vector.append(1.0)),
        "giant_dimensions_of_samples": (
            "has not 2",
            lambda n: put("numberOfDimensions", 2**31 - 1)(n.nearestNeighborsIndex),
        ),
        "a_sample_that_is_not_a_number": (
            "not finite",
            lambda n: n.nearestNeighborsIndex.floatSamples[0].vector.__setitem__(0, NAN),
        ),
    },
)
