"""Neural networks without recurrence: layer after layer, with shapes known beforehand.

A tensor that CoreML has as (a, b, c) is (n, a, b, c) here: n rows at once, each as CoreML would see it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evergreen.backends.format.coreml.graph import Answer, Feature, Graph, refuse
from evergreen.backends.format.coreml.network import arrange, dense, pointwise
from evergreen.backends.format.coreml.network.layer import Layer

_MOST_LAYERS = 500
_RANK5, _EXACT = 0, 1
_KINDS = {**dense.KINDS, **pointwise.KINDS, **arrange.KINDS}
#: Layers after which the numbers are what they were.
_SAME = ("flatten", "flattenTo2D", "reshape", "reshapeStatic", "rankPreservingReshape", "squeeze", "expandDims", "copy")
_NOT_NEGATIVE = ("sigmoid", "sigmoidHard", "ReLU", "softplus")


def classify(parameters: Any, given: Mapping[str, Feature], labels: tuple[str, ...], graph: Graph) -> Answer:
    """Draw a neuralNetworkClassifier; what it gives for the labels is `labelProbabilityLayerName`, or its last output."""
    values, scales = _run(parameters, given, graph)
    name = parameters.labelProbabilityLayerName or list(values)[-1]
    if name not in values:
        raise refuse(f"no layer gives {name!r}, which should be the probabilities")
    value = values[name]
    if value.width != len(labels):
        raise refuse(f"the neural network gives {value.width} numbers for {len(labels)} labels")
    flat = graph.reshape(value, (len(labels),))
    scale = scales.get(name, ("scores", 0))
    done = scale[0] == "done" and scale[1] == len(labels)
    return Answer(
        flat.tensor, labels, "single", "done" if done else "shares" if scale[0] in ("done", "shares") else "scores"
    )


def transform(
    parameters: Any, given: Mapping[str, Feature], outputs: Sequence[str], graph: Graph
) -> dict[str, Feature]:
    """Draw a neural network that is a step of a pipeline."""
    values, _ = _run(parameters, given, graph)
    for name in outputs:
        if name not in values:
            raise refuse(f"no layer gives {name!r}, an output of the neural network")
    return {name: values[name] for name in outputs}


def _run(
    parameters: Any, given: Mapping[str, Feature], graph: Graph
) -> tuple[dict[str, Feature], dict[str, tuple[str, int]]]:
    """Draw all layers; return what there is then, by name, and of what kind and along how many it adds up to 1."""
    if parameters.preprocessing:
        raise refuse("a neural network for images is not supported")
    if not 1 <= len(parameters.layers) <= _MOST_LAYERS:
        raise refuse(f"the neural network has {len(parameters.layers)} layers; 1 to {_MOST_LAYERS} are allowed")
    values = {name: _entered(feature, parameters.arrayInputShapeMapping, graph) for name, feature in given.items()}
    rows = next(iter(values.values()))
    scales: dict[str, tuple[str, int]] = {}
    for number, spec in enumerate(parameters.layers, 1):
        kind = spec.WhichOneof("layer") or "nothing"
        where = f"layer {number}, {kind}"
        if kind not in _KINDS:
            raise refuse(
                f"{where}, is not supported",
                "Dense layers, embeddings, normalisation, activations and changes of shape are.",
            )
        for name in spec.input:
            if name not in values:
                raise refuse(f"{where}, asks for {name!r}, which nothing before it gives")
        if len(spec.output) != 1 or spec.output[0] in values:
            raise refuse(f"{where}, must have one output, with a name of its own")
        inputs = [values[name] for name in spec.input]
        made = _KINDS[kind](Layer(getattr(spec, kind), inputs, graph, where, rows))
        values[spec.output[0]] = graph.feature(made.tensor, made.shape or (1,), "single")
        scale = _scale(kind, spec, made)
        if kind in _SAME and len(spec.input) == 1:
            scale = scales.get(spec.input[0])
        if scale is not None:
            scales[spec.output[0]] = scale
    return values, scales


def _entered(feature: Feature, mapping: int, graph: Graph) -> Feature:
    """Return an input in 32 bits, as rank 5 (sequence, batch, channel, height, width) where the network wants that."""
    single = graph.cast(feature, "single")
    if mapping == _EXACT:
        return single
    if mapping != _RANK5 or len(feature.shape) not in (1, 3):
        raise refuse(f"an input of the neural network has {len(feature.shape)} dimensions; 1 or 3 are needed")
    return graph.reshape(single, (1, 1, *feature.shape, *(1,) * (3 - len(feature.shape))))


def _scale(kind: str, spec: Any, made: Feature) -> tuple[str, int] | None:
    """Say of a layer whether what it gives adds up to 1, along how many, or is at least never negative."""
    if kind == "softmax":
        return "done", made.shape[-3]
    if kind == "softmaxND":
        return "done", made.shape[spec.softmaxND.axis]
    if kind == "activation" and spec.activation.WhichOneof("NonlinearityType") in _NOT_NEGATIVE:
        return "shares", 0
    return None
