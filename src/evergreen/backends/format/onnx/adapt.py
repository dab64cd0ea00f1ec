"""Gives an ONNX model the form that `Interface` describes: one input of a known kind, probabilities for known labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from onnx import TensorProto, helper, numpy_helper

from evergreen.backends.format.onnx.rules import held
from evergreen.core.errors import InvalidInput
from evergreen.core.recipe import Interface

NAMES, LABELS = "evergreen.names", "evergreen.labels"
_OWN = "evergreen_"
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64)
_LIKELY = ("probabilities", "output_probability", "probability", "scores", "output_scores")
_MAX_ABOUT = 20


def adapt(model: Any) -> Interface:
    """Change `model`, whose shapes were inferred, in place; say what it asks for and gives. Raises `InvalidInput`."""
    graph = model.graph
    if any(name.startswith(_OWN) for node in graph.node for name in [*node.input, *node.output]):
        raise InvalidInput(f"a tensor has a name that begins with {_OWN}, which is ours")
    said = {prop.key: prop.value for prop in model.metadata_props}
    labels, source = _output(graph, said)
    kind, width = _input(graph)
    names = _listed(said, NAMES) if kind == "features" else None
    if names is not None and len(names) != width:
        raise InvalidInput(f"{NAMES} names {len(names)} columns of {width}")
    _probabilities(graph, source, len(labels))
    _portable(graph)
    about = {k[:200]: v[:2000] for k, v in list(said.items())[:_MAX_ABOUT] if k not in (NAMES, LABELS)}
    about |= {"producer": f"{model.producer_name} {model.producer_version}".strip()[:200]}
    if names is not None:
        return Interface("counts", "input", labels, names=names, about=about)
    return Interface(kind, "input", labels, width=width if kind == "features" else 0, about=about)  # type: ignore[arg-type]


# What it asks for


def _input(graph: Any) -> tuple[str, int]:
    """Make `input` the only input; say of which kind it is, and how wide."""
    constants = {tensor.name for tensor in graph.initializer}
    asked = [value for value in graph.input if value.name not in constants]
    if len(asked) != 1:
        names = ", ".join(v.name[:40] for v in asked[:5]) or "nothing"
        raise InvalidInput(
            f"the model asks for {names}: it must have one input",
            hint="Either texts, (n, 1) of strings; or one row of figures for each, (n, width) of floats.",
        )
    (value,) = asked
    kind = value.type.tensor_type.elem_type
    dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
    if kind == TensorProto.STRING and (len(dims) == 1 or (len(dims) == 2 and dims[1] in (0, 1))):
        shape: list[Any] = [None, 1]
        nodes = [helper.make_node("Identity", ["input"], [value.name])]
        if len(dims) == 1:
            flat = numpy_helper.from_array(_int64([-1]), f"{_OWN}flat")
            graph.initializer.append(flat)
            nodes = [helper.make_node("Reshape", ["input", flat.name], [value.name])]
        new = ("text", 0)
    elif kind in _FLOATS and len(dims) == 2 and dims[1] > 0:
        shape, new = [None, dims[1]], ("features", dims[1])
        nodes = [helper.make_node("Cast", ["input"], [value.name], to=kind)]
    else:
        raise InvalidInput(
            f"the input {value.name[:80]} is neither texts, (n, 1) of strings, nor figures, (n, width) of floats"
        )
    if value.name == "input":
        _rename(graph, "input", f"{_OWN}input")
        nodes[0].output[0] = f"{_OWN}input"
    element = TensorProto.STRING if new[0] == "text" else TensorProto.FLOAT
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("input", element, shape))
    _put_first(graph, nodes)
    return new


def _int64(numbers: Sequence[int]) -> Any:
    import numpy as np

    return np.array(numbers, dtype=np.int64)


def _put_first(graph: Any, nodes: Sequence[Any]) -> None:
    for node in reversed(nodes):
        graph.node.insert(0, node)  # in place: a copy of a forest would take much memory


def _rename(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
    for tensor in graph.initializer:
        if tensor.name == old:
            tensor.name = new


# What it gives


def _output(graph: Any, said: dict[str, str]) -> tuple[list[str], str]:
    """Find the labels, and the tensor with a probability for each."""
    makers = {name: node for node in graph.node for name in node.output}
    zipped = [node for node in graph.node if node.op_type == "ZipMap"]
    if len(zipped) > 1:
        raise InvalidInput("the model gives several sets of probabilities")
    source = zipped[0].input[0] if zipped else _probable(graph)
    labels = (
        _listed(said, LABELS)
        or (_classes(zipped[0]) if zipped else None)
        or _upstream(source, makers, graph)
        or next((found for o in graph.output if (found := _upstream(o.name, makers, graph))), None)
    )
    if labels is None:
        raise InvalidInput(
            "the model does not say what its labels are",
            hint=f'Put them into its metadata: {LABELS} = ["first label", "second label", …], in the order of its output.',
        )
    return labels, source


def _probable(graph: Any) -> str:
    """Find the output that holds probabilities."""
    floats = []
    for value in graph.output:
        tensor = value.type.tensor_type
        if tensor.elem_type in (TensorProto.FLOAT, TensorProto.DOUBLE) and len(tensor.shape.dim) in (0, 2):
            floats.append(value.name)
    named = [name for name in floats if name in _LIKELY]
    if len(named or floats) != 1:
        raise InvalidInput(
            "the model has no output of probabilities"
            if not floats
            else "which output holds probabilities is not clear",
            hint='Name the output "probabilities": (n, labels) of floats.',
        )
    return str((named or floats)[0])


def _listed(said: dict[str, str], key: str) -> list[str] | None:
    """Read a list of texts from the metadata."""
    if key not in said:
        return None
    try:
        found = json.loads(said[key])
    except (ValueError, RecursionError) as e:
        raise InvalidInput(f"the metadata {key} is not JSON: {e}") from e
    if not isinstance(found, list) or not found or any(not isinstance(one, str) or not one for one in found):
        raise InvalidInput(f"the metadata {key} is not a list of texts")
    if len(set(found)) != len(found):
        raise InvalidInput(f"the metadata {key} holds the same text twice")
    return found


def _classes(node: Any) -> list[str] | None:
    if node.op_type == "LabelEncoder":
        texts = held(node, "values_strings")
    else:
        texts = held(node, "classlabels_strings") or held(node, "cats_strings")
    if texts:
        return [text.decode("utf-8", "replace") for text in texts]
    return [str(number) for number in held(node, "classlabels_int64s")] or None


def _upstream(name: str, makers: dict[str, Any], graph: Any) -> list[str] | None:
    """Go back from a tensor until an operator knows its classes, or picks labels out of a list."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    todo, seen = [name], {name}
    while todo:
        node = makers.get(todo.pop(0))
        if node is None:
            continue
        if found := _classes(node):
            return found
        if node.op_type in ("ArrayFeatureExtractor", "Gather") and node.input[0] in constants:
            picked = numpy_helper.to_array(constants[node.input[0]]).ravel()
            if picked.dtype.kind in "OSU":
                return [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in picked]
            if picked.dtype.kind in "iu" and len(picked) > 1:
                return [str(one) for one in picked]
        new = [n for n in node.input if n not in seen]
        seen.update(new)
        todo += new
    return None


def _probabilities(graph: Any, source: str, n: int) -> None:
    """Make `probabilities` the only output, and leave out what leads elsewhere."""
    if source == "probabilities":
        _rename(graph, source, f"{_OWN}probabilities")
        source = f"{_OWN}probabilities"
    graph.node.append(helper.make_node("Cast", [source], ["probabilities"], to=TensorProto.FLOAT))
    needed = {"probabilities"}
    for i in reversed(range(len(graph.node))):
        if needed.intersection(graph.node[i].output) and graph.node[i].op_type != "ZipMap":
            needed.update(graph.node[i].input)
        else:
            del graph.node[i]
    del graph.output[:], graph.value_info[:]
    graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, n]))
    unused = [i for i, tensor in enumerate(graph.initializer) if tensor.name not in needed]
    for i in reversed(unused):
        del graph.initializer[i]


def _portable(graph: Any) -> None:
    """Lower-case letters the same way on every machine: the operator's own default is a locale that few have."""
    for node in graph.node:
        if node.op_type != "StringNormalizer":
            continue
        others = [a for a in node.attribute if a.name != "locale"]
        del node.attribute[:]
        node.attribute.extend([*others, helper.make_attribute("locale", "C.UTF-8")])
