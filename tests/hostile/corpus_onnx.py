"""Hostile files that say they are ONNX."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from corpus import case
from models import linear, model, tensor
from onnx import TensorProto, helper


class _Harm:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/evergreen-was-harmed",)


def _bytes(made: Any) -> bytes:
    return bytes(made.SerializeToString())


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


# What is no ONNX at all


@case(".onnx", "empty")
def nothing(_: Path) -> bytes:
    return b""


@case(".onnx", "damaged|no ONNX")
def a_pickle(_: Path) -> bytes:
    return pickle.dumps(_Harm())


@case(".onnx", "damaged|no ONNX")
def a_joblib_file(folder: Path) -> bytes:
    import joblib

    joblib.dump({"model": _Harm()}, folder / "j")
    return (folder / "j").read_bytes()


@case(".onnx", "damaged|no ONNX|cut off")
def a_zip_bomb(_: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for i in range(5):
            packed.writestr(f"../../{i}", b"\0" * 20_000_000)
    return out.getvalue()


@case(".onnx", "damaged|no ONNX|cut off")
def a_gzip_file(_: Path) -> bytes:
    return gzip.compress(b"\0" * 10_000_000)


@case(".onnx", "damaged|no ONNX|cut off|operators")
def noise(_: Path) -> bytes:
    return np.random.default_rng(0).bytes(100_000)


@case(".onnx", "not a file|cannot be opened")
def a_symlink(folder: Path) -> Path:
    (folder / "model.onnx").symlink_to("/etc/passwd")
    return folder / "model.onnx"


@case(".onnx", "not a file|cannot be opened")
def a_folder(folder: Path) -> Path:
    (folder / "model.onnx").mkdir()
    return folder / "model.onnx"


@case(".onnx", "not a file|cannot be opened")
def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "model.onnx")
    return folder / "model.onnx"


@case(".onnx", "cannot be opened")
def not_there(folder: Path) -> Path:
    return folder / "model.onnx"


@case(".onnx", "more than")
def larger_than_allowed(folder: Path) -> Path:
    with (folder / "model.onnx").open("wb") as out:
        out.truncate(200 << 20)
    return folder / "model.onnx"


# Protobuf bombs


@case(".onnx", "nested|damaged")
def nested_ten_thousand_deep(_: Path) -> bytes:
    data = b""
    for _i in range(10_000):  # a node with a graph with a node with a graph
        data = b"\x0a" + _varint(len(data)) + data
    return b"\x3a" + _varint(len(data)) + data


@case(".onnx", "nested|loops and branches")
def graphs_within_graphs(_: Path) -> bytes:
    graph = b""
    for _i in range(60):
        attribute = b"\x0a\x01g\x32" + _varint(len(graph)) + graph + b"\xa0\x01\x05"
        node = b"\x22\x02If\x2a" + _varint(len(attribute)) + attribute
        graph = b"\x0a" + _varint(len(node)) + node
    return b"\x08\x08\x3a" + _varint(len(graph)) + graph


@case(".onnx", "announces")
def a_giant_length(_: Path) -> bytes:
    return b"\x08\x08\x3a" + _varint(2**62) + b"\0" * 50


@case(".onnx", "cut off or damaged")
def a_varint_without_end(_: Path) -> bytes:
    return b"\x08" + b"\xff" * 1000


@case(".onnx", "damaged|version|operators")
def a_varint_that_overflows(_: Path) -> bytes:
    return b"\x08" + b"\xff" * 9 + b"\x7f"


@case(".onnx", "parts")
def millions_of_empty_nodes(_: Path) -> bytes:
    graph = b"\x0a\x00" * 10_000_000
    return b"\x08\x08\x3a" + _varint(len(graph)) + graph


@case(".onnx", "numbers|memory")
def tens_of_millions_of_numbers(_: Path) -> bytes:
    held = b"\x38\x00" * 25_000_000  # ints of an attribute, one byte each
    attribute = b"\x42" + _varint(len(held)) + held
    tensor = b"\x38\x00" * 25_000_000
    graph = b"\x2a" + _varint(len(tensor)) + tensor
    return b"\x08\x08\x3a" + _varint(len(graph)) + graph + attribute[:0]


@case(".onnx", "damaged")
def groups(_: Path) -> bytes:
    return b"\x0b" * 1000 + b"\x0c" * 1000


# What lies elsewhere


def _elsewhere(place: str) -> bytes:
    made = linear()
    held = made.graph.initializer[0]
    held.ClearField("raw_data")
    held.data_location = TensorProto.EXTERNAL
    for key, value in (("location", place), ("length", "48")):
        entry = held.external_data.add()
        entry.key, entry.value = key, value
    return _bytes(made)


@case(".onnx", "another file")
def data_in_a_file_above(_: Path) -> bytes:
    return _elsewhere("../../../../etc/passwd")


@case(".onnx", "another file")
def data_in_a_file_of_the_system(_: Path) -> bytes:
    return _elsewhere("/etc/shadow")


@case(".onnx", "another file")
def data_in_a_file_beside(_: Path) -> bytes:
    return _elsewhere("weights.bin")


@case(".onnx", "another file")
def data_elsewhere_in_an_attribute(_: Path) -> bytes:
    far = tensor("c", np.zeros((4, 3), np.float32))
    far.data_location = TensorProto.EXTERNAL
    return _bytes(model([helper.make_node("Constant", [], ["probabilities"], value=far)]))


def every_kth_byte(data: bytes, parts: int) -> list[bytes]:
    """Cut a file off at so many places."""
    return [data[: len(data) * i // parts] for i in range(1, parts)]
