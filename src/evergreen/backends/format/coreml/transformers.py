"""The feature transformers of a pipeline: each makes one feature of what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from evergreen.backends.format.coreml import trees
from evergreen.backends.format.coreml.graph import Feature, Graph, numbers, refuse

Given = Mapping[str, Feature]


def put(step: Any, made: Feature | Mapping[str, Feature]) -> dict[str, Feature]:
    """Name what a step has made by the outputs it declares."""
    outputs = [each.name for each in step.description.output]
    if not isinstance(made, Feature):
        if len(outputs) != len(made):
            raise refuse(f"the {step.WhichOneof('Type')} declares {len(outputs)} outputs for {len(made)} inputs")
        return dict(zip(outputs, made.values(), strict=True))
    if len(outputs) != 1:
        raise refuse(f"the {step.WhichOneof('Type')} declares {len(outputs)} outputs; it has one")
    return {outputs[0]: made}


def dictionary(given: Given, width: int, graph: Graph) -> Feature:
    """Name the counts in the order of the vocabulary."""
    (only,) = given.values() if len(given) == 1 else (None,)
    if only is None or only.kind != "counts":
        raise refuse("a dictVectorizer does not read the dictionary that is the input of the model")
    return graph.cast(graph.feature(only.tensor, (width,), "single"), "double")


def _one(given: Given, what: str) -> Feature:
    if len(given) != 1:
        raise refuse(f"the {what} has {len(given)} inputs; it takes one")
    return next(iter(given.values()))


def _scaler(parameters: Any, given: Given, graph: Graph) -> Feature:
    """Return (x + shift) × scale."""
    x = graph.vector(list(given.values()))
    value = x.tensor
    for operator, field in (("Add", "shiftValue"), ("Mul", "scaleValue")):
        factors = numbers(getattr(parameters, field), what=f"{field} of the scaler")
        if len(factors) not in (0, 1, x.width):
            raise refuse(f"the scaler has {len(factors)} numbers in {field} for {x.width} features")
        if (factors != (0.0 if operator == "Add" else 1.0)).any():
            value = graph.node(operator, value, graph.constant(factors))
    return graph.feature(value, x.shape)


def _normalizer(parameters: Any, given: Given, graph: Graph) -> Feature:
    """Divide by the largest size, the sum of sizes, or the Euclidean length; zeros stay zeros."""
    x = graph.vector(list(given.values()))
    axis = graph.constant([1], "whole")
    size = graph.node("Abs", x.tensor)
    if parameters.normType == 0:
        length = graph.node("ReduceMax", size, axes=[1], keepdims=1)
    elif parameters.normType == 1:
        length = graph.node("ReduceSum", size, axis, keepdims=1)
    elif parameters.normType == 2:
        length = graph.node("Sqrt", graph.node("ReduceSum", graph.node("Mul", size, size), axis, keepdims=1))
    else:
        raise refuse(f"the normalizer has an unknown norm ({parameters.normType})")
    zero = graph.node("Equal", length, graph.constant([0.0]))
    return graph.feature(graph.node("Div", x.tensor, graph.node("Where", zero, graph.constant([1.0]), length)), x.shape)


def _imputer(parameters: Any, given: Given, graph: Graph) -> Feature:
    """Put given numbers where one is missing: not a number, or equal to a marked one."""
    x = graph.vector(list(given.values()))
    group = parameters.WhichOneof("ImputedValue")
    if group in ("imputedDoubleValue", "imputedInt64Value"):
        values = numbers([getattr(parameters, group)], what="the imputer")
    elif group in ("imputedDoubleArray", "imputedInt64Array"):
        values = numbers(getattr(parameters, group).vector, what="the imputer")
    else:
        raise refuse(f"the imputer has {group or 'nothing'} to put in; only numbers are supported")
    if len(values) not in (1, x.width):
        raise refuse(f"the imputer has {len(values)} numbers for {x.width} features")
    marked = parameters.WhichOneof("ReplaceValue")
    if marked == "replaceStringValue":
        raise refuse("an imputer that replaces strings is not supported")
    mark = float(getattr(parameters, marked)) if marked else float("nan")
    gap = graph.node("IsNaN", x.tensor) if mark != mark else graph.node("Equal", x.tensor, graph.constant([mark]))
    return graph.feature(graph.node("Where", gap, graph.constant(values), x.tensor), x.shape)


def _one_hot(parameters: Any, given: Given, graph: Graph) -> Feature:
    """Give each category a place with 1 at the one that is meant; an unknown one has none."""
    x = _one(given, "oneHotEncoder")
    group = parameters.WhichOneof("CategoryType")
    if parameters.outputSparse or group is None or x.width != 1:
        raise refuse("a oneHotEncoder needs categories, one input of one value, and a dense output")
    categories = list(getattr(parameters, group).vector)
    if not categories or len(set(categories)) != len(categories):
        raise refuse("the oneHotEncoder has no categories, or one of them twice")
    if (group == "stringCategories") != (x.kind == "text"):
        raise refuse("the oneHotEncoder's categories are not of the kind of its input")
    if x.kind == "text":
        attributes = {"keys_strings": categories, "values_int64s": list(range(len(categories)))}
        place = graph.node("LabelEncoder", x.tensor, domain="ai.onnx.ml", default_int64=-1, **attributes)
        x = Feature(graph.node("Cast", place, to=TensorProto.DOUBLE), x.shape)
        categories = list(range(len(categories)))
    same = graph.node("Equal", graph.reshape(x, (1,)).tensor, graph.constant([categories]))
    return graph.feature(graph.node("Cast", same, to=TensorProto.DOUBLE), (len(categories),))


def _mapping(parameters: Any, given: Given, graph: Graph) -> Feature:
    """Replace a whole number by a string, or a string by a whole number."""
    x = _one(given, "categoricalMapping")
    group = parameters.WhichOneof("MappingType")
    if group is None or x.width != 1 or (group == "stringToInt64Map") != (x.kind == "text"):
        raise refuse("the categoricalMapping does not fit its input")
    pairs = {entry.key: entry.value for entry in getattr(parameters, group).map}
    if not pairs:
        raise refuse("the categoricalMapping is empty")
    keys, values = list(pairs), list(pairs.values())
    if group == "stringToInt64Map":
        attributes: dict[str, Any] = {"keys_strings": keys, "values_int64s": values}
        coded = graph.node(
            "LabelEncoder", x.tensor, domain="ai.onnx.ml", default_int64=parameters.int64Value, **attributes
        )
        return Feature(graph.node("Cast", coded, to=TensorProto.DOUBLE), x.shape)
    attributes = {"keys_int64s": keys, "values_strings": values}
    whole = graph.node("Cast", graph.cast(x, "double").tensor, to=TensorProto.INT64)
    default = parameters.strValue
    return Feature(
        graph.node("LabelEncoder", whole, domain="ai.onnx.ml", default_string=default, **attributes), x.shape, "text"
    )


def _vectorizer(parameters: Any, given: Given, graph: Graph) -> Feature:
    """Put columns side by side in the order listed."""
    columns = []
    for column in parameters.inputList:
        if column.inputColumn not in given:
            raise refuse(f"the featureVectorizer lists {column.inputColumn!r}, which is not among its inputs")
        feature = given[column.inputColumn]
        if feature.width != column.inputDimensions:
            raise refuse(
                f"the featureVectorizer expects {column.inputDimensions:,} numbers of {column.inputColumn!r}, "
                f"which has {feature.width:,}"
            )
        columns.append(feature)
    if not columns:
        raise refuse("the featureVectorizer lists no columns")
    return graph.vector(columns)


def _extractor(parameters: Any, given: Given, graph: Graph) -> Feature:
    """Pick numbers by their places."""
    x = graph.vector([_one(given, "arrayFeatureExtractor")])
    places = list(parameters.extractIndex)
    if not places or max(places) >= x.width:
        raise refuse(f"the arrayFeatureExtractor picks places outside the {x.width} numbers it is given")
    picked = graph.node("Gather", x.tensor, graph.constant(np.array(places), "whole"), axis=1)
    return graph.feature(picked, (len(places),))


def _identity(parameters: Any, given: Given, graph: Graph) -> Mapping[str, Feature]:  # noqa: ARG001
    return given


KINDS: Mapping[str, Callable[[Any, Given, Graph], Feature | Mapping[str, Feature]]] = {
    "scaler": _scaler,
    "normalizer": _normalizer,
    "imputer": _imputer,
    "oneHotEncoder": _one_hot,
    "categoricalMapping": _mapping,
    "featureVectorizer": _vectorizer,
    "arrayFeatureExtractor": _extractor,
    "identity": _identity,
    "treeEnsembleRegressor": trees.regress,
}
