"""Hostile files that say they are CoreML specifications."""

from __future__ import annotations

import io
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from corpus import case

sys.path.insert(0, str(Path(__file__).parent.parent / "backends"))  # for `coreml_protos`

from coreml_protos import Model, classifier, described, pipeline

NAN, INF = float("nan"), float("inf")
Change = Callable[[Any], object]


class _Harm:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/evergreen-was-harmed",)


# Good files, to be spoilt


def linear(width: int = 3, labels: tuple[str, ...] = ("off", "on", "play")) -> Any:
    spec = classifier({"x": (width,)})
    glm = spec.glmClassifier
    glm.classEncoding = 1
    for i in range(len(labels)):
        glm.weights.add().value.extend([float(i + j) for j in range(width)])
        glm.offset.append(float(i))
    glm.stringClassLabels.vector.extend(labels)
    return spec


def trees() -> Any:
    spec = classifier({"x": (2,)})
    forest = spec.treeEnsembleClassifier
    forest.stringClassLabels.vector.extend(["off", "on"])
    forest.treeEnsemble.numPredictionDimensions = 2
    add = forest.treeEnsemble.nodes.add
    add(treeId=0, nodeId=0, trueChildNodeId=1, falseChildNodeId=2, branchFeatureIndex=1, branchFeatureValue=0.5)
    add(treeId=0, nodeId=1, trueChildNodeId=3, falseChildNodeId=4, branchFeatureValue=0.1)
    for node, label in ((2, 0), (3, 1), (4, 0)):
        add(treeId=0, nodeId=node, nodeBehavior=6).evaluationInfo.add(evaluationIndex=label, evaluationValue=1.0)
    return spec


def words() -> Any:
    count = described(Model(), {"words": "dictionary"}, {"v": (3,)})
    count.dictVectorizer.stringToIndex.vector.extend(["turn", "off", "turn off"])
    unit = described(Model(), {"v": (3,)}, {"x": (3,)})
    unit.normalizer.normType = 2
    return pipeline({"words": "dictionary"}, count, unit, linear())


def network() -> Any:
    spec = classifier({"x": (4,)})
    layers = spec.neuralNetworkClassifier.layers
    dense = layers.add(name="dense", input=["x"], output=["y"]).innerProduct
    dense.inputChannels, dense.outputChannels, dense.hasBias = 4, 3, True
    dense.weights.floatValue.extend(float(i) for i in range(12))
    dense.bias.floatValue.extend([0.0, 1.0, 2.0])
    layers.add(name="end", input=["y"], output=["p"]).softmax.SetInParent()
    spec.neuralNetworkClassifier.stringClassLabels.vector.extend(["off", "on", "play"])
    return spec


def vectors() -> Any:
    spec = classifier({"x": (2,)})
    svm = spec.supportVectorClassifier
    svm.kernel.rbfKernel.gamma = 0.5
    svm.numberOfSupportVectorsPerClass.extend([1, 1])
    for i in range(2):
        svm.sparseSupportVectors.vectors.add().nodes.add(index=i + 1, value=1.0)
    svm.coefficients.add().alpha.extend([1.0, -1.0])
    svm.rho.append(0.1)
    svm.stringClassLabels.vector.extend(["off", "on"])
    return spec


def neighbours() -> Any:
    spec = classifier({"x": (2,)})
    near = spec.kNearestNeighborsClassifier
    near.nearestNeighborsIndex.numberOfDimensions = 2
    for i in range(3):
        near.nearestNeighborsIndex.floatSamples.add().vector.extend([float(i), 1.0])
    near.numberOfNeighbors.defaultValue = 2
    near.stringClassLabels.vector.extend(["off", "on", "on"])
    return spec


GOOD = {each.__name__: each for each in (linear, trees, words, network, vectors, neighbours)}


def spoilt(name: str, says: str, good: Callable[[], Any], change: Change) -> None:
    """Enter a good file with one thing changed."""

    def make(_: Path) -> bytes:
        spec = good()
        change(spec)
        return bytes(spec.SerializeToString())

    make.__name__ = name
    case(".mlmodel", says)(make)


def several(good: Callable[[], Any], at: Callable[[Any], Any], changes: dict[str, tuple[str, Change]]) -> None:
    """Enter one good file spoilt in several ways, each at the same place."""
    for name, (says, change) in changes.items():
        spoilt(name, says, good, lambda spec, change=change: change(at(spec)))  # type: ignore[misc]


def put(field: str, value: Any) -> Change:
    return lambda message: setattr(message, field, value)


# What is no specification at all


@case(".mlmodel", "0 inputs")
def nothing(_: Path) -> bytes:
    return b""


@case(".mlmodel", "not a CoreML specification")
def a_pickle(_: Path) -> bytes:
    return pickle.dumps(_Harm())


@case(".mlmodel", "zip archive, not a CoreML specification")
def a_package(_: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("model.mlpackage/Manifest.json", "{}")
    return out.getvalue()


@case(".mlmodel", "not a CoreML specification|inputs")
def random_bytes(_: Path) -> bytes:
    return np.random.default_rng(0).bytes(10_000)


@case(".mlmodel", "nested too deeply")
def a_pipeline_within_a_pipeline_a_thousand_deep(_: Path) -> bytes:
    def wrapped(field: int, data: bytes) -> bytes:
        return varint(field << 3 | 2) + varint(len(data)) + data

    data = bytes(words().SerializeToString())
    for _i in range(1000):
        data = wrapped(202, wrapped(1, data))
    return data


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


@case(".mlmodel", "more than 4 deep")
def pipelines_five_deep(_: Path) -> bytes:
    spec = linear()
    for _i in range(5):
        spec = pipeline({"x": (3,)}, spec)
    return bytes(spec.SerializeToString())


@case(".mlmodel", "more than 64 steps|65 steps")
def a_pipeline_of_many_steps(_: Path) -> bytes:
    same = described(Model(), {"x": (3,)}, {"x": (3,)})
    same.identity.SetInParent()
    return bytes(pipeline({"x": (3,)}, *[same] * 64, linear()).SerializeToString())


@case(".mlmodel", "more than 64 steps")
def a_pipeline_of_pipelines_of_many_steps(_: Path) -> bytes:
    same = described(Model(), {"x": (3,)}, {"x": (3,)})
    same.identity.SetInParent()
    inner = described(Model(), {"x": (3,)}, {"x": (3,)})
    for _i in range(33):
        inner.pipeline.models.add().CopyFrom(same)
    return bytes(pipeline({"x": (3,)}, inner, inner, linear()).SerializeToString())


@case(".mlmodel", "ends with")
def an_empty_pipeline(_: Path) -> bytes:
    same = described(Model(), {"x": (3,)}, {"y": (3,)})
    same.identity.SetInParent()
    return bytes(pipeline({"x": (3,)}, same).SerializeToString())


@case(".mlmodel", "comes after the classifier")
def two_classifiers(_: Path) -> bytes:
    return bytes(pipeline({"x": (3,)}, linear(), linear()).SerializeToString())


# Inputs, outputs, names

several(
    linear,
    lambda spec: spec.description.input[0],
    {
        "a_giant_array": ("no fixed shape", lambda i: i.type.multiArrayType.shape.__setitem__(0, 1 << 40)),
        "a_negative_array": ("no fixed shape", lambda i: i.type.multiArrayType.shape.__setitem__(0, -3)),
        "an_array_of_many_dimensions": ("no fixed shape", lambda i: i.type.multiArrayType.shape.extend([1] * 50)),
        "an_array_that_is_too_wide": ("too wide", lambda i: i.type.multiArrayType.shape.extend([1 << 20, 2])),
        "an_array_without_a_shape": ("no fixed shape", lambda i: i.type.multiArrayType.ClearField("shape")),
        "an_image": ("asks for 'x' .image.", lambda i: i.type.imageType.SetInParent()),
        "a_text": ("asks for 'x' .string.", lambda i: i.type.stringType.SetInParent()),
        "no_type": ("asks for 'x' .nothing.", lambda i: i.ClearField("type")),
        "a_dictionary_of_numbers": ("strings as keys", lambda i: i.type.dictionaryType.int64KeyType.SetInParent()),
        "a_dictionary_for_a_classifier": ("dictionary", lambda i: i.type.dictionaryType.stringKeyType.SetInParent()),
    },
)
several(
    linear,
    lambda spec: spec.description,
    {
        "no_input": ("0 inputs", lambda d: d.ClearField("input")),
        "two_inputs_of_a_name": ("the same name", lambda d: d.input.add().CopyFrom(d.input[0])),
        "very_many_inputs": ("inputs", lambda d: [d.input.add(name=str(i)) for i in range(5000)]),
        "a_label_that_is_not_declared": ("not declared", put("predictedFeatureName", "elsewhere")),
        "a_huge_name_of_a_label": ("not declared", put("predictedFeatureName", "x" * 1_000_000)),
    },
)
several(
    words,
    lambda spec: spec.pipelineClassifier.pipeline.models,
    {
        "names_that_do_not_match": (
            "'elsewhere', which nothing",
            lambda m: put("name", "elsewhere")(m[1].description.input[0]),
        ),
        "widths_that_do_not_match": ("asks for 7 numbers", lambda m: widen(m[1].description.input[0], 7)),
        "a_step_without_inputs": ("has no input", lambda m: m[1].description.ClearField("input")),
        "a_step_without_outputs": ("declares 0 outputs", lambda m: m[1].description.ClearField("output")),
        "a_name_twice": ("occurs twice", lambda m: m[0].dictVectorizer.stringToIndex.vector.__setitem__(0, "off")),
        "a_huge_name": (
            "1 to 200 characters",
            lambda m: m[0].dictVectorizer.stringToIndex.vector.__setitem__(0, "x" * 10**6),
        ),
        "an_empty_name": ("1 to 200 characters", lambda m: m[0].dictVectorizer.stringToIndex.vector.__setitem__(0, "")),
        "no_names": ("1 to 20,000 names", lambda m: m[0].dictVectorizer.stringToIndex.ClearField("vector")),
        "too_many_names": (
            "1 to 20,000 names",
            lambda m: m[0].dictVectorizer.stringToIndex.vector.extend(map(str, range(20_000))),
        ),
        "a_vocabulary_of_numbers": ("strings as keys", lambda m: m[0].dictVectorizer.int64ToIndex.vector.append(1)),
        "a_dictionary_that_nobody_reads": ("which nothing before it gives", lambda m: m.pop(0)),
        "an_unknown_norm": ("unknown norm", lambda m: put("normType", 9)(m[1].normalizer)),
        "a_scaler_of_wrong_length": ("2 numbers in scaleValue", lambda m: m[1].scaler.scaleValue.extend([1.0, 2.0])),
        "a_scaler_that_is_not_finite": ("not finite", lambda m: m[1].scaler.scaleValue.append(NAN)),
        "an_imputer_of_nothing": ("nothing to put in", lambda m: m[1].imputer.SetInParent()),
        "an_extractor_out_of_range": (
            "outside the 3",
            lambda m: m[1].arrayFeatureExtractor.extractIndex.append(1 << 60),
        ),
        "a_vectorizer_of_others": (
            "lists 'z'",
            lambda m: m[1].featureVectorizer.inputList.add(inputColumn="z", inputDimensions=1),
        ),
        "a_vectorizer_of_giants": (
            "expects",
            lambda m: m[1].featureVectorizer.inputList.add(inputColumn="v", inputDimensions=1 << 60),
        ),
        "a_custom_model": ("customModel, is not supported", lambda m: m[1].customModel.SetInParent()),
        "a_linked_model": ("linkedModel, is not supported", lambda m: m[1].linkedModel.SetInParent()),
    },
)


def widen(described: Any, width: int) -> None:
    described.type.multiArrayType.shape[0] = width


@case(".mlmodel", "only one dictionary of counts")
def two_dictionaries(_: Path) -> bytes:
    spec = words()
    spec.description.input.add(name="more").type.dictionaryType.stringKeyType.SetInParent()
    return bytes(spec.SerializeToString())


@case(".mlmodel", "two dictVectorizers")
def two_vocabularies(_: Path) -> bytes:
    spec = words()
    models = spec.pipelineClassifier.pipeline.models
    models[1].CopyFrom(models[0])
    models[1].dictVectorizer.stringToIndex.vector[0] = "other"
    return bytes(spec.SerializeToString())


# Labels

several(
    linear,
    lambda spec: spec.glmClassifier.stringClassLabels,
    {
        "no_labels": ("0 labels", lambda v: v.ClearField("vector")),
        "one_label": ("1 labels", lambda v: v.vector.__delitem__(slice(1, 3))),
        "a_label_twice": ("occurs twice", lambda v: v.vector.__setitem__(0, "on")),
        "an_empty_label": ("label is empty", lambda v: v.vector.__setitem__(0, "")),
        "a_huge_label": ("longer than 200", lambda v: v.vector.__setitem__(0, "x" * 5_000_000)),
        "a_label_with_a_zero": ("control characters", lambda v: v.vector.__setitem__(0, "o\x00n")),
        "a_label_more": ("4 are needed", lambda v: v.vector.append("stop")),
        "too_many_labels": ("2 to 1,000", lambda v: v.vector.extend(map(str, range(2000)))),
    },
)
spoilt("labels_missing", "no class labels", linear, lambda spec: spec.glmClassifier.ClearField("ClassLabels"))

# Weights

several(
    linear,
    lambda spec: spec.glmClassifier,
    {
        "weights_that_are_not_numbers": ("not finite", lambda g: g.weights[1].value.__setitem__(0, NAN)),
        "an_infinite_offset": ("not finite", lambda g: g.offset.__setitem__(0, INF)),
        "a_weight_too_few": ("not one for each", lambda g: g.weights[1].value.pop()),
        "a_row_too_few": ("2 rows of weights", lambda g: g.weights.pop()),
        "offsets_too_few": ("2 offsets", lambda g: g.offset.pop()),
        "an_unknown_transform": ("unknown transform", put("postEvaluationTransform", 5)),
        "an_unknown_encoding": ("unknown transform or class encoding", put("classEncoding", 5)),
        "probit_for_three": ("probit", put("postEvaluationTransform", 1)),
    },
)


def every_kth_byte(data: bytes, most: int) -> list[bytes]:
    """Cut a file off at places spread over its length."""
    return [data[:end] for end in np.linspace(1, len(data) - 1, most).astype(int).tolist()]
