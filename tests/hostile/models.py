"""Small ONNX models, good ones, made node by node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

LABELS = ("off", "on", "play")


def tensor(name: str, array: Any) -> Any:
    return numpy_helper.from_array(np.asarray(array), name)


def model(
    nodes: Sequence[Any],
    *,
    constants: Sequence[Any] = (),
    inputs: Sequence[Any] | None = None,
    outputs: Sequence[Any] | None = None,
    meta: dict[str, str] | None = None,
    opsets: dict[str, int] | None = None,
) -> Any:
    """Put a model together: by default four figures in, probabilities for three labels out."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        list(inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])]),
        list(outputs or [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 3])]),
        list(constants),
    )
    used = [helper.make_opsetid(*pair) for pair in (opsets or {"": 18, "ai.onnx.ml": 3}).items()]
    made = helper.make_model(graph, opset_imports=used, ir_version=8)
    helper.set_model_props(made, {"evergreen.labels": json.dumps(LABELS)} if meta is None else meta)
    return made


def linear(**more: Any) -> Any:
    """A matrix and a softmax."""
    weights = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    return model(nodes, constants=[tensor("w", weights)], **more)


def forest(zipmap: bool = True, **changes: Any) -> Any:
    """A tree with its classes in it, and a ZipMap as skl2onnx writes it."""
    held = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "class_treeids": [0, 0],
        "class_nodeids": [1, 2],
        "class_ids": [0, 2],
        "class_weights": [1.0, 1.0],
        "classlabels_strings": list(LABELS),
        "post_transform": "NONE",
        **changes,
    }
    held = {name: value for name, value in held.items() if value is not None}
    tree = helper.make_node("TreeEnsembleClassifier", ["x"], ["label", "p"], domain="ai.onnx.ml", **held)
    label = helper.make_tensor_value_info("label", TensorProto.STRING, [None])
    if not zipmap:
        return model([tree], outputs=[label, helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 3])], meta={})
    zipped = helper.make_node(
        "ZipMap", ["p"], ["output_probability"], domain="ai.onnx.ml", classlabels_strings=list(LABELS)
    )
    of = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    maps = helper.make_value_info("output_probability", helper.make_sequence_type_proto(of))
    return model([tree, zipped], outputs=[label, maps], meta={})


def texts() -> Any:
    """Lower-cased words, looked up and counted, and a linear classifier behind."""
    words = ["play", "lights", "off", "on"]
    nodes = [
        helper.make_node("Reshape", ["text", "flat"], ["line"]),
        helper.make_node("StringNormalizer", ["line"], ["low"], case_change_action="LOWER"),
        helper.make_node(
            "Tokenizer", ["low"], ["words"], domain="com.microsoft", mark=0, mincharnum=1, pad_value="#",
            tokenexp="[a-z]+",
        ),
        helper.make_node(
            "TfIdfVectorizer", ["words"], ["counts"], mode="TF", min_gram_length=1, max_gram_length=1,
            max_skip_count=0, ngram_counts=[0], ngram_indexes=[0, 1, 2, 3], pool_strings=words,
        ),
        helper.make_node("MatMul", ["counts", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]  # fmt: skip
    weights = np.array([[0, 0, 5], [1, 1, 0], [5, 0, 0], [0, 5, 0]], dtype=np.float32)
    return model(
        nodes,
        constants=[tensor("flat", np.array([-1])), tensor("w", weights)],
        inputs=[helper.make_tensor_value_info("text", TensorProto.STRING, [None, 1])],
        opsets={"": 18, "com.microsoft": 1},
    )


GOOD = {
    "linear": linear,
    "forest": forest,
    "forest without ZipMap": lambda: forest(zipmap=False),
    "texts": texts,
    "counts": lambda: linear(
        meta={"evergreen.labels": json.dumps(LABELS), "evergreen.names": '["turn", "turn on", "#tur", "off"]'}
    ),
}
