"""Reads a CoreML specification with nothing but protobuf: no class of coremltools is imported."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto
from google.protobuf.message import DecodeError

from evergreen.backends.format.coreml.messages import TABLE
from evergreen.core.errors import InvalidInput

_TYPES = ("double", "float", "int64", "uint64", "int32", "bool", "string", "bytes")
#: What protobuf says, and what it means.
_WHY = {
    "MaxDepth": "is nested too deeply",
    "Arena alloc": "used too much memory",
    "UTF-8": "has text that is not UTF-8",
}


def parse(data: bytes) -> Any:
    """Return the `Model` that the bytes are. Raises `InvalidInput` for bytes that are none.

    Protobuf itself refuses what is nested more than 100 deep, and strings that are not UTF-8.
    """
    if data.startswith(b"PK"):
        raise InvalidInput(
            "the file is a zip archive, not a CoreML specification",
            field="model",
            hint="A .mlpackage is not supported: convert with convert_to='neuralnetwork' and send the .mlmodel, or ONNX.",
        )
    try:
        return _model().FromString(data)
    except DecodeError as e:
        why = next((why for mark, why in _WHY.items() if mark in str(e)), "is cut short or damaged")
        raise InvalidInput(f"the file is not a CoreML specification that can be read: it {why}", field="model") from e


@cache
def _model() -> Any:
    """Build the class of the outermost message from the table, in two milliseconds."""
    file = descriptor_pb2.FileDescriptorProto(name="evergreen/coreml.proto", package="coreml", syntax="proto3")
    file.message_type.add(name="Nothing")
    for line in TABLE.replace("\n  ", " ").split("\n"):
        name, colon, fields = line.partition(":")
        if colon:
            _describe(file.message_type.add(name=name), fields.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("coreml.Model"))


def _describe(message: Any, words: list[str]) -> None:
    group = False
    for word in words:
        if word == "/":
            continue
        if word.endswith(":"):
            message.oneof_decl.add(name=word[:-1])
            group = True
            continue
        name, _, rest = word.partition("=")
        number, _, kind = rest.rstrip("*").partition(":")
        field = message.field.add(name=name, number=int(number))
        field.label = Proto.LABEL_REPEATED if word.endswith("*") else Proto.LABEL_OPTIONAL
        if (kind or "bytes") in _TYPES:
            field.type = getattr(Proto, f"TYPE_{(kind or 'bytes').upper()}")
        else:
            field.type, field.type_name = Proto.TYPE_MESSAGE, f".coreml.{kind}"
        if group:
            field.oneof_index = len(message.oneof_decl) - 1
