"""What a phone would do with a CoreML specification, row by row in numpy; written from the format's description alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

E = np.float64


def probabilities(spec: Any, inputs: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of all labels for one row, made to add up to 1 where the format leaves that open."""
    values = dict(inputs)
    for step in _steps(spec):
        kind = step.WhichOneof("Type")
        of = getattr(step, kind)
        given = [values[each.name] for each in step.description.input]
        if kind in CLASSIFIERS:
            found = np.asarray(CLASSIFIERS[kind](of, given, step), E).ravel()
            labels = _labels(of)
            if kind == "kNearestNeighborsClassifier":
                labels = list(dict.fromkeys(labels))
            return dict(zip(labels, _shares(found), strict=True))
        made = TRANSFORMERS[kind](of, given, step)
        names = [each.name for each in step.description.output]
        values |= dict(zip(names, made if kind in ("identity", "neuralNetwork") else [made], strict=True))
    raise AssertionError("no classifier")


def _steps(spec: Any) -> list[Any]:
    kind = spec.WhichOneof("Type")
    if kind == "pipelineClassifier":
        return [leaf for each in spec.pipelineClassifier.pipeline.models for leaf in _steps(each)]
    if kind == "pipeline":
        return [leaf for each in spec.pipeline.models for leaf in _steps(each)]
    return [spec]


def _labels(of: Any) -> list[str]:
    return [str(label) for label in getattr(of, of.WhichOneof("ClassLabels")).vector]


def _shares(found: Any) -> Any:
    if (found < 0).any():
        return softmax(found)
    return found / found.sum() if found.sum() else np.full(len(found), 1 / len(found))


def vector(given: list[Any]) -> Any:
    return np.concatenate([np.asarray(each, E).ravel() for each in given])


def softmax(z: Any, axis: int = -1) -> Any:
    e = np.exp(z - np.max(z, axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(z, E)))


# Classifiers


def _trees(of: Any, given: list[Any], _: Any) -> Any:
    sums = tree_sums(of.treeEnsemble, vector(given))
    k = len(_labels(of))
    if of.postEvaluationTransform == 1:
        return softmax(sums)
    if of.postEvaluationTransform == 3:
        return softmax(np.concatenate([[0.0], sums]))
    if of.postEvaluationTransform == 2:
        sums = sigmoid(sums)
    if len(sums) == 1 and k == 2:
        p = min(max(sums[0], 0.0), 1.0)
        return [1 - p, p]
    # Whether numbers are shares is a matter of the whole ensemble, not of one row.
    leaves = [each.evaluationValue for node in of.treeEnsemble.nodes for each in node.evaluationInfo]
    negative = of.postEvaluationTransform == 0 and min([*leaves, *of.treeEnsemble.basePredictionValue]) < 0
    return softmax(sums) if negative else sums


def tree_sums(ensemble: Any, x: Any) -> Any:
    sums = np.array(ensemble.basePredictionValue or [0.0] * ensemble.numPredictionDimensions, E)
    nodes = {(node.treeId, node.nodeId): node for node in ensemble.nodes}
    children = {
        (n.treeId, c) for n in ensemble.nodes if n.nodeBehavior != 6 for c in (n.trueChildNodeId, n.falseChildNodeId)
    }
    for key in [key for key in nodes if key not in children]:
        node = nodes[key]
        while node.nodeBehavior != 6:
            value, against = x[node.branchFeatureIndex], node.branchFeatureValue
            if math.isnan(value):
                yes = node.missingValueTracksTrueChild
            else:
                yes = (
                    value <= against,
                    value < against,
                    value >= against,
                    value > against,
                    value == against,
                    value != against,
                )[node.nodeBehavior]
            node = nodes[node.treeId, node.trueChildNodeId if yes else node.falseChildNodeId]
        for each in node.evaluationInfo:
            sums[each.evaluationIndex] += each.evaluationValue
    return sums


def _glm(of: Any, given: list[Any], _: Any) -> Any:
    x = vector(given)
    scores = np.array([np.dot(row.value, x) + offset for row, offset in zip(of.weights, of.offset, strict=True)])
    k = len(_labels(of))
    if k == 2:
        z = float(scores[0])
        p = float(sigmoid(z)) if of.postEvaluationTransform == 0 else 0.5 * (1 + math.erf(z / math.sqrt(2)))
        return [1 - p, p]
    return softmax(np.concatenate([[0.0], scores])) if of.classEncoding == 0 else sigmoid(scores)


def _svm(of: Any, given: list[Any], _: Any) -> Any:
    x = vector(given)
    kind = of.kernel.WhichOneof("kernel")
    kernel = getattr(of.kernel, kind)
    vectors = []
    if of.WhichOneof("supportVectors") == "denseSupportVectors":
        vectors = [np.array(v.values) for v in of.denseSupportVectors.vectors]
    else:
        for sparse in of.sparseSupportVectors.vectors:
            dense = np.zeros(len(x))
            for node in sparse.nodes:
                dense[node.index - 1] = node.value
            vectors.append(dense)
    near = {
        "linearKernel": lambda v: v @ x,
        "rbfKernel": lambda v: math.exp(-kernel.gamma * ((v - x) ** 2).sum()),
        "polyKernel": lambda v: (kernel.gamma * (v @ x) + kernel.c) ** kernel.degree,
        "sigmoidKernel": lambda v: math.tanh(kernel.gamma * (v @ x) + kernel.c),
    }[kind]
    k = len(_labels(of))
    values = [near(v) for v in vectors]
    starts = np.concatenate([[0], np.cumsum(of.numberOfSupportVectorsPerClass)])
    votes, pairwise, p = np.zeros(k), np.zeros((k, k)), 0
    for i in range(k):
        for j in range(i + 1, k):
            margin = -of.rho[p]
            margin += sum(of.coefficients[j - 1].alpha[s] * values[s] for s in range(starts[i], starts[i + 1]))
            margin += sum(of.coefficients[i].alpha[s] * values[s] for s in range(starts[j], starts[j + 1]))
            votes[i if margin > 0 else j] += 1
            if of.probA:
                r = 1 / (1 + math.exp(of.probA[p] * margin + of.probB[p]))
                pairwise[i, j] = min(max(r, 1e-7), 1 - 1e-7)
                pairwise[j, i] = 1 - pairwise[i, j]
            p += 1
    if not of.probA:
        return votes
    return [pairwise[0, 1], pairwise[1, 0]] if k == 2 else coupled(pairwise)


def coupled(r: Any) -> Any:
    """Couple pairwise probabilities: the second method of Wu, Lin and Weng, solved exactly instead of by iteration."""
    k = len(r)
    q = -r.T * r
    for t in range(k):
        q[t, t] = sum(r[j, t] ** 2 for j in range(k) if j != t)
    system = np.block([[q, np.ones((k, 1))], [np.ones((1, k)), np.zeros((1, 1))]])
    return np.linalg.solve(system, np.concatenate([np.zeros(k), [1.0]]))[:k]


def _neighbours(of: Any, given: list[Any], _: Any) -> Any:
    x, labels = vector(given), _labels(of)
    distances = [math.dist(sample.vector, x) for sample in of.nearestNeighborsIndex.floatSamples]
    votes = dict.fromkeys(labels, 0.0)
    for i in np.argsort(distances, kind="stable")[: of.numberOfNeighbors.defaultValue]:
        inverse = of.WhichOneof("WeightingScheme") == "inverseDistanceWeighting"
        votes[labels[i]] += 1 / max(distances[i], 1e-9) if inverse else 1.0
    return list(votes.values())


def _network_classifier(of: Any, given: list[Any], step: Any) -> Any:
    values = _layers(of, given, step)
    name = of.labelProbabilityLayerName or of.layers[-1].output[0]
    found, last = values[name].astype(E).ravel(), next(each for each in of.layers if name in each.output)
    while last.WhichOneof("layer") in ("flatten", "reshapeStatic", "copy", "squeeze"):
        last = next(each for each in of.layers if last.input[0] in each.output)
    kind = last.WhichOneof("layer")
    shares = kind in ("softmax", "softmaxND") or last.activation.WhichOneof("NonlinearityType") in (
        "sigmoid",
        "ReLU",
        "softplus",
    )
    return found if shares else softmax(found)


def _layers(of: Any, given: list[Any], step: Any) -> dict[str, Any]:
    from coreml_layers import LAYERS

    values = {}
    for each, value in zip(step.description.input, given, strict=True):
        shape = tuple(each.type.multiArrayType.shape)
        if of.arrayInputShapeMapping == 0:
            shape = (1, 1, *shape, *(1,) * (3 - len(shape)))
        values[each.name] = np.asarray(value, np.float32).reshape(shape)
    for layer in of.layers:
        kind = layer.WhichOneof("layer")
        made = LAYERS[kind](getattr(layer, kind), *[values[name] for name in layer.input])
        values[layer.output[0]] = np.asarray(made, np.float32)
    return values


CLASSIFIERS = {
    "treeEnsembleClassifier": _trees,
    "glmClassifier": _glm,
    "supportVectorClassifier": _svm,
    "kNearestNeighborsClassifier": _neighbours,
    "neuralNetworkClassifier": _network_classifier,
}


# Transformers


def _dictionary(of: Any, given: list[Any], _: Any) -> Any:
    unknown = set(given[0]) - set(of.stringToIndex.vector)
    assert not unknown, "a phone refuses names that the vectorizer does not know"
    return np.array([given[0].get(name, 0.0) for name in of.stringToIndex.vector], E)


def _scaler(of: Any, given: list[Any], _: Any) -> Any:
    return (vector(given) + np.array(of.shiftValue or [0.0])) * np.array(of.scaleValue or [1.0])


def _normalizer(of: Any, given: list[Any], _: Any) -> Any:
    x = vector(given)
    length = (np.abs(x).max(), np.abs(x).sum(), math.sqrt((x**2).sum()))[of.normType]
    return x / length if length else x


def _imputer(of: Any, given: list[Any], _: Any) -> Any:
    x = vector(given)
    value = getattr(of, of.WhichOneof("ImputedValue"))
    values = np.broadcast_to(np.array(getattr(value, "vector", value), E), x.shape)
    marked = of.WhichOneof("ReplaceValue")
    mark = getattr(of, marked) if marked else math.nan
    return np.where(np.isnan(x) if math.isnan(mark) else x == mark, values, x)


def _one_hot(of: Any, given: list[Any], _: Any) -> Any:
    categories = list(getattr(of, of.WhichOneof("CategoryType")).vector)
    value = given[0] if isinstance(given[0], str) else float(np.ravel(given[0])[0])
    return np.array([float(value == category) for category in categories])


def _mapping(of: Any, given: list[Any], _: Any) -> Any:
    pairs = dict(getattr(of, of.WhichOneof("MappingType")).map)
    if of.WhichOneof("MappingType") == "int64ToStringMap":
        return pairs.get(int(np.ravel(given[0])[0]), of.strValue)
    return float(pairs.get(given[0], of.int64Value))


def _vectorizer(of: Any, given: list[Any], step: Any) -> Any:
    by_name = dict(zip([each.name for each in step.description.input], given, strict=True))
    return vector([by_name[column.inputColumn] for column in of.inputList])


TRANSFORMERS = {
    "dictVectorizer": _dictionary,
    "scaler": _scaler,
    "normalizer": _normalizer,
    "imputer": _imputer,
    "oneHotEncoder": _one_hot,
    "categoricalMapping": _mapping,
    "featureVectorizer": _vectorizer,
    "arrayFeatureExtractor": lambda of, given, _: vector(given)[list(of.extractIndex)],
    "identity": lambda of, given, _: given,
    "treeEnsembleRegressor": lambda of, given, _: tree_sums(of.treeEnsemble, vector(given)),
    "neuralNetwork": lambda of, given, step: [
        _layers(of, given, step)[each.name].ravel() for each in step.description.output
    ],
}
