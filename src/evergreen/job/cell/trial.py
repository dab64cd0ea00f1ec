"""Tries a converted model: whether it gives probabilities for what it asks for, and how quickly."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from evergreen.core.errors import InvalidInput
from evergreen.core.recipe import Interface

#: Texts to try, a word or none in most of them: what a model does with nothing it knows.
_TEXTS = ("", "turn the lights off", "…", "Ünïcödé 你好", "a " * 500)
_NEAR = 1e-3
_TIMES = 10


def answers(model: Path, interface: Interface) -> float:
    """Run `model` on inputs of the kind it asks for; return its mean time for one, in milliseconds.

    Raises `InvalidInput` if it does not run, or what it gives is not one row of probabilities for each input.
    """
    import numpy as np

    session = _session(model)
    asked = [i.name for i in session.get_inputs()]
    if asked != [interface.input]:
        raise InvalidInput(f"the model asks for {', '.join(asked) or 'nothing'}, not for {interface.input} alone")
    if "probabilities" not in [o.name for o in session.get_outputs()]:
        raise InvalidInput("the model has no output named probabilities")
    inputs = _inputs(interface)
    for batch in (inputs, inputs[:1], inputs[1:2]):
        given = _run(session, interface, batch)
        if given.shape != (len(batch), len(interface.labels)):
            said = f"{' × '.join(map(str, given.shape))} figures for {len(batch)} inputs"
            raise InvalidInput(f"the model gives {said} and {len(interface.labels)} labels")
        if not np.isfinite(given).all():
            raise InvalidInput("the model gives figures that are not numbers (NaN or infinite)")
        if (given < -_NEAR).any() or (abs(given.sum(axis=1) - 1) > _NEAR).any():
            raise InvalidInput(
                "what the model gives are no probabilities: they do not add up to 1",
                hint="End it with a Softmax, or export it with its probabilities.",
            )
    start = time.perf_counter()
    for _ in range(_TIMES):
        _run(session, interface, inputs[1:2])
    return (time.perf_counter() - start) * 1000 / _TIMES


def _inputs(interface: Interface) -> Any:
    import numpy as np

    if interface.kind == "text":
        return np.array([[text] for text in _TEXTS], dtype=object)
    width = len(interface.names) if interface.kind == "counts" else interface.width
    rows = np.zeros((len(_TEXTS), width), dtype=np.float32)
    rows[1, : min(width, 5)] = 1.0
    rows[2:] = np.random.default_rng(0).random((len(_TEXTS) - 2, width), dtype=np.float32)
    return rows


def _session(model: Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise InvalidInput(f"ONNX Runtime does not load it: {e}") from e


def _run(session: Any, interface: Interface, batch: Any) -> Any:
    import numpy as np

    try:
        (given,) = session.run(["probabilities"], {interface.input: batch})
    except Exception as e:
        raise InvalidInput(f"the model fails on {len(batch)} inputs: {e}") from e
    if not isinstance(given, np.ndarray) or given.dtype != np.float32:
        raise InvalidInput(f"the model gives {type(given).__name__}, not an array of float32")
    return given
