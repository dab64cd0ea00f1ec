"""A whole model: what goes in, the steps of its pipeline in order, the classifier at its end."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.backends.format.coreml import linear, neighbours, network, transformers, trees, vectors
from evergreen.backends.format.coreml.graph import Answer, Feature, Graph, refuse
from evergreen.core.recipe import Interface

_MOST_DEEP, _MOST_STEPS, _MOST_INPUTS = 4, 64, 4096
_MOST_LABELS, _MOST_NAMES, _LONGEST = 1000, 20_000, 200
_MOST_ABOUT, _LONGEST_ABOUT = 50, 4000

#: A classifier makes an answer of its inputs, by name and in order.
_CLASSIFIERS: Mapping[str, Callable[[Any, Mapping[str, Feature], tuple[str, ...], Graph], Answer]] = {
    "treeEnsembleClassifier": trees.classify,
    "glmClassifier": linear.classify,
    "supportVectorClassifier": vectors.classify,
    "kNearestNeighborsClassifier": neighbours.classify,
    "neuralNetworkClassifier": network.classify,
}
_PIPELINES = ("pipelineClassifier", "pipeline")
_INSTEAD = "Send a classifier as a .mlmodel (neural network, trees, linear, support vectors), or as ONNX."
_WHY = {
    "mlProgram": "Convert it with convert_to='neuralnetwork', or send it as ONNX.",
    "textClassifier": "Its model is Apple's own; train a classifier on counted words instead.",
}


def convert(spec: Any, path: Path) -> Interface:
    """Draw the model as an ONNX graph at `path` and say what it asks for. Raises `InvalidInput` naming the part."""
    graph = Graph()
    entrance = _Entrance(spec.description, graph)
    with np.errstate(all="ignore"):  # numbers that overflow are found where they are looked at
        answer, kinds = _walk(spec, entrance, graph)
    probabilities = graph.probabilities(answer)
    names = entrance.names
    if entrance.dictionary and not names:
        raise refuse(f"the dictionary {entrance.dictionary!r} is not read by a dictVectorizer")
    width = len(names) or entrance.width
    graph.save(path, entrance.entry, width, probabilities, len(answer.labels))
    about = _about(spec.description.metadata, kinds, graph.notes)
    if entrance.dictionary:
        return Interface("counts", entrance.entry, answer.labels, names=names, about=about)
    return Interface("features", entrance.entry, answer.labels, width=width, about=about)


class _Entrance:
    """What the model asks for: one dictionary of counts, or numbers."""

    def __init__(self, description: Any, graph: Graph) -> None:
        inputs = list(description.input)
        self.names: tuple[str, ...] = ()
        self.width = 0
        self.dictionary = ""
        self.features: dict[str, Feature] = {}
        if not 1 <= len(inputs) <= _MOST_INPUTS:
            raise refuse(f"the model has {len(inputs)} inputs; 1 to {_MOST_INPUTS} are allowed")
        kinds = {_kind(each) for each in inputs}
        if kinds == {"dictionaryType"} and len(inputs) == 1:
            self._counts(inputs[0])
        elif kinds <= {"doubleType", "int64Type", "multiArrayType"}:
            self._numbers(inputs, graph)
        else:
            said = ", ".join(f"{each.name!r} ({_kind(each).removesuffix('Type')})" for each in inputs[:5])
            raise refuse(
                f"the model asks for {said}; only one dictionary of counts, or numbers alone, can be given",
                "Count words and give the counts to a dictVectorizer.",
            )
        if len(self.features) < len(inputs):
            raise refuse("two inputs of the model have the same name")

    @property
    def entry(self) -> str:
        """Name the input of the graph."""
        return "counts" if self.dictionary else "features"

    def _counts(self, each: Any) -> None:
        if each.type.dictionaryType.WhichOneof("KeyType") != "stringKeyType":
            raise refuse(f"the dictionary {each.name!r} has no strings as keys")
        self.dictionary = each.name or "input"
        self.features = {each.name: Feature("counts", (0,), "counts")}

    def _numbers(self, inputs: list[Any], graph: Graph) -> None:
        shapes = [_shape(each) for each in inputs]
        widths = [prod(shape) for shape in shapes]
        self.width = sum(widths)
        whole = graph.cast(graph.feature("features", (self.width,), "single"), "double")
        parts = graph.split(whole, widths)
        self.features = {
            each.name: graph.reshape(part, shape) for each, part, shape in zip(inputs, parts, shapes, strict=True)
        }

    def count(self, vocabulary: Any) -> None:
        """Take the names of what is counted from the step that reads the dictionary."""
        names = tuple(vocabulary)
        if not 1 <= len(names) <= _MOST_NAMES or any(not 1 <= len(name) <= _LONGEST for name in names):
            raise refuse(f"a dictVectorizer needs 1 to {_MOST_NAMES:,} names of 1 to {_LONGEST} characters")
        if len(set(names)) != len(names):
            raise refuse("a name occurs twice in the dictVectorizer")
        if self.names not in ((), names):
            raise refuse("the dictionary is read by two dictVectorizers with different names")
        self.names = names


def _walk(spec: Any, entrance: _Entrance, graph: Graph) -> tuple[Answer, list[str]]:
    """Draw one step after the other; the last must be a classifier, and the only one."""
    features = dict(entrance.features)
    kinds: list[str] = []
    answer = None
    for number, step in enumerate(_steps(spec, 0), 1):
        kind = step.WhichOneof("Type") or "nothing"
        kinds.append(kind)
        if answer is not None:
            raise refuse(f"step {number}, {kind}, comes after the classifier, which must be the last")
        if number > _MOST_STEPS:
            raise refuse(f"the pipeline has more than {_MOST_STEPS} steps")
        given = _given(step, features, f"step {number}, {kind},", graph)
        parameters = getattr(step, kind, None)
        if kind in _CLASSIFIERS:
            answer = _CLASSIFIERS[kind](parameters, given, _labels(parameters, kind), graph)
        elif kind == "dictVectorizer":
            entrance.count(_vocabulary(parameters))
            features |= transformers.put(step, transformers.dictionary(given, len(entrance.names), graph))
        elif kind in transformers.KINDS:
            features |= transformers.put(step, transformers.KINDS[kind](parameters, given, graph))
        elif kind == "neuralNetwork":
            features |= network.transform(parameters, given, [each.name for each in step.description.output], graph)
        else:
            raise refuse(f"step {number}, {kind}, is not supported", _WHY.get(kind, _INSTEAD))
    if answer is None:
        raise refuse(f"the model ends with {kinds[-1] if kinds else 'nothing'}, not with a classifier", _INSTEAD)
    outputs = {each.name for each in spec.description.output}
    if spec.description.predictedFeatureName not in outputs:
        raise refuse(f"the output {spec.description.predictedFeatureName!r} for the label is not declared")
    return answer, kinds


def _steps(spec: Any, deep: int) -> Iterator[Any]:
    """Unroll pipelines within pipelines."""
    kind = spec.WhichOneof("Type")
    if kind not in _PIPELINES:
        yield spec
        return
    if deep == _MOST_DEEP:
        raise refuse(f"pipelines lie within pipelines more than {_MOST_DEEP} deep")
    pipeline = spec.pipelineClassifier.pipeline if kind == "pipelineClassifier" else spec.pipeline
    if not 1 <= len(pipeline.models) <= _MOST_STEPS:
        raise refuse(f"a pipeline has {len(pipeline.models)} steps; 1 to {_MOST_STEPS} are allowed")
    for each in pipeline.models:
        yield from _steps(each, deep + 1)


def _given(step: Any, features: Mapping[str, Feature], where: str, graph: Graph) -> dict[str, Feature]:
    """Return what a step asks for, in its order; refuses names and widths that do not fit."""
    given = {}
    for each in step.description.input:
        if each.name not in features:
            raise refuse(f"{where} asks for {each.name!r}, which nothing before it gives")
        feature = features[each.name]
        kind = _kind(each)
        if kind == "multiArrayType" and each.type.multiArrayType.shape and feature.kind != "counts":
            shape = _shape(each)
            if prod(shape) != feature.width:
                raise refuse(f"{where} asks for {prod(shape):,} numbers of {each.name!r}, which has {feature.width:,}")
            feature = graph.reshape(feature, shape)
        given[each.name] = feature
    if not given:
        raise refuse(f"{where} has no input")
    return given


def _kind(described: Any) -> str:
    return described.type.WhichOneof("Type") or "nothing"


def _shape(described: Any) -> tuple[int, ...]:
    """Return the shape of one row of a described number or array."""
    if _kind(described) != "multiArrayType":
        return (1,)
    shape = tuple(described.type.multiArrayType.shape)
    if not 1 <= len(shape) <= 5 or any(not 1 <= size <= 1 << 20 for size in shape):
        raise refuse(
            f"the array {described.name!r} has no fixed shape of 1 to 5 dimensions that could be used: {shape}"
        )
    return shape


def _labels(parameters: Any, kind: str) -> tuple[str, ...]:
    """Return the labels as texts: of a class each or, for neighbours, of a sample each."""
    group = parameters.WhichOneof("ClassLabels")
    if group is None:
        raise refuse(f"the {kind} has no class labels")
    labels = tuple(str(label) for label in getattr(parameters, group).vector)
    for label in set(labels):
        if not 1 <= len(label) <= _LONGEST or any(unicodedata.category(c) == "Cc" for c in label):
            raise refuse(f"a label is empty, longer than {_LONGEST} characters, or has control characters")
    if not 2 <= len(set(labels)) <= _MOST_LABELS:
        raise refuse(f"the {kind} has {len(set(labels))} labels; 2 to {_MOST_LABELS:,} are allowed")
    if len(set(labels)) != len(labels) and kind != "kNearestNeighborsClassifier":
        raise refuse(f"a label of the {kind} occurs twice")
    return labels


def _vocabulary(parameters: Any) -> Any:
    if parameters.WhichOneof("Map") != "stringToIndex":
        raise refuse("a dictVectorizer has no strings as keys")
    return parameters.stringToIndex.vector


def _about(metadata: Any, kinds: list[str], notes: list[str]) -> dict[str, str]:
    """Return what the file says of itself, and what was made of it; long values of its own are left out."""
    own = [(entry.key, entry.value) for entry in metadata.userDefined if len(entry.value) <= _LONGEST_ABOUT]
    said = own[:_MOST_ABOUT]
    said += [
        ("author", metadata.author),
        ("version", metadata.versionString),
        ("license", metadata.license),
        ("description", metadata.shortDescription),
        ("steps", ", ".join(kinds)),
        ("notes", "; ".join(notes)),
    ]
    return {_plain(key)[:_LONGEST]: _plain(value)[:_LONGEST_ABOUT] for key, value in said if _plain(key) and value}


def _plain(text: str) -> str:
    return "".join(c if c == "\n" or unicodedata.category(c) != "Cc" else " " for c in text)
