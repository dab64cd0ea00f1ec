"""Layers of CoreML's neural networks in numpy, for one row at a time; written from the format's description alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

F = np.float32


def weights(of: Any, shape: tuple[int, ...]) -> Any:
    """Return weights in whichever way they are written."""
    if of.float16Value:
        return np.frombuffer(of.float16Value, np.float16).astype(F).reshape(shape)
    if not of.HasField("quantization"):
        return np.array(of.floatValue, F).reshape(shape)
    bits, count = of.quantization.numberOfBits, math.prod(shape)
    stream = "".join(f"{byte:08b}" for byte in of.rawValue)
    levels = np.array([int(stream[i * bits : (i + 1) * bits], 2) for i in range(count)]).reshape(shape)
    if of.quantization.WhichOneof("QuantizationType") == "lookupTableQuantization":
        return np.array(of.quantization.lookupTableQuantization.floatValue, F)[levels]
    line = of.quantization.linearQuantization
    each = (-1,) + (1,) * (len(shape) - 1)
    return (levels * np.array(line.scale, F).reshape(each) + np.array(line.bias, F).reshape(each)).astype(F)


def _inner(of: Any, x: Any) -> Any:
    w = weights(of.weights, (of.outputChannels, of.inputChannels))
    b = weights(of.bias, (of.outputChannels,)) if of.hasBias else F(0)
    if x.ndim <= 3:
        return x @ w.T + b
    lead = x.shape[: x.ndim - 3]
    return (x.reshape(*lead, -1) @ w.T + b).reshape(*lead, -1, 1, 1)


def _activation(of: Any, x: Any) -> Any:
    kind = of.WhichOneof("NonlinearityType")
    p = getattr(of, kind)

    def channels(given: Any) -> Any:
        size = len(given.floatValue)
        return weights(given, (size,)).reshape(-1, 1, 1)

    return {
        "linear": lambda: p.alpha * x + p.beta,
        "ReLU": lambda: np.maximum(x, 0),
        "leakyReLU": lambda: np.where(x >= 0, x, p.alpha * x),
        "thresholdedReLU": lambda: np.where(x >= F(p.alpha), x, 0),
        "PReLU": lambda: np.where(x >= 0, x, channels(p.alpha) * x),
        "tanh": lambda: np.tanh(x),
        "scaledTanh": lambda: p.alpha * np.tanh(p.beta * x),
        "sigmoid": lambda: 1 / (1 + np.exp(-x)),
        "sigmoidHard": lambda: np.clip(p.alpha * x + p.beta, 0, 1),
        "ELU": lambda: np.where(x >= 0, x, p.alpha * (np.exp(x) - 1)),
        "softsign": lambda: x / (1 + np.abs(x)),
        "softplus": lambda: np.log1p(np.exp(x)),
        "parametricSoftplus": lambda: channels(p.alpha) * np.log1p(np.exp(channels(p.beta) * x)),
    }[kind]()


def _unary(of: Any, x: Any) -> Any:
    x = (of.scale or 1.0) * x + of.shift
    epsilon = of.epsilon or 1e-6
    functions = (
        lambda: np.sqrt(x),
        lambda: 1 / np.sqrt(x + epsilon),
        lambda: 1 / (x + epsilon),
        lambda: x ** F(of.alpha),
        lambda: np.exp(x),
        lambda: np.log(x),
        lambda: np.abs(x),
        lambda: np.maximum(F(of.alpha), x),
    )
    return functions[of.type]()


def _gelu(of: Any, x: Any) -> Any:
    if of.mode == 0:
        return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    if of.mode == 1:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / (1 + np.exp(-1.702 * x))


def _softmax(x: Any, axis: int) -> Any:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _embedding(sizes: tuple[str, str], ones: int) -> Any:
    def run(of: Any, x: Any) -> Any:
        many, wide = getattr(of, sizes[0]), getattr(of, sizes[1])
        table = weights(of.weights, (wide, many)).T + (weights(of.bias, (wide,)) if of.hasBias else F(0))
        lead = x.shape[: x.ndim - ones]
        return table[x.reshape(lead).astype(int)].reshape(*lead, wide, *(1,) * (ones - 1))

    return run


def _batchnorm(of: Any, x: Any) -> Any:
    gamma, beta, mean, variance = (
        weights(each, (of.channels,)).reshape(-1, 1, 1) for each in (of.gamma, of.beta, of.mean, of.variance)
    )
    return gamma * (x - mean) / np.sqrt(variance + (of.epsilon or 1e-5)) + beta


def _along(of: Any, shape: Any) -> Any:
    shape = tuple(shape)
    return weights(of, (*shape, 1, 1) if len(shape) == 1 else shape)


def _scale(of: Any, x: Any) -> Any:
    return x * _along(of.scale, of.shapeScale) + (_along(of.bias, of.shapeBias) if of.hasBias else 0)


def _layer_norm(of: Any, x: Any) -> Any:
    shape = tuple(of.normalizedShape)
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    unit = (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + of.eps)
    return unit * weights(of.gamma, shape) + weights(of.beta, shape)


def _matmul(of: Any, *x: Any) -> Any:
    if len(x) == 1:
        w = weights(of.weights, (of.weightMatrixFirstDimension, of.weightMatrixSecondDimension))
        return x[0] @ w + (weights(of.bias, (of.weightMatrixSecondDimension,)) if of.hasBias else 0)
    a, b = (
        np.swapaxes(each, -1, -2) if turn else each
        for each, turn in zip(x, (of.transposeA, of.transposeB), strict=True)
    )
    return a @ b


def _fold(operator: Any) -> Any:
    def run(of: Any, *x: Any) -> Any:
        if len(x) == 1:
            return operator(x[0], F(of.alpha))
        made = x[0]
        for each in x[1:]:
            made = operator(made, each)
        return made

    return run


def _flatten(of: Any, x: Any) -> Any:
    if of.mode == 1:
        x = np.moveaxis(x, -3, -1)
    return x.reshape(*x.shape[:-3], -1, 1, 1)


def _reduce(how: str) -> Any:
    return {
        "Sum": lambda x, **k: x.sum(**k),
        "Mean": lambda x, **k: x.mean(**k),
        "Prod": lambda x, **k: x.prod(**k),
        "LogSum": lambda x, **k: np.log(x.sum(**k)),
        "SumSquare": lambda x, **k: (x**2).sum(**k),
        "L1": lambda x, **k: np.abs(x).sum(**k),
        "L2": lambda x, **k: np.sqrt((x**2).sum(**k)),
        "Max": lambda x, **k: x.max(**k),
        "Min": lambda x, **k: x.min(**k),
        "LogSumExp": lambda x, **k: np.log(np.exp(x).sum(**k)),
    }[how]


HOWS = ("Sum", "Mean", "Prod", "LogSum", "SumSquare", "L1", "L2", "Max", "Min")


def _reduce_old(of: Any, x: Any) -> Any:
    axes = ((-3, -2, -1), (-2, -1), (-3,), (-2,), (-1,))[of.axis]
    return _reduce(HOWS[of.mode])(x, axis=axes, keepdims=True)


def _reduce_new(how: str) -> Any:
    def run(of: Any, x: Any) -> Any:
        made = _reduce(how)(x, axis=None if of.reduceAll else tuple(of.axes), keepdims=of.keepDims)
        return made.reshape(made.shape or (1,))

    return run


def _permute(of: Any, x: Any) -> Any:
    letters = [("S", "C", "H", "W")[axis] for axis in of.axis]
    return x.transpose(["SBCHW".index(letter) for letter in [letters[0], "B", *letters[1:]]])


def _reshape(of: Any, x: Any) -> Any:
    target = tuple(of.targetShape)
    return x.reshape((x.shape[0], 1, *target) if len(target) == 3 else (target[0], 1, *target[1:]))


def _squeeze(of: Any, x: Any) -> Any:
    made = x.squeeze() if of.squeezeAll else x.squeeze(tuple(of.axes))
    return made.reshape(made.shape or (1,))


def _same_rank(of: Any, x: Any) -> Any:
    return x.reshape([was if size == 0 else size for size, was in zip(of.targetShape, x.shape, strict=True)])


LAYERS = {
    "innerProduct": _inner,
    "activation": _activation,
    "unary": _unary,
    "gelu": _gelu,
    "clip": lambda of, x: np.clip(x, F(of.minVal), F(of.maxVal)),
    "clampedReLU": lambda of, x: np.where(x >= 0, np.minimum(of.beta, x), np.minimum(of.beta, of.alpha * x)),
    "exp2": lambda of, x: 2**x,
    "tanh": lambda of, x: np.tanh(x),
    "erf": lambda of, x: np.vectorize(math.erf)(x),
    "ceil": lambda of, x: np.ceil(x),
    "floor": lambda of, x: np.floor(x),
    "sign": lambda of, x: np.sign(x),
    "copy": lambda of, x: x,
    "softmax": lambda of, x: _softmax(x, -3),
    "softmaxND": lambda of, x: _softmax(x, of.axis),
    "embedding": _embedding(("inputDim", "outputChannels"), 3),
    "embeddingND": _embedding(("vocabSize", "embeddingSize"), 1),
    "batchnorm": _batchnorm,
    "scale": _scale,
    "bias": lambda of, x: x + _along(of.bias, of.shape),
    "layerNormalization": _layer_norm,
    "batchedMatmul": _matmul,
    "loadConstant": lambda of: weights(of.data, (1, 1, *of.shape)),
    "loadConstantND": lambda of: weights(of.data, tuple(of.shape)),
    "add": _fold(np.add),
    "multiply": _fold(np.multiply),
    "average": lambda of, *x: sum(x) / len(x),
    "max": _fold(np.maximum),
    "min": _fold(np.minimum),
    "addBroadcastable": _fold(np.add),
    "subtractBroadcastable": _fold(np.subtract),
    "multiplyBroadcastable": _fold(np.multiply),
    "divideBroadcastable": _fold(np.divide),
    "maxBroadcastable": _fold(np.maximum),
    "minBroadcastable": _fold(np.minimum),
    "concat": lambda of, *x: np.concatenate(x, axis=-5 if of.sequenceConcat else -3),
    "concatND": lambda of, *x: np.concatenate(x, axis=of.axis),
    "flatten": _flatten,
    "flattenTo2D": lambda of, x: x.reshape(math.prod(x.shape[: of.axis % x.ndim]), -1),
    "reshape": _reshape,
    "reshapeStatic": lambda of, x: x.reshape(tuple(of.targetShape)),
    "rankPreservingReshape": _same_rank,
    "permute": _permute,
    "transpose": lambda of, x: x.transpose(list(of.axes)),
    "squeeze": _squeeze,
    "expandDims": lambda of, x: np.expand_dims(x, tuple(of.axes)),
    "reduce": _reduce_old,
    "l2normalize": lambda of, x: x / np.sqrt((x**2).sum(axis=(-3, -2, -1), keepdims=True) + (of.epsilon or 1e-6)),
    **{f"reduce{how}": _reduce_new(how) for how in (*HOWS, "LogSumExp")},
}
