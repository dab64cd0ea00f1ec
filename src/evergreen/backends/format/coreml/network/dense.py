"""Layers with weights: dense, embedding, normalisation, scale, bias, constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod

import numpy as np
from onnx import TensorProto

from evergreen.backends.format.coreml.graph import Feature, numbers
from evergreen.backends.format.coreml.network.layer import Layer


def _inner_product(layer: Layer) -> Feature:
    """Return x · W + b; of rank 4 and 5 the last three dimensions are one vector."""
    p, x, graph = layer.parameters, layer.one, layer.graph
    if p.int8DynamicQuantize:
        raise layer.wrong("inputs quantised as they come are not supported")
    rank = len(x.shape)
    lead = x.shape[:-1] if rank <= 3 else x.shape[: rank - 3]
    if prod(x.shape[len(lead) :]) != p.inputChannels or not p.outputChannels:
        raise layer.wrong(f"it expects {p.inputChannels:,} numbers and is given {x.shape}")
    weights = layer.weights("weights", (p.outputChannels, p.inputChannels))
    flat = graph.reshape(x, (prod(lead), p.inputChannels))
    made = graph.node("MatMul", flat.tensor, graph.constant(weights.T, "single"))
    if p.hasBias:
        made = graph.node("Add", made, graph.constant(layer.weights("bias", (p.outputChannels,)), "single"))
    tail = (p.outputChannels,) if rank <= 3 else (p.outputChannels, 1, 1)
    return graph.reshape(layer.made(made, (prod(lead), p.outputChannels)), (*lead, *tail))


def _matmul(layer: Layer) -> Feature:
    """Multiply matrices: an input by weights, or two inputs of one rank."""
    p, graph = layer.parameters, layer.graph
    if p.int8DynamicQuantize:
        raise layer.wrong("inputs quantised as they come are not supported")
    if len(layer.inputs) == 1:
        x, wide, out = layer.one, p.weightMatrixFirstDimension, p.weightMatrixSecondDimension
        if p.transposeA or p.transposeB or x.shape[-1] != wide or not out:
            raise layer.wrong(f"it expects {wide:,} numbers and is given {x.shape}, or it transposes")
        made = graph.node("MatMul", x.tensor, graph.constant(layer.weights("weights", (wide, out)), "single"))
        if p.hasBias:
            made = graph.node("Add", made, graph.constant(layer.weights("bias", (out,)), "single"))
        return layer.made(made, (*x.shape[:-1], out))
    if len(layer.inputs) != 2 or len({len(x.shape) for x in layer.inputs}) > 1 or len(layer.inputs[0].shape) < 2:
        raise layer.wrong("it needs one input, or two of one rank of 2 or more")
    a, b = (_turned(x, turn, layer) for x, turn in zip(layer.inputs, (p.transposeA, p.transposeB), strict=True))
    if a.shape[-1] != b.shape[-2] or a.shape[:-2] != b.shape[:-2]:
        raise layer.wrong(f"{a.shape} and {b.shape} cannot be multiplied")
    return layer.made(graph.node("MatMul", a.tensor, b.tensor), (*a.shape[:-1], b.shape[-1]))


def _turned(x: Feature, turn: bool, layer: Layer) -> Feature:
    if not turn:
        return x
    order = [*range(len(x.shape) - 1), len(x.shape), len(x.shape) - 1]
    made = layer.graph.node("Transpose", x.tensor, perm=order)
    return layer.made(made, (*x.shape[:-2], x.shape[-1], x.shape[-2]))


def _embedding(layer: Layer, ones: int, sizes: tuple[str, str]) -> Feature:
    """Look rows up by number; a number outside the table is taken as its nearest end."""
    p, graph = layer.parameters, layer.graph
    x = layer.deep(ones + 1) if ones == 3 else layer.deep(ones)
    many, wide = getattr(p, sizes[0]), getattr(p, sizes[1])
    if x.shape[-ones:] != (1,) * ones or not many or not wide:
        raise layer.wrong(f"it is given {x.shape}; the last {ones} must be 1")
    table = layer.weights("weights", (wide, many)).T
    if p.hasBias:
        table = table + layer.weights("bias", (wide,))
    ends = graph.constant(0, "whole"), graph.constant(many - 1, "whole")
    lead = x.shape[:-ones]
    place = graph.node("Clip", graph.node("Cast", graph.reshape(x, lead).tensor, to=TensorProto.INT64), *ends)
    made = layer.made(graph.node("Gather", graph.constant(table, "single"), place, axis=0), (*lead, wide))
    return graph.reshape(made, (*lead, wide, *(1,) * (ones - 1)))


def _batchnorm(layer: Layer) -> Feature:
    p, x = layer.parameters, layer.deep(3)
    if p.computeMeanVar or p.instanceNormalization:
        raise layer.wrong("means and variances of what is given are not supported")
    if p.channels != x.shape[-3] or not 0 <= p.epsilon < 1e9:
        raise layer.wrong(f"it has {p.channels:,} channels, its input {x.shape[-3]:,}, or epsilon is wrong")
    gamma, beta, mean, variance = (layer.weights(f, (p.channels,)) for f in ("gamma", "beta", "mean", "variance"))
    if (variance < 0).any():
        raise layer.wrong("a variance is negative")
    factor = gamma / np.sqrt(variance + np.float32(p.epsilon or 1e-5))
    start = beta - mean * factor
    for each in (factor, start):
        numbers(each, "single", f"{layer.where}, divided by the deviation, ")
    return _straight(layer, x, factor.reshape(-1, 1, 1), start.reshape(-1, 1, 1))


def _straight(layer: Layer, x: Feature, factor: object, start: object) -> Feature:
    """Return x × factor + start."""
    graph = layer.graph
    made = graph.node("Mul", x.tensor, graph.constant(factor, "single"))
    return layer.made(graph.node("Add", made, graph.constant(start, "single")), x.shape)


def _along(layer: Layer, field: str, shape: tuple[int, ...]) -> object:
    """Read weights of shape (1,), (C,), (1, H, W) or (C, H, W), as they lie along the last three dimensions."""
    x = layer.deep(3)
    full = (*shape, 1, 1) if len(shape) == 1 else shape
    if len(full) != 3 or any(size not in (1, of) for size, of in zip(full, x.shape[-3:], strict=True)):
        raise layer.wrong(f"{field} of shape {shape} does not fit {x.shape}")
    return layer.weights(field, full)


def _scale(layer: Layer) -> Feature:
    p, x = layer.parameters, layer.one
    factor = _along(layer, "scale", tuple(p.shapeScale))
    start = _along(layer, "bias", tuple(p.shapeBias)) if p.hasBias else [0.0]
    return _straight(layer, x, factor, start)


def _bias(layer: Layer) -> Feature:
    start = _along(layer, "bias", tuple(layer.parameters.shape))
    return layer.same("Add", layer.graph.constant(start, "single"))


def _layer_norm(layer: Layer) -> Feature:
    """Make the mean of the last dimensions 0 and their variance 1, then scale and shift."""
    p, x, graph = layer.parameters, layer.one, layer.graph
    shape = tuple(p.normalizedShape)
    if not shape or x.shape[-len(shape) :] != shape or not 0 <= p.eps < 1e9:
        raise layer.wrong(f"its shape {shape} is not the end of {x.shape}")
    axes = list(range(len(x.shape) - len(shape) + 1, len(x.shape) + 1))
    centred = graph.node("Sub", x.tensor, graph.node("ReduceMean", x.tensor, axes=axes, keepdims=1))
    variance = graph.node("ReduceMean", graph.node("Mul", centred, centred), axes=axes, keepdims=1)
    unit = graph.node("Div", centred, graph.node("Sqrt", graph.node("Add", variance, layer.scalar(p.eps or 1e-5))))
    return _straight(layer, layer.made(unit, x.shape), layer.weights("gamma", shape), layer.weights("beta", shape))


def _constant(layer: Layer, rank5: bool) -> Feature:
    """Give the same numbers to each row."""
    graph, shape = layer.graph, tuple(layer.parameters.shape)
    if layer.inputs or not 1 <= len(shape) <= 5 or (rank5 and len(shape) != 3):
        raise layer.wrong(f"it has inputs, or a shape of {len(shape)} dimensions")
    data = layer.weights("data", shape)
    shape = (1, 1, *shape) if rank5 else shape
    rows = graph.node("Shape", layer.rows.tensor, start=0, end=1)
    whole = graph.node("Concat", rows, graph.constant(list(shape), "whole"), axis=0)
    return layer.made(graph.node("Expand", graph.constant(data.reshape(1, *shape), "single"), whole), shape)


KINDS: Mapping[str, Callable[[Layer], Feature]] = {
    "innerProduct": _inner_product,
    "batchedMatmul": _matmul,
    "embedding": partial(_embedding, ones=3, sizes=("inputDim", "outputChannels")),
    "embeddingND": partial(_embedding, ones=1, sizes=("vocabSize", "embeddingSize")),
    "batchnorm": _batchnorm,
    "scale": _scale,
    "bias": _bias,
    "layerNormalization": _layer_norm,
    "loadConstant": partial(_constant, rank5=True),
    "loadConstantND": partial(_constant, rank5=False),
}
