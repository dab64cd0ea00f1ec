"""CoremlFormat decides as a phone would: every kind of classifier and transformer against an interpreter in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from coreml_checks import same
from coreml_protos import Model, classifier, described, pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

LABELS = ("off", "on", "play", "stop")
FEW = settings(max_examples=25)
seeds = st.integers(0, 2**32 - 1)


def grow(ensemble: Any, rng: Any, features: int, width: int, trees: int, low: float = 0.0) -> None:
    """Grow random trees with every branch mode; thresholds lie where rows do, so that equality occurs."""
    ensemble.numPredictionDimensions = width
    ensemble.basePredictionValue.extend(rng.uniform(low, 1, width).tolist())
    for tree in range(trees):
        ids = rng.permutation(1000).tolist()
        open_nodes = [(ids.pop(), 0)]
        while open_nodes:
            id, depth = open_nodes.pop(int(rng.integers(len(open_nodes))))
            node = ensemble.nodes.add(treeId=7 * tree, nodeId=id)
            if depth == 4 or (depth and rng.random() < 0.3):
                node.nodeBehavior = 6
                for dimension in rng.permutation(width)[: rng.integers(1, width + 1)].tolist():
                    node.evaluationInfo.add(evaluationIndex=dimension, evaluationValue=rng.uniform(low, 1))
                continue
            node.nodeBehavior = int(rng.integers(6))
            node.branchFeatureIndex = int(rng.integers(features))
            node.branchFeatureValue = float(rng.integers(-2, 3)) if rng.random() < 0.7 else rng.normal()
            node.trueChildNodeId, node.falseChildNodeId = ids.pop(), ids.pop()
            node.missingValueTracksTrueChild = bool(rng.integers(2))
            open_nodes += [(node.trueChildNodeId, depth + 1), (node.falseChildNodeId, depth + 1)]


def lattice(rng: Any, n: int, width: int, missing: float = 0.0) -> Any:
    x = rng.integers(-2, 3, (n, width)).astype(np.float32)
    x[rng.random(x.shape) < 0.3] += np.float32(0.37)
    x[rng.random(x.shape) < missing] = np.nan
    return x


@given(seeds, st.sampled_from(["none", "softmax", "logistic", "reference", "negative", "binary", "binary logistic"]))
@settings(max_examples=60)
def test_tree_ensembles(seed: int, how: str) -> None:
    rng = np.random.default_rng(seed)
    k = 2 if how.startswith("binary") else int(rng.integers(2, 5))
    width = {"reference": k - 1, "binary": 1, "binary logistic": 1}.get(how, k)
    features = int(rng.integers(1, 6))
    spec = classifier({"x": (features,)})
    trees = spec.treeEnsembleClassifier
    trees.stringClassLabels.vector.extend(LABELS[:k])
    trees.postEvaluationTransform = {"softmax": 1, "logistic": 2, "binary logistic": 2, "reference": 3}.get(how, 0)
    grow(trees.treeEnsemble, rng, features, width, int(rng.integers(1, 6)), 0.0 if how in ("none", "binary") else -1.0)
    interface = same(spec, lattice(rng, 20, features, missing=0.2))
    assert interface.kind == "features"
    assert interface.labels == LABELS[:k]


def test_a_threshold_between_two_32_bit_numbers_is_compared_in_64_bits() -> None:
    spec = classifier({"a": "double", "b": "int64"})
    trees = spec.treeEnsembleClassifier
    trees.int64ClassLabels.vector.extend([10, -3])
    trees.treeEnsemble.numPredictionDimensions = 2
    x = np.float32(0.1)
    trees.treeEnsemble.nodes.add(nodeId=0, trueChildNodeId=1, falseChildNodeId=2, branchFeatureValue=0.1)
    for i in (0, 1):
        trees.treeEnsemble.nodes.add(nodeId=i + 1, nodeBehavior=6).evaluationInfo.add(
            evaluationIndex=i, evaluationValue=1
        )
    assert float(x) > 0.1
    interface = same(spec, [[x, 0], [np.nextafter(x, np.float32(0)), 5]])
    assert interface.labels == ("10", "-3")
    assert interface.width == 2


@given(seeds, st.sampled_from([(2, 0, 0), (2, 1, 0), (2, 0, 1), (2, 1, 1), (4, 0, 0), (4, 0, 1)]))
@FEW
def test_linear_classifiers(seed: int, how: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    k, transform, encoding = how
    spec = classifier({"a": (3,), "b": "double"})
    glm = spec.glmClassifier
    glm.postEvaluationTransform, glm.classEncoding = transform, encoding
    for _ in range(1 if k == 2 else k - 1 + encoding):
        glm.weights.add().value.extend(rng.normal(size=4).tolist())
        glm.offset.append(rng.normal())
    glm.stringClassLabels.vector.extend(LABELS[:k])
    same(spec, rng.normal(size=(20, 4)) * 2)


def test_one_against_the_rest_where_all_are_far_below_zero() -> None:
    spec = classifier({"x": (1,)})
    for weight in (1.0, 1.1, 0.9):
        spec.glmClassifier.weights.add().value.append(weight)
        spec.glmClassifier.offset.append(0.0)
    spec.glmClassifier.classEncoding = 1
    spec.glmClassifier.stringClassLabels.vector.extend(LABELS[:3])
    same(spec, [[-30.0], [-200.0], [30.0]])


def vectors(spec: Any, rng: Any, k: int, width: int, kernel: str, sparse: bool, platt: bool) -> None:
    svm = spec.supportVectorClassifier
    counts = rng.integers(1, 4, k).tolist()
    svm.numberOfSupportVectorsPerClass.extend(counts)
    of = getattr(svm.kernel, kernel)
    of.SetInParent()
    for name, value in (("gamma", 0.4), ("c", 0.3), ("degree", 3)):
        if hasattr(of, name):
            setattr(of, name, value)
    for _ in range(sum(counts)):
        values = rng.normal(size=width)
        if not sparse:
            svm.denseSupportVectors.vectors.add().values.extend(values.tolist())
            continue
        vector = svm.sparseSupportVectors.vectors.add()
        for i in np.flatnonzero(rng.random(width) < 0.6).tolist():
            vector.nodes.add(index=i + 1, value=values[i])
    for _ in range(k - 1):
        svm.coefficients.add().alpha.extend(rng.normal(size=sum(counts)).tolist())
    pairs = k * (k - 1) // 2
    svm.rho.extend(rng.normal(size=pairs).tolist())
    if platt:
        svm.probA.extend((-rng.uniform(0.5, 2, pairs)).tolist())
        svm.probB.extend((rng.normal(size=pairs) * 0.3).tolist())
    svm.stringClassLabels.vector.extend(LABELS[:k])


@given(
    seeds,
    st.integers(2, 4),
    st.sampled_from(["linearKernel", "rbfKernel", "polyKernel", "sigmoidKernel"]),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=60)
def test_support_vectors(seed: int, k: int, kernel: str, sparse: bool, platt: bool) -> None:
    rng = np.random.default_rng(seed)
    spec = classifier({"x": (4,)})
    vectors(spec, rng, k, 4, kernel, sparse, platt)
    # LIBSVM couples the probabilities of more than two labels by an iteration that stops at 0.005 / k.
    same(spec, rng.normal(size=(15, 4)), near=0.01 if platt and k > 2 else 2e-6)


@given(seeds, st.booleans())
@FEW
def test_nearest_neighbours(seed: int, inverse: bool) -> None:
    rng = np.random.default_rng(seed)
    spec = classifier({"x": (3,)})
    near = spec.kNearestNeighborsClassifier
    near.nearestNeighborsIndex.numberOfDimensions = 3
    near.nearestNeighborsIndex.singleKdTreeIndex.leafSize = 5
    near.nearestNeighborsIndex.squaredEuclideanDistance.SetInParent()
    for _ in range(20):
        near.nearestNeighborsIndex.floatSamples.add().vector.extend(rng.normal(size=3).tolist())
    near.stringClassLabels.vector.extend([*LABELS[:3], *rng.choice(LABELS[:3], 17).tolist()])
    near.numberOfNeighbors.defaultValue = int(rng.integers(1, 8))
    getattr(near, "inverseDistanceWeighting" if inverse else "uniformWeighting").SetInParent()
    assert same(spec, rng.normal(size=(15, 3))).labels == LABELS[:3]


# Pipelines


def step(kind: str, inputs: dict[str, Any], outputs: dict[str, Any], **fields: Any) -> Any:
    spec = described(Model(specificationVersion=1), inputs, outputs)
    of = getattr(spec, kind)
    of.SetInParent()
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(of, name).extend(value)
        else:
            setattr(of, name, value)
    return spec


def last(inputs: dict[str, Any], width: int, rng: Any, k: int = 3) -> Any:
    spec = classifier(inputs)
    for _ in range(k):
        spec.glmClassifier.weights.add().value.extend(rng.normal(size=width).tolist())
        spec.glmClassifier.offset.append(rng.normal())
    spec.glmClassifier.classEncoding = 1
    spec.glmClassifier.stringClassLabels.vector.extend(LABELS[:k])
    return spec


@given(seeds, st.sampled_from([0, 1, 2]))
@FEW
def test_a_dictionary_of_counts_through_a_pipeline(seed: int, norm: int) -> None:
    rng = np.random.default_rng(seed)
    names = ["turn", "off", "turn off", "#tur", "İ", "🎵"]
    count = step("dictVectorizer", {"words": "dictionary"}, {"v": (6,)})
    count.dictVectorizer.stringToIndex.vector.extend(names)
    scale = step("scaler", {"v": (6,)}, {"s": (6,)}, shiftValue=[-0.25], scaleValue=rng.uniform(0.5, 2, 6).tolist())
    unit = step("normalizer", {"s": (6,)}, {"n": (6,)}, normType=norm)
    inner = described(Model(), {"v": (6,)}, {"n": (6,)})
    for each in (scale, unit):
        inner.pipeline.models.add().CopyFrom(each)
    spec = pipeline({"words": "dictionary"}, count, inner, last({"n": (6,)}, 6, rng))
    spec.description.metadata.author = "a phone"
    spec.description.metadata.userDefined["device"] = "x" * 4000
    spec.description.metadata.userDefined["names"] = "x" * 4001
    interface = same(spec, rng.integers(0, 3, (10, 6)))
    assert interface.kind == "counts"
    assert interface.names == tuple(names)
    assert interface.about["author"] == "a phone"
    assert interface.about["device"] == "x" * 4000
    assert "names" not in interface.about
    assert interface.about["steps"] == "dictVectorizer, scaler, normalizer, glmClassifier"


def test_a_text_without_known_names_is_all_zeros_also_after_the_normalizer() -> None:
    count = step("dictVectorizer", {"words": "dictionary"}, {"v": (2,)})
    count.dictVectorizer.stringToIndex.vector.extend(["a", "b"])
    unit = step("normalizer", {"v": (2,)}, {"n": (2,)}, normType=2)
    same(pipeline({"words": "dictionary"}, count, unit, last({"n": (2,)}, 2, np.random.default_rng(0))), [[0, 0]])


@given(seeds)
@FEW
def test_numbers_through_every_other_transformer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fill = step("imputer", {"x": (3,)}, {"f": (3,)})
    fill.imputer.imputedDoubleArray.vector.extend([0.5, -1.5, 2.5])
    mark = step("imputer", {"y": "double"}, {"m": "double"}, imputedDoubleValue=4.0, replaceDoubleValue=-1.0)
    hot = step("oneHotEncoder", {"c": "int64"}, {"h": (3,)}, handleUnknown=1)
    hot.oneHotEncoder.int64Categories.vector.extend([5, -1, 2])
    name = step("categoricalMapping", {"c": "int64"}, {"t": "string"}, strValue="other")
    for key, value in ((5, "five"), (2, "two")):
        name.categoricalMapping.int64ToStringMap.map[key] = value
    spelt = step("oneHotEncoder", {"t": "string"}, {"p": (2,)}, handleUnknown=1)
    spelt.oneHotEncoder.stringCategories.vector.extend(["other", "two"])
    code = step("categoricalMapping", {"t": "string"}, {"q": "int64"}, int64Value=-7)
    code.categoricalMapping.stringToInt64Map.map["five"] = 55
    join = step("featureVectorizer", {"f": (3,), "m": "double", "h": (3,), "p": (2,), "q": "int64"}, {"j": (10,)})
    for column, width in (("h", 3), ("f", 3), ("q", 1), ("m", 1), ("p", 2)):
        join.featureVectorizer.inputList.add(inputColumn=column, inputDimensions=width)
    pick = step("arrayFeatureExtractor", {"j": (10,)}, {"k": (7,)}, extractIndex=[9, 0, 1, 3, 4, 6, 7])
    same_again = step("identity", {"k": (7,), "m": "double"}, {"k2": (7,), "m2": "double"})
    spec = pipeline(
        {"x": (3,), "y": "double", "c": "int64"},
        *(fill, mark, hot, name, spelt, code, join, pick, same_again),
        last({"k2": (7,), "m2": "double"}, 8, rng),
    )
    rows = np.column_stack([lattice(rng, 12, 3, 0.3), rng.integers(-2, 2, 12), rng.choice([5, -1, 2, 9], 12)])
    assert same(spec, rows).kind == "features"


def test_a_tree_regressor_before_a_network(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    votes = described(Model(), {"x": (2,)}, {"v": (3,)})
    votes.description.predictedFeatureName = "v"
    grow(votes.treeEnsembleRegressor.treeEnsemble, rng, 2, 3, 4)
    network = classifier({"v": (3,)})
    add = network.neuralNetworkClassifier.layers.add
    add(name="l", input=["v"], output=["l"]).unary.type = 5
    add(name="m", input=["l"], output=["m"]).multiply.alpha = 1.7
    add(name="s", input=["m"], output=["s"]).softmax.SetInParent()
    network.neuralNetworkClassifier.stringClassLabels.vector.extend(LABELS[:3])
    same(pipeline({"x": (2,)}, votes, network), lattice(rng, 20, 2))
