"""Neural networks of CoreML: every layer we know against an interpreter in numpy, alone and in random company."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coreml_checks import read, same
from coreml_protos import classifier
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.backends.format.coreml.network import _KINDS
from evergreen.core.errors import InvalidInput

SEEDS = st.integers(0, 2**32 - 1)
RNG = np.random.default_rng(5)


def put(weights: Any, values: Any) -> None:
    weights.floatValue.extend(np.asarray(values, np.float32).ravel().tolist())


def network(shape: tuple[int, ...], exact: bool) -> tuple[Any, Any]:
    spec = classifier({"x": shape})
    spec.neuralNetworkClassifier.arrayInputShapeMapping = int(exact)
    return spec, spec.neuralNetworkClassifier.layers


def finish(spec: Any, blob: str, width: int) -> Any:
    """End with a softmax over all numbers of a blob of rank 5, or of any rank."""
    layers = spec.neuralNetworkClassifier.layers
    if spec.neuralNetworkClassifier.arrayInputShapeMapping:
        layers.add(name="flat", input=[blob], output=["flat"]).reshapeStatic.targetShape.append(width)
        layers.add(name="end", input=["flat"], output=["end"]).softmaxND.axis = -1
    else:
        layers.add(name="flat", input=[blob], output=["flat"]).flatten.SetInParent()
        layers.add(name="end", input=["flat"], output=["end"]).softmax.SetInParent()
    spec.neuralNetworkClassifier.stringClassLabels.vector.extend(f"label {i}" for i in range(width))
    return spec


Setup = Callable[[Any], None]


def dense(layer: Any) -> None:
    of = layer.innerProduct
    of.inputChannels, of.outputChannels, of.hasBias = 6, 4, True
    put(of.weights, RNG.normal(size=24))
    put(of.bias, RNG.normal(size=4))


def norm(layer: Any) -> None:
    layer.batchnorm.channels = 6
    for field in ("gamma", "beta", "mean", "variance"):
        put(getattr(layer.batchnorm, field), RNG.uniform(0.5, 2, 6))


def scale(layer: Any) -> None:
    layer.scale.shapeScale.append(6)
    put(layer.scale.scale, RNG.normal(size=6))
    layer.scale.hasBias = True
    layer.scale.shapeBias.append(1)
    put(layer.scale.bias, [0.3])


def bias(layer: Any) -> None:
    layer.bias.shape.extend([6, 1, 1])
    put(layer.bias.bias, RNG.normal(size=6))


def layer_norm(layer: Any) -> None:
    layer.layerNormalization.normalizedShape.extend([6, 1, 1])
    layer.layerNormalization.eps = 1e-3
    put(layer.layerNormalization.gamma, RNG.normal(size=6))
    put(layer.layerNormalization.beta, RNG.normal(size=6))


def activation(kind: str, **fields: float) -> Setup:
    def setup(layer: Any) -> None:
        of = getattr(layer.activation, kind)
        of.SetInParent()
        for name, value in fields.items():
            setattr(of, name, value)

    return setup


def channels(kind: str, sizes: dict[str, int]) -> Setup:
    def setup(layer: Any) -> None:
        for name, size in sizes.items():
            put(getattr(getattr(layer.activation, kind), name), RNG.uniform(0.2, 1, size))

    return setup


def plain(kind: str, **fields: Any) -> Setup:
    def setup(layer: Any) -> None:
        of = getattr(layer, kind)
        of.SetInParent()
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(of, name).extend(value)
            else:
                setattr(of, name, value)

    return setup


#: Layers of one input that a vector of 6, as (1, 1, 6, 1, 1), passes; after each come 6 numbers, or as many as is said.
ONE: dict[str, tuple[Setup, int]] = {
    "innerProduct": (dense, 4),
    "batchnorm": (norm, 6),
    "scale": (scale, 6),
    "bias": (bias, 6),
    "layerNormalization": (layer_norm, 6),
    "softmax": (plain("softmax"), 6),
    "softmaxND": (plain("softmaxND", axis=2), 6),
    "l2normalize": (plain("l2normalize", epsilon=0.01), 6),
    "gelu exact": (plain("gelu", mode=0), 6),
    "gelu tanh": (plain("gelu", mode=1), 6),
    "gelu sigmoid": (plain("gelu", mode=2), 6),
    "clip": (plain("clip", minVal=-0.5, maxVal=0.7), 6),
    "clampedReLU": (plain("clampedReLU", alpha=0.2, beta=0.9), 6),
    "exp2": (plain("exp2"), 6),
    "tanh": (plain("tanh"), 6),
    "erf": (plain("erf"), 6),
    "ceil": (plain("ceil"), 6),
    "floor": (plain("floor"), 6),
    "sign": (plain("sign"), 6),
    "copy": (plain("copy"), 6),
    "add": (plain("add", alpha=0.4), 6),
    "multiply": (plain("multiply", alpha=-1.4), 6),
    "flatten": (plain("flatten", mode=1), 6),
    "flattenTo2D": (plain("flattenTo2D", axis=3), 6),
    "reshape": (plain("reshape", targetShape=[2, 3, 1]), 6),
    "reshape 4": (plain("reshape", targetShape=[3, 2, 1, 1]), 6),
    "reshapeStatic": (plain("reshapeStatic", targetShape=[2, -1]), 6),
    "rankPreservingReshape": (plain("rankPreservingReshape", targetShape=[0, 3, -1, 1, 1]), 6),
    "permute": (plain("permute", axis=[1, 0, 3, 2]), 6),
    "transpose": (plain("transpose", axes=[2, 0, 1, 4, 3]), 6),
    "squeeze": (plain("squeeze", axes=[0, -1]), 6),
    "squeeze all": (plain("squeeze", squeezeAll=True), 6),
    "reduce": (plain("reduce", mode=1, axis=0), 1),
    **{f"activation {kind}": (activation(kind), 6) for kind in ("ReLU", "tanh", "sigmoid", "softsign", "softplus")},
    **{f"activation {kind}": (activation(kind, alpha=0.3), 6) for kind in ("leakyReLU", "thresholdedReLU", "ELU")},
    **{
        f"activation {kind}": (activation(kind, alpha=0.6, beta=0.4), 6)
        for kind in ("linear", "scaledTanh", "sigmoidHard")
    },
    "activation PReLU": (channels("PReLU", {"alpha": 6}), 6),
    "activation PReLU 1": (channels("PReLU", {"alpha": 1}), 6),
    "activation parametricSoftplus": (channels("parametricSoftplus", {"alpha": 6, "beta": 1}), 6),
    **{f"unary {i}": (plain("unary", type=i, alpha=1.5, epsilon=0.1, shift=3.0, scale=0.5), 6) for i in range(8)},
}


@pytest.mark.parametrize("name", ONE)
def test_a_layer_of_one_input(name: str) -> None:
    setup, width = ONE[name]
    spec, layers = network((6,), exact=False)
    layers.add(name="first", input=["x"], output=["scaled"]).multiply.alpha = 0.7
    setup(layers.add(name="it", input=["scaled"], output=["y"]))
    spec.neuralNetworkClassifier.labelProbabilityLayerName = "end"
    spec.neuralNetworkClassifier.stringClassLabels.vector.extend(f"label {i}" for i in range(max(width, 2)))
    if width == 1:
        layers.add(name="two", input=["x", "x"], output=["xx"]).concat.SetInParent()
        layers.add(name="add", input=["xx", "y"], output=["z"]).add.SetInParent()
        layers.add(name="flat", input=["z"], output=["flat"]).reshapeStatic.targetShape.append(12)
        del spec.neuralNetworkClassifier.stringClassLabels.vector[:]
        spec.neuralNetworkClassifier.stringClassLabels.vector.extend(f"label {i}" for i in range(12))
    else:
        layers.add(name="flat", input=["y"], output=["flat"]).reshapeStatic.targetShape.append(width)
    layers.add(name="end", input=["flat"], output=["end"]).softmaxND.axis = -1
    rows = RNG.normal(size=(6, 6))
    same(spec, rows)


FOLDS = (
    *("add", "multiply", "max", "min", "average"),
    *(f"{name}Broadcastable" for name in ("add", "subtract", "multiply", "divide", "max", "min")),
)


@pytest.mark.parametrize("kind", FOLDS)
def test_layers_between_inputs(kind: str) -> None:
    spec, layers = network((2, 3), exact=True)
    layers.add(name="m", input=["x"], output=["m"]).reduceMean.axes.append(1)
    layers.add(name="e", input=["m"], output=["e"]).expandDims.axes.append(1)
    getattr(layers.add(name="it", input=["x", "e"], output=["y"]), kind).SetInParent()
    same(finish(spec, "y", 6), RNG.uniform(0.5, 2, size=(6, 6)))


@pytest.mark.parametrize("how", ["Sum", "Mean", "Prod", "LogSum", "SumSquare", "L1", "L2", "Max", "Min", "LogSumExp"])
@pytest.mark.parametrize("axes", [[0], [-1], [0, 2], None])
def test_reductions(how: str, axes: list[int] | None) -> None:
    spec, layers = network((2, 3, 2), exact=True)
    of = getattr(layers.add(name="it", input=["x"], output=["y"]), f"reduce{how}")
    of.keepDims = axes == [-1]
    of.reduceAll = axes is None
    of.axes.extend(axes or [])
    layers.add(name="b", input=["x", "y"], output=["z"]).addBroadcastable.SetInParent()
    if axes == [0, 2]:  # (3,) does not fit (2, 3, 2)
        layers[1].input[0] = "y"
        same(finish(spec, "z", 3), RNG.uniform(0.5, 2, size=(5, 12)))
    elif axes == [0]:
        same(finish(spec, "z", 12), RNG.uniform(0.5, 2, size=(5, 12)))
    else:
        same(finish(spec, "z", 12), RNG.uniform(0.5, 2, size=(5, 12)))


@pytest.mark.parametrize("mode", range(9))
@pytest.mark.parametrize("axis", range(5))
def test_old_reductions(mode: int, axis: int) -> None:
    spec, layers = network((2, 3, 2), exact=False)
    of = layers.add(name="it", input=["x"], output=["y"]).reduce
    of.mode, of.axis = mode, axis
    layers.add(name="b", input=["x", "y"], output=["z"]).add.SetInParent()
    same(finish(spec, "z", 12), RNG.uniform(0.5, 2, size=(5, 12)))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_dense_layers_of_every_rank(rank: int) -> None:
    shape = (2, 3, 4)[-rank:]
    spec, layers = network(shape, exact=True)
    of = layers.add(name="it", input=["x"], output=["y"]).innerProduct
    of.inputChannels, of.outputChannels = 4, 3
    put(of.weights, RNG.normal(size=12))
    width = int(np.prod(shape)) // 4 * 3
    same(finish(spec, "y", width), RNG.normal(size=(5, int(np.prod(shape)))))


def test_matrices_multiplied() -> None:
    spec, layers = network((3, 4), exact=True)
    of = layers.add(name="w", input=["x"], output=["w"]).batchedMatmul
    of.weightMatrixFirstDimension, of.weightMatrixSecondDimension, of.hasBias = 4, 2, True
    put(of.weights, RNG.normal(size=8))
    put(of.bias, RNG.normal(size=2))
    turned = layers.add(name="it", input=["w", "x"], output=["y"]).batchedMatmul
    turned.transposeA = True
    same(finish(spec, "y", 8), RNG.normal(size=(5, 12)))


@pytest.mark.parametrize("new", [False, True])
def test_embeddings(new: bool) -> None:
    spec, layers = network((3, 1) if new else (1,), exact=new)
    layer = layers.add(name="it", input=["x"], output=["y"])
    of: Any = layer.embeddingND if new else layer.embedding
    sizes = ("vocabSize", "embeddingSize") if new else ("inputDim", "outputChannels")
    for name, value in zip(sizes, (5, 4), strict=True):
        setattr(of, name, value)
    of.hasBias = True
    put(of.weights, RNG.normal(size=20))
    put(of.bias, RNG.normal(size=4))
    many = 3 if new else 1
    same(finish(spec, "y", 4 * many), RNG.integers(0, 5, (6, many)))
    _, run = read(spec)
    assert np.isfinite(run(np.full((1, many), 99.0))).all()


@pytest.mark.parametrize("new", [False, True])
def test_constants_and_joins(new: bool) -> None:
    spec, layers = network((2, 3, 1), exact=new)
    layer = layers.add(name="c", output=["c"])
    of: Any = layer.loadConstantND if new else layer.loadConstant
    of.shape.extend([2, 3, 1])
    put(of.data, RNG.normal(size=6))
    join = layers.add(name="it", input=["x", "c"], output=["y"])
    if new:
        join.concatND.axis = 1
    else:
        join.concat.SetInParent()
    same(finish(spec, "y", 12), RNG.normal(size=(5, 6)))


def test_every_layer_that_is_supported_is_tested() -> None:
    tested = {name.split()[0] for name in ONE} | set(FOLDS)
    tested |= {f"reduce{how}" for how in ("Sum", "Mean", "Prod", "LogSum", "SumSquare", "L1", "L2", "Max", "Min")}
    tested |= {"reduceLogSumExp", "expandDims", "batchedMatmul", "embedding", "embeddingND"}
    tested |= {"loadConstant", "loadConstantND", "concat", "concatND"}
    assert tested == set(_KINDS)


@given(SEEDS, st.booleans())
@settings(max_examples=40)
def test_networks_of_many_layers(seed: int, halves: bool) -> None:
    rng = np.random.default_rng(seed)
    spec, layers = network((6,), exact=False)
    blobs = [("x", 6)]
    for number in range(int(rng.integers(2, 8))):
        blob, width = blobs[int(rng.integers(len(blobs)))]
        layer = layers.add(name=str(number), input=[blob], output=[f"y{number}"])
        match int(rng.integers(4)):
            case 0:
                of, out = layer.innerProduct, int(rng.integers(2, 9))
                of.inputChannels, of.outputChannels, of.hasBias = width, out, True
                values = rng.normal(size=(out, width)) / np.sqrt(width)
                if halves:
                    of.weights.float16Value = values.astype(np.float16).tobytes()
                else:
                    put(of.weights, values)
                put(of.bias, rng.normal(size=out))
                width = out
            case 1:
                kinds = ("ReLU", "tanh", "sigmoid", "softsign", "softplus")
                getattr(layer.activation, kinds[int(rng.integers(5))]).SetInParent()
            case 2:
                other, more = blobs[int(rng.integers(len(blobs)))]
                layer.input.append(other)
                layer.concat.SetInParent()
                width += more
            case _:
                layer.softmax.SetInParent()
        blobs.append((f"y{number}", width))
    spec.neuralNetworkClassifier.stringClassLabels.vector.extend(f"label {i}" for i in range(blobs[-1][1]))
    same(spec, rng.normal(size=(6, 6)))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("uniDirectionalLSTM", "layer 2, uniDirectionalLSTM, is not supported"),
        ("convolution", "layer 2, convolution, is not supported"),
        ("custom", "layer 2, custom, is not supported"),
        ("loop", "layer 2, loop, is not supported"),
        ("randomNormalLike", "layer 2, randomNormalLike, is not supported"),
    ],
)
def test_a_layer_that_is_not_supported_is_named(kind: str, says: str) -> None:
    spec, layers = network((6,), exact=False)
    layers.add(name="first", input=["x"], output=["y"]).tanh.SetInParent()
    getattr(layers.add(name="second", input=["y"], output=["z"]), kind).SetInParent()
    with pytest.raises(InvalidInput, match=says):
        read(finish(spec, "z", 6))
