"""Layers that treat each number by itself: activations, unary functions, arithmetic between inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from evergreen.backends.format.coreml.graph import Feature
from evergreen.backends.format.coreml.network.layer import Layer
from evergreen.backends.format.coreml.network.weights import read


def _activation(layer: Layer) -> Feature:
    kind = layer.parameters.WhichOneof("NonlinearityType")
    if kind is None:
        raise layer.wrong("it is not said which activation")
    of = getattr(layer.parameters, kind)
    x, node, scalar = layer.one, layer.graph.node, layer.scalar
    for name in ("alpha", "beta"):
        if kind not in ("PReLU", "parametricSoftplus") and not math.isfinite(getattr(of, name, 0.0)):
            raise layer.wrong(f"{name} is not finite")
    match kind:
        case "linear":
            return layer.made(node("Add", node("Mul", x.tensor, scalar(of.alpha)), scalar(of.beta)), x.shape)
        case "sigmoid":
            return layer.made(layer.graph.sigmoid(x.tensor, "single"), x.shape)
        case "ReLU" | "tanh" | "softsign" | "softplus":
            return layer.same({"ReLU": "Relu"}.get(kind, kind.capitalize()))
        case "leakyReLU":
            return layer.same("LeakyRelu", alpha=of.alpha)
        case "ELU":
            return layer.same("Elu", alpha=of.alpha)
        case "sigmoidHard":
            return layer.same("HardSigmoid", alpha=of.alpha, beta=of.beta)
        case "scaledTanh":
            inner = node("Tanh", node("Mul", x.tensor, scalar(of.beta)))
            return layer.made(node("Mul", inner, scalar(of.alpha)), x.shape)
        case "thresholdedReLU":
            below = node("Less", x.tensor, scalar(of.alpha))
            return layer.made(node("Where", below, scalar(0.0), x.tensor), x.shape)
        case "PReLU":
            return layer.same("PRelu", _channels(layer, of, "alpha"))
        case _:  # parametricSoftplus
            inner = node("Softplus", node("Mul", x.tensor, _channels(layer, of, "beta")))
            return layer.made(node("Mul", inner, _channels(layer, of, "alpha")), x.shape)


def _channels(layer: Layer, of: object, field: str) -> str:
    """Add one number for all channels, or one for each, shaped to lie along the channels."""
    count = layer.deep(3).shape[-3]
    given = getattr(of, field)
    single = len(given.floatValue) == 1 or len(given.float16Value) == 2
    values = read(given, (1 if single else count,), f"{layer.where}, {field}")
    return layer.graph.constant(values.reshape(-1, 1, 1), "single")


def _unary(layer: Layer) -> Feature:
    p, node, scalar = layer.parameters, layer.graph.node, layer.scalar
    if not np.isfinite([p.alpha, p.epsilon, p.shift, p.scale]).all():
        raise layer.wrong("a constant is not finite")
    x = layer.one.tensor
    if p.scale not in (0.0, 1.0):
        x = node("Mul", x, scalar(p.scale))
    if p.shift:
        x = node("Add", x, scalar(p.shift))
    epsilon = scalar(p.epsilon or 1e-6)
    match p.type:
        case 0:
            made = node("Sqrt", x)
        case 1:
            made = node("Reciprocal", node("Sqrt", node("Add", x, epsilon)))
        case 2:
            made = node("Reciprocal", node("Add", x, epsilon))
        case 3:
            made = node("Pow", x, scalar(p.alpha))
        case 4:
            made = node("Exp", x)
        case 5:
            made = node("Log", x)
        case 6:
            made = node("Abs", x)
        case 7:
            made = node("Max", x, scalar(p.alpha))
        case _:
            raise layer.wrong(f"unknown function {p.type}")
    return layer.made(made, layer.one.shape)


def _gelu(layer: Layer) -> Feature:
    x, node, scalar = layer.one.tensor, layer.graph.node, layer.scalar
    half = node("Mul", x, scalar(0.5))
    if layer.parameters.mode == 0:
        inner = node("Erf", node("Mul", x, scalar(math.sqrt(0.5))))
    elif layer.parameters.mode == 1:
        cubed = node("Mul", node("Pow", x, scalar(3.0)), scalar(0.044715))
        inner = node("Tanh", node("Mul", node("Add", x, cubed), scalar(math.sqrt(2 / math.pi))))
    elif layer.parameters.mode == 2:
        return layer.made(node("Mul", x, node("Sigmoid", node("Mul", x, scalar(1.702)))), layer.one.shape)
    else:
        raise layer.wrong(f"unknown mode {layer.parameters.mode}")
    return layer.made(node("Mul", half, node("Add", inner, scalar(1.0))), layer.one.shape)


def _clip(layer: Layer) -> Feature:
    low, high = layer.parameters.minVal, layer.parameters.maxVal
    if not low <= high:
        raise layer.wrong(f"{low} to {high} is no range")
    return layer.same("Clip", layer.scalar(low), layer.scalar(high))


def _clamped(layer: Layer) -> Feature:
    """Return min(beta, x) above 0 and min(beta, alpha × x) below."""
    p = layer.parameters
    if not np.isfinite([p.alpha, p.beta]).all():
        raise layer.wrong("a constant is not finite")
    leaky = layer.graph.node("LeakyRelu", layer.one.tensor, alpha=p.alpha)
    return layer.made(layer.graph.node("Min", leaky, layer.scalar(p.beta)), layer.one.shape)


def _exp2(layer: Layer) -> Feature:
    return layer.made(layer.graph.node("Pow", layer.scalar(2.0), layer.one.tensor), layer.one.shape)


def _plain(operator: str, layer: Layer) -> Feature:
    return layer.same(operator)


def _between(operator: str, layer: Layer, alone: bool = False) -> Feature:
    """Fold an operator over inputs that fit each other when small ones are repeated; one input meets `alpha`."""
    if len(layer.inputs) == 1 and alone:
        if not math.isfinite(layer.parameters.alpha):
            raise layer.wrong("alpha is not finite")
        return layer.same(operator, layer.scalar(layer.parameters.alpha))
    if not 2 <= len(layer.inputs) <= 64:
        raise layer.wrong(f"it has {len(layer.inputs)} inputs; 2 to 64 are allowed")
    rank = max(len(each.shape) for each in layer.inputs)
    alike = [layer.graph.reshape(each, (1,) * (rank - len(each.shape)) + each.shape) for each in layer.inputs]
    try:
        shape = np.broadcast_shapes(*[each.shape for each in alike])
    except ValueError as e:
        raise layer.wrong(f"its inputs do not fit each other: {', '.join(str(x.shape) for x in layer.inputs)}") from e
    made = alike[0].tensor
    for each in alike[1:]:
        made = layer.graph.node(operator, made, each.tensor)
    return layer.made(made, shape)


def _average(layer: Layer) -> Feature:
    total = _between("Add", layer)
    return layer.made(layer.graph.node("Div", total.tensor, layer.scalar(float(len(layer.inputs)))), total.shape)


KINDS: Mapping[str, Callable[[Layer], Feature]] = {
    "activation": _activation,
    "unary": _unary,
    "gelu": _gelu,
    "clip": _clip,
    "clampedReLU": _clamped,
    "exp2": _exp2,
    "tanh": partial(_plain, "Tanh"),
    "erf": partial(_plain, "Erf"),
    "ceil": partial(_plain, "Ceil"),
    "floor": partial(_plain, "Floor"),
    "sign": partial(_plain, "Sign"),
    "copy": partial(_plain, "Identity"),
    "add": partial(_between, "Add", alone=True),
    "multiply": partial(_between, "Mul", alone=True),
    "average": _average,
    "max": partial(_between, "Max"),
    "min": partial(_between, "Min"),
    "addBroadcastable": partial(_between, "Add"),
    "subtractBroadcastable": partial(_between, "Sub"),
    "multiplyBroadcastable": partial(_between, "Mul"),
    "divideBroadcastable": partial(_between, "Div"),
    "maxBroadcastable": partial(_between, "Max"),
    "minBroadcastable": partial(_between, "Min"),
}
