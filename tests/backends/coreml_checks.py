"""Read a specification with our format, run what it became, and compare with the interpreter."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from coreml_interpreter import probabilities

from evergreen.backends.format.coreml import CoremlFormat
from evergreen.core.recipe import Interface


def read(spec: Any) -> tuple[Interface, Any]:
    """Return the interface and a function from rows to probabilities."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "phone.mlmodel"
        file.write_bytes(spec.SerializeToString())
        interface = CoremlFormat().read(file, Path(folder))
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(str(Path(folder) / "model.onnx"), options, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == [interface.input]
    assert [each.name for each in session.get_outputs()] == ["probabilities"]
    return interface, lambda rows: session.run(["probabilities"], {interface.input: np.asarray(rows, np.float32)})[0]


def same(spec: Any, rows: Sequence[Any], near: float = 2e-6) -> Interface:
    """Check that our answers to rows are those of the interpreter, all at once and one by one."""
    interface, run = read(spec)
    rows = np.asarray(rows, np.float32)
    ours = run(rows)
    assert ours.dtype == np.float32
    assert ours.shape == (len(rows), len(interface.labels))
    np.testing.assert_allclose(np.concatenate([run(row[None]) for row in rows[:3]]), ours[:3], atol=1e-6)
    np.testing.assert_allclose(ours.sum(axis=1), 1.0, atol=1e-5)
    for row, found in zip(rows, ours, strict=True):
        expected = probabilities(spec, _inputs(spec, interface, row))
        theirs = np.array([expected[label] for label in interface.labels])
        np.testing.assert_allclose(found, theirs, atol=near)
        first, second = np.sort(theirs)[::-1][:2]
        if first - second > 2 * near:
            assert found.argmax() == theirs.argmax()
    return interface


def _inputs(spec: Any, interface: Interface, row: Any) -> dict[str, Any]:
    """Give one row to the inputs that the specification declares."""
    if interface.kind == "counts":
        return {spec.description.input[0].name: {n: float(c) for n, c in zip(interface.names, row, strict=True) if c}}
    inputs, start = {}, 0
    for each in spec.description.input:
        shape = tuple(each.type.multiArrayType.shape) or (1,)
        width = int(np.prod(shape))
        inputs[each.name] = row[start : start + width].astype(np.float64).reshape(shape)
        start += width
    assert start == interface.width
    return inputs
