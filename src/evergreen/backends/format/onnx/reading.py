"""From a file of a stranger to a model in our form."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from evergreen.backends.format.onnx import adapt, rules, wire
from evergreen.core.errors import InvalidInput
from evergreen.core.recipe import Interface

_OLDEST_IR = 4


def read(file: Path, out: Path) -> Interface:
    """Check a file, write `out/model.onnx`, say what it asks for. Raises `InvalidInput`."""
    data = file.read_bytes()
    wire.survey(data, onnx.ModelProto.DESCRIPTOR)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as e:
        raise InvalidInput(f"this is no ONNX model: {e}") from e
    del data
    rules.check(model)
    model = rules.sizes(model)
    interface = adapt.adapt(model)
    (out / "model.onnx").write_bytes(_plain(model))
    return interface


def _plain(model: onnx.ModelProto) -> bytes:
    """Write what is needed of a model, and nothing else; always the same bytes for the same model."""
    held = model.graph
    graph = helper.make_graph(list(held.node), "model", list(held.input), list(held.output), list(held.initializer))
    for node in graph.node:
        node.doc_string = ""
    used = [(("" if o.domain == "ai.onnx" else o.domain), o.version) for o in model.opset_import]
    opsets = [helper.make_opsetid(domain, version) for domain, version in used if domain in rules.OPERATORS]
    version = max(model.ir_version, _OLDEST_IR)
    plain = helper.make_model(graph, opset_imports=opsets, producer_name="evergreen", ir_version=version)
    rules.valid(plain)
    return bytes(plain.SerializeToString(deterministic=True))
