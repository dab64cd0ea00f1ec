"""From a file of a stranger to a model in our form."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from evergreen.backends.format.onnx import adapt, rules, wire
from evergreen.core.errors import InvalidInput
from evergreen.core.recipe import Interface

_OLDEST_IR = 4
#: What is kept of a model, and of its graph.
_OF_MODEL = ("ir_version", "opset_import", "graph")
_OF_GRAPH = ("node", "initializer", "input", "output")


def read(file: Path, out: Path) -> Interface:
    """Check a file, write `out/model.onnx`, say what it asks for. Raises `InvalidInput`."""
    data = file.read_bytes()
    wire.survey(data, onnx.ModelProto.DESCRIPTOR)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as e:
        raise InvalidInput(f"this is no ONNX model: {e}") from e
    rules.check(model, data)
    del model
    model = rules.sizes(data)
    del data
    interface = adapt.adapt(model)
    (out / "model.onnx").write_bytes(_plain(model))
    return interface


def _plain(model: onnx.ModelProto) -> bytes:
    """Write what is needed of a model, and nothing else; always the same bytes for the same model."""
    graph = model.graph
    for message, needed in ((model, _OF_MODEL), (graph, _OF_GRAPH)):
        for field, _ in message.ListFields():
            if field.name not in needed:
                message.ClearField(field.name)
        message.DiscardUnknownFields()
    for node in graph.node:
        node.ClearField("doc_string")
    used = [(("" if o.domain == "ai.onnx" else o.domain), o.version) for o in model.opset_import]
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*pair) for pair in used if pair[0] in rules.OPERATORS)
    model.ir_version, model.producer_name, graph.name = max(model.ir_version, _OLDEST_IR), "evergreen", "model"
    data = bytes(model.SerializeToString(deterministic=True))
    rules.valid(data)
    return data
