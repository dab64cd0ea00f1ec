"""ONNX models from strangers: surveyed, checked against what is allowed, and brought into one form."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from evergreen.backends.format.onnx import adapt, rules, wire
from evergreen.core.errors import InvalidInput
from evergreen.core.recipe import Interface, PluginOptions


class OnnxFormat:
    """Reads `.onnx`: a classifier of texts or of rows of figures that gives a probability for each label."""

    Options = PluginOptions
    suffixes = (".onnx",)

    def __init__(self, options: PluginOptions) -> None:
        self.options = options

    def read(self, file: Path, out: Path) -> Interface:
        """Check a file, write `out/model.onnx` that gives the same probabilities, say what it asks for.

        Raises `InvalidInput` for whatever is not plainly harmless and well-formed.
        """
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
    graph = helper.make_graph(
        list(model.graph.node), "model", list(model.graph.input), list(model.graph.output), list(model.graph.initializer)
    )
    for node in graph.node:
        node.doc_string = ""
    opsets = [
        helper.make_opsetid(used.domain, used.version)
        for used in model.opset_import
        if ("" if used.domain == "ai.onnx" else used.domain) in rules.OPERATORS
    ]
    plain = helper.make_model(graph, opset_imports=opsets, producer_name="evergreen", ir_version=max(model.ir_version, 4))
    try:
        onnx.checker.check_model(plain)
    except Exception as e:
        raise InvalidInput(f"the model is not valid: {e}") from e
    return bytes(plain.SerializeToString(deterministic=True))
