"""Weights of layers: 32-bit, 16-bit, or quantised to 1 to 8 bits by a line or a table."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from evergreen.backends.format.coreml.graph import numbers, refuse

_MOST = 1 << 25


def read(weights: Any, shape: tuple[int, ...], where: str) -> Any:
    """Return weights as 32-bit floats of a shape. Refuses wrong lengths and numbers that are not finite."""
    count = prod(shape)
    if not 0 < count <= _MOST:
        raise refuse(f"{where}: {count:,} weights; 1 to {_MOST:,} are allowed")
    if weights.HasField("quantization"):
        values = _dequantised(weights, shape, where)
    elif weights.float16Value:
        if len(weights.float16Value) != 2 * count:
            raise refuse(f"{where}: {len(weights.float16Value):,} bytes for {count:,} 16-bit weights")
        values = np.frombuffer(weights.float16Value, "<f2")
    elif weights.rawValue or weights.int8RawValue:
        raise refuse(f"{where}: raw weights without quantisation are not supported")
    else:
        values = weights.floatValue
    if len(values) != count:
        raise refuse(f"{where}: {len(values):,} weights; {count:,} are needed")
    return numbers(values, "single", f"{where}: a weight").reshape(shape)


def _dequantised(weights: Any, shape: tuple[int, ...], where: str) -> Any:
    """Unpack levels, the highest bit first, and return what they stand for; each first index may have its own line."""
    count, bits = prod(shape), weights.quantization.numberOfBits
    if not 1 <= bits <= 8 or len(weights.rawValue) != (count * bits + 7) // 8:
        raise refuse(f"{where}: {len(weights.rawValue):,} bytes for {count:,} weights of {bits} bits")
    raw = np.frombuffer(weights.rawValue, np.uint8)
    if bits == 8:
        levels = raw
    else:
        places = 1 << np.arange(bits - 1, -1, -1, dtype=np.uint8)
        levels = (np.unpackbits(raw, count=count * bits).reshape(count, bits) * places).sum(axis=1, dtype=np.uint8)
    kind = weights.quantization.WhichOneof("QuantizationType")
    if kind == "lookupTableQuantization":
        table = numbers(weights.quantization.lookupTableQuantization.floatValue, "single", f"{where}: the table")
        if len(table) != 1 << bits:
            raise refuse(f"{where}: a table of {len(table)} weights for {bits} bits")
        return table[levels]
    if kind != "linearQuantization":
        raise refuse(f"{where}: it is not said how the weights are quantised")
    line = weights.quantization.linearQuantization
    scale, bias = numbers(line.scale, "single", where), numbers(line.bias, "single", where)
    channels = shape[0] if len(shape) > 1 else 1
    if len(scale) not in (1, channels) or len(bias) != len(scale):
        raise refuse(f"{where}: {len(scale)} scales and {len(bias)} biases for {channels} channels")
    return (levels.reshape(channels, -1) * scale[:, None] + bias[:, None]).ravel()
