"""Hostile ONNX models again: graphs that are well-formed and mean harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from corpus import case
from models import forest, linear, model, tensor
from onnx import TensorProto, helper


def _bytes(made: Any) -> bytes:
    return bytes(made.SerializeToString())


# Large out of little


@case(".onnx", "says that it has")
def a_huge_tensor_with_no_data(_: Path) -> bytes:
    made = linear()
    made.graph.initializer[0].dims[:] = [2**31, 2**31]
    return _bytes(made)


@case(".onnx", "not a shape")
def a_negative_shape(_: Path) -> bytes:
    made = linear()
    made.graph.initializer[0].dims[:] = [-4, -3]
    return _bytes(made)


def _grown(operator: str, inputs: list[str], constants: list[Any], **attributes: Any) -> bytes:
    nodes = [
        helper.make_node(operator, inputs, ["big"], **attributes),
        helper.make_node("ReduceSum", ["big"], ["one"], keepdims=0),
        helper.make_node("MatMul", ["x", "w"], ["raw"]),
        helper.make_node("Add", ["raw", "one"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    return _bytes(model(nodes, constants=[tensor("w", np.ones((4, 3), np.float32)), *constants]))


@case(".onnx", "figures")
def constant_of_a_huge_shape(_: Path) -> bytes:
    return _grown("ConstantOfShape", ["s"], [tensor("s", np.array([100_000, 100_000]))])


@case(".onnx", "figures")
def expanded(_: Path) -> bytes:
    return _grown("Expand", ["one_", "s"], [tensor("s", np.array([2**40])), tensor("one_", np.ones(1, np.float32))])


@case(".onnx", "figures")
def tiled(_: Path) -> bytes:
    return _grown("Tile", ["w", "s"], [tensor("s", np.array([30_000, 30_000]))])


@case(".onnx", "figures")
def a_long_range(_: Path) -> bytes:
    ends = [tensor("a", np.float32(0)), tensor("b", np.float32(1e12)), tensor("c", np.float32(1))]
    return _grown("Range", ["a", "b", "c"], ends)


@case(".onnx", "figures")
def padded(_: Path) -> bytes:
    return _grown("Pad", ["w", "s"], [tensor("s", np.array([0, 0, 2**30, 2**30]))])


@case(".onnx", "constant")
def a_shape_out_of_the_input(_: Path) -> bytes:
    nodes = [
        helper.make_node("Cast", ["x"], ["asked"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["asked", "flat"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
        helper.make_node("Softmax", ["big"], ["probabilities"], axis=1),
    ]
    return _bytes(model(nodes, constants=[tensor("flat", np.array([-1]))]))


@case(".onnx", "figures|memory|crash")
def matrices_that_grow(_: Path) -> bytes:
    column, row = tensor("c", np.ones((9000, 1), np.float32)), tensor("r", np.ones((1, 9000), np.float32))
    nodes = [
        helper.make_node("MatMul", ["c", "r"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["one"], keepdims=0),
        helper.make_node("MatMul", ["x", "w"], ["raw"]),
        helper.make_node("Add", ["raw", "one"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    return _bytes(model(nodes, constants=[column, row, tensor("w", np.ones((4, 3), np.float32))]))


@case(".onnx", "memory|allocat|crash")
def memory_eaten_step_by_step(_: Path) -> bytes:
    nodes = [helper.make_node("MatMul", ["x", "wide"], ["h0"])]
    nodes += [helper.make_node("Concat", [f"h{i}", f"h{i}"], [f"h{i + 1}"], axis=0) for i in range(24)]
    nodes += [
        helper.make_node("Softmax", ["h24"], ["soft"], axis=1),
        helper.make_node("Slice", ["soft", "from", "to", "axis"], ["probabilities"]),
    ]
    constants = [tensor("wide", np.ones((4, 3), np.float32))]
    constants += [tensor(n, np.array([v])) for n, v in (("from", 0), ("to", 5), ("axis", 0))]
    return _bytes(model(nodes, constants=constants))


# Slow


@case(".onnx", "ms for one answer|longer than")
def a_slow_chain(_: Path) -> bytes:
    nodes = [helper.make_node("MatMul", ["x", "wide"], ["h0"])]
    nodes += [helper.make_node("MatMul", ["square", f"m{i}"], [f"m{i + 1}"]) for i in range(150)]
    nodes.insert(1, helper.make_node("Mul", ["square", "scalar"], ["m0"]))
    nodes.insert(1, helper.make_node("ReduceSum", ["x"], ["scalar"], keepdims=0))
    nodes += [
        helper.make_node("ReduceSum", ["m150"], ["sum"], keepdims=0),
        helper.make_node("Add", ["h0", "sum"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    square = tensor("square", np.full((700, 700), 1e-4, np.float32))
    return _bytes(model(nodes, constants=[square, tensor("wide", np.ones((4, 3), np.float32))]))


# What is not allowed


def _branch() -> Any:
    value = helper.make_tensor_value_info("b", TensorProto.FLOAT, [None, 3])
    return helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "body", [], [value])


@case(".onnx", "Loop is not allowed")
def an_endless_loop(_: Path) -> bytes:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Identity", ["state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [None, 4]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [None, 4]),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["", "true", "x"], ["y"], body=body),
        helper.make_node("Softmax", ["y"], ["probabilities"], axis=1),
    ]
    return _bytes(model(nodes, constants=[tensor("true", np.array(True))]))


@case(".onnx", "If is not allowed")
def a_branch(_: Path) -> bytes:
    node = helper.make_node("If", ["c"], ["probabilities"], then_branch=_branch(), else_branch=_branch())
    return _bytes(model([node], constants=[tensor("c", np.array(True))]))


@case(".onnx", "loops and branches")
def a_graph_in_an_innocent_operator(_: Path) -> bytes:
    return _bytes(model([helper.make_node("Softmax", ["x"], ["probabilities"], body=_branch())]))


@case(".onnx", "functions")
def a_function(_: Path) -> bytes:
    made = linear()
    made.functions.append(
        helper.make_function(
            "own", "F", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [helper.make_opsetid("", 18)]
        )
    )
    return _bytes(made)


@case(".onnx", "Backdoor is not allowed")
def an_operator_nobody_knows(_: Path) -> bytes:
    return _bytes(model([helper.make_node("Backdoor", ["x"], ["probabilities"])]))


@case(".onnx", "own.things")
def a_domain_of_its_own(_: Path) -> bytes:
    node = helper.make_node("PyOp", ["x"], ["probabilities"], domain="own.things")
    return _bytes(model([node], opsets={"": 18, "own.things": 1}))


@case(".onnx", "version 99")
def a_version_from_the_future(_: Path) -> bytes:
    return _bytes(linear(opsets={"": 99}))


@case(".onnx", "operators")
def no_operators(_: Path) -> bytes:
    return _bytes(model([]))


# What does not fit


@case(".onnx", "its labels are")
def no_labels(_: Path) -> bytes:
    return _bytes(linear(meta={}))


@case(".onnx", "labels|shapes|fit")
def more_labels_than_figures(_: Path) -> bytes:
    return _bytes(linear(meta={"evergreen.labels": '["a", "b", "c", "d"]'}))


@case(".onnx", "not JSON")
def labels_that_are_no_json(_: Path) -> bytes:
    return _bytes(linear(meta={"evergreen.labels": "[" * 100_000}))


@case(".onnx", "twice")
def the_same_label_twice(_: Path) -> bytes:
    return _bytes(linear(meta={"evergreen.labels": '["a", "a", "b"]'}))


@case(".onnx", "labels: at most|characters")
def an_endless_label(_: Path) -> bytes:
    return _bytes(linear(meta={"evergreen.labels": f'["a", "b", "{"c" * 100_000}"]'}))


@case(".onnx", "columns")
def names_for_other_columns(_: Path) -> bytes:
    return _bytes(linear(meta={"evergreen.labels": '["a", "b", "c"]', "evergreen.names": '["only"]'}))


@case(".onnx", "not numbers")
def nan(_: Path) -> bytes:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["probabilities"])]
    return _bytes(model(nodes, constants=[tensor("w", np.full((4, 3), np.nan, np.float32))]))


@case(".onnx", "add up to 1")
def figures_that_are_no_probabilities(_: Path) -> bytes:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["probabilities"])]
    return _bytes(model(nodes, constants=[tensor("w", np.ones((4, 3), np.float32))]))


@case(".onnx", "one input")
def two_inputs(_: Path) -> bytes:
    asked = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 4]) for n in "xy"]
    return _bytes(linear(inputs=asked))


@case(".onnx", "neither texts")
def an_image(_: Path) -> bytes:
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Softmax", ["f"], ["probabilities"])]
    return _bytes(model(nodes, inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3, 1, 1])]))


@case(".onnx", "fit together|valid|load|not there|one input")
def a_tensor_that_nobody_makes(_: Path) -> bytes:
    return _bytes(model([helper.make_node("Softmax", ["ghost"], ["probabilities"])]))


@case(".onnx", "fit together|valid|load")
def operators_in_a_circle(_: Path) -> bytes:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Softmax", ["a"], ["probabilities"]),
    ]
    return _bytes(model(nodes))


@case(".onnx", "ours")
def names_that_are_ours(_: Path) -> bytes:
    nodes = [
        helper.make_node("Identity", ["x"], ["evergreen_input"]),
        helper.make_node("Softmax", ["evergreen_input"], ["probabilities"]),
    ]
    return _bytes(model(nodes, inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])]))


# Trees that are none


@case(".onnx", "not trees|circles")
def a_tree_that_is_its_own_child(_: Path) -> bytes:
    return _bytes(forest(nodes_truenodeids=[0, 0, 0]))


@case(".onnx", "not trees|circles")
def branches_that_meet(_: Path) -> bytes:
    return _bytes(forest(nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[1, 0, 0]))


@case(".onnx", "nowhere")
def a_branch_that_leads_nowhere(_: Path) -> bytes:
    return _bytes(forest(nodes_falsenodeids=[7_000_000, 0, 0]))


@case(".onnx", "votes? for classes")
def a_vote_for_a_class_that_is_not(_: Path) -> bytes:
    return _bytes(forest(class_ids=[0, 1_000_000]))


@case(".onnx", "one length")
def lists_of_different_length(_: Path) -> bytes:
    return _bytes(forest(nodes_values=[0.5]))


@case(".onnx", "no places")
def negative_places(_: Path) -> bytes:
    return _bytes(forest(nodes_featureids=[-1, 0, 0]))


@case(".onnx", "fails|outside|load|features|figures")
def a_feature_that_is_not_there(_: Path) -> bytes:
    return _bytes(forest(nodes_featureids=[2_000_000, 0, 0]))


@case(".onnx", "ngram_indexes")
def an_ngram_far_outside(_: Path) -> bytes:
    node = helper.make_node(
        "TfIdfVectorizer", ["x"], ["counts"], mode="TF", min_gram_length=1, max_gram_length=1, max_skip_count=0,
        ngram_counts=[0], ngram_indexes=[2**40], pool_int64s=[1],
    )  # fmt: skip
    return _bytes(model([node, helper.make_node("Softmax", ["counts"], ["probabilities"])]))
