"""Hostile CoreML files again: neural networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corpus import case
from corpus_coreml import NAN, Change, classifier, network, put, several


def quantised(bits: int, raw: int, table: int = 0, scales: int = 0, biases: int = 0) -> Change:
    def change(dense: Any) -> None:
        dense.weights.ClearField("floatValue")
        dense.weights.quantization.numberOfBits = bits
        dense.weights.rawValue = bytes(raw)
        if table:
            dense.weights.quantization.lookupTableQuantization.floatValue.extend([0.0] * table)
        if scales:
            dense.weights.quantization.linearQuantization.scale.extend([1.0] * scales)
            dense.weights.quantization.linearQuantization.bias.extend([1.0] * biases)

    return change


several(
    network,
    lambda spec: spec.neuralNetworkClassifier.layers[0].innerProduct,
    {
        "a_weight_missing": ("11 weights; 12", lambda d: d.weights.floatValue.pop()),
        "a_weight_not_a_number": ("not finite", lambda d: d.weights.floatValue.__setitem__(0, NAN)),
        "no_weights": ("0 weights", lambda d: d.ClearField("weights")),
        "halves_cut_off": ("16-bit", lambda d: put("float16Value", b"\0" * 23)(d.weights)),
        "halves_not_finite": ("not finite", lambda d: put("float16Value", b"\xff\x7f" * 12)(d.weights)),
        "giant_outputs": ("weights", put("outputChannels", 1 << 62)),
        "no_outputs": ("expects", put("outputChannels", 0)),
        "giant_inputs": ("expects", put("inputChannels", 1 << 62)),
        "a_bias_too_long": ("4 weights; 3", lambda d: d.bias.floatValue.append(1.0)),
        "dynamic_quantisation": ("not supported", put("int8DynamicQuantize", True)),
        "raw_weights": (
            "raw weights",
            lambda d: (d.weights.ClearField("floatValue"), put("rawValue", bytes(12))(d.weights)),
        ),
        "quantised_too_short": ("bits", quantised(8, 11, table=256)),
        "quantised_too_long": ("bits", quantised(4, 7, table=16)),
        "quantised_to_no_bits": ("0 bits", quantised(0, 0, table=1)),
        "quantised_to_64_bits": ("64 bits", quantised(64, 96, table=16)),
        "a_table_too_short": ("a table of 15", quantised(4, 6, table=15)),
        "scales_too_many": ("2 scales", quantised(8, 12, scales=2, biases=2)),
        "biases_too_few": ("0 biases", quantised(8, 12, scales=3)),
        "quantised_nohow": ("not said how", quantised(8, 12)),
    },
)
several(
    network,
    lambda spec: spec.neuralNetworkClassifier,
    {
        "no_layers": ("0 layers", lambda n: n.ClearField("layers")),
        "too_many_layers": ("501 layers", lambda n: [n.layers.add() for _ in range(499)]),
        "an_output_of_another_size": ("3 numbers for 4 labels", lambda n: n.stringClassLabels.vector.append("more")),
        "probabilities_from_nowhere": ("no layer gives", put("labelProbabilityLayerName", "elsewhere")),
        "an_input_from_nowhere": ("'q', which nothing", lambda n: n.layers[1].input.__setitem__(0, "q")),
        "an_input_from_later": ("'p', which nothing", lambda n: n.layers[0].input.__setitem__(0, "p")),
        "an_output_twice": ("a name of its own", lambda n: n.layers[1].output.__setitem__(0, "y")),
        "two_outputs": ("must have one output", lambda n: n.layers[1].output.append("z")),
        "no_layer": ("layer 1, nothing", lambda n: n.layers[0].ClearField("layer")),
        "images": ("images", lambda n: n.preprocessing.add()),
        "an_unknown_mapping": ("dimensions", put("arrayInputShapeMapping", 7)),
        "an_unknown_activation": ("which activation", lambda n: n.layers[1].activation.SetInParent()),
        "an_activation_not_finite": ("not finite", lambda n: put("alpha", NAN)(n.layers[1].activation.ELU)),
        "an_axis_far_away": ("no axis", lambda n: put("axis", -(1 << 62))(n.layers[1].softmaxND)),
        "a_giant_shape": (
            "cannot take the shape",
            lambda n: n.layers[1].reshapeStatic.targetShape.extend([1 << 62, 4]),
        ),
        "a_shape_of_nothing": (
            "cannot take the shape",
            lambda n: n.layers[1].reshapeStatic.targetShape.extend([0, -1]),
        ),
        "a_shape_left_open_twice": (
            "cannot take the shape",
            lambda n: n.layers[1].reshapeStatic.targetShape.extend([-1, -1]),
        ),
        "many_dimensions": (
            "1001 dimensions",
            lambda n: n.layers[1].reshapeStatic.targetShape.extend([3] + [1] * 1000),
        ),
        "many_new_dimensions": ("too many", lambda n: n.layers[1].expandDims.axes.extend(range(1000))),
        "no_order": ("no order", lambda n: n.layers[1].transpose.axes.extend([0, 0, 1, 2, 3])),
        "a_giant_constant": ("weights", lambda n: _constant(n, [1 << 31, 1 << 31])),
        "a_constant_of_nothing": ("weights", lambda n: _constant(n, [0, 5])),
        "an_unknown_function": ("unknown function", lambda n: put("type", 50)(n.layers[1].unary)),
        "no_range": (
            "no range",
            lambda n: (put("minVal", 1.0)(n.layers[1].clip), put("maxVal", NAN)(n.layers[1].clip)),
        ),
    },
)


def _constant(n: Any, shape: list[int]) -> None:
    n.layers[1].ClearField("input")
    n.layers[1].loadConstantND.shape.extend(shape)


@case(".mlmodel", "too wide")
def joined_with_itself_again_and_again(_: Path) -> bytes:
    spec = network()
    layers = spec.neuralNetworkClassifier.layers
    for i in range(60):
        before = f"d{i - 1}" if i else "p"
        layers.add(name=str(i), input=[before, before], output=[f"d{i}"]).concat.SetInParent()
    return bytes(spec.SerializeToString())


@case(".mlmodel", "too wide")
def stretched_by_addition(_: Path) -> bytes:
    spec = classifier({"x": (2000,)})
    n = spec.neuralNetworkClassifier
    n.arrayInputShapeMapping = 1
    n.layers.add(name="a", input=["x"], output=["a"]).expandDims.axes.append(0)
    n.layers.add(name="b", input=["x"], output=["b"]).expandDims.axes.append(1)
    n.layers.add(name="c", input=["a", "b"], output=["c"]).addBroadcastable.SetInParent()
    n.stringClassLabels.vector.extend(["off", "on"])
    return bytes(spec.SerializeToString())


@case(".mlmodel", "at least 3|3 or more")
def a_softmax_of_too_few_dimensions(_: Path) -> bytes:
    spec = network()
    spec.neuralNetworkClassifier.arrayInputShapeMapping = 1
    return bytes(spec.SerializeToString())
