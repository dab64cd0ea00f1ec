"""Layers that change shapes, join, reduce and normalise across numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod

from evergreen.backends.format.coreml.graph import Feature
from evergreen.backends.format.coreml.network.layer import Layer

_REDUCED = ("Sum", "Mean", "Prod", "LogSum", "SumSquare", "L1", "L2", "Max", "Min")
_REDUCED_AXES = ((-3, -2, -1), (-2, -1), (-3,), (-2,), (-1,))


def _softmax(layer: Layer, axis: int | None = None) -> Feature:
    x = layer.deep(3) if axis is not None else layer.one
    at = layer.axis(layer.parameters.axis if axis is None else axis, len(x.shape))
    return layer.same("Softmax", axis=at + 1)


def _concat(layer: Layer, axis: int | None = None) -> Feature:
    if not 2 <= len(layer.inputs) <= 64 or len({len(x.shape) for x in layer.inputs}) != 1:
        raise layer.wrong("it needs 2 to 64 inputs of one rank")
    if axis is None:
        if layer.parameters.interleave:
            raise layer.wrong("interleaving is not supported")
        axis = layer.parameters.axis
    elif layer.parameters.sequenceConcat:
        axis = -5
    first = layer.inputs[0].shape
    at = layer.axis(axis, len(first))
    if any(x.shape[:at] + x.shape[at + 1 :] != first[:at] + first[at + 1 :] for x in layer.inputs):
        raise layer.wrong(f"its inputs do not fit each other: {', '.join(str(x.shape) for x in layer.inputs)}")
    shape = (*first[:at], sum(x.shape[at] for x in layer.inputs), *first[at + 1 :])
    return layer.made(layer.graph.node("Concat", *[x.tensor for x in layer.inputs], axis=at + 1), shape)


def _reshaped(layer: Layer, shape: Sequence[int]) -> Feature:
    """Return the only input in a shape, in which one -1 stands for what is left."""
    x, target = layer.one, list(shape)
    if not 1 <= len(target) <= 6:
        raise layer.wrong(f"{len(target)} dimensions; 1 to 6 are allowed")
    if target.count(-1) == 1:
        rest = -prod(target)
        target[target.index(-1)] = x.width // rest if rest > 0 else 0
    if any(size < 1 for size in target) or prod(target) != x.width:
        raise layer.wrong(f"{x.shape} cannot take the shape {tuple(shape)}")
    return layer.graph.reshape(x, tuple(target))


def _flatten(layer: Layer) -> Feature:
    """Make one vector of the last three dimensions."""
    x, graph = layer.deep(3), layer.graph
    if layer.parameters.mode not in (0, 1):
        raise layer.wrong(f"unknown order {layer.parameters.mode}")
    lead = x.shape[:-3]
    if layer.parameters.mode == 1:
        k = len(lead)
        turned = graph.node("Transpose", x.tensor, perm=[*range(k + 1), k + 2, k + 3, k + 1])
        x = layer.made(turned, (*lead, x.shape[-2], x.shape[-1], x.shape[-3]))
    return graph.reshape(x, (*lead, prod(x.shape[-3:]), 1, 1))


def _flatten2(layer: Layer) -> Feature:
    x = layer.one
    at = layer.axis(layer.parameters.axis, len(x.shape))
    return layer.graph.reshape(x, (prod(x.shape[:at]), prod(x.shape[at:])))


def _reshape(layer: Layer) -> Feature:
    """Take the shape (C, H, W), perhaps with a sequence before; rank 5 comes out."""
    target = tuple(layer.parameters.targetShape)
    x = layer.deep(3)
    if len(target) not in (3, 4):
        raise layer.wrong(f"a target of {len(target)} dimensions; 3 or 4 are needed")
    vectors = x.shape[-2:] == (1, 1) and target[-2:] == (1, 1)
    if layer.parameters.mode != 0 and not vectors:
        raise layer.wrong("channels last are not supported")
    lead = (x.shape[0] if len(x.shape) == 5 else 1,) if len(target) == 3 else (target[0],)
    return _reshaped(layer, (*lead, 1, *target[-3:]))


def _reshape_static(layer: Layer) -> Feature:
    return _reshaped(layer, tuple(layer.parameters.targetShape))


def _reshape_same_rank(layer: Layer) -> Feature:
    """In the target 0 keeps a size."""
    x, target = layer.one, tuple(layer.parameters.targetShape)
    if len(target) != len(x.shape):
        raise layer.wrong(f"a target of {len(target)} dimensions for {len(x.shape)}")
    return _reshaped(layer, tuple(was if size == 0 else size for size, was in zip(target, x.shape, strict=True)))


def _turned(layer: Layer, order: Sequence[int]) -> Feature:
    x = layer.one
    if sorted(order) != list(range(len(x.shape))):
        raise layer.wrong(f"{tuple(order)} is no order of {len(x.shape)} dimensions")
    made = layer.graph.node("Transpose", x.tensor, perm=[0, *(axis + 1 for axis in order)])
    return layer.made(made, [x.shape[axis] for axis in order])


def _permute(layer: Layer) -> Feature:
    """Reorder sequence, channel, height and width of rank 5; the batch stays where it is."""
    order = tuple(layer.parameters.axis)
    if sorted(order) != [0, 1, 2, 3]:
        raise layer.wrong(f"{order} is no order of 4 axes")
    places = (0, 2, 3, 4)
    first, *rest = (places[axis] for axis in order)
    return _turned(layer, (first, 1, *rest))


def _transpose(layer: Layer) -> Feature:
    return _turned(layer, tuple(layer.parameters.axes))


def _squeeze(layer: Layer) -> Feature:
    p, x = layer.parameters, layer.one
    rank = len(x.shape)
    gone = {i for i, size in enumerate(x.shape) if size == 1} if p.squeezeAll else {layer.axis(a, rank) for a in p.axes}
    if any(x.shape[axis] != 1 for axis in gone):
        raise layer.wrong(f"of {x.shape} it would drop a dimension that is not 1")
    return layer.graph.reshape(x, tuple(size for i, size in enumerate(x.shape) if i not in gone) or (1,))


def _expand(layer: Layer) -> Feature:
    x, axes = layer.one, layer.parameters.axes
    rank = len(x.shape) + len(axes)
    if rank > 6:
        raise layer.wrong(f"{rank} dimensions are too many")
    new = {layer.axis(axis, rank) for axis in axes}
    if len(new) != len(axes):
        raise layer.wrong("an axis occurs twice")
    sizes = iter(x.shape)
    return layer.graph.reshape(x, tuple(1 if i in new else next(sizes) for i in range(rank)))


def _reduced(layer: Layer, how: str, axes: Sequence[int], keep: bool) -> Feature:
    x, graph = layer.one, layer.graph
    at = {layer.axis(axis, len(x.shape)) for axis in axes}
    if not at:
        raise layer.wrong("no axis is given")
    onnx_axes = sorted(axis + 1 for axis in at)
    if how == "Sum":
        made = graph.node("ReduceSum", x.tensor, graph.constant(onnx_axes, "whole"), keepdims=int(keep))
    else:
        made = graph.node(f"Reduce{how}", x.tensor, axes=onnx_axes, keepdims=int(keep))
    kept = [1 if i in at else size for i, size in enumerate(x.shape) if keep or i not in at]
    if kept:
        return layer.made(made, kept)
    return layer.made(graph.node("Unsqueeze", made, graph.constant([1], "whole")), (1,))


def _reduce(layer: Layer) -> Feature:
    p = layer.parameters
    if not 0 <= p.mode < len(_REDUCED) or not 0 <= p.axis < len(_REDUCED_AXES):
        raise layer.wrong(f"mode {p.mode} along {p.axis} is not supported")
    if _REDUCED[p.mode] == "LogSum" and p.epsilon:
        raise layer.wrong("an epsilon is not supported")
    return _reduced(layer, _REDUCED[p.mode], _REDUCED_AXES[p.axis], keep=True)


def _reduce_axes(how: str, layer: Layer) -> Feature:
    p = layer.parameters
    axes = range(len(layer.one.shape)) if p.reduceAll else list(p.axes)
    return _reduced(layer, how, axes, p.keepDims)


def _unit(layer: Layer) -> Feature:
    """Divide by the Euclidean length over the last three dimensions."""
    x, graph, epsilon = layer.deep(3), layer.graph, layer.parameters.epsilon
    if not 0 <= epsilon < 1e9:
        raise layer.wrong("epsilon is negative or not finite")
    axes = [len(x.shape) - 2, len(x.shape) - 1, len(x.shape)]
    square = graph.node("ReduceSumSquare", x.tensor, axes=axes, keepdims=1)
    length = graph.node("Sqrt", graph.node("Add", square, layer.scalar(epsilon or 1e-6)))
    return layer.same("Div", length)


KINDS: Mapping[str, Callable[[Layer], Feature]] = {
    "softmax": partial(_softmax, axis=-3),
    "softmaxND": _softmax,
    "concat": partial(_concat, axis=-3),
    "concatND": _concat,
    "flatten": _flatten,
    "flattenTo2D": _flatten2,
    "reshape": _reshape,
    "reshapeStatic": _reshape_static,
    "rankPreservingReshape": _reshape_same_rank,
    "permute": _permute,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "expandDims": _expand,
    "reduce": _reduce,
    "l2normalize": _unit,
    **{f"reduce{how}": partial(_reduce_axes, how) for how in (*_REDUCED, "LogSumExp")},
}
